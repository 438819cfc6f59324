"""Write the demo's label maps, in Cityscapes' colours: streets the model never saw, and one painted by hand.

    python demo/make_maps.py [FOLDER]

The painted one is a few polygons, as somebody draws them with a flood fill: no perspective was computed, edges are
coarse, and most of what stands on a generated street is missing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scene_canvas import (
    BUILDING,
    CAR,
    PERSON,
    POLE,
    ROAD,
    SIDEWALK,
    SKY,
    TERRAIN,
    TRAFFIC_LIGHT,
    TRAFFIC_SIGN,
    VEGETATION,
)
from scenes import COLOURS, HEIGHT, WIDTH, scene

MAPS = Path(__file__).resolve().parent / "maps"
UNSEEN_SEED = 2
UNSEEN = range(8)
PAINTED = "painted.png"

_PAINTED: tuple[tuple[int, tuple[tuple[int, int], ...]], ...] = (
    (TERRAIN, ((0, 62), (256, 62), (256, 128), (0, 128))),
    (SIDEWALK, ((116, 60), (0, 96), (0, 128), (256, 128), (256, 100), (146, 60))),
    (ROAD, ((124, 60), (0, 120), (0, 128), (246, 128), (138, 60))),
    (BUILDING, ((0, 4), (38, 4), (40, 18), (74, 20), (76, 34), (100, 38), (101, 66), (0, 98))),
    (BUILDING, ((162, 40), (196, 24), (228, 38), (228, 72), (162, 66))),
    (VEGETATION, ((104, 46), (126, 50), (150, 48), (164, 52), (164, 62), (104, 62))),
    (VEGETATION, ((222, 18), (240, 8), (256, 10), (256, 84), (240, 82), (236, 62), (220, 56), (214, 36))),
    (VEGETATION, ((84, 40), (96, 32), (108, 40), (106, 52), (98, 54), (97, 68), (94, 68), (93, 54), (84, 52))),
    (POLE, ((60, 28), (63, 28), (63, 82), (60, 82))),
    (POLE, ((196, 50), (198, 50), (198, 80), (196, 80))),
    (TRAFFIC_LIGHT, ((57, 20), (66, 20), (66, 38), (57, 38))),
    (TRAFFIC_SIGN, ((191, 40), (203, 40), (203, 52), (191, 52))),
    (CAR, ((52, 92), (52, 80), (60, 78), (64, 70), (84, 70), (88, 78), (92, 80), (92, 94), (86, 94), (58, 94))),
    (CAR, ((144, 84), (144, 74), (149, 66), (169, 66), (174, 74), (174, 86), (146, 86))),
    (CAR, ((112, 70), (112, 65), (115, 61), (123, 61), (126, 65), (126, 70))),
    (PERSON, ((212, 66), (215, 62), (218, 66), (220, 78), (218, 96), (212, 96), (210, 78))),
)


def painted() -> np.ndarray:
    """Return the hand-painted map, (128, 256) uint8 of train ids."""
    image = Image.new("L", (WIDTH, HEIGHT), SKY)
    draw = ImageDraw.Draw(image)
    for label, corners in _PAINTED:
        draw.polygon(corners, fill=label)
    return np.asarray(image)


def maps() -> dict[str, np.ndarray]:
    """Return every map by its file name, (128, 256) uint8 of train ids."""
    unseen = {f"street-{index + 1}.png": scene(index, UNSEEN_SEED).labels for index in UNSEEN}
    return unseen | {PAINTED: painted()}


def write_maps(folder: Path = MAPS) -> None:
    """Write the maps as PNG in Cityscapes' colours."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, labels in maps().items():
        Image.fromarray(COLOURS[labels]).save(folder / name, optimize=True)


if __name__ == "__main__":
    write_maps(Path(sys.argv[1]) if len(sys.argv) > 1 else MAPS)
