"""`download`, against a hub on loopback: what arrives, what is refused, and what a next run goes on from."""

from __future__ import annotations

import ast
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from downloading import (
    ALL_MADE,
    CHECKPOINT,
    MADE,
    PIECE,
    SET,
    STATISTICS,
    Downloads,
    no_hub_library,
    no_pauses,
    small_disk,
    small_release,
)
from hub_server import HubServer
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from scp_prior import SCPError, load_statistics
from scp_prior.originals import Original

ROOT = Path(__file__).resolve().parents[2]
CATEGORICAL, SPATIAL, JOINT = STATISTICS
STATISTICS_FILE = ALL_MADE[0]


@pytest.fixture(scope="module")
def release() -> dict[str, bytes]:
    return small_release()


@pytest.fixture(scope="module")
def large_release() -> dict[str, bytes]:
    """With a checkpoint of more than two pieces."""
    return small_release(adam=6_000_000)


@pytest.fixture
def hub(release):
    with HubServer(release).running() as hub:
        yield hub


@pytest.fixture
def large_hub(large_release):
    with HubServer(large_release).running() as hub:
        yield hub


@pytest.fixture
def downloads(tmp_path):
    downloads = Downloads(tmp_path)
    yield downloads
    downloads.end()


def name(path: str) -> str:
    return path.rpartition("/")[2]


def state_dict(release: dict[str, bytes]) -> dict[str, torch.Tensor]:
    return torch.load(io.BytesIO(release[CHECKPOINT]), weights_only=True)["state_dict"]


def assert_whole(downloads: Downloads, release: dict[str, bytes], dtype=torch.float16) -> None:
    """Every tensor of the three files is the release's, at the dtype, and no other file is there."""
    assert downloads.made() == sorted(ALL_MADE)
    made = {key: tensor for file in MADE for key, tensor in load_file(downloads.models / file).items()}
    source = state_dict(release)
    assert made.keys() == source.keys()
    for key, tensor in source.items():
        assert torch.equal(made[key], tensor.to(dtype))
    spatial = np.load(io.BytesIO(release[SPATIAL]), allow_pickle=True).item()
    statistics = load_statistics(downloads.models / STATISTICS_FILE)
    np.testing.assert_allclose(statistics.tensors()["spatial.mean"].numpy() * 0.18215, spatial["mean"], rtol=1e-6)
    assert statistics.class_ids.tolist() == [3, 7]


# What arrives


def test_everything_arrives_converted_and_in_its_folder(hub, downloads, release):
    ran = downloads.run(endpoint=hub.endpoint)
    assert ran.code == 0, ran.err
    assert_whole(downloads, release)
    assert not (downloads.models / "scp_downloads").exists()
    assert {path: hub.bodies(path) for path in release} == {path: [0] for path in release if path != "README.md"} | {
        "README.md": []
    }
    assert all(str(downloads.models / path) in ran.out for path in ALL_MADE)


def test_a_second_run_asks_and_changes_nothing(hub, downloads):
    downloads.run(endpoint=hub.endpoint)
    before = {path: (downloads.models / path).stat().st_mtime_ns for path in ALL_MADE}
    hub.requests.clear()
    ran = downloads.run(endpoint=hub.endpoint)
    assert ran.code == 0
    assert ran.out.splitlines() == [f"{downloads.models / path} is there already" for path in ALL_MADE]
    assert hub.requests == []
    assert {path: (downloads.models / path).stat().st_mtime_ns for path in ALL_MADE} == before


def test_only_the_statistics(hub, downloads):
    ran = downloads.run("--statistics-only", endpoint=hub.endpoint)
    assert ran.code == 0
    assert downloads.made() == [STATISTICS_FILE]
    assert hub.bodies(CHECKPOINT) == []


@pytest.mark.parametrize("lost", ALL_MADE)
def test_only_what_is_missing_is_fetched(hub, downloads, release, lost):
    downloads.run(endpoint=hub.endpoint)
    (downloads.models / lost).unlink()
    hub.requests.clear()
    assert downloads.run(endpoint=hub.endpoint).code == 0
    assert_whole(downloads, release)
    fetched = {request.path for request in hub.requests} - {""}
    assert fetched == (set(STATISTICS) if lost == STATISTICS_FILE else {CHECKPOINT})


