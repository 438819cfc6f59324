"""Is the palette of a picture found, and is it said where that is not sure? And what finding and repainting costs.

    python benchmarks/palettes.py            # every label map of the test data, in every palette; some minutes
    python benchmarks/palettes.py --every 4  # one in four of CamVid's maps, the ones the bounds were chosen on

"right" counts a palette of exactly the same colours as right: nothing could tell the two apart. Id pictures that JPEG
or smooth resizing has blurred have a row of their own as well: their ids are gone, so no palette reads them.
"""

from __future__ import annotations

import argparse
import functools
import statistics as stats
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.palette_cases import SAME_COLOURS, VERSIONS, Case, cases, data_folder, photos
from scp_prior.classes import palette
from scp_prior.detection import detect_palette
from scp_prior.errors import SCPError
from scp_prior.labels import hint_from_labels
from scp_prior.recolour import recolour

RIGHT, UNSURE, WRONG_UNSURE, WRONG, NOTHING = "right", "right, low", "wrong, low", "WRONG, high", "no palette"
OUTCOMES = (RIGHT, UNSURE, WRONG_UNSURE, WRONG, NOTHING)


def outcome(case: Case) -> str:
    """What detection made of a picture, one of OUTCOMES."""
    try:
        found = detect_palette(case.picture)
    except SCPError:
        return NOTHING
    if found.palette.name == SAME_COLOURS.get(case.palette, case.palette):
        return RIGHT if found.sure else UNSURE
    return WRONG if found.sure else WRONG_UNSURE


def tabulate(found: Iterable[tuple[Case, str]]) -> None:
    """One row a palette and one a version; blurred id pictures and photos in rows of their own."""
    rows: dict[str, Counter] = defaultdict(Counter)
    for case, what in found:
        if case.palette == "photo":
            rows["photos"][what] += 1
        else:
            kind = "blurred id pictures" if case.blurred_ids else "maps that can be read"
            held_out = ["of all, held out"] if case.held_out else []
            for name in (case.palette, case.version, "all", kind, *held_out):
                rows[name][what] += 1
    last = ["all", "of all, held out", "maps that can be read", "blurred id pictures", "photos"]
    order = [name for name in rows if name not in (*VERSIONS, *last)]
    print(f"{'':24s} {'pictures':>8s} {'right':>8s}   " + " ".join(f"{name:>12s}" for name in OUTCOMES))
    for name in (*order, *VERSIONS, *last):
        if counts := rows.get(name):
            total, right = counts.total(), counts[RIGHT] + counts[UNSURE]
            print(f"{name:24s} {total:8d} {right / total:8.1%}   " + " ".join(f"{counts[o]:12d}" for o in OUTCOMES))


def milliseconds(call: Callable[[], object], rounds: int = 15) -> float:
    """Median of some runs after a first one."""
    call()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        times.append(1e3 * (time.process_time() - start))
    return stats.median(times)


def costs() -> None:
    """CPU milliseconds at 512x1024: a street of 19 classes, as it is and as JPEG."""
    import io

    import numpy as np
    from PIL import Image

    bands = torch.randint(0, 19, (1, 16, 32), generator=torch.Generator().manual_seed(0))
    ids = bands.repeat_interleave(32, 1).repeat_interleave(32, 2)
    exact = hint_from_labels(ids, palette("cityscapes"))
    stream = io.BytesIO()
    Image.fromarray(exact[0].mul(255).round().byte().numpy()).save(stream, "JPEG", quality=70)
    jpeg = torch.from_numpy(np.array(Image.open(stream)))[None] / 255
    print(f"\n{'CPU ms, 512x1024, 1 thread':40s} {'exact':>8s} {'jpeg 70':>8s}   goal")
    own, other = palette("cityscapes"), palette("cityscapes-ids-grey")
    for name, call in (("detect_palette", detect_palette), ("recolour", lambda x: recolour(x, own, other))):
        exact_ms, jpeg_ms = (milliseconds(functools.partial(call, picture)) for picture in (exact, jpeg))
        print(f"{name:40s} {exact_ms:8.1f} {jpeg_ms:8.1f}   100 together")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="take one in so many of CamVid's maps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = data_folder()
    if data is None:
        print("The label maps are not here: set SCP_TEST_DATA. Timing only.")
    else:
        tabulate((case, outcome(case)) for source in (cases(data, options.every), photos(data)) for case in source)
    costs()


if __name__ == "__main__":
    main()
