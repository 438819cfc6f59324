"""Memory does not grow with the number of photos."""

from __future__ import annotations

import os

import pytest
from reducing import PATIENCE, make_pairs, measure_memory

FEW, MANY, MOST = 100, 3000, 50 * 2**20


@pytest.mark.parametrize("threads", [False, True])
def test_memory_stays_as_it_is(server, tmp_path, threads):
    """3000 links to few pictures, decoded anew each time."""
    root = make_pairs(tmp_path / "few", 10, (64, 64), ids=(1, 2, 3, 255))
    links = tmp_path / "many"
    for folder in ("images", "labels"):
        (links / folder).mkdir(parents=True)
        for number in range(MANY):
            os.symlink(root / folder / f"{number % 10:04}.png", links / folder / f"{number:05}.png")
    ours, theirs = server.Pipe()
    child = server.Process(target=measure_memory, args=(links, tmp_path / "checkpoint", threads, theirs))
    child.start()
    theirs.close()
    try:
        assert ours.poll(PATIENCE)
        sizes, images = ours.recv()
    finally:
        child.kill()
        child.join()
    assert images == str(MANY)
    assert sorted(sizes) == [FEW, *range(500, MANY + 1, 500)]
    assert max(sizes.values()) - sizes[FEW] < MOST