def test_kept_originals_serve_another_dtype_without_the_hub(hub, downloads, release):
    assert downloads.run("--keep-original", endpoint=hub.endpoint).code == 0
    for path in (*STATISTICS, CHECKPOINT):
        assert (downloads.originals / name(path)).read_bytes() == release[path]
    hub.requests.clear()
    ran = downloads.run("--dtype", "float32", endpoint=hub.endpoint)
    assert ran.code == 0, ran.err
    assert hub.requests == []
    assert_whole(downloads, release, torch.float32)
    # The wish to keep them holds until another is uttered.
    assert (downloads.originals / name(CHECKPOINT)).exists()
    assert downloads.run("--remove-original", "--dtype", "float32", endpoint=hub.endpoint).code == 0
    assert not downloads.originals.exists()
    assert downloads.made() == sorted(ALL_MADE)


def test_the_wish_to_keep_may_come_later(hub, downloads):
    hub.status = {CHECKPOINT: 404}
    assert downloads.run(endpoint=hub.endpoint).error
    assert downloads.run("--keep-original", "--statistics-only", endpoint=hub.endpoint).code == 0
    assert downloads.run("--statistics-only", endpoint=hub.endpoint).code == 0
    assert (downloads.originals / name(JOINT)).exists()
    assert downloads.run("--remove-original", "--statistics-only", endpoint=hub.endpoint).code == 0
    assert not (downloads.originals / name(JOINT)).exists()


def test_a_note_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    original = Original(tmp_path / "a.ckpt")
    original.path.write_bytes(b"whole")
    original.note(original.path, "commit", keep=False)
    note = next(tmp_path.glob("*.json"))
    kept = note.read_text()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(SCPError, match=r"Cannot write .*\.json: No space left"):
        original.keep()
    assert note.read_text() == kept


def test_each_file_says_what_it_was_made_of(hub, downloads):
    downloads.run(endpoint=hub.endpoint)
    with safe_open(downloads.models / MADE[0], framework="pt") as file:
        assert file.metadata()["source_file"] == name(CHECKPOINT)


# Interruptions


def test_a_dropped_connection_goes_on_where_it_broke_off(large_hub, downloads, large_release):
    large_hub.drop = {CHECKPOINT: [PIECE + 3_000_000]}
    ran = downloads.run(endpoint=large_hub.endpoint, before=no_pauses)
    assert ran.code == 0, ran.err
    assert large_hub.bodies(CHECKPOINT) == [0, PIECE]
    assert_whole(downloads, large_release)


def test_a_hub_that_ignores_ranges_is_read_from_the_start(large_hub, downloads, large_release):
    large_hub.drop, large_hub.ranges = {CHECKPOINT: [PIECE + 3_000_000]}, False
    assert downloads.run(endpoint=large_hub.endpoint, before=no_pauses).code == 0
    assert_whole(downloads, large_release)


def test_a_connection_lost_for_good_leaves_the_part_for_the_next_run(large_hub, downloads, large_release):
    large_hub.drop = {CHECKPOINT: [PIECE + 3_000_000, *[0] * 100]}
    ran = downloads.run(endpoint=large_hub.endpoint, before=no_pauses)
    assert f"{large_hub.endpoint} cannot be reached for {CHECKPOINT}, or broke off" in ran.error
    assert "the same command goes on" in ran.error
    assert pages(ran.out).keys() == {name(CHECKPOINT)}
    # The small files were of use already.
    assert downloads.made() == [STATISTICS_FILE]
    assert [path.stat().st_size for path in downloads.originals.glob("*.part")] == [PIECE]
    large_hub.drop.clear()
    large_hub.requests.clear()
    assert downloads.run(endpoint=large_hub.endpoint).code == 0
    assert large_hub.bodies(CHECKPOINT) == [PIECE]
    assert_whole(downloads, large_release)
    assert not downloads.originals.exists()


