"""Statistics and a label map in, prior maps and prior latents out."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .batches import dealt_out
from .errors import SCPError
from .labels import checked_labels, to_latent_grid
from .methods import METHODS as _METHODS
from .methods import Options
from .noise import item_generator
from .pseudo_counts import MOST_PSEUDO_COUNT
from .scene import SceneMaps, scene_maps, scene_noise
from .sizes import latent_size_of
from .statistics import Statistics
from .table import PriorTable

METHODS: tuple[str, ...] = tuple(_METHODS)
# Tables kept per statistics object: an artist goes back and forth between two methods.
_KEPT_TABLES = 2
# Where a file does not say: photos' worth of the class, for means, and how many times that for variances. They won on
# held-out CamVid photos at every noise level.
_SHRINKAGE, _MORE_FOR_VARIANCE = 8.0, 8.0


class PriorMaps(NamedTuple):
    """What a prior says of every latent cell.

    mean, std: (B, C, h, w) float32 in LATENT units, std > 0 (0 for `normal`).
    origin: (B, h, w) uint8, where the cell's numbers came from: `methods.CELL`, CLASS, SPATIAL or NONE.
    scene: how the cells of one picture move together, or None where each is drawn by itself.
    count: (B, h, w) float32, how many photos showed the cell's class there (fractions on a resampled grid); 0 for
        methods that do not ask.
    """

    mean: Tensor
    std: Tensor
    origin: Tensor
    scene: SceneMaps | None = None
    count: Tensor | None = None


def prior_maps(
    statistics: Statistics,
    labels: Tensor,
    method: str = "joint",
    *,
    latent_size: tuple[int, int] | None = None,
    weight: float = 0.5,
    shrinkage: float | None = None,
    scene_variation: float = 1.0,
) -> PriorMaps:
    """Mean and spread of the prior for each label map.

    Args:
        statistics: of the label map's own data set.
        labels: (B, H, W) integers, class ids; at latent size (that of `latent_size`, or of the statistics) or at
            image size, which must then be a multiple of the VAE's factor unless `latent_size` is given.
        method: one of METHODS; `joint` is the default, `joint-spatial` and `joint-class` are the authors' two.
        latent_size: (h, w) of the result; statistics of another size are resampled.
        weight: for `mixture`, the weight of the spatial part, 0..1.
        shrinkage: for `joint`, how many photos' worth of its surroundings a cell's mean is mixed with (and 8 times as
            many for its variance); 0 = none. By default as the file says, which is what held-out photos asked for
            when it was made, or 8 for files that do not say.
        scene_variation: for `joint`, 1 = what a picture's cells share varies from picture to picture as measured,
            0 = every cell and channel is drawn by itself, as in the paper. No effect for files without scene effects.

    Returns:
        PriorMaps on the labels' device; `scene` stays on the CPU, where noise is drawn.

    Raises:
        SCPError: an unknown method, a size that cannot be, an option out of range, labels outside 0..65535, or
            statistics that lack what the method needs.

    Source: SCP-Diff section 3.3; the authors' `sample_spatial_prior`, `sample_class_prior`,
    `sample_spatial_class_prior`.
    """
    options = options_for(statistics, method, weight, shrinkage)
    if not 0 <= scene_variation <= 1:
        raise SCPError(f"scene_variation lies between 0 and 1; it is {scene_variation}.")
    grid = _grid(statistics, labels, latent_size)
    table = _table(statistics, method, tuple(grid.shape[-2:]), options)
    grid = grid.cpu()
    cells = table.cells_of(grid)

    b, h, w = grid.shape
    values = table.values.index_select(0, cells).view(b, h, w, -1)  # (B, h, w, 2 C)
    mean, std = values.permute(0, 3, 1, 2).contiguous().to(labels.device).chunk(2, dim=1)
    origin = table.origin.index_select(0, cells).view(b, h, w).to(labels.device)
    count = table.count.index_select(0, cells).view(b, h, w).to(labels.device)
    scene = scene_maps(statistics, table.rows_of(grid), scene_variation) if method == "joint" else None
    return PriorMaps(mean, std, origin, scene, count)


def sample_prior(maps: PriorMaps, seed: int, *, batch_index: Sequence[int] | None = None) -> Tensor:
    """One latent per map: mean + std * noise, the noise with scene effects where the maps have them.

    Each item has a generator of its own, made from the seed and its index, so that item 5 of a batch is the same
    picture when it is drawn alone. The seed is salted: the host draws its noise from the bare seed, and the two must
    be independent.

    Args:
        maps: B maps.
        seed: any integer, as ComfyUI's seed widget gives it.
        batch_index: index of each item in the batch it was taken from; by default 0..B-1.

    Returns:
        (B, C, h, w) float32 in LATENT units, on the maps' device.

    Raises:
        SCPError: batch_index is not as long as the batch.
    """
    batch, *shape = maps.mean.shape
    index = range(batch) if batch_index is None else [int(i) for i in batch_index]
    if len(index) != batch:
        raise SCPError(f"batch_index names {len(index)} items, but there are {batch} maps: they must be as many.")
    noise = torch.stack([torch.randn(shape, generator=item_generator(seed, i)) for i in index])
    if maps.scene is not None:
        noise = torch.stack([scene_noise(maps.scene, item, noise[item], seed, i) for item, i in enumerate(index)])
    return torch.addcmul(maps.mean, maps.std, noise.to(maps.mean.device))


def repeat_maps(maps: PriorMaps, batch_size: int) -> PriorMaps:
    """Maps for `batch_size` latents, item i using map i mod B: how the host spreads a batch of hints over latents.

    Raises:
        SCPError: batch_size is not a multiple of the number of maps.
    """
    count = len(maps.mean)
    if batch_size % count:
        lower = max(count, batch_size // count * count)
        raise SCPError(
            f"There are {count} label maps, so the batch size must be a multiple of {count}; it is {batch_size}. "
            f"Set batch_size to {lower} or {lower + count}."
        )
    if batch_size == count:
        return maps
    mean, std, origin = (dealt_out(part, batch_size) for part in maps[:3])
    scene = maps.scene and maps.scene._replace(slot=dealt_out(maps.scene.slot, batch_size))
    return PriorMaps(mean, std, origin, scene, None if maps.count is None else dealt_out(maps.count, batch_size))


def options_for(statistics: Statistics, method: str, weight: float = 0.5, shrinkage: float | None = None) -> Options:
    """The numbers a method works with.

    Raises:
        SCPError: there is no such method, or a number is out of range.
    """
    learned = statistics.shrinkage if shrinkage is None and statistics.has_target else None
    if learned:
        options = Options(weight, learned.mean, learned.variance, learned.inflation, held_out=True)
    else:
        mean = _SHRINKAGE if shrinkage is None else shrinkage
        options = Options(weight, mean, _MORE_FOR_VARIANCE * mean)
    _check_options(method, options)
    counts = (min(count, MOST_PSEUDO_COUNT) for count in (options.mean_pseudo_count, options.variance_pseudo_count))
    return options._replace(**dict(zip(("mean_pseudo_count", "variance_pseudo_count"), counts, strict=True)))


def _check_options(method: str, options: Options) -> None:
    if method not in _METHODS:
        close = difflib.get_close_matches(str(method), METHODS, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise SCPError(f"There is no prior method '{method}'. Choose one of: {', '.join(METHODS)}.{hint}")
    if not 0 <= options.weight <= 1:
        raise SCPError(f"weight is the share of the spatial part, between 0 and 1; it is {options.weight}.")
    if not (math.isfinite(options.mean_pseudo_count) and options.mean_pseudo_count >= 0):
        raise SCPError(f"shrinkage is a finite number of photos, 0 or more; it is {options.mean_pseudo_count}.")


def _grid(statistics: Statistics, labels: Tensor, latent_size: tuple[int, int] | None) -> Tensor:
    size = tuple(labels.shape[-2:])
    if latent_size is None:
        latent_size = size if size == statistics.latent_size else latent_size_of(size, statistics.downscale)
    return checked_labels(to_latent_grid(labels, latent_size, statistics.label_rule.grid))


def _table(statistics: Statistics, method: str, size: tuple[int, int], options: Options) -> PriorTable:
    tables = statistics.derived.setdefault("tables", {})
    key = (method, size, options)
    table = tables.pop(key, None) or PriorTable(statistics, method, size, options)
    tables[key] = table  # last in, so that the one unused longest is first out
    while len(tables) > _KEPT_TABLES:
        del tables[next(iter(tables))]
    return table
