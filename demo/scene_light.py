"""Light and colour: what a layout looks like at one hour, in one weather and one town.

Everything here is shared by the whole picture (sun, sky, haze, exposure, the town's palette, the season) or belongs to
one object (its paint). A picture's look is therefore correlated across its classes, as in photos of one place.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image
from scene_canvas import BUILDING, FENCE, ROAD, SIDEWALK, SUPERSAMPLING, TERRAIN, VEGETATION, WALL, Facing, Layout

_Colour = tuple[float, float, float]

# Colours in 0..1, as seen in full light.
MATERIALS: dict[str, _Colour] = {
    "sky": (0.0, 0.0, 0.0),
    "asphalt": (0.40, 0.40, 0.42),
    "shadow": (0.17, 0.17, 0.19),
    "road paint": (0.93, 0.92, 0.88),
    "pavement": (0.66, 0.63, 0.60),
    "grass": (0.45, 0.58, 0.26),
    "leaves": (0.28, 0.46, 0.17),
    "needles": (0.17, 0.36, 0.22),
    "bark": (0.33, 0.24, 0.17),
    "metal": (0.36, 0.38, 0.41),
    "lamp": (0.85, 0.84, 0.78),
    "fence": (0.52, 0.36, 0.22),
    "fence gap": (0.27, 0.22, 0.15),
    "window": (0.20, 0.25, 0.32),
    "shop window": (0.30, 0.34, 0.38),
    "car glass": (0.20, 0.26, 0.33),
    "tyre": (0.09, 0.09, 0.10),
    "plate": (0.90, 0.90, 0.86),
    "head lamp": (0.98, 0.96, 0.85),
    "tail lamp": (0.82, 0.10, 0.08),
    "skin": (0.82, 0.62, 0.50),
    "hair": (0.22, 0.16, 0.11),
    "signal box": (0.13, 0.14, 0.15),
    "dark lens": (0.24, 0.22, 0.20),
    "red light": (1.0, 0.15, 0.10),
    "amber light": (1.0, 0.70, 0.10),
    "green light": (0.15, 0.95, 0.45),
    "sign red": (0.82, 0.10, 0.10),
    "sign white": (0.95, 0.95, 0.93),
    "sign blue": (0.10, 0.28, 0.72),
    "sign yellow": (0.96, 0.78, 0.12),
}
# One of these per object.
PALETTES: dict[str, tuple[_Colour, ...]] = {
    "wall": (
        (0.72, 0.47, 0.36), (0.82, 0.71, 0.56), (0.62, 0.58, 0.54), (0.86, 0.80, 0.70), (0.60, 0.36, 0.28),
        (0.70, 0.72, 0.74), (0.88, 0.70, 0.45), (0.62, 0.68, 0.60), (0.80, 0.60, 0.55), (0.90, 0.89, 0.86),
    ),
    "roof": ((0.52, 0.25, 0.18), (0.34, 0.32, 0.34), (0.42, 0.30, 0.23), (0.58, 0.34, 0.22)),
    "shop front": ((0.55, 0.18, 0.16), (0.16, 0.32, 0.28), (0.18, 0.25, 0.42), (0.70, 0.55, 0.25), (0.30, 0.28, 0.27)),
    "garden wall": ((0.64, 0.58, 0.50), (0.58, 0.40, 0.32), (0.75, 0.72, 0.67)),
    "car paint": (
        (0.72, 0.12, 0.12), (0.14, 0.25, 0.55), (0.90, 0.90, 0.91), (0.12, 0.12, 0.14), (0.52, 0.54, 0.57),
        (0.76, 0.77, 0.79), (0.16, 0.38, 0.28), (0.85, 0.62, 0.15),
    ),
    "bus paint": ((0.88, 0.66, 0.10), (0.78, 0.14, 0.14), (0.15, 0.45, 0.60)),
    "tarpaulin": ((0.88, 0.87, 0.84), (0.80, 0.82, 0.84), (0.62, 0.70, 0.78)),
    "coat": ((0.72, 0.16, 0.16), (0.16, 0.24, 0.55), (0.14, 0.14, 0.16), (0.82, 0.78, 0.70), (0.88, 0.62, 0.18)),
    "trousers": ((0.14, 0.16, 0.26), (0.13, 0.13, 0.14), (0.36, 0.30, 0.24)),
}  # fmt: skip
_TOWN = ("wall", "roof", "shop front")  # a town has only a few of these colours
_NAMES = (*MATERIALS, *PALETTES)
_INDEX = {name: k for k, name in enumerate(_NAMES)}
_GLOWING = ("lamp", "head lamp", "tail lamp", "red light", "amber light", "green light")
_HAZE_LENGTH = 60.0  # metres
_ON_GROUND = (ROAD, SIDEWALK, TERRAIN)


class Light(NamedTuple):
    """What all of a picture shares.

    top, horizon: colours of the sky. shade: (5, 3) light on a surface by its `Facing`. haze: its strength. glow: how
    much lamps shine. cloud: cover, 0..1.
    """

    top: np.ndarray
    horizon: np.ndarray
    shade: np.ndarray
    haze: float
    glow: float
    cloud: float


def draw_light(rng: np.random.Generator) -> Light:
    """Draw an hour and a weather."""
    warm, cloud = rng.beta(0.7, 1.2), rng.beta(0.8, 1.1)
    exposure = 1.1 * np.exp(rng.normal(0, 0.10)) * (1 - 0.25 * warm)

    def mix(clear: _Colour, golden: _Colour, overcast: _Colour) -> np.ndarray:
        sky = np.asarray(clear) * (1 - warm) + np.asarray(golden) * warm
        return sky * (1 - 0.85 * cloud) + np.asarray(overcast) * 0.85 * cloud

    top = mix((0.22, 0.46, 0.84), (0.36, 0.40, 0.66), (0.60, 0.64, 0.70))
    horizon = mix((0.76, 0.88, 0.98), (1.0, 0.76, 0.52), (0.80, 0.83, 0.86))
    sun = np.asarray((1.0, 0.95, 0.86)) * (1 - warm) + np.asarray((1.0, 0.72, 0.42)) * warm
    strength = 0.72 * (1 - 0.9 * cloud)
    ambient = (0.58 + 0.34 * cloud) * (np.asarray((0.95, 0.99, 1.06)) * (1 - 0.5 * warm) + 0.5 * warm * 0.97)
    across, behind, up = rng.uniform(-1, 1), rng.uniform(0.1, 0.8), 1 - 0.6 * warm
    cosines = np.array([up * 0.75, max(0.0, across), max(0.0, -across), behind, 0.45])
    tone = np.exp(rng.normal(0, 0.035, 3))
    shade = (ambient + strength * cosines[:, None] * sun) * exposure * tone
    return Light(
        top=(top * exposure * tone).astype(np.float32),
        horizon=(horizon * exposure * tone).astype(np.float32),
        shade=shade.astype(np.float32),
        haze=rng.gamma(1.6, 0.22) + 0.15 * cloud,
        glow=warm,
        cloud=cloud,
    )


def _colours(layout: Layout, light: Light, rng: np.random.Generator) -> np.ndarray:
    """Return the colour of each surface, (N, 3) float32."""
    surfaces = layout.surfaces
    material = np.array([_INDEX[surface.material] for surface in surfaces])
    facing = np.array([surface.facing for surface in surfaces])
    thing = np.array([surface.thing for surface in surfaces])
    depth = np.array([surface.depth for surface in surfaces])[:, None]
    tint = np.array([surface.tint for surface in surfaces])[:, None]
    table = np.zeros((len(_NAMES), 3))
    table[: len(MATERIALS)] = list(MATERIALS.values())
    table[: len(MATERIALS)] *= np.exp(rng.normal(0, 0.05, (len(MATERIALS), 1)))
    table[_INDEX["asphalt"]] *= np.exp(rng.normal(0, 0.14))
    table[_INDEX["pavement"]] *= np.exp(rng.normal(0, 0.07))
    autumn = rng.beta(0.6, 1.6)  # leaves towards yellow and brown
    for name, towards in (("leaves", (0.62, 0.42, 0.10)), ("grass", (0.60, 0.56, 0.28))):
        share = 0.75 * autumn if name == "leaves" else 0.5 * autumn
        table[_INDEX[name]] = table[_INDEX[name]] * (1 - share) + np.asarray(towards) * share
    colour = table[material]
    shade = light.shade[facing]
    luck, jitter = rng.random((layout.things, len(PALETTES))), np.exp(rng.normal(0, 0.06, layout.things))
    for k, (name, palette) in enumerate(PALETTES.items()):
        mine = material == _INDEX[name]
        options = np.asarray(palette)
        if name in _TOWN:
            options = options[rng.permutation(len(options))[:3]]
        chosen = (luck[thing[mine], k] * len(options)).astype(int)
        colour[mine] = options[chosen] * jitter[thing[mine], None]
    glowing = np.isin(material, [_INDEX[name] for name in _GLOWING])[:, None]
    lit = (np.isin(material, [_INDEX["window"], _INDEX["shop window"]]) & (luck[thing, 0] < 0.5 * light.glow))[:, None]
    colour = np.where(lit, np.asarray((0.95, 0.78, 0.45)) * 0.75, colour)
    colour = colour * tint * np.where(glowing | lit, np.maximum(shade, 0.6 + 0.4 * light.glow), shade)
    thin = np.exp(-light.haze * depth / _HAZE_LENGTH)
    return (colour * thin + light.horizon * (1 - thin)).astype(np.float32)


def _noise(rng: np.random.Generator, height: int, width: int, cell: int) -> np.ndarray:
    """Return smooth noise of unit deviation whose features are about `cell` pixels wide."""
    small = rng.standard_normal((height // cell + 3, width // cell + 3)).astype(np.float32)
    size = (small.shape[1] * cell, small.shape[0] * cell)
    large = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)) if cell > 1 else small
    y, x = rng.integers(0, 2 * cell, 2)
    return large[y : y + height, x : x + width] * (1.0 if cell == 1 else 1.35)


def _texture(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return what multiplies each pixel, (H, W): leaves, grass, plaster, asphalt."""
    coarse, fine = np.zeros(256, np.float32), np.zeros(256, np.float32)
    coarse[[ROAD, SIDEWALK, BUILDING, WALL, FENCE, TERRAIN, VEGETATION]] = (0.025, 0.03, 0.02, 0.05, 0.02, 0.06, 0.13)
    fine[[ROAD, SIDEWALK, TERRAIN, VEGETATION, WALL]] = (0.012, 0.015, 0.05, 0.07, 0.03)
    height, width = labels.shape
    return 1 + coarse[labels] * _noise(rng, height, width, 6) + fine[labels] * _noise(rng, height, width, 2)


