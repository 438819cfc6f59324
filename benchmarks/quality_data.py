"""Latents and label maps that priors are judged on: synthetic families whose truth is known, and CamVid photos."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

FAMILIES = ("flat", "position", "rough", "common", "scene", "position-scene")
"""What a cell's mean is made of, beside its class: nothing else; a smooth field per class (and its spread as well); a
number of its own; a smooth field all classes share. `scene`: 0.4 of the variance is one draw per picture and class,
half of it shared by all classes."""

SIZE, CLASSES, CHANNELS = (32, 48), 10, 4
_SHARE = 0.4
_CAMVID_CLASSES = 12
_DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared"


class Pictures(NamedTuple):
    """latents (N, C, h, w) float32 of unit scale, labels (N, h, w) int64."""

    latents: Tensor
    labels: Tensor

    def take(self, index: np.ndarray) -> Pictures:
        """These pictures of them."""
        return Pictures(self.latents[index], self.labels[index])


class Truth(NamedTuple):
    """mean, std (K, C, h, w) float64 of each cell."""

    mean: np.ndarray
    std: np.ndarray


def truth(family: str, size: tuple[int, int] = SIZE, classes: int = CLASSES) -> Truth:
    """What the pictures of a family are drawn from; the same each time."""
    rng = np.random.default_rng(7)
    shape = (classes, CHANNELS, *size)
    mean = np.broadcast_to(rng.normal(size=(classes, CHANNELS, 1, 1)), shape).copy()
    std = np.broadcast_to(0.7 * np.exp(0.3 * rng.normal(size=(classes, CHANNELS, 1, 1))), shape).copy()
    of_class, rough, common, spread = (
        smooth(rng, shape, 4.0),
        rng.normal(size=shape),
        smooth(rng, (1, *shape[1:]), 5.0),
        smooth(rng, shape, 4.0),
    )
    if family.startswith("position"):
        mean += of_class
        std *= np.exp(0.3 * spread)
    if family == "rough":
        mean += 0.8 * rough
    if family == "common":
        mean += common
    return Truth(mean, std)


def draw(family: str, count: int, seed: int, size: tuple[int, int] = SIZE, classes: int = CLASSES) -> Pictures:
    """Pictures of a family."""
    rng = np.random.default_rng(seed)
    known = truth(family, size, classes)
    labels = np.stack([layout(rng, size, classes) for _ in range(count)])
    noise = rng.normal(size=(count, CHANNELS, *size))
    if family.endswith("scene"):
        shared = rng.normal(size=(count, 1, CHANNELS)) + rng.normal(size=(count, classes, CHANNELS))
        effect = np.stack([shared[i][labels[i]] for i in range(count)]).transpose(0, 3, 1, 2) / np.sqrt(2)
        noise = np.sqrt(1 - _SHARE) * noise + np.sqrt(_SHARE) * effect
    y, x = np.mgrid[: size[0], : size[1]]
    mean, std = (np.moveaxis(part[labels, :, y, x], -1, 1) for part in known)
    return Pictures(torch.from_numpy(mean + std * noise).float(), torch.from_numpy(labels))


def layout(rng: np.random.Generator, size: tuple[int, int], classes: int) -> np.ndarray:
    """A label map like a street's: sky, houses, road by height, and a few boxes of the other classes."""
    y, x = np.mgrid[: size[0], : size[1]] / np.array(size)[:, None, None]
    horizon, road = rng.normal(0.4, 0.08), rng.normal(0.7, 0.06)
    labels = np.where(y < horizon, 0, np.where(y < road, 1, 2))
    for _ in range(rng.integers(3, 9)):
        (top, left), (high, wide) = rng.uniform((0.2, 0.0), (0.9, 1.0)), rng.uniform(0.03, 0.2, 2)
        labels[(abs(y - top) < high) & (abs(x - left) < wide)] = rng.integers(3, classes)
    return labels.astype(np.int64)


