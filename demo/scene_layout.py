"""Lays a street out: road, pavements, frontages, then everything that stands on it, the far things first."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scene_frontage as frontage
import scene_objects as objects
from scene_canvas import ROAD, SIDEWALK, SUPERSAMPLING, TERRAIN, Camera, Canvas, Facing, Layout

_Draw = Callable[[], None]


class _Street(NamedTuple):
    """Metres left and right of the camera: where road and pavement end, and where houses begin."""

    road: tuple[float, float]
    kerb: tuple[float, float]
    front: tuple[float, float]
    centre: float


def lay_out(seed: int, height: int = 128, width: int = 256) -> Layout:
    """Return the street of a seed, seen at height x width pixels; the same seed is the same street at any size."""
    rng = np.random.default_rng([seed, 0x57EE7])
    camera = Camera(
        focal=0.5 * width * SUPERSAMPLING * rng.uniform(0.95, 1.1),
        height=rng.uniform(2.0, 2.6),
        centre=width * SUPERSAMPLING * (0.5 + rng.normal(0, 0.04)),
        horizon=height * SUPERSAMPLING * (0.44 + rng.normal(0, 0.02)),
    )
    canvas = Canvas(camera, height, width)
    street = _draw_street(rng)
    frontage.skyline(canvas, rng)
    _ground(canvas, rng, street)
    things: list[tuple[float, _Draw]] = []
    for side in (-1, 1):
        things += _frontage(canvas, rng, street, side)
        things += _pavement(canvas, rng, street, side)
    things += _traffic(canvas, rng, street)
    for _, draw in sorted(things, key=lambda thing: -thing[0]):
        draw()
    return canvas.finish()


def _draw_street(rng: np.random.Generator) -> _Street:
    left, right = rng.uniform(5.0, 8.0), rng.uniform(3.2, 6.0)
    kerbs = left + rng.uniform(2.2, 3.8), right + rng.uniform(2.2, 3.8)
    setbacks = tuple(float(rng.choice([0.0, rng.uniform(1.0, 4.0)])) for _ in range(2))
    return _Street((left, right), kerbs, (kerbs[0] + setbacks[0], kerbs[1] + setbacks[1]), (right - left) / 2)


def _ground(canvas: Canvas, rng: np.random.Generator, street: _Street) -> None:
    camera = canvas.camera
    near, end = 2.0, 120.0

    def strip(left: float, right: float, surface: int, start: float = near, stop: float = end) -> None:
        canvas.quad([(left, 0, start), (left, 0, stop), (right, 0, stop), (right, 0, start)], surface)

    def ground(label: int, material: str, tint: float = 1.0) -> int:
        return canvas.surface(label, material, Facing.UP, 0.0, tint)

    canvas.box(0, camera.project(0, 0, end)[1], canvas.width, canvas.height, ground(TERRAIN, "grass"))
    for side in (0, 1):
        sign = (-1, 1)[side]
        road, kerb = sign * street.road[side], sign * street.kerb[side]
        strip(road, kerb, ground(SIDEWALK, "pavement"))
        strip(road, road + sign * 0.3, ground(SIDEWALK, "pavement", 1.2))
        joint = ground(SIDEWALK, "pavement", 0.8)
        z = rng.uniform(3, 5)
        while z < 25:
            strip(road, kerb, joint, z, z + 0.16)
            z += 2.4
    strip(-street.road[0], street.road[1], ground(ROAD, "asphalt"))
    line = ground(ROAD, "road paint")
    if rng.random() < 0.25:
        strip(street.centre - 0.12, street.centre + 0.12, line)
    else:
        z = rng.uniform(2, 6)
        while z < 60:
            strip(street.centre - 0.13, street.centre + 0.13, line, z, z + 3)
            z += 6
    if rng.random() < 0.5:
        for edge in (-street.road[0] + 0.5, street.road[1] - 0.5):
            strip(edge - 0.1, edge + 0.1, line)
    if rng.random() < 0.22:  # a crossing
        z, x = rng.uniform(7, 14), -street.road[0] + 0.4
        while x < street.road[1] - 0.5:
            strip(x, x + 0.55, line, z, z + 3)
            x += 1.15


def _frontage(canvas: Canvas, rng: np.random.Generator, street: _Street, side: int) -> list[tuple[float, _Draw]]:
    index = 0 if side < 0 else 1
    x, kerb = side * street.front[index], side * street.kerb[index]
    kind = rng.choice(["row", "row", "detached", "park"])
    things: list[tuple[float, _Draw]] = []

    def add(z: float, draw: Callable[..., None], *arguments: object) -> None:
        # A generator of its own: what one thing draws at random must not hang on how many were drawn before it.
        own = np.random.default_rng(rng.integers(2**63))
        things.append((z, lambda: draw(canvas, own, *arguments)))

    near = rng.uniform(3.0, 7.0)
    while near < frontage.FAR:
        length = rng.uniform(8, 18)
        far = near + length
        gap = rng.random() < 0.12
        if kind == "row" and not gap:
            add(far, frontage.town_house, side, x, near, far)
        elif kind == "detached":
            set_back = kerb + side * rng.uniform(3.5, 6.0)
            add(far, frontage.detached_house, side, set_back, near + 2, far - rng.uniform(1, 3))
            if rng.random() < 0.75:
                add(near + 0.5, frontage.boundary, side, kerb + side * 0.3, near, far)
            if rng.random() < 0.5:
                add(near + 1, objects.bush, kerb + side * rng.uniform(1.5, 3), near + 1)
        else:
            for _ in range(rng.integers(2, 4)):
                z = rng.uniform(near, far)
                plant = objects.conifer if rng.random() < 0.25 else objects.tree
                add(z, plant, kerb + side * rng.uniform(2, 12), z)
            if kind == "park" and rng.random() < 0.3:
                add(near + 0.5, frontage.boundary, side, kerb + side * 0.4, near, far)
        near = far
    return things


def _pavement(canvas: Canvas, rng: np.random.Generator, street: _Street, side: int) -> list[tuple[float, _Draw]]:
    index = 0 if side < 0 else 1
    road, kerb = street.road[index], street.kerb[index]
    wide = kerb - road
    things: list[tuple[float, _Draw]] = []

    def add(z: float, across: float, draw: Callable[..., None]) -> None:
        own = np.random.default_rng(rng.integers(2**63))
        things.append((z, lambda: draw(canvas, own, side * (road + wide * across), z)))

    if rng.random() < 0.5:  # an avenue
        z = rng.uniform(7, 12)
        while z < 45:
            add(z, 0.8, objects.tree)
            z += rng.uniform(6, 12)
    if rng.random() < 0.6:
        z = rng.uniform(8, 18)
        while z < 45:
            add(z, 0.2, objects.street_lamp)
            z += rng.uniform(14, 20)
    for draw, mean, across, span in (
        (objects.traffic_sign, 0.6, (0.15, 0.3), (7.5, 22)),
        (objects.traffic_light, 0.4, (0.12, 0.25), (8, 20)),
        (objects.person, 1.4, (0.25, 0.8), (7, 22)),
        (objects.parked_bicycle, 0.3, (0.5, 0.8), (7, 14)),
    ):
        for _ in range(rng.poisson(mean)):
            add(rng.uniform(*span), rng.uniform(*across), draw)
    return things


def _traffic(canvas: Canvas, rng: np.random.Generator, street: _Street) -> list[tuple[float, _Draw]]:
    things: list[tuple[float, _Draw]] = []

    def add(z: float, draw: Callable[..., None], *arguments: object) -> None:
        own = np.random.default_rng(rng.integers(2**63))
        things.append((z, lambda: draw(canvas, own, *arguments)))

    for side in (-1, 1):
        road = street.road[0] if side < 0 else street.road[1]
        lane = (side * road + street.centre) / 2
        parking = rng.random() < 0.45
        if parking:
            z = rng.uniform(5.5, 11)
            while z < 45:
                if rng.random() < 0.72:
                    add(z, objects.car, side * (road - 1.15), z, side < 0)
                z += rng.uniform(5.4, 12)
        z = rng.uniform(7, 26)
        while z < 50:
            kind = rng.random()
            draw = objects.car if kind < 0.72 else objects.bus if kind < 0.86 else objects.lorry
            if draw is not objects.car:
                z += 4
            add(z, draw, lane - (0.4 * side if parking else 0), z, side < 0)
            z += rng.uniform(10, 45)
        if rng.random() < 0.22:
            z = rng.uniform(6.5, 14)
            add(z, objects.cyclist, side * (road - (2.9 if parking else 0.8)), z)
    return things
