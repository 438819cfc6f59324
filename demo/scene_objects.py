"""What stands on a street: vehicles, people, trees, poles, lights and signs, each drawn where its foot is.

Sizes in metres are a little stouter than in life: a cell of the latent is 8 pixels wide, and what is much thinner than
that a small model cannot draw.
"""

from __future__ import annotations

import numpy as np
from scene_canvas import (
    BICYCLE,
    BUS,
    CAR,
    PERSON,
    POLE,
    RIDER,
    ROAD,
    TRAFFIC_LIGHT,
    TRAFFIC_SIGN,
    TRUCK,
    VEGETATION,
    Canvas,
    Facing,
)


class _Front:
    """Draws in the plane that faces the camera through a foot (x, z): across and up in metres from there."""

    def __init__(self, canvas: Canvas, x: float, z: float, label: int, thing: int):
        self.canvas, self.label, self.thing, self.z = canvas, label, thing, z
        self.x, self.y = canvas.camera.project(x, 0.0, z)
        self.scale = canvas.camera.focal / max(z, 1.0)

    def surface(
        self, material: str, tint: float = 1.0, label: int | None = None, facing: Facing = Facing.CAMERA
    ) -> int:
        own = self.label if label is None else label
        return self.canvas.surface(own, material, facing, self.z, tint, self.thing)

    def box(self, left: float, bottom: float, right: float, top: float, surface: int) -> None:
        s = self.scale
        self.canvas.box(self.x + left * s, self.y - top * s, self.x + right * s, self.y - bottom * s, surface)

    def disc(self, across: float, up: float, rx: float, ry: float, surface: int) -> None:
        s = self.scale
        self.canvas.ellipse(self.x + across * s, self.y - up * s, rx * s, ry * s, surface)

    def polygon(self, points: list[tuple[float, float]], surface: int) -> None:
        self.canvas.polygon([(self.x + a * self.scale, self.y - u * self.scale) for a, u in points], surface)


def _contact_shadow(canvas: Canvas, x: float, z: float, half: float, length: float) -> None:
    shadow = canvas.surface(ROAD, "shadow", Facing.UP)
    canvas.quad(
        [(x - half, 0, z - 0.3), (x + half, 0, z - 0.3), (x + half, 0, z + length), (x - half, 0, z + length)], shadow
    )


def _flank(canvas: Canvas, x: float, z: float, half: float, length: float) -> tuple[float, Facing] | None:
    """Return the x of the side of a box that the camera sees, and which way it looks; None straight ahead."""
    if x - half > 0.3:
        return x - half, Facing.LEFT
    if x + half < -0.3:
        return x + half, Facing.RIGHT
    return None


