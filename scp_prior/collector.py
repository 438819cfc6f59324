"""What a reduction collects in its one pass: moments in folds, and notes of single pictures.

Folds are there so that the prior's own settings can be chosen by cross-validation without a second look at the photos;
which fold a picture belongs to follows from its latent, so that order, batches and processes do not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .errors import SCPError
from .moments import Accumulator
from .pictures import FOLDS, Pictures, digest

if TYPE_CHECKING:
    from .statistics import Statistics

_PICTURES = "pictures."


class Collector:
    """An `Accumulator` that also learns what the `joint` prior needs: how far to believe each cell, and scene effects.

    Attributes:
        channels: latent channels C.
        latent_size: (h, w) of the grid.
        folds: the moments of each fold of pictures.
        pictures: notes of single pictures.
    """

    def __init__(self, channels: int, latent_size: tuple[int, int]):
        """A collector that has seen nothing.

        Raises:
            SCPError: a size is not positive.
        """
        self.folds = [Accumulator(channels, latent_size) for _ in range(FOLDS)]
        self.channels, self.latent_size = self.folds[0].channels, self.folds[0].latent_size
        self.pictures = Pictures(self.channels)

    @property
    def images(self) -> int:
        """Pictures added, merged ones included."""
        return sum(fold.images for fold in self.folds)

    @property
    def class_ids(self) -> list[int]:
        """Ids of the classes met so far, ascending."""
        return sorted(set().union(*(fold.class_ids for fold in self.folds)))

    def add(self, latents: Tensor, labels: Tensor, variance: Tensor | None = None) -> None:
        """Count pictures in: all of the batch or, where an error is raised, none of it. See `Accumulator.add`."""
        self.folds[0].check(latents, labels, variance)
        cells = self.latent_size[0] * self.latent_size[1]
        flat = (
            latents.detach()
            .to("cpu", torch.promote_types(latents.dtype, torch.float32))
            .reshape(len(latents), self.channels, cells)
        )
        ids = labels.detach().cpu().reshape(len(labels), cells).numpy()
        for item, latent in enumerate(flat.numpy()):
            one = slice(item, item + 1)
            self.folds[digest(latent) % FOLDS].add(
                latents[one], labels[one], None if variance is None else variance[one]
            )
            self.pictures.add(latent, ids[item])

    def merge(self, other: Collector) -> None:
        """Add everything another collector has seen; it keeps what it has.

        Raises:
            SCPError: the other has another number of channels or another grid.
        """
        for ours, theirs in zip(self.folds, other.folds, strict=True):
            ours.merge(theirs)
        self.pictures.merge(other.pictures)

    def moments(self) -> Accumulator:
        """The moments of all folds together."""
        whole = Accumulator(self.channels, self.latent_size)
        for fold in self.folds:
            whole.merge(fold)
        return whole

    def statistics(self, **metadata: str) -> Statistics:
        """Everything a statistics file holds: moments, the target cells are drawn toward, scene effects.

        Args:
            metadata: strings for the file; `images` is filled in.

        Raises:
            SCPError: nothing was added.
        """
        from .fit import fit_prior

        return fit_prior(self.folds, self.pictures, self.moments().statistics(**metadata))

    def state(self) -> dict[str, Tensor]:
        """A copy of everything, from which `from_state` makes an equal collector, to the last bit."""
        parts = {
            f"{fold}.{key}": tensor
            for fold, accumulator in enumerate(self.folds)
            for key, tensor in accumulator.state().items()
        }
        return parts | {f"{_PICTURES}{key}": tensor for key, tensor in self.pictures.state().items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Collector:
        """The collector whose `state` this is.

        Raises:
            SCPError: a part is missing, or parts do not belong together.
        """
        folds = [Accumulator.from_state(_under(f"{fold}.", state)) for fold in range(FOLDS)]
        first = folds[0]
        if any((fold.channels, fold.latent_size) != (first.channels, first.latent_size) for fold in folds):
            raise SCPError("The checkpoint's folds are of different sizes. Start again without it.")
        cells = first.latent_size[0] * first.latent_size[1]
        return cls.of(folds, Pictures.from_state(_under(_PICTURES, state), first.channels, cells))

    @classmethod
    def of(cls, folds: list[Accumulator], pictures: Pictures) -> Collector:
        """A collector that has these parts."""
        made = cls.__new__(cls)
        made.channels, made.latent_size = folds[0].channels, folds[0].latent_size
        made.folds, made.pictures = folds, pictures
        return made


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
