"""What lines a street: rows of town houses, detached houses behind fences or walls, parks, and the far skyline."""

from __future__ import annotations

import numpy as np
from scene_canvas import BUILDING, FENCE, VEGETATION, WALL, Canvas, Facing

FAR = 75.0
SKYLINE = 95.0
_PLAIN_BEYOND = 42.0  # metres; windows farther off are smaller than a pixel


def skyline(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw what stands across the street's far end: roofs or tree tops."""
    camera, wooded = canvas.camera, rng.random() < 0.4
    x = -SKYLINE
    while x < SKYLINE:
        wide = rng.uniform(9, 22)
        up = rng.uniform(3, 11)
        thing = canvas.thing()
        left, top = camera.project(x, up, SKYLINE)
        right, foot = camera.project(x + wide, 0, SKYLINE)
        if wooded:
            leaves = canvas.surface(VEGETATION, "leaves", Facing.ROUND, SKYLINE, 0.9, thing)
            canvas.ellipse((left + right) / 2, foot, (right - left) * 0.75, foot - top, leaves)
            canvas.box(left, camera.horizon - 4, right, foot, leaves)
        else:
            wall = canvas.surface(BUILDING, "wall", Facing.CAMERA, SKYLINE, 0.95, thing)
            canvas.box(left, top, right, foot, wall)
        x += wide


def _facing(side: int) -> Facing:
    return Facing.RIGHT if side < 0 else Facing.LEFT


def _windows(
    canvas: Canvas, x: float, near: float, far: float, floors: list[tuple[float, float]], surface: int, every: float
) -> None:
    columns = max(1, round((far - near) / every))
    step = (far - near) / columns
    for k in range(columns):
        a, b = near + (k + 0.27) * step, near + (k + 0.77) * step
        ends = canvas.camera.project(x, 0, a), canvas.camera.project(x, 0, b)
        if a < 3 or canvas.off_screen(*ends):
            continue
        for low, high in floors:
            canvas.quad([(x, low, a), (x, high, a), (x, high, b), (x, low, b)], surface)


def _floors(first: float, height: float, storey: float) -> list[tuple[float, float]]:
    count = max(1, int((height - first) / storey))
    return [(first + storey * (k + 0.22), first + storey * (k + 0.76)) for k in range(count)]


def town_house(canvas: Canvas, rng: np.random.Generator, side: int, x: float, near: float, far: float) -> None:
    """Draw a house of a row: its wall along the street at `x`, from `near` to `far` metres."""
    thing, depth, facing = canvas.thing(), (near + far) / 2, _facing(side)
    height = rng.uniform(6.5, 15)
    wall = canvas.surface(BUILDING, "wall", facing, depth, 1.0, thing)
    gable = canvas.surface(BUILDING, "wall", Facing.CAMERA, near, 0.95, thing)
    back = x + side * 14
    canvas.quad([(x, 0, near), (back, 0, near), (back, height, near), (x, height, near)], gable)
    canvas.quad([(x, 0, near), (x, height, near), (x, height, far), (x, 0, far)], wall)
    storey, every = rng.uniform(2.9, 3.5), rng.uniform(2.8, 4.0)
    shop = rng.random() < 0.4
    if depth < _PLAIN_BEYOND:
        glass = canvas.surface(BUILDING, "window", facing, depth, 1.0, thing)
        first = 3.4 if shop else 0.6
        _windows(canvas, x, near, far, _floors(first, height - 0.5, storey), glass, every)
        if shop:
            front = canvas.surface(BUILDING, "shop front", facing, depth, 1.0, thing)
            canvas.quad([(x, 0, near), (x, 3.3, near), (x, 3.3, far), (x, 0, far)], front)
            pane = canvas.surface(BUILDING, "shop window", facing, depth, 1.0, thing)
            _windows(canvas, x, near, far, [(0.6, 2.5)], pane, every * 1.2)
    cornice = canvas.surface(BUILDING, "roof", facing, depth, 0.9, thing)
    canvas.quad([(x, height - 0.45, near), (x, height, near), (x, height, far), (x, height - 0.45, far)], cornice)


def detached_house(canvas: Canvas, rng: np.random.Generator, side: int, x: float, near: float, far: float) -> None:
    """Draw a house with a pitched roof, its gable towards the camera."""
    thing, depth, facing = canvas.thing(), (near + far) / 2, _facing(side)
    eaves, wide = rng.uniform(3.2, 6.0), rng.uniform(7, 9)
    ridge, back = eaves + wide * rng.uniform(0.3, 0.45), x + side * wide
    middle = (x + back) / 2
    wall = canvas.surface(BUILDING, "wall", facing, depth, 1.0, thing)
    gable = canvas.surface(BUILDING, "wall", Facing.CAMERA, near, 1.0, thing)
    roof = canvas.surface(BUILDING, "roof", facing, depth, 1.0, thing)
    canvas.quad([(x, 0, near), (x, eaves, near), (x, eaves, far), (x, 0, far)], wall)
    canvas.quad([(x, 0, near), (x, eaves, near), (middle, ridge, near), (back, eaves, near), (back, 0, near)], gable)
    over = x - side * 0.4
    canvas.quad(
        [(over, eaves - 0.3, near), (middle, ridge, near), (middle, ridge, far), (over, eaves - 0.3, far)],
        roof,
    )
    if depth > _PLAIN_BEYOND:
        return
    glass = canvas.surface(BUILDING, "window", facing, depth, 1.0, thing)
    floors = [(0.9, 2.3)] if eaves < 4.6 else [(0.9, 2.2), (3.3, 4.5)]
    _windows(canvas, x, near, far, floors, glass, 3.2)
    pane = canvas.surface(BUILDING, "window", Facing.CAMERA, near, 1.0, thing)
    for low, high in floors:
        for share in (0.18, 0.6):
            left, right = x + side * wide * share, x + side * wide * (share + 0.22)
            canvas.quad([(left, low, near), (right, low, near), (right, high, near), (left, high, near)], pane)


def boundary(canvas: Canvas, rng: np.random.Generator, side: int, x: float, near: float, far: float) -> None:
    """Draw what closes a garden off from the street: a fence, a wall or a hedge."""
    thing, facing, depth = canvas.thing(), _facing(side), (near + far) / 2
    kind, up = rng.random(), rng.uniform(1.0, 1.9)
    corners = [(x, 0, near), (x, up, near), (x, up, far), (x, 0, far)]
    if kind < 0.38:
        canvas.quad(corners, canvas.surface(FENCE, "fence gap", facing, depth, 1.0, thing))
        wood = canvas.surface(FENCE, "fence", facing, depth, 1.0, thing)
        z = near
        while z < min(far, 30):
            canvas.quad([(x, 0, z), (x, up, z), (x, up, z + 0.3), (x, 0, z + 0.3)], wood)
            z += 0.6
        for low in (0.25, up * 0.7):
            canvas.quad([(x, low, near), (x, low + 0.2, near), (x, low + 0.2, far), (x, low, far)], wood)
    elif kind < 0.72:
        canvas.quad(corners, canvas.surface(WALL, "garden wall", facing, depth, 1.0, thing))
        top = canvas.surface(WALL, "garden wall", facing, depth, 1.25, thing)
        canvas.quad([(x, up - 0.2, near), (x, up, near), (x, up, far), (x, up - 0.2, far)], top)
    else:
        canvas.quad(corners, canvas.surface(VEGETATION, "leaves", facing, depth, 0.8, thing))
        top = canvas.surface(VEGETATION, "leaves", facing, depth, 1.1, thing)
        canvas.quad([(x, up * 0.75, near), (x, up, near), (x, up, far), (x, up * 0.75, far)], top)
