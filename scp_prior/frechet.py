"""Means and covariances of a stream, and the Frechet distance between two Gaussians; float64 throughout."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .errors import SCPError


class Gaussian(NamedTuple):
    """mean (..., D), covariance (..., D, D), float64; leading dimensions are as many Gaussians."""

    mean: Tensor
    covariance: Tensor

    def noised(self, variance: float | Tensor) -> Gaussian:
        """With independent noise of this variance, a number or one for each of the D, added."""
        added = torch.as_tensor(variance, dtype=torch.float64).expand(self.mean.shape[-1]).diag()
        return Gaussian(self.mean, self.covariance + added)


class RunningMoments:
    """Mean and covariance of vectors that come and go; its size does not depend on how many there were.

    A vector may itself be a Gaussian known by its mean and covariance: the result is then the moments of the mixture,
    as from infinitely many draws of each.

    Attributes:
        count: vectors added.
        mean: (..., D).
    """

    def __init__(self, *shape: int):
        """Of vectors of this shape: the last size is D, the others are as many streams side by side."""
        self.count = 0
        self.mean = torch.zeros(shape, dtype=torch.float64)
        # Deviations from the mean, and covariances of the vectors themselves, summed apart: only the first lose one
        # degree of freedom to the mean.
        self._scatter = torch.zeros(*shape, shape[-1], dtype=torch.float64)
        self._own = torch.zeros_like(self._scatter)

    def add(self, values: Tensor, covariance_sum: Tensor | None = None) -> None:
        """Add n vectors.

        Args:
            values: (n, ..., D).
            covariance_sum: (..., D, D), the sum of the covariances of these vectors about their values.

        Raises:
            SCPError: values of another shape.
        """
        if values.shape[1:] != self.mean.shape:
            raise SCPError(f"Expected vectors of shape {tuple(self.mean.shape)}, got {tuple(values.shape[1:])}.")
        if not len(values):
            return
        values = values.double()
        mean = values.mean(0)
        deviations = values - mean
        scatter = torch.einsum("n...i,n...j->...ij", deviations, deviations)
        self._join(len(values), mean, scatter, 0.0 if covariance_sum is None else covariance_sum.double())

    def merge(self, other: RunningMoments) -> None:
        """Add everything the other has seen."""
        if other.count:
            self._join(other.count, other.mean, other._scatter, other._own)

    def gaussian(self) -> Gaussian:
        """Mean and covariance so far, unbiased (n - 1).

        Raises:
            SCPError: fewer than two vectors were added.
        """
        if self.count < 2:
            raise SCPError(f"A covariance needs two pictures or more; there are {self.count}.")
        return Gaussian(self.mean, self._scatter / (self.count - 1) + self._own / self.count)

    def _join(self, count: int, mean: Tensor, scatter: Tensor, own: Tensor | float) -> None:
        # Chan, Golub, LeVeque 1983: about the means, so that nothing is lost where a mean is large.
        total = self.count + count
        apart = mean - self.mean
        self._scatter += scatter + apart[..., :, None] * apart[..., None, :] * (self.count * count / total)
        self._own += own
        self.mean = self.mean + apart * (count / total)
        self.count = total


def frechet_distance(a: Gaussian, b: Gaussian) -> Tensor:
    """|mu_a - mu_b|^2 + tr(A) + tr(B) - 2 tr((A^1/2 B A^1/2)^1/2), exact for singular covariances too.

    The last trace is the sum of the singular values of A^1/2 B^1/2: no root of a product that is not symmetric, nor of
    rounding errors.

    Returns:
        (...) float64, never negative; in squared units of the vectors.
    """
    apart = ((a.mean - b.mean) ** 2).sum(-1)
    traces = (a.covariance + b.covariance).diagonal(dim1=-2, dim2=-1).sum(-1)
    shared = torch.linalg.svdvals(_root(a.covariance) @ _root(b.covariance)).sum(-1)
    return apart + (traces - 2 * shared).clamp_min(0)


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0).sqrt()[..., None, :]) @ vectors.mT
