"""The canvas a street is laid out on: one raster of surface numbers, seen by a pinhole camera.

Every shape is drawn once, as the number of its surface, at twice the resolution of the picture. Labels and colours are
both looked up from that raster, so that they agree by construction, and light can change without moving an edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

SUPERSAMPLING = 2
NEAR = 2.0  # metres; nothing is drawn closer to the camera

ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, TRAFFIC_LIGHT, TRAFFIC_SIGN, VEGETATION, TERRAIN = range(10)
SKY, PERSON, RIDER, CAR, TRUCK, BUS = range(10, 16)
BICYCLE = 18
CLASSES = (*range(16), BICYCLE)
"""Cityscapes train ids that occur in a scene."""


class Facing(IntEnum):
    """Which way a surface looks; decides how much light falls on it."""

    UP = 0
    RIGHT = 1
    LEFT = 2
    CAMERA = 3
    ROUND = 4


Point = tuple[float, float]


class Surface(NamedTuple):
    """What a number in the raster stands for.

    label: Cityscapes train id. material: a name in `scene_light`. facing: which way it looks. depth: metres from the
    camera, for haze; 0 where haze follows the image row (the ground). tint: multiplies the colour. thing: which object
    it belongs to; parts of one object of one material share their colour.
    """

    label: int
    material: str
    facing: Facing
    depth: float
    tint: float
    thing: int


class Layout(NamedTuple):
    """A street without light.

    raster: (2H, 2W) int32, numbers of surfaces; 0 is the sky. surfaces: what they are. horizon: its row as a share of
    the height. ground: metres of depth times rows below the horizon, as a share of the height. things: how many objects
    there are.
    """

    raster: np.ndarray
    surfaces: list[Surface]
    horizon: float
    ground: float
    things: int


class Camera(NamedTuple):
    """A pinhole camera looking along z: x right, up, metres; pixels of the raster, y down."""

    focal: float
    height: float
    centre: float
    horizon: float

    def project(self, x: float, up: float, z: float) -> Point:
        z = max(z, NEAR)
        return self.centre + self.focal * x / z, self.horizon + self.focal * (self.height - up) / z


class Canvas:
    """Draws surfaces, the far ones first."""

    def __init__(self, camera: Camera, height: int, width: int):
        self.camera = camera
        self.height, self.width = height * SUPERSAMPLING, width * SUPERSAMPLING
        self._image = Image.new("I", (self.width, self.height), 0)
        self._draw = ImageDraw.Draw(self._image)
        self._surfaces = [Surface(SKY, "sky", Facing.ROUND, 0.0, 1.0, 0)]
        self._things = 1

    def thing(self) -> int:
        """Begin a new object."""
        self._things += 1
        return self._things - 1

    def surface(
        self, label: int, material: str, facing: Facing, depth: float = 0.0, tint: float = 1.0, thing: int = 0
    ) -> int:
        """Register a surface and return its number."""
        self._surfaces.append(Surface(label, material, facing, depth, tint, thing))
        return len(self._surfaces) - 1

    def polygon(self, points: Sequence[Point], surface: int) -> None:
        self._draw.polygon(points, fill=surface)

    def ellipse(self, x: float, y: float, rx: float, ry: float, surface: int) -> None:
        if rx >= 0.5 and ry >= 0.5:
            self._draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=surface)

    def box(self, left: float, top: float, right: float, bottom: float, surface: int) -> None:
        """Fill the pixels of a rectangle; it is always at least one pixel wide and high."""
        left, top = round(left), round(top)
        right, bottom = max(left, round(right) - 1), max(top, round(bottom) - 1)
        self._draw.rectangle((left, top, right, bottom), fill=surface)

    def quad(self, corners: Sequence[tuple[float, float, float]], surface: int) -> None:
        """Fill a polygon whose corners (x, up, z) are in metres."""
        self.polygon([self.camera.project(*corner) for corner in corners], surface)

    def off_screen(self, *points: Point) -> bool:
        """Whether all of these lie left, or all right, of the raster."""
        return all(x < -2 for x, _ in points) or all(x > self.width + 2 for x, _ in points)

    def finish(self) -> Layout:
        camera = self.camera
        return Layout(
            np.asarray(self._image, np.int32),
            self._surfaces,
            camera.horizon / self.height,
            camera.focal * camera.height / self.height,
            self._things,
        )
