"""Statistics and pictures they have not seen in, how well each prior describes those out: one pass, constant memory.

Everything is measured on latents times the model's own scale, where the sampler's sigma is measured too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from .errors import SCPError
from .evaluation import Evaluation, NoiseLevel
from .evaluation_sums import Real, Row, Variant, grid_name
from .held_out import HeldOut
from .labels import to_latent_grid
from .methods import METHODS
from .pooling import usable_grids
from .prior import PriorMaps, prior_maps
from .schedule import ddpm_sigmas, sigma_of_timestep
from .statistics import Statistics

SIGMAS = (0.0, 0.3, 1.0, 2.0, 5.13)
"""Default noise levels; 5.13 is Stable Diffusion's at timestep 801, where 17 of 20 DDIM steps start."""

_STABLE_DIFFUSION = {4: 0.18215}


@dataclass(frozen=True)
class Asked:
    """What is to be measured.

    Attributes:
        methods: names of METHODS; None for all the file can serve, but `normal`, which has no spread to judge.
        sigmas: noise levels, on latents times `latent_scale`.
        timesteps: of Stable Diffusion's training schedule, 0..999; each is one more noise level.
        latent_scale: the model's own scale; None for 0.18215 where latents have 4 channels.
    """

    methods: tuple[str, ...] | None = None
    sigmas: tuple[float, ...] = SIGMAS
    timesteps: tuple[int, ...] = ()
    latent_scale: float | None = None

    def noise(self) -> tuple[NoiseLevel, ...]:
        """Every noise level, sigmas first.

        Raises:
            SCPError: a sigma is negative or not finite, or a timestep outside 0..999.
        """
        if not all(math.isfinite(sigma) and sigma >= 0 for sigma in self.sigmas):
            raise SCPError(f"A sigma is finite and not negative; asked for: {', '.join(map(str, self.sigmas))}.")
        table = ddpm_sigmas()
        return (
            *(NoiseLevel(float(sigma)) for sigma in self.sigmas),
            *(NoiseLevel(sigma_of_timestep(table, timestep), timestep) for timestep in self.timesteps),
        )


def evaluate(
    statistics: Statistics,
    pictures: Iterable[HeldOut],
    asked: Asked | None = None,
    *,
    dataset: str = "",
    notes: Sequence[str] = (),
    report: Callable[[int], None] | None = None,
) -> Evaluation:
    """Judge the priors of a statistics file by pictures it has not seen.

    Args:
        pictures: batches, all of one size; each is forgotten once it is counted in.
        dataset: what to call them.
        notes: for whoever reads the result.
        report: called after each batch with the number of pictures so far.

    Raises:
        SCPError: nothing was held out, latents of another VAE or of several sizes, NaN in a latent, a method the file
            cannot serve, or a scale that has to be given.
    """
    asked = asked or Asked()
    noise, scale = asked.noise(), _scale(statistics, asked)
    chosen = _chosen(statistics, asked)
    real: Real | None = None
    rows: list[Row] = []
    count = 0
    for batch in pictures:
        if not len(batch.latents):
            continue
        _check(statistics, batch, real)
        size = (batch.latents.shape[-2], batch.latents.shape[-1])
        if real is None:
            real = Real.of(statistics.channels, size)
        labels = to_latent_grid(batch.labels.cpu(), size, statistics.label_rule.grid)
        values = batch.latents.cpu().double() * scale
        real.add(values, labels)
        variants = [
            (variant, maps) for method in chosen for variant, maps in _variants(statistics, labels, method, size, scale)
        ]
        rows = rows or [Row(variant, real, noise) for variant, _ in variants]
        for row, (_, maps) in zip(rows, variants, strict=True):
            row.add(values, labels, maps)
        count += len(values)
        if report:
            report(count)
    if real is None:
        raise SCPError("There is no picture to judge the priors by. Check the data set and its split.")
    known = set(statistics.class_ids.tolist())
    replaced = dict(statistics.label_rule.replace)
    used, left_out = usable_grids(statistics.channels, real.size, count)
    return Evaluation(
        statistics=statistics.name,
        dataset=dataset,
        pictures=count,
        cells=count * real.size[0] * real.size[1],
        latent_size=real.size,
        channels=statistics.channels,
        latent_scale=scale,
        noise=noise,
        left_out=tuple(map(grid_name, left_out)),
        unknown={k: n / sum(real.cells.values()) for k, n in real.cells.items() if replaced.get(k, k) not in known},
        notes=tuple(notes),
        methods=tuple(row.result(statistics, used) for row in rows),
    )


def _scale(statistics: Statistics, asked: Asked) -> float:
    if asked.latent_scale is not None:
        if not (math.isfinite(asked.latent_scale) and asked.latent_scale > 0):
            raise SCPError(f"The latent scale is a positive number; it is {asked.latent_scale}.")
        return asked.latent_scale
    if statistics.channels not in _STABLE_DIFFUSION:
        raise SCPError(
            f"{statistics.name} holds latents of {statistics.channels} channels, of which there are several models: "
            "give --latent-scale, the model's own (Flux 0.3611, SD3 1.5305; SD 1 and 2 0.18215, SDXL 0.13025)."
        )
    return _STABLE_DIFFUSION[statistics.channels]


def _chosen(statistics: Statistics, asked: Asked) -> list[str]:
    if asked.methods is not None:
        if "normal" in asked.methods:
            raise SCPError("The method 'normal' is no prior: it has no spread, and so no likelihood.")
        return list(dict.fromkeys(asked.methods))
    here = {"joint": statistics.has_joint, "class": statistics.has_categorical, "spatial": statistics.has_spatial}
    return [name for name, method in METHODS.items() if method.needs and all(here[part] for part in method.needs)]


def _check(statistics: Statistics, batch: HeldOut, real: Real | None) -> None:
    channels, *size = batch.latents.shape[1:]
    if channels != statistics.channels:
        raise SCPError(
            f"The latents have {channels} channels, those of {statistics.name} {statistics.channels}: they are of "
            "another VAE. Use the VAE the statistics were made with."
        )
    if real is not None and tuple(size) != real.size:
        raise SCPError(
            f"A latent of {size[1]}x{size[0]} cells came after one of {real.size[1]}x{real.size[0]}. One evaluation "
            "takes pictures of one size."
        )
    if not bool(batch.latents.isfinite().all()):
        raise SCPError("A latent holds NaN or infinite values. Encode in float32 or bf16 rather than fp16.")


def _variants(
    statistics: Statistics, labels: Tensor, method: str, size: tuple[int, int], scale: float
) -> list[tuple[Variant, PriorMaps]]:
    """Maps of a method in the units of the measurement; with independent cells first, where there is a choice."""
    maps = prior_maps(statistics, labels, method, latent_size=size)
    maps = maps._replace(mean=maps.mean.double() * scale, std=maps.std.double() * scale)
    if maps.scene is None:
        return [(Variant(method, None), maps)]
    return [(Variant(method, 0.0), maps._replace(scene=None)), (Variant(method, 1.0), maps)]