def test_the_part_of_an_older_release_is_not_gone_on_with(large_hub, downloads, large_release):
    large_hub.drop = {CHECKPOINT: [PIECE + 3_000_000, *[0] * 100]}
    assert downloads.run(endpoint=large_hub.endpoint, before=no_pauses).error
    large_hub.drop.clear()
    large_hub.requests.clear()
    newer = small_release(adam=5_000_000)
    large_hub.files = newer
    assert downloads.run(endpoint=large_hub.endpoint).code == 0
    assert large_hub.bodies(CHECKPOINT) == [0]
    assert_whole(downloads, newer)
    assert not downloads.originals.exists()


def test_two_at_once_do_not_write_into_one_file(large_hub, downloads, large_release):
    large_hub.hold = {CHECKPOINT: PIECE}
    first = downloads.start(endpoint=large_hub.endpoint)
    assert large_hub.held.wait(60)
    assert "Another process is downloading" in downloads.run(endpoint=large_hub.endpoint).error
    large_hub.go.set()
    assert first.rest().code == 0
    assert_whole(downloads, large_release)


# What is refused


@pytest.mark.parametrize("path", [CATEGORICAL, JOINT, CHECKPOINT])
def test_a_wrong_checksum(hub, downloads, release, path):
    """Of a file in git, whose hash is git's, and of large ones."""
    content = bytearray(release[path])
    content[len(content) // 2] ^= 1
    hub.altered = {path: bytes(content)}
    ran = downloads.run(endpoint=hub.endpoint)
    assert f"{name(path)} came damaged" in ran.error
    assert downloads.made() == ([STATISTICS_FILE] if path == CHECKPOINT else [])
    # A lock may stay, which is empty.
    assert not any(file.stat().st_size for file in downloads.originals.glob(f"{name(path)}*"))
    hub.altered.clear()
    assert downloads.run(endpoint=hub.endpoint).code == 0
    assert_whole(downloads, release)


@pytest.mark.parametrize("change", [b"more", -5])
def test_a_wrong_size(hub, downloads, release, change):
    content = release[JOINT]
    hub.altered = {JOINT: content + change if isinstance(change, bytes) else content[:change]}
    assert JOINT in downloads.run(endpoint=hub.endpoint, before=no_pauses).error
    assert downloads.made() == []
    assert not (downloads.originals / name(JOINT)).exists()
    assert len(hub.bodies(JOINT)) < 20
    hub.altered.clear()
    assert downloads.run(endpoint=hub.endpoint).code == 0
    assert_whole(downloads, release)


@pytest.mark.parametrize(("path", "said"), [(JOINT, JOINT), ("", "the list of files of c7w/SCP-Diff")])
def test_404(hub, downloads, path, said):
    hub.status = {path: 404}
    error = downloads.run(endpoint=hub.endpoint).error
    assert f"does not have {said} (404)" in error
    assert downloads.made() == []


def test_a_file_the_repository_no_longer_lists(hub, downloads):
    hub.files[f"{SET}/new_name.pt"] = hub.files.pop(CHECKPOINT)
    error = downloads.run(endpoint=hub.endpoint).error
    assert f"has no {CHECKPOINT}" in error
    assert [request.path for request in hub.requests] == [""]


@pytest.mark.parametrize(
    ("status", "said"), [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (429, "Try again later"), (500, "")]
)
def test_other_refusals(hub, downloads, status, said):
    hub.status = {"": status}
    assert said in downloads.run(endpoint=hub.endpoint, before=no_pauses).error
    assert downloads.made() == []


def test_no_space_is_known_before_anything_is_fetched(large_hub, downloads):
    ran = downloads.run(endpoint=large_hub.endpoint, before=small_disk)
    assert re.search(r"30\.\d MB needed to download and convert, 100\.0 kB free", ran.error)
    assert "--statistics-only" in ran.error
    assert [request.path for request in large_hub.requests] == [""]


@pytest.mark.parametrize("path", ALL_MADE)
@pytest.mark.parametrize("content", [b"half of someth", None])
def test_a_file_of_ones_own_is_never_written_over(hub, downloads, path, content):
    own = downloads.models / path
    own.parent.mkdir()
    if content is None:
        save_file({"mine": torch.ones(3)}, own)
    else:
        own.write_bytes(content)
    before = own.read_bytes()
    assert f"{own} is in the way" in downloads.run(endpoint=hub.endpoint).error
    assert own.read_bytes() == before
    assert hub.requests == []


# Without the hub


def pages(out: str) -> dict[str, str]:
    """{file: page} of what it says to do by hand."""
    return dict(re.findall(r"^  ([^:,\n]+)[^\n]*\n    from (\S+)\n", out, flags=re.MULTILINE))


def test_offline_it_says_which_page_and_which_folder(hub, downloads):
    ran = downloads.run(endpoint=hub.endpoint, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE" in ran.error
    base = "https://huggingface.co/c7w/SCP-Diff/blob/main"
    assert pages(ran.out) == {name(path): f"{base}/{path}" for path in (*STATISTICS, CHECKPOINT)}
    assert ran.out.count(f"into {downloads.originals}\n") == 4
    assert "Make that folder where it is not there yet." in ran.out
    assert hub.requests == []


def test_what_was_put_there_by_hand_is_converted_offline_and_stays(hub, downloads, release):
    downloads.originals.mkdir(parents=True)
    for path in STATISTICS:
        (downloads.originals / name(path)).write_bytes(release[path])
    ran = downloads.run(endpoint=hub.endpoint, HF_HUB_OFFLINE="1")
    assert pages(ran.out).keys() == {name(CHECKPOINT)}
    assert downloads.made() == [STATISTICS_FILE]
    (downloads.originals / name(CHECKPOINT)).write_bytes(release[CHECKPOINT])
    ran = downloads.run(endpoint=hub.endpoint, HF_HUB_OFFLINE="1")
    assert ran.code == 0, ran.err
    assert hub.requests == []
    assert_whole(downloads, release)
    assert {path.name for path in downloads.originals.iterdir()} == {name(path) for path in (*STATISTICS, CHECKPOINT)}
    downloads.run("--remove-original", endpoint=hub.endpoint)
    assert not downloads.originals.exists()


def test_what_was_put_there_by_hand_is_verified_online(hub, downloads, release):
    downloads.originals.mkdir(parents=True)
    own = downloads.originals / name(CHECKPOINT)
    own.write_bytes(release[CHECKPOINT][:-1] + b"?")
    assert f"{own} is not the released file" in downloads.run(endpoint=hub.endpoint).error
    assert own.exists()
    assert downloads.made() == [STATISTICS_FILE]
    own.write_bytes(release[CHECKPOINT])
    assert downloads.run(endpoint=hub.endpoint).code == 0
    assert hub.bodies(CHECKPOINT) == []
    assert_whole(downloads, release)
    assert own.exists()


def test_without_huggingface_hub(hub, downloads):
    ran = downloads.run(endpoint=hub.endpoint, before=no_hub_library)
    assert "pip install huggingface_hub" in ran.error
    assert pages(ran.out).keys() == {name(path) for path in (*STATISTICS, CHECKPOINT)}


def test_without_a_network(hub, downloads):
    with HubServer({}).running() as gone:
        endpoint = gone.endpoint
    ran = downloads.run(endpoint=endpoint, before=no_pauses)
    assert f"{endpoint} cannot be reached for the list of files" in ran.error
    assert len(pages(ran.out)) == 4


# In the graph


NETWORK = {"huggingface_hub", "requests", "httpx", "aiohttp", "urllib", "http", "socket", "ftplib"}
DOWNLOADERS = {"hub", "gather", "download", "cli_download", "cli", "__main__"}


def imported(path: Path) -> set[str]:
    """Every module a file imports anywhere, from its package's root: "nodes.say", "scp_prior.hub", "torch"."""
    folder = path.parent.relative_to(ROOT).parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)}
    return found


def test_nothing_a_graph_uses_can_download():
    waiting, seen = [ROOT / "__init__.py", *(ROOT / "nodes").glob("*.py")], set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        modules = imported(path)
        assert not {module.split(".")[0] for module in modules} & NETWORK, path
        found = [ROOT / f"{module.replace('.', '/')}.py" for module in modules]
        found += [ROOT / module.replace(".", "/") / "__init__.py" for module in modules if module]
        waiting += [file for file in found if file.is_file()]
    assert ROOT / "scp_prior" / "statistics.py" in seen
    assert not {path.stem for path in seen if path.parent.name == "scp_prior"} & DOWNLOADERS
