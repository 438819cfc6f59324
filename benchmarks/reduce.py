"""Reducing statistics: ours against a restatement of the authors' three passes, both in one run.

    python benchmarks/reduce.py            # about three minutes
    python benchmarks/reduce.py --quick    # without the part that encodes with a VAE of the real size

Rounds of ours and theirs alternate. Milliseconds are of this machine; ratios hold.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import authors  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor  # noqa: E402

from scp_prior import Accumulator, Collector  # noqa: E402
from scp_prior.datasets import load_pair, open_dataset  # noqa: E402
from scp_prior.labels import to_latent_grid  # noqa: E402
from scp_prior.loader import Loading  # noqa: E402
from scp_prior.reduce import Plan, reduce  # noqa: E402

BATCH = 4


def label_maps(size: tuple[int, int], classes: int, per_map: int, count: int, seed: int = 0) -> list[Tensor]:
    """Label maps of blobs: `per_map` of `classes` ids in each, in patches of an eighth of the side."""
    g = torch.Generator().manual_seed(seed)
    maps = []
    for _ in range(count):
        ids = torch.randperm(classes, generator=g)[:per_map]
        coarse = ids[torch.randint(0, per_map, (1, 1, 24, 24), generator=g)]
        maps.append(torch.nn.functional.interpolate(coarse.float(), size=size, mode="nearest")[0, 0].to(torch.uint8))
    return maps


def without_encoding(size: tuple[int, int], classes: int, per_map: int, images: int) -> tuple[float, float]:
    """Milliseconds per image of ours and theirs, latents given."""
    grid = (size[0] // 8, size[1] // 8)
    labels = label_maps(size, classes, per_map, images)
    g = torch.Generator().manual_seed(1)
    # In batches, as an encoder gives them; the authors take their pictures one by one.
    batches = [torch.randn(BATCH, 4, *grid, generator=g) for _ in range(images // BATCH)]
    latents = [latent for batch in batches for latent in batch.split(1)]
    ours, theirs = [], []
    for _ in range(3):
        start = time.perf_counter()
        accumulator = Accumulator(4, grid)
        for i, batch in enumerate(batches):
            maps = [to_latent_grid(label[None], grid) for label in labels[i * BATCH : (i + 1) * BATCH]]
            accumulator.add(batch, torch.cat(maps))
        accumulator.statistics()
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        authors.reduce_all(range(images), latents.__getitem__, labels.__getitem__, grid)
        theirs.append(time.perf_counter() - start)
    return 1e3 * min(ours) / images, 1e3 * min(theirs) / images


def write_pairs(folder: Path, size: tuple[int, int], count: int, per_map: int = 12) -> None:
    """Photos and label maps of noise and blobs, as JPEG and PNG."""
    for name in ("photos", "maps"):
        (folder / name).mkdir()
    rng = np.random.default_rng(0)
    for i, label in enumerate(label_maps(size, 19, per_map, count)):
        small = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC).save(folder / "photos" / f"{i:04}.jpg")
        Image.fromarray(label.numpy()).save(folder / "maps" / f"{i:04}.png")


class Counted:
    """An encoder that counts photos and the time they take."""

    def __init__(self, encoder):
        self._encoder, self.photos, self.seconds = encoder, 0, 0.0
        self.channels, self.downscale, self.name = encoder.channels, encoder.downscale, encoder.name

    def encode(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        """As the encoder does."""
        start = time.perf_counter()
        encoded = self._encoder.encode(photos)
        self.seconds += time.perf_counter() - start
        self.photos += len(photos)
        return encoded


class Stub:
    """An encoder of a fixed speed, whose latents are the photo's own colours."""

    channels, downscale, name = 4, 8, "stub"

    def __init__(self, per_second: float = 0):
        self._pause = 1 / per_second if per_second else 0.0

    def encode(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        """Waits as an accelerator would make one wait."""
        time.sleep(self._pause * len(photos))
        mean = torch.nn.functional.avg_pool2d(photos, 8)
        mean = torch.cat([mean, mean[:, :1]], dim=1)
        return mean, torch.zeros_like(mean)


def real_size_encoder(folder: Path):
    """An encoder of Stable Diffusion's VAE's architecture and size, with random weights."""
    from diffusers import AutoencoderKL

    from scp_prior.vae import load_encoder

    torch.manual_seed(0)
    blocks = 4
    AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=2,
        latent_channels=4,
    ).save_pretrained(folder)
    return load_encoder(folder, device="cpu")