def car(canvas: Canvas, rng: np.random.Generator, x: float, z: float, towards: bool) -> None:
    """Draw a car whose near end is at (x, z), metres; `towards` shows its front, else its back."""
    thing, length, half = canvas.thing(), rng.uniform(3.8, 4.4), rng.uniform(0.88, 0.98)
    height, belt = rng.uniform(1.45, 1.75), rng.uniform(0.9, 1.0)
    _contact_shadow(canvas, x, z, half * 1.05, length)
    flank = _flank(canvas, x, z, half, length)
    roof = canvas.surface(CAR, "car paint", Facing.UP, z, 1.0, thing)
    narrow = half - 0.18
    canvas.quad(
        [(x - narrow, height, z + 0.8), (x + narrow, height, z + 0.8), (x + narrow, height, z + 3),
         (x - narrow, height, z + 3)], roof,
    )  # fmt: skip
    if flank:
        side, facing = flank
        body = canvas.surface(CAR, "car paint", facing, z, 1.0, thing)
        glass = canvas.surface(CAR, "car glass", facing, z, 1.0, thing)
        tyre = canvas.surface(CAR, "tyre", facing, z, 1.0, thing)
        inner = side + (0.18 if facing is Facing.LEFT else -0.18)
        canvas.quad([(side, 0.25, z), (side, belt, z), (side, belt, z + length), (side, 0.25, z + length)], body)
        canvas.quad([(side, belt, z), (inner, height, z + 0.8), (inner, height, z + 3), (side, belt, z + 3.6)], body)
        canvas.quad(
            [(side, belt, z + 0.5), (inner, height * 0.95, z + 0.95), (inner, height * 0.95, z + 2.8),
             (side, belt, z + 3.2)], glass,
        )  # fmt: skip
        for wheel in (z + 0.35, z + length - 1.05):
            canvas.quad(
                [(side, 0, wheel), (side, 0.55, wheel), (side, 0.55, wheel + 0.7), (side, 0, wheel + 0.7)], tyre
            )
    front = _Front(canvas, x, z, CAR, thing)
    tyre, body, low = front.surface("tyre"), front.surface("car paint"), front.surface("car paint", 0.62)
    front.box(-half * 0.95, 0, -half * 0.55, 0.45, tyre)
    front.box(half * 0.55, 0, half * 0.95, 0.45, tyre)
    for surface, margin, top in ((body, 0.0, height), (front.surface("car glass"), 0.12, height - 0.07)):
        wide, thin = half - margin, narrow - margin  # the pane leans back
        canvas.quad(
            [(x - wide, belt, z), (x - thin, top, z + 0.8), (x + thin, top, z + 0.8), (x + wide, belt, z)], surface
        )
    front.box(-half, 0.3, half, belt, body)
    front.box(-half, 0.22, half, 0.42, low)
    lamp = front.surface("head lamp" if towards else "tail lamp")
    front.box(-half * 0.96, belt * 0.68, -half * 0.6, belt * 0.92, lamp)
    front.box(half * 0.6, belt * 0.68, half * 0.96, belt * 0.92, lamp)
    front.box(-half * 0.28, 0.45, half * 0.28, 0.62, front.surface("plate"))


def lorry(canvas: Canvas, rng: np.random.Generator, x: float, z: float, towards: bool) -> None:
    """Draw a lorry: a tall box on wheels, with a cab when it comes towards the camera."""
    thing, half, height, length = canvas.thing(), 1.25, rng.uniform(3.1, 3.7), rng.uniform(6, 9)
    _contact_shadow(canvas, x, z, half, length)
    if flank := _flank(canvas, x, z, half, length):
        side, facing = flank
        canvas.quad(
            [(side, 0.9, z), (side, height, z), (side, height, z + length), (side, 0.9, z + length)],
            canvas.surface(TRUCK, "tarpaulin", facing, z, 1.0, thing),
        )
        canvas.quad(
            [(side, 0, z + 0.5), (side, 0.9, z + 0.5), (side, 0.9, z + length), (side, 0, z + length)],
            canvas.surface(TRUCK, "tyre", facing, z, 1.0, thing),
        )
    front = _Front(canvas, x, z, TRUCK, thing)
    front.box(-half * 0.95, 0, half * 0.95, 0.9, front.surface("tyre"))
    front.box(-half, 0.8, half, height, front.surface("tarpaulin"))
    if towards:
        front.box(-half * 0.95, 0.5, half * 0.95, 2.5, front.surface("car paint"))
        front.box(-half * 0.85, 1.5, half * 0.85, 2.3, front.surface("car glass"))
    else:
        front.box(-0.04, 0.9, 0.04, height * 0.97, front.surface("tarpaulin", 0.6))
        front.box(-half, 0.8, half, 1.0, front.surface("tarpaulin", 0.55))
    lamp = front.surface("head lamp" if towards else "tail lamp")
    front.box(-half * 0.95, 0.6, -half * 0.65, 0.85, lamp)
    front.box(half * 0.65, 0.6, half * 0.95, 0.85, lamp)