def _sky(light: Light, rng: np.random.Generator, horizon: float, height: int, width: int) -> np.ndarray:
    """Return the sky over the whole picture, (H, W, 3)."""
    rows = np.clip(np.arange(height, dtype=np.float32)[:, None, None] / (horizon * height), 0, 1)
    sky = light.top * (1 - rows) + light.horizon * rows
    clouds = 0.8 * _noise(rng, height, width, 40) + 0.5 * _noise(rng, height, width, 16)
    cover = np.clip(clouds * 0.8 - 0.9 + 1.9 * light.cloud, 0, 1)[..., None] * 0.75
    white = np.minimum(1.0, light.horizon * 0.5 + 0.5 * light.shade[Facing.UP])
    return sky * (1 - cover) + white * cover


def paint(layout: Layout, labels: np.ndarray, light_seed: int) -> np.ndarray:
    """Return the picture of a layout in the light of a seed.

    Args:
        layout: what is where.
        labels: (H, W) uint8, as `scenes.labels_of` gives them.
        light_seed: decides the hour, weather, town and season, and the colour of every object.

    Returns:
        (H, W, 3) uint8.
    """
    rng = np.random.default_rng([light_seed, 0x11647])
    light = draw_light(rng)
    height, width = labels.shape
    s = SUPERSAMPLING
    colours = _colours(layout, light, rng)
    colours[0] = 0
    sub_rasters = [layout.raster[y::s, x::s] for y in range(s) for x in range(s)]
    picture = sum(colours.take(part, axis=0) for part in sub_rasters) / len(sub_rasters)
    below = np.maximum(np.arange(height) + 0.5 - layout.horizon * height, 0.5)
    thin = np.exp(-light.haze * layout.ground * height / below / _HAZE_LENGTH).astype(np.float32)[:, None, None]
    ground = np.isin(labels, _ON_GROUND)[..., None]
    picture = np.where(ground, picture * thin + light.horizon * (1 - thin), picture)
    picture *= _texture(labels, rng)[..., None]
    open_sky = (sum((part == 0).astype(np.float32) for part in sub_rasters) / len(sub_rasters))[..., None]
    picture += open_sky * _sky(light, rng, layout.horizon, height, width)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