def end_to_end(images: int, size: tuple[int, int]) -> None:
    """Photos on disk to statistics, with a VAE of the real size."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder, size, images)
        dataset = open_dataset("folder", images=folder / "photos", labels=folder / "maps")
        encoder = real_size_encoder(folder / "vae")
        grid = (size[0] // 8, size[1] // 8)
        ours, theirs = Counted(encoder), Counted(encoder)
        start = time.perf_counter()
        reduce(dataset, ours, Plan(size, batch_size=1)).collected.statistics()
        mine = time.perf_counter() - start

        def encode(index: int) -> Tensor:
            return theirs.encode(load_pair(dataset, dataset.pairs[index], size).photo[None])[0]

        def read(index: int) -> Tensor:
            return load_pair(dataset, dataset.pairs[index], size).label.to(torch.uint8)

        start = time.perf_counter()
        authors.reduce_all(range(images), encode, read, grid)
        their = time.perf_counter() - start
    what = f"photos to statistics, {size[0]}x{size[1]}, SD-size VAE"
    line(what, 1e3 * mine / images, 1e3 * their / images, "10x")
    print(f"{'  VAE encodes per image':44s} {theirs.photos / images:9.1f}    {ours.photos / images:9.1f}")


def outside_the_encoder(images: int, size: tuple[int, int]) -> None:
    """Share of the time that is not the encoder's, at 50 photos a second."""
    with tempfile.TemporaryDirectory() as name:
        write_pairs(Path(name), size, images)
        dataset = open_dataset("folder", images=Path(name) / "photos", labels=Path(name) / "maps")
        for loading in (Loading(2), Loading(2, threads=True)):
            encoder, steps = Counted(Stub(50)), []
            # From the first batch on: starting workers is paid once, not per photo.
            reduce(
                dataset, encoder, Plan(size), loading=loading, report=lambda _, s=steps: s.append(time.perf_counter())
            )
            share = 1 - (encoder.seconds * (1 - 4 / images)) / (steps[-1] - steps[0])
            kind = "threads" if loading.threads else "processes"
            print(f"outside the encoder at 50 photos/s, 2 {kind:10s} {share:22.1%}{'':12s}   under 2%")


def better_prior(size: tuple[int, int], classes: int, images: int) -> None:
    """What learning the prior itself (folds, pictures, cross-validation, scene effects) adds to moments alone."""
    grid = (size[0] // 8, size[1] // 8)
    labels = torch.cat([to_latent_grid(label[None], grid) for label in label_maps(size, classes, 12, images)]).long()
    latents = torch.randn(images, 4, *grid, generator=torch.Generator().manual_seed(1))
    seconds = []
    for made in (Accumulator(4, grid), Collector(4, grid)):
        start = time.perf_counter()
        for i in range(0, images, BATCH):
            made.add(latents[i : i + BATCH], labels[i : i + BATCH])
        added = time.perf_counter()
        made.statistics()
        seconds.append((added - start, time.perf_counter() - added))
    (moments, _), (everything, fit) = seconds
    per_photo = 1e3 * (everything - moments) / images
    print(f"the prior itself, {size[0]}x{size[1]}, {classes:3d} classes: {per_photo:.2f} ms a photo, then {fit:.1f} s;")
    for photos, speed in ((images, 20), (3000, 20), (20000, 20)):
        share = (per_photo / 1e3 * photos + fit) / (photos / speed)
        print(f"    of encoding {photos:5d} photos at {speed} a second {share:24.1%}")


def growth() -> None:
    """Time per image over the number of images, and of classes in the data set."""
    grid, latent = (64, 128), torch.randn(1, 4, 64, 128)
    for images in (250, 500, 1000, 2000):
        print(f"  {images:5d} images, 20 classes: {per_image(grid, latent, 20, images):.3f} ms per image")
    for classes in (12, 20, 60, 150):
        print(f"   1000 images, {classes:3d} classes: {per_image(grid, latent, classes, 1000):.3f} ms per image")


def per_image(grid: tuple[int, int], latent: Tensor, classes: int, images: int) -> float:
    """Milliseconds per image, 12 classes in each of them."""
    labels = [label[None].long() for label in label_maps(grid, classes, 12, 50)]
    accumulator = Accumulator(4, grid)
    for label in labels:
        accumulator.add(latent, label)
    start = time.perf_counter()
    for i in range(images):
        accumulator.add(latent, labels[i % len(labels)])
    return 1e3 * (time.perf_counter() - start) / images


def line(what: str, ours: float, theirs: float, goal: str) -> None:
    """One line of the table."""
    print(f"{what:44s} {theirs:9.2f} ms {ours:9.2f} ms {theirs / ours:7.1f}x   {goal}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    print(f"{'per image':44s} {'authors':>12s} {'ours':>12s} {'ratio':>8s}   goal")
    line("statistics, 512x1024, 20 classes", *without_encoding((512, 1024), 20, 12, 480), "6x")
    line("statistics, 512x512, 150 classes", *without_encoding((512, 512), 150, 12, 480), "3x")
    torch.set_num_threads(torch.get_num_interop_threads())
    if not quick:
        end_to_end(3, (128, 128))
    outside_the_encoder(300, (512, 512))
    torch.set_num_threads(1)
    better_prior((512, 1024), 20, 480)
    better_prior((512, 512), 150, 480)
    print("growth")
    growth()


if __name__ == "__main__":
    main()