def bus(canvas: Canvas, rng: np.random.Generator, x: float, z: float, towards: bool) -> None:
    """Draw a bus: a tall coloured box with a band of windows."""
    thing, half, height, length = canvas.thing(), 1.3, rng.uniform(2.9, 3.3), rng.uniform(9, 12)
    _contact_shadow(canvas, x, z, half, length)
    if flank := _flank(canvas, x, z, half, length):
        side, facing = flank
        body = canvas.surface(BUS, "bus paint", facing, z, 1.0, thing)
        glass = canvas.surface(BUS, "car glass", facing, z, 1.0, thing)
        canvas.quad([(side, 0.3, z), (side, height, z), (side, height, z + length), (side, 0.3, z + length)], body)
        canvas.quad(
            [(side, 1.4, z + 0.4), (side, 2.5, z + 0.4), (side, 2.5, z + length), (side, 1.4, z + length)], glass
        )
    front = _Front(canvas, x, z, BUS, thing)
    tyre = front.surface("tyre")
    front.box(-half * 0.9, 0, -half * 0.55, 0.5, tyre)
    front.box(half * 0.55, 0, half * 0.9, 0.5, tyre)
    front.box(-half, 0.3, half, height, front.surface("bus paint"))
    front.box(-half * 0.88, 1.15 if towards else 1.5, half * 0.88, 2.4, front.surface("car glass"))
    front.box(-half * 0.55, 2.5, half * 0.55, 2.8, front.surface("plate"))
    lamp = front.surface("head lamp" if towards else "tail lamp")
    front.box(-half * 0.95, 0.55, -half * 0.6, 0.85, lamp)
    front.box(half * 0.6, 0.55, half * 0.95, 0.85, lamp)


