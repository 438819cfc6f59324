"""What a file is that bears another kind's ending, told by how it begins."""

from __future__ import annotations

from pathlib import Path

_LONGEST = 512
_BEGINNINGS = (
    (
        b"\x93NUMPY",
        "it is a NumPy file: give it back its ending .npy, and the node SCP Convert Statistics makes a statistics file "
        "of the released ones",
    ),
    (b"version https://git-lfs", "it is only a pointer, as git leaves it without LFS: download the file itself"),
    (b"PK\x03\x04", "it is a zip archive or a torch checkpoint"),
    (b"\x80", "it is a pickle"),
)
_PAGES = ("<!doctype html", "<html")


def lookalike(path: Path) -> str | None:
    """Return a clause that says what the file is; None where its beginning tells nothing, or it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(_LONGEST)
    except OSError:
        return None
    for beginning, clause in _BEGINNINGS:
        if head.startswith(beginning):
            return clause
    if not head:
        return "it is empty"
    try:
        # The last character may be cut in two.
        text = head.decode("utf-8", errors="strict" if len(head) < _LONGEST else "ignore")
    except UnicodeDecodeError:
        return None
    if text.lstrip().lower().startswith(_PAGES):
        return "it is a web page: use the site's own download button"
    readable = all(letter.isprintable() or letter.isspace() for letter in text)
    return "it is a text file" if readable else None
