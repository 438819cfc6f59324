"""What an artist reads who has put the wrong file in the right place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from artist import Artist


@pytest.fixture
def folder(base: Path):
    """The statistics folder; what a test puts there is taken away again."""
    folder = base / "models" / "scp_statistics"
    before = set(folder.iterdir())
    yield folder
    for path in set(folder.iterdir()) - before:
        path.unlink()


def told(artist: Artist, name: str) -> str:
    """Press Run, and return the dialog's text."""
    artist.press_run()
    text = artist.dialog()
    artist.picture(name)
    return text


@pytest.mark.parametrize(("name", "words"), [("notes", "it is a text file"), ("numpy", "SCP Convert Statistics")])
def test_a_file_that_is_no_statistics_file(open_page, folder: Path, name: str, words: str) -> None:
    if name == "notes":
        (folder / "notes.safetensors").write_text("the statistics are in the other folder\n", encoding="utf-8")
    else:
        with (folder / "numpy.safetensors").open("wb") as file:
            np.save(file, np.zeros((4, 4), np.float32))
    artist: Artist = open_page()
    artist.open_template("minimal")
    artist.set("SCPLoadStatistics", statistics=f"{name}.safetensors")
    text = told(artist, f"error-{name}")
    assert f"{name}.safetensors" in text
    assert words in text
    for jargon in ("Traceback", "Error while deserializing", "HeaderTooLarge"):
        assert jargon not in text
    artist.dismiss()
    # The artist chooses another file, and the graph runs.
    artist.set("SCPLoadStatistics", statistics="scp_demo.safetensors")
    artist.set("", width=256, height=128)
    artist.set("", steps=4)
    assert artist.run()["kind"] == "execution_success"


def test_a_released_file_that_is_broken(open_page, folder: Path) -> None:
    (folder / "cityscapes_10000_categorical_mean_std.npy").write_bytes(b"\x93NUMPY no more of it came down")
    artist: Artist = open_page()
    artist.clear()
    artist.add("SCPConvertStatistics")
    artist.set("SCPConvertStatistics", overwrite=True)
    text = told(artist, "error-npy")
    assert "cityscapes_10000_categorical_mean_std.npy" in text
    assert "Download it again" in text


def test_a_picture_that_is_no_map_of_the_palette(open_page) -> None:
    artist: Artist = open_page()
    artist.open_template("minimal")
    artist.set("SCPLabelsFromImage", palette="ade20k", tolerance=0)
    text = told(artist, "error-palette")
    assert "cityscapes" in text
    assert "palette" in text
