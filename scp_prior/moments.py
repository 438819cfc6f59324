"""One pass over a data set's latents: counts, sums and sums of squares per class and cell, in constant memory.

Everything a statistics file holds is a marginal of these sums, so each photo is encoded once and its latent forgotten.
Sums are float64: in float32 the difference of a sum of squares and a squared sum would be off by several per cent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .errors import SCPError
from .statistics import MAX_CLASS_ID, Statistics

_RESERVED_BYTES = 256 << 20
_FEWEST_SLOTS, _MOST_SLOTS = 16, 256
_CACHE_LINE = 64
_STATE_KEYS = ("class_ids", "images", "count", "sums", "products")


class Accumulator:
    """Running moments of latents per class and cell; classes appear as they are met.

    Any id within 0..65535 is a class like any other, 255 included. Sums do not depend on the batches pictures came in,
    and depend on the order of pictures only by float64 rounding.

    Attributes:
        channels: latent channels C.
        latent_size: (h, w) of the grid.
        images: pictures added, merged ones included.
    """

    def __init__(self, channels: int, latent_size: tuple[int, int]):
        """An accumulator that has seen nothing.

        Raises:
            SCPError: a size is not positive.
        """
        if len(latent_size) != 2 or min(channels, *latent_size) < 1:
            raise SCPError(f"Expected at least one latent channel and cell, got {channels} channels, {latent_size}.")
        self.channels = int(channels)
        self.latent_size = (int(latent_size[0]), int(latent_size[1]))
        self.images = 0
        self._cells = self.latent_size[0] * self.latent_size[1]
        self._pairs = channel_pairs(self.channels)
        self._ids: list[int] = []
        self._slot_of = np.full(MAX_CLASS_ID + 1, -1, dtype=np.int32)
        self._work = _Work.of(self.channels, self._cells)
        # Reserved is not paid for: zeros become memory where they are written. Growing later would mean copying.
        block = 8 * 2 * self.channels * self._cells
        self._reserve(min(max(_RESERVED_BYTES // block, _FEWEST_SLOTS), _MOST_SLOTS))

    @property
    def class_ids(self) -> list[int]:
        """Ids of the classes met so far, ascending."""
        return sorted(self._ids)

    def add(self, latents: Tensor, labels: Tensor, variance: Tensor | None = None) -> None:
        """Count pictures in: all of the batch, or, where an error is raised, none of it.

        Args:
            latents: (B, C, h, w) floats in LATENT units; of a posterior, its mean.
            labels: (B, h, w) integer class ids on the latent grid.
            variance: (B, C, h, w) variance of the posterior; the moments are then those of its draws, taken exactly:
                E[z^2] = mean^2 + variance, and no covariance between channels beyond that of the means.

        Raises:
            SCPError: shapes or dtypes are others, a latent or a variance is not finite, a variance is negative, or a
                class id lies outside 0..65535. The message names the batch item.
        """
        values = self._as_values("latents", latents)
        spreads = None if variance is None else self._as_variance(variance, len(values))
        for picture, slots in enumerate(self._slots(labels, len(values))):
            self._add_picture(values[picture], slots, None if spreads is None else spreads[picture])
        self.images += len(values)

    def merge(self, other: Accumulator) -> None:
        """Add everything another accumulator has seen; it keeps what it has.

        Raises:
            SCPError: the other has another number of channels or another grid.
        """
        if (other.channels, other.latent_size) != (self.channels, self.latent_size):
            raise SCPError(
                f"Cannot merge latents of {_grid(other)} into {_grid(self)}: they need the same size and VAE."
            )
        theirs = [other._slot_of[class_id] for class_id in other.class_ids]
        ours = self._slots_for(other.class_ids)
        for to, source in zip(ours, theirs, strict=True):
            self._count[to] += other._count[source]
            self._sums[to] += other._sums[source]
            self._products[to] += other._products[source]
        self.images += other.images

    def statistics(self, **metadata: str) -> Statistics:
        """Moments of everything seen so far: joint, class (with covariance) and spatial.

        Moments are those of the population: what was seen once has a std of 0, a cell that saw nothing mean and std 0.
        Spatial moments are over all classes, unlabelled included.

        Args:
            metadata: strings for the file; `images` is filled in.

        Raises:
            SCPError: nothing was added.
        """
        if not self.images:
            raise SCPError("No image has been added, so there are no statistics. Check the data set and its split.")
        per_class = [self._class_tensors(int(self._slot_of[class_id])) for class_id in self.class_ids]
        tensors = {key: torch.stack([part[key] for part in per_class]) for key in per_class[0]}
        tensors["class_ids"] = torch.tensor(self.class_ids, dtype=torch.int64)
        tensors["spatial.mean"], tensors["spatial.std"] = self._spatial()
        return Statistics.from_tensors(tensors, {**metadata, "images": str(self.images)})

    def cell_sums(self, class_id: int) -> tuple[np.ndarray, np.ndarray]:
        """One class's count (h, w) and sums and sums of squares (2C, h, w) float64; zeros where it was never met."""
        slot = self._slot_of[class_id]
        if slot < 0:
            return np.zeros(self.latent_size, dtype=np.int32), np.zeros((2 * self.channels, *self.latent_size))
        sums = np.ascontiguousarray(self._sums[slot].T).reshape(-1, *self.latent_size)
        return self._count[slot].reshape(self.latent_size), sums

    def channel_products(self, class_id: int) -> np.ndarray:
        """(C, C) float64: sum over one class's cells of z z^T.

        Raises:
            SCPError: the class was never met.
        """
        slot = self._slot_of[class_id]
        if slot < 0:
            raise SCPError(f"Class {class_id} was never met.")
        return _second_moments(self._sums[slot].sum(axis=0), self._products[slot], self._pairs)

    def check(self, latents: Tensor, labels: Tensor, variance: Tensor | None = None) -> None:
        """Raise what `add` would raise, and add nothing; classes met here get a place among the sums, of zeros."""
        values = self._as_values("latents", latents)
        if variance is not None:
            self._as_variance(variance, len(values))
        self._slots(labels, len(values))

    def state(self) -> dict[str, Tensor]:
        """A copy of the sums, from which `from_state` makes an equal accumulator, to the last bit.

        Returns:
            class_ids (K,) int64 ascending, images (1,) int64, count (K, h, w) int32, sums (K, h, w, 2C) float64 (sums,
            then sums of squares), products (K, C (C - 1) / 2) float64 (sums of products of two channels).
        """
        slots = self._slot_of[self.class_ids]
        shape = (len(slots), *self.latent_size)
        return {
            "class_ids": torch.tensor(self.class_ids, dtype=torch.int64),
            "images": torch.tensor([self.images], dtype=torch.int64),
            "count": torch.from_numpy(self._count[slots].reshape(shape)),
            "sums": torch.from_numpy(self._sums[slots].reshape(*shape, 2 * self.channels)),
            "products": torch.from_numpy(self._products[slots]),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Accumulator:
        """The accumulator whose `state` this is.

        Raises:
            SCPError: a part is missing, or shapes, dtypes or values do not belong together.
        """
        _check_state(state)
        sums = state["sums"]
        made = cls(sums.shape[3] // 2, (sums.shape[1], sums.shape[2]))
        slots = made._slots_for(state["class_ids"].tolist())
        made._count[slots] = state["count"].flatten(1).numpy()
        made._sums[slots] = sums.flatten(1, 2).numpy()
        made._products[slots] = state["products"].numpy()
        made.images = int(state["images"])
        return made

    def _add_picture(self, latent: np.ndarray, slots: np.ndarray, variance: np.ndarray | None) -> None:
        """Add one picture: latent (C, h w), class slot of each cell (h w,), variance as latent or None.

        Cells are brought into the order of their classes, so that class `present[i]` has the columns `starts[i]` up to
        `starts[i + 1]` of `values`.
        """
        values, channels = self._work.values, self.channels
        # Slots are sixteen bits wide because numpy sorts those by radix, in a third of the time.
        order = np.argsort(slots, kind="stable")
        slots = slots.take(order)
        starts = np.concatenate(([0], np.flatnonzero(slots[1:] != slots[:-1]) + 1))
        present = slots.take(starts)
        values[:channels] = latent.take(order, axis=1)
        np.multiply(values[:channels], values[:channels], out=values[channels:])
        if variance is not None:
            values[channels:] += variance.take(order, axis=1)
        self._add_rows(slots.astype(np.intp) * self._cells + order)
        self._products[present] += self._channel_products(starts)

    def _add_rows(self, rows: np.ndarray) -> None:
        """Add the columns of `values` to these rows of the table, each of them another one."""
        work = self._work
        np.copyto(work.added, work.values.T)
        # Whole rows are moved as single items, and within one picture none comes twice: three times as fast as
        # `index_add_` and `np.add.at`, which must allow for repeats. "clip" spares numpy a copy against bad indices.
        np.take(self._rows, rows, out=work.held_rows, mode="clip")
        np.add(work.held, work.added, out=work.held)
        np.put(self._rows, rows, work.held_rows, mode="clip")
        self._count.reshape(-1)[rows] += 1

    def _channel_products(self, starts: np.ndarray) -> np.ndarray:
        """Sums of products of two channels, (classes present, pairs), in the order of `channel_pairs`."""
        # Not a matrix product: BLAS may split the sum over threads, and a resumed run could differ in the last bit.
        sums, row = np.empty((len(self._pairs), len(starts))), 0
        for lag in range(1, self.channels):
            products, rows = self._work.products[lag:], slice(row, row := row + self.channels - lag)
            np.multiply(self._work.values[: self.channels - lag], self._work.values[lag : self.channels], out=products)
            np.add.reduceat(products, starts, axis=1, out=sums[rows])
        return sums.T

    def _slots(self, labels: Tensor, batch: int) -> np.ndarray:
        """Class slot of each cell, (B, h w) uint16; classes not met before get one."""
        if labels.shape != (batch, *self.latent_size):
            raise SCPError(
                f"Expected label maps of shape {(batch, *self.latent_size)}, one cell per latent cell, "
                f"got {tuple(labels.shape)}. Bring them to the latent grid first."
            )
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise SCPError(f"Expected label maps of whole numbers (int64), got {labels.dtype}.")
        ids = labels.detach().cpu().reshape(batch, self._cells).to(torch.int64).numpy()
        if not ids.size:
            return np.empty(ids.shape, dtype=np.uint16)
        if ids.min() < 0 or ids.max() > MAX_CLASS_ID:
            item = int(np.flatnonzero(((ids < 0) | (ids > MAX_CLASS_ID)).any(axis=1))[0])
            raise SCPError(
                f"Label map {item} of the batch holds ids from {ids[item].min()} to {ids[item].max()}; "
                f"class ids lie within 0..{MAX_CLASS_ID}."
            )
        slots = self._slot_of.take(ids)
        if slots.min() < 0:
            self._slots_for(np.unique(ids).tolist())
            slots = self._slot_of.take(ids)
        return slots.astype(np.uint16)

    def _slots_for(self, ids: list[int]) -> list[int]:
        """Slots of these classes, in their order; new ones are made."""
        new = [class_id for class_id in ids if self._slot_of[class_id] < 0]
        needed = len(self._ids) + len(new)
        if needed > len(self._count):
            # Doubling: however many classes come one by one, each sum is copied about once.
            self._reserve(max(needed, 2 * len(self._count)))
        self._slot_of[new] = np.arange(len(self._ids), needed)
        self._ids += new
        return self._slot_of[ids].tolist()

    def _reserve(self, capacity: int) -> None:
        old = (self._count, self._sums, self._products) if self._ids else ()
        self._count = np.zeros((capacity, self._cells), dtype=np.int32)
        self._sums = _aligned_zeros(capacity, self._cells, 2 * self.channels)
        self._products = np.zeros((capacity, len(self._pairs)))
        for new, kept in zip((self._count, self._sums, self._products), old, strict=False):
            new[: len(self._ids)] = kept[: len(self._ids)]
        self._rows = _as_items(self._sums)

    def _as_values(self, name: str, tensor: Tensor, batch: int | None = None) -> np.ndarray:
        """(B, C, h w) float32 or float64, finite."""
        if (
            tensor.ndim != 4
            or tensor.shape[1:] != (self.channels, *self.latent_size)
            or batch not in (None, len(tensor))
        ):
            wanted = ("B" if batch is None else batch, self.channels, *self.latent_size)
            raise SCPError(f"Expected {name} of shape {wanted}, got {tuple(tensor.shape)}.".replace("'", ""))
        if not tensor.is_floating_point():
            raise SCPError(f"Expected {name} of floats, got {tensor.dtype}.")
        kind = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        values = tensor.detach().to("cpu", kind).reshape(len(tensor), self.channels, self._cells).numpy()
        if not np.isfinite(values).all():
            item = int(np.flatnonzero(~np.isfinite(values).all(axis=(1, 2)))[0])
            raise SCPError(
                f"Item {item} of the batch has NaN or infinite {name}: it would spoil every class. Nothing of the "
                "batch was counted. Encode in float32 or bf16 rather than fp16, or leave that picture out."
            )
        return values

    def _as_variance(self, variance: Tensor, batch: int) -> np.ndarray:
        values = self._as_values("variance", variance, batch)
        if (values < 0).any():
            item = int(np.flatnonzero((values < 0).any(axis=(1, 2)))[0])
            raise SCPError(
                f"Item {item} of the batch has a negative variance; expected the variance, not its logarithm."
            )
        return values

    def _class_tensors(self, slot: int) -> dict[str, Tensor]:
        """joint.* (h, w) or (C, h, w) and class.* (C,) or (C, C) of one class, in the dtypes of the file."""
        count, sums = self._count[slot], self._sums[slot]
        cell_mean, cell_std = _moments(count[:, None], sums)
        total, summed = count.sum(dtype=np.int64), sums.sum(axis=0)
        mean, std = _moments(total, summed)
        covariance = _covariance(total, summed, self._products[slot], self._pairs)
        return {
            "joint.count": torch.from_numpy(count.reshape(self.latent_size)),
            "joint.mean": self._grid_of(cell_mean),
            "joint.std": self._grid_of(cell_std),
            "class.count": torch.tensor(int(total)),
            "class.mean": torch.from_numpy(mean.astype(np.float32)),
            "class.std": torch.from_numpy(std.astype(np.float32)),
            "class.covariance": torch.from_numpy(covariance.astype(np.float32)),
        }

    def _spatial(self) -> tuple[Tensor, Tensor]:
        # Class by class in the order of ids, never the order of arrival: a resumed run must round alike.
        count, sums = np.zeros(self._cells, dtype=np.int64), np.zeros_like(self._sums[0])
        for slot in self._slot_of[self.class_ids]:
            count += self._count[slot]
            sums += self._sums[slot]
        mean, std = _moments(count[:, None], sums)
        return self._grid_of(mean), self._grid_of(std)

    def _grid_of(self, rows: np.ndarray) -> Tensor:
        """(h w, C) -> (C, h, w) float32."""
        return torch.from_numpy(rows.T.astype(np.float32, order="C").reshape(self.channels, *self.latent_size))


class _Work(NamedTuple):
    """Arrays used anew for every picture: allocated each time, their pages would cost as much as the sums."""

    values: np.ndarray
    """(2C, h w) float64: latent and its square, cells in the order of their classes."""
    products: np.ndarray
    """(C, h w) float64: products of two channels."""
    added: np.ndarray
    """(h w, 2C) float64: `values`, a row per cell as the table has them."""
    held: np.ndarray
    """(h w, 2C) float64: the table's rows while they are added to."""
    held_rows: np.ndarray
    """(h w,): `held`, each row one item."""

    @classmethod
    def of(cls, channels: int, cells: int) -> _Work:
        held = _aligned_zeros(cells, 2 * channels)
        shapes = (2 * channels, cells), (channels, cells), (cells, 2 * channels)
        return cls(*(np.empty(shape) for shape in shapes), held, _as_items(held))


def _aligned_zeros(*shape: int) -> np.ndarray:
    """Zeros that start on a cache line: four channels' sums and squares are then one line, not parts of two."""
    size = 8 * int(np.prod(shape))
    space = np.zeros(size + _CACHE_LINE, dtype=np.uint8)
    start = -space.ctypes.data % _CACHE_LINE
    return space[start : start + size].view(np.float64).reshape(shape)


def _as_items(table: np.ndarray) -> np.ndarray:
    """The rows of a contiguous table as single opaque items, in one dimension."""
    return table.reshape(-1).view(np.dtype((np.void, table.itemsize * table.shape[-1])))


def channel_pairs(channels: int) -> list[tuple[int, int]]:
    """Pairs of different channels, by their distance: (0, 1), (1, 2), ..., (0, 2), ..."""
    return [(first, first + lag) for lag in range(1, channels) for first in range(channels - lag)]


def _moments(count: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Population mean and std, (..., C), of (..., 2C) sums and sums of squares; 0 where count is 0."""
    channels = sums.shape[-1] // 2
    share = 1 / np.maximum(count, 1)
    mean = sums[..., :channels] / np.maximum(count, 1)
    # Of one float32 value, the square and the squared sum are the same number, so its std is exactly 0.
    spread = sums[..., :channels] * mean
    np.subtract(sums[..., channels:], spread, out=spread)
    np.maximum(spread, 0, out=spread)
    spread *= share
    return mean, np.sqrt(spread, out=spread)


def _covariance(count: int, sums: np.ndarray, products: np.ndarray, pairs: list[tuple[int, int]]) -> np.ndarray:
    """Population covariance (C, C) of one class; positive semidefinite."""
    channels = len(sums) // 2
    second = _second_moments(sums, products, pairs)
    covariance = (second - np.outer(sums[:channels], sums[:channels]) / count) / count
    values, vectors = np.linalg.eigh(covariance)
    # Rounding may leave a direction without spread at -1e-17.
    return covariance if values[0] >= 0 else (vectors * np.maximum(values, 0)) @ vectors.T


def _second_moments(sums: np.ndarray, products: np.ndarray, pairs: list[tuple[int, int]]) -> np.ndarray:
    """(C, C) sums of z z^T, of (2C,) sums and sums of squares and the products of pairs."""
    second = np.diag(sums[len(sums) // 2 :])
    for (first, other), product in zip(pairs, products, strict=True):
        second[first, other] = second[other, first] = product
    return second


def _grid(accumulator: Accumulator) -> str:
    height, width = accumulator.latent_size
    return f"{accumulator.channels} channels, {width}x{height} cells"


def _check_state(state: Mapping[str, Tensor]) -> None:
    missing = [key for key in _STATE_KEYS if key not in state]
    if missing:
        raise SCPError(f"The checkpoint holds no {', '.join(missing)}: it is of another kind, or incomplete.")
    ids, images, count, sums, products = (state[key] for key in _STATE_KEYS)
    channels = sums.shape[-1] // 2 if sums.ndim else 0
    shapes = {
        "images": (images.shape, (1,)),
        "class_ids": (ids.shape, (len(count) if count.ndim else 0,)),
        "sums": (sums.shape, (*count.shape, 2 * channels)),
        "products": (products.shape, (*count.shape[:1], channels * (channels - 1) // 2)),
    }
    wrong = [f"{key} has shape {tuple(found)}" for key, (found, wanted) in shapes.items() if tuple(found) != wanted]
    if count.ndim != 3:
        wrong.append(f"count has shape {tuple(count.shape)}")
    dtypes = [part.dtype for part in (ids, images, count, sums, products)]
    if dtypes != [torch.int64, torch.int64, torch.int32, torch.float64, torch.float64]:
        wrong.append(f"its dtypes are {', '.join(map(str, dtypes))}")
    if not wrong and len(ids) and (ids[0] < 0 or ids[-1] > MAX_CLASS_ID or (ids[1:] <= ids[:-1]).any()):
        wrong.append("its class ids are not ascending")
    if not wrong and not all(bool(part.isfinite().all()) for part in (sums, products)):
        wrong.append("it holds a sum that is not a finite number")
    if not wrong and (bool((count < 0).any()) or int(images) < 0):
        wrong.append("it holds a negative count")
    if wrong:
        raise SCPError(f"The checkpoint does not fit together: {'; '.join(wrong)}. Start again without it.")