def person(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a standing person."""
    front = _Front(canvas, x, z, PERSON, canvas.thing())
    tall, wide = rng.uniform(1.6, 1.9), rng.uniform(0.25, 0.32)
    legs, coat = front.surface("trousers"), front.surface("coat")
    step = rng.uniform(0.0, 0.12)
    front.box(-wide * 0.85 - step, 0, -wide * 0.1, tall * 0.48, legs)
    front.box(wide * 0.1, 0, wide * 0.85 + step, tall * 0.48, legs)
    front.box(-wide, tall * 0.42, wide, tall * 0.84, coat)
    front.box(-wide * 1.35, tall * 0.45, -wide, tall * 0.82, front.surface("coat", 0.8))
    front.box(wide, tall * 0.45, wide * 1.35, tall * 0.82, front.surface("coat", 0.8))
    front.disc(0, tall * 0.92, 0.17, tall * 0.09, front.surface("skin"))
    front.disc(0, tall * 0.96, 0.17, tall * 0.05, front.surface("hair"))


def cyclist(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a bicycle seen from behind, with its rider."""
    thing = canvas.thing()
    bike = _Front(canvas, x, z, BICYCLE, thing)
    bike.box(-0.1, 0, 0.1, 0.85, bike.surface("tyre"))
    bike.box(-0.35, 0.95, 0.35, 1.08, bike.surface("car paint"))
    rider = _Front(canvas, x, z, RIDER, thing)
    rider.box(-0.28, 0.45, -0.1, 1.0, rider.surface("trousers"))
    rider.box(0.1, 0.45, 0.28, 1.0, rider.surface("trousers"))
    rider.box(-0.3, 0.9, 0.3, 1.5, rider.surface("coat"))
    rider.disc(0, 1.68, 0.18, 0.2, rider.surface("car paint"))


def parked_bicycle(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a bicycle seen from its side: two wheels and a frame."""
    front = _Front(canvas, x, z, BICYCLE, canvas.thing())
    tyre, frame = front.surface("tyre"), front.surface("car paint")
    for across in (-0.55, 0.55):
        front.disc(across, 0.36, 0.36, 0.36, tyre)
        front.disc(across, 0.36, 0.16, 0.16, front.surface("pavement", 0.9))
    front.polygon([(-0.55, 0.3), (-0.2, 0.85), (0.4, 0.85), (0.55, 0.3), (0.4, 0.45), (0, 0.3)], frame)
    front.box(-0.35, 0.85, -0.1, 1.0, tyre)
    front.box(0.3, 0.85, 0.6, 1.05, frame)


def tree(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a tree: a trunk, and a crown of leaf balls, darker below and lighter above."""
    front = _Front(canvas, x, z, VEGETATION, canvas.thing())
    trunk, crown = rng.uniform(2.0, 3.2), rng.uniform(1.4, 2.4)
    front.box(-0.2, 0, 0.2, trunk + 0.4, front.surface("bark", facing=Facing.ROUND))
    for tint, lift, size in ((0.62, -0.25, 0.75), (0.85, 0.1, 0.72), (1.12, 0.45, 0.6)):
        leaves = front.surface("leaves", tint, facing=Facing.ROUND)
        for _ in range(3):
            across, up = rng.normal(0, 0.42 * crown), crown * (0.8 + lift) + rng.normal(0, 0.22 * crown)
            front.disc(across, trunk + up, crown * size, crown * size * 0.85, leaves)


def conifer(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a fir: three triangles on a trunk."""
    front = _Front(canvas, x, z, VEGETATION, canvas.thing())
    tall, wide = rng.uniform(4, 7), rng.uniform(1.2, 1.9)
    front.box(-0.18, 0, 0.18, 1.2, front.surface("bark", facing=Facing.ROUND))
    for k, tint in enumerate((0.6, 0.75, 0.92)):
        low = 0.8 + k * (tall - 0.8) * 0.27
        half = wide * (1 - 0.25 * k)
        leaves = front.surface("needles", tint, facing=Facing.ROUND)
        front.polygon([(-half, low), (half, low), (0, low + (tall - low) * (0.62 + 0.19 * k))], leaves)


def bush(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a bush: a few leaf balls on the ground."""
    front = _Front(canvas, x, z, VEGETATION, canvas.thing())
    size = rng.uniform(0.7, 1.3)
    for tint, up in ((0.65, 0.4), (0.95, 0.75)):
        leaves = front.surface("leaves", tint, facing=Facing.ROUND)
        for across in (-0.5, 0.4):
            front.disc(across * size + rng.normal(0, 0.1), up * size, size * 0.75, size * 0.55, leaves)


def street_lamp(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a lamp post whose arm reaches over the road."""
    front = _Front(canvas, x, z, POLE, canvas.thing())
    metal = front.surface("metal")
    reach = 1.6 if x < 0 else -1.6
    front.box(-0.13, 0, 0.13, 6.2, metal)
    front.box(min(reach, 0), 6.0, max(reach, 0), 6.25, metal)
    front.box(min(reach, reach * 0.6), 5.8, max(reach, reach * 0.6), 6.05, front.surface("lamp"))


def traffic_light(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw a traffic light on its pole; one of its three lenses is lit."""
    thing = canvas.thing()
    pole = _Front(canvas, x, z, POLE, thing)
    pole.box(-0.12, 0, 0.12, 2.7, pole.surface("metal"))
    box = _Front(canvas, x, z, TRAFFIC_LIGHT, thing)
    box.box(-0.42, 2.6, 0.42, 4.5, box.surface("signal box"))
    lit = rng.integers(3)
    for k, colour in enumerate(("red", "amber", "green")):
        lens = f"{colour} light" if k == lit else "dark lens"
        box.disc(0, 4.18 - 0.62 * k, 0.26, 0.26, box.surface(lens))


def traffic_sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draw one of four kinds of traffic sign on its pole."""
    thing, kind = canvas.thing(), rng.integers(4)
    pole = _Front(canvas, x, z, POLE, thing)
    pole.box(-0.1, 0, 0.1, 2.4, pole.surface("metal"))
    sign = _Front(canvas, x, z, TRAFFIC_SIGN, thing)
    red, white, blue = (sign.surface(f"sign {colour}") for colour in ("red", "white", "blue"))
    if kind == 0:
        sign.disc(0, 2.9, 0.55, 0.55, red)
        sign.disc(0, 2.9, 0.34, 0.34, white)
    elif kind == 1:
        sign.box(-0.5, 2.4, 0.5, 3.4, blue)
        sign.box(-0.16, 2.6, 0.16, 3.2, white)
    elif kind == 2:
        sign.polygon([(-0.65, 2.35), (0.65, 2.35), (0, 3.5)], red)
        sign.polygon([(-0.35, 2.52), (0.35, 2.52), (0, 3.12)], white)
    else:
        sign.polygon([(-0.6, 2.95), (0, 3.55), (0.6, 2.95), (0, 2.35)], white)
        sign.polygon([(-0.42, 2.95), (0, 3.37), (0.42, 2.95), (0, 2.53)], sign.surface("sign yellow"))
