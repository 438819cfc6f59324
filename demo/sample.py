"""Draw the demo's maps with the demo's model in the real host, side by side: a contact sheet to look at.

    python demo/sample.py [SHEET.png] [--weights DIR] [--steps 20] [--cfg 3]

Columns: labels, normal start (pure noise), the pack's joint prior at t = 799, and a generated street with these labels
(what the model could have drawn at best). Prints what it took, as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

DEMO = Path(__file__).resolve().parent


def _inside(target: str, weights: str, steps: str, cfg: str) -> None:
    """The half that runs in the host's process."""
    sys.path.append(str(DEMO))
    import numpy as np
    import torch
    from demo_graph import Graph
    from make_maps import MAPS, PAINTED, UNSEEN, UNSEEN_SEED
    from PIL import Image
    from scenes import scene

    torch.set_num_threads(2)
    graph = Graph(Path(weights))
    rows, times = [], {"normal": [], "prior": []}
    for k, path in enumerate([*(MAPS / f"street-{index + 1}.png" for index in UNSEEN), MAPS / PAINTED]):
        colours = np.asarray(Image.open(path).convert("RGB"))
        image = torch.from_numpy(colours.astype(np.float32) / 255)[None]
        cells = [colours]
        for name in times:
            drawn, seconds = graph.draw(image, seed=k, steps=int(steps), cfg=float(cfg), prior=name == "prior")
            times[name].append(seconds)
            cells.append((drawn[0].clamp(0, 1) * 255 + 0.5).byte().numpy())
        cells.append(scene(k, UNSEEN_SEED).picture if path.name != PAINTED else np.zeros_like(colours))
        rows.append(np.concatenate(cells, 1))
    Image.fromarray(np.concatenate(rows)).save(target)
    medians = {f"{name}_seconds": float(np.median(seconds)) for name, seconds in times.items()}
    sys.stdout.write(json.dumps({"sheet": target, **medians}) + "\n")


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sheet", nargs="?", type=Path, default=Path("demo-sheet.png"))
    parser.add_argument("--weights", type=Path, default=DEMO / "weights")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=3.0)
    options = parser.parse_args()
    sys.path.append(str(DEMO.parent / "scripts"))
    from in_host import run

    arguments = [str(options.sheet.resolve()), str(options.weights.resolve()), str(options.steps), str(options.cfg)]
    sys.stdout.write(json.dumps(run(Path(__file__).resolve(), ["inside", *arguments]), indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["inside"]:
        _inside(*sys.argv[2:])
    else:
        _main()