def smooth(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Gaussian noise smoothed over `scale` cells, (..., h, w), of unit variance over the cells."""
    field = rng.normal(size=shape)
    for axis in (-1, -2):
        n = shape[axis]
        at = np.arange(n)
        # Mirrored at the edges, as often as the kernel reaches.
        kernel = sum(np.exp(-0.5 * ((at[:, None] - other) / scale) ** 2) for other in (at, -1 - at, 2 * n - 1 - at))
        field = np.moveaxis(np.moveaxis(field, axis, -1) @ kernel.T, -1, axis)
    return field / field.std(axis=(-2, -1), keepdims=True)


def camvid_folder() -> Path | None:
    """Where the photos lie (SCP_TEST_DATA, or `shared` beside the repository), or None."""
    folder = Path(os.environ.get("SCP_TEST_DATA", _DEFAULT_DATA)) / "data" / "camvid_mini"
    return folder if folder.is_dir() else None


class Photos(NamedTuple):
    """pixels (N, H, W, 3) uint8, labels (N, h, w) int64 on the latent grid."""

    pixels: np.ndarray
    labels: np.ndarray

    def encoded(self, light: np.random.Generator | None = None) -> Pictures:
        """In the linear stand-in; with `light`, each photo brighter or darker and tinted at random."""
        latents = []
        for pixels in self.pixels:
            lit = pixels.astype(np.float64)
            if light is not None:
                lit = np.clip(lit * np.exp(light.normal(0, 0.35) + light.normal(0, 0.12, 3)), 0, 255)
            latents.append(stand_in(lit))
        return Pictures(torch.from_numpy(np.stack(latents)).float(), torch.from_numpy(self.labels))


def camvid(folder: Path, split: str) -> Photos:
    """A split's photos and label maps."""
    pixels, labels = [], []
    for line in (folder / f"{split}.txt").read_text().splitlines():
        if not line.strip():
            continue
        photo, label = (Path(name).name for name in line.split()[:2])
        pixels.append(np.asarray(Image.open(folder / split / photo).convert("RGB")))
        ids = np.asarray(Image.open(folder / f"{split}annot" / label))
        labels.append(ids[4::8, 4::8][: pixels[-1].shape[0] // 8, : pixels[-1].shape[1] // 8])
    return Photos(np.stack(pixels), np.stack(labels).astype(np.int64))


def stand_in(pixels: np.ndarray) -> np.ndarray:
    """A linear 4-channel stand-in for the VAE: (H, W, 3) in 0..255 -> (4, H // 8, W // 8), of about unit scale.

    Grey, red minus blue and magenta minus green of each 8x8 block, and how much its rows vary from pixel to pixel.
    """
    h, w = pixels.shape[0] // 8, pixels.shape[1] // 8
    blocks = (pixels[: h * 8, : w * 8] / 127.5 - 1).reshape(h, 8, w, 8, 3)
    axes = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    colour = blocks.mean((1, 3)) @ axes.T
    detail = np.abs(np.diff(blocks.mean(-1), axis=3)).mean((1, 3))
    scaled = np.concatenate([colour, detail[..., None]], axis=-1) * (2.0, 6.0, 6.0, 10.0)
    return np.moveaxis(scaled, -1, 0)


Draw = Callable[[int, int], tuple[Pictures, Pictures]]
"""(size of the training set, number of the draw) -> pictures to learn from, pictures to be judged by."""


class Case(NamedTuple):
    """A data set to learn from and be judged by. all: the largest training set; draws: how many of that there are."""

    name: str
    draw: Draw
    all: int
    draws_of_all: int


def synthetic_case(family: str, most: int = 200, held_out: int = 60, draws: int = 5) -> Case:
    """A family: every draw is of new pictures, judged by the same ones."""
    judged = draw(family, held_out, seed=2)
    return Case(family, lambda count, number: (draw(family, count, seed=1000 * count + number), judged), most, draws)


def camvid_cases(folder: Path, draws: int = 5) -> list[Case]:
    """The official split, random splits of all photos, and the official split with the light changed.

    The official val photos are one drive in one light, so only random splits can show whether pictures vary among
    themselves as they should; those share drives between what is learned and what is judged. Light is changed anew in
    each draw, in the photos to be judged by as well.
    """
    photos, val_photos = camvid(folder, "train"), camvid(folder, "val")
    train, val = photos.encoded(), val_photos.encoded()
    whole = Pictures(torch.cat([train.latents, val.latents]), torch.cat([train.labels, val.labels]))
    most = len(train.labels)

    def some(learn: Pictures, count: int, number: int) -> Pictures:
        return learn.take(np.random.default_rng(100 * count + number).permutation(most)[:count])

    def official(count: int, number: int) -> tuple[Pictures, Pictures]:
        return some(train, count, number), val

    def of_split(count: int, number: int) -> tuple[Pictures, Pictures]:
        order = np.random.default_rng(number).permutation(len(whole.labels))
        return whole.take(order[:most][:count]), whole.take(order[most:])

    def lit(count: int, number: int) -> tuple[Pictures, Pictures]:
        light = np.random.default_rng(5000 + number)
        return some(photos.encoded(light), count, number), val_photos.encoded(light)

    return [
        Case("camvid", official, most, 1),
        Case("camvid, random splits", of_split, most, draws),
        Case("camvid, light changed", lit, most, draws),
    ]
