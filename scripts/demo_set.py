"""The demonstration set: street scenes drawn by rule, the segmentation image, and statistics reduced from such scenes.

Everything here is made on the spot from random numbers; no picture of any data set is in it. Four steps, apart from
each other so that one may be replaced: `draw_scene` (label map and colour picture), `encode` (picture to latent),
`accumulate` (latents and label maps to statistics), and `prepare`, which writes whatever files a prompt asks for.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from layout import BASE, ROOT, HarnessError, replacing
from PIL import Image
from torch import Tensor

if str(ROOT) not in sys.path:
    # For the library only: no process that imports this module may also import the host.
    sys.path.insert(0, str(ROOT))

import demo_inputs
import demo_model
import tiny_models

from scp_prior import Statistics, save_statistics
from scp_prior.classes import ClassTable, palette, palettes, table
from scp_prior.labels import hint_from_labels

HEIGHT, WIDTH, CELL = 192, 384, 8  # a size that two CPU cores sample in half a minute
SCENES = 200
DEFAULT_PALETTE = {"cityscapes": "cityscapes", "ade20k": "ade20k", "coco-stuff": "coco-stuff"}

# What a scene is made of: colour (0..1), how much it varies from object to object, and its name in each data set.
_LOOKS: dict[str, tuple[tuple[float, float, float], float, tuple[str | None, str | None]]] = {
    "road": ((0.36, 0.36, 0.38), 0.05, ("road", "road")),
    "sidewalk": ((0.58, 0.54, 0.50), 0.06, ("sidewalk", "pavement")),
    "building": ((0.56, 0.42, 0.34), 0.13, ("building", "building-other")),
    "pole": ((0.24, 0.25, 0.27), 0.03, ("pole", None)),
    "traffic light": ((0.62, 0.46, 0.10), 0.05, ("traffic light", "traffic light")),
    "traffic sign": ((0.80, 0.72, 0.22), 0.08, ("signboard", "stop sign")),
    "vegetation": ((0.20, 0.37, 0.15), 0.07, ("tree", "tree")),
    "terrain": ((0.44, 0.50, 0.26), 0.06, ("grass", "grass")),
    "sky": ((0.62, 0.76, 0.93), 0.06, ("sky", "sky-other")),
    "person": ((0.60, 0.30, 0.30), 0.16, ("person", "person")),
    "car": ((0.45, 0.14, 0.16), 0.22, ("car", "car")),
}


class Scene(NamedTuple):
    """A drawn scene: `labels` (H, W) int64, ids of its table, and `picture` (H, W, 3) float32 in 0..1."""

    labels: np.ndarray
    picture: np.ndarray


def class_ids(names: ClassTable) -> dict[str, int]:
    """Return the id in `names` of everything a scene is made of; what the table does not have is left out."""
    column = {"ade20k": 0, "coco-stuff": 1}.get(names.dataset)
    known: dict[str, int] = {}
    for look, (_, _, others) in _LOOKS.items():
        name = look if column is None else others[column]
        if name is not None:
            known[look] = names.id_of(name)
    return known


class _Canvas:
    """Draws shapes into a label map and a picture at once."""

    def __init__(self, ids: Mapping[str, int], rng: np.random.Generator, height: int, width: int) -> None:
        self.ids, self.rng = ids, rng
        self.labels = np.full((height, width), 255, np.int64)
        self.picture = np.zeros((height, width, 3), np.float32)
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        self.y, self.x = (rows + 0.5) / height, (columns + 0.5) / width

    def paint(self, what: str, where: np.ndarray) -> None:
        """Give an area a class and its colour; a class the table lacks keeps what was there."""
        if what not in self.ids:
            return
        colour, spread, _ = _LOOKS[what]
        self.colour(self.ids[what], where, colour, spread)

    def colour(self, label: int, where: np.ndarray, colour: tuple[float, float, float], spread: float) -> None:
        self.labels[where] = label
        shade = self.rng.normal(0, spread) + self.rng.normal(0, spread / 3, 3)
        self.picture[where] = np.asarray(colour) + shade

    def box(self, left: float, top: float, right: float, bottom: float) -> np.ndarray:
        return (self.x >= left) & (self.x < right) & (self.y >= top) & (self.y < bottom)

    def disc(self, x: float, y: float, rx: float, ry: float) -> np.ndarray:
        return ((self.x - x) / rx) ** 2 + ((self.y - y) / ry) ** 2 < 1


def _ground(canvas: _Canvas, vanish: float, horizon: float, road: float, walk: float) -> None:
    depth = np.clip((canvas.y - horizon) / (1 - horizon), 0, None)
    below = canvas.y > horizon
    from_axis = np.abs(canvas.x - vanish - (0.5 - vanish) * depth)
    canvas.paint("terrain", below)
    canvas.paint("sidewalk", below & (from_axis < 0.05 + walk * depth))
    canvas.paint("road", below & (from_axis < 0.02 + road * depth))


def _houses(canvas: _Canvas, vanish: float, horizon: float) -> None:
    rng = canvas.rng
    for side in (-1, 1):
        edge = 0.0 if side < 0 else 1.0
        while (vanish - edge) * -side > 0.08:
            width = rng.uniform(0.06, 0.2)
            near = min(1.0, abs(vanish - edge) * 2)
            top = horizon - near * rng.uniform(0.2, 0.45) - 0.05
            left, right = (edge, edge + width) if side < 0 else (edge - width, edge)
            what = "building" if rng.random() < 0.75 else "vegetation"
            canvas.paint(what, canvas.box(left, top, right, horizon + 0.03 + 0.06 * near))
            edge += width * -side


def _street(canvas: _Canvas, vanish: float, horizon: float, road: float) -> None:
    rng = canvas.rng
    for _ in range(rng.integers(2, 6)):  # trees
        x, near = rng.uniform(0, 1), rng.uniform(0.3, 1)
        if abs(x - vanish) > 0.1:
            canvas.paint("vegetation", canvas.disc(x, horizon - 0.08 * near, 0.07 * near, 0.17 * near))
    for _ in range(rng.integers(1, 5)):  # poles, some with a light or a sign
        x, near = rng.uniform(0, 1), rng.uniform(0.4, 1)
        if abs(x - vanish) > 0.12:
            top, foot = horizon - 0.3 * near, horizon + 0.2 * near
            canvas.paint("pole", canvas.box(x, top, x + 0.008 * near + 0.003, foot))
            what = str(rng.choice(["traffic light", "traffic sign"]))
            wide, tall = (0.018, 0.08) if what == "traffic light" else (0.03, 0.06)
            canvas.paint(what, canvas.box(x - wide * near / 2, top, x + wide * near / 2 + 0.008, top + tall * near))
    for depth in np.sort(rng.uniform(0.08, 0.75, rng.integers(1, 6))):  # cars, the far ones first
        x = vanish + (0.5 - vanish) * depth + rng.choice([-1, 1]) * rng.uniform(0.25, 0.75) * (road * depth + 0.02)
        y, size = horizon + (1 - horizon) * depth, 0.04 + 0.22 * depth
        canvas.paint("car", canvas.box(x - size / 2, y - size * 0.7, x + size / 2, y))
        canvas.paint("car", canvas.disc(x, y - size * 0.7, size * 0.36, size * 0.4))
    for depth in np.sort(rng.uniform(0.1, 0.6, rng.integers(0, 5))):  # people, on the pavements
        x = vanish + (0.5 - vanish) * depth + rng.choice([-1, 1]) * (road * depth + 0.06 + 0.1 * depth)
        y, size = horizon + (1 - horizon) * depth, 0.1 + 0.34 * depth
        canvas.paint("person", canvas.disc(x, y - size * 0.45, size * 0.1, size * 0.45))
        canvas.paint("person", canvas.disc(x, y - size * 0.95, size * 0.06, size * 0.12))


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return soft noise of three scales, as the surfaces of a photo have."""
    noise = np.zeros((height, width), np.float32)
    for cells, share in ((4, 0.05), (16, 0.05), (64, 0.04)):
        small = rng.normal(0, share, (cells, 2 * cells)).astype(np.float32)
        noise += np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    return noise


def draw_scene(
    seed: int,
    names: ClassTable,
    more: Mapping[int, tuple[int, int, int]] | None = None,
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> Scene:
    """Draw a street as the seed says, in the ids of a class table.

    `more` holds further classes, {id: colour 0..255}; some of them appear as plain areas, so that statistics can be
    made for a map that shows no street.
    """
    rng = np.random.default_rng(seed)
    height, width = size
    canvas = _Canvas(class_ids(names), rng, height, width)
    vanish, horizon = rng.uniform(0.4, 0.6), rng.uniform(0.42, 0.52)
    road, walk = rng.uniform(0.3, 0.45), rng.uniform(0.5, 0.65)
    canvas.paint("sky", np.ones(size, bool))
    _ground(canvas, vanish, horizon, road, walk)
    _houses(canvas, vanish, horizon)
    _street(canvas, vanish, horizon, road)
    for label, colour in (more or {}).items():
        if rng.random() < 0.6:
            left, top = rng.uniform(-0.2, 0.8), rng.uniform(-0.2, 0.8)
            where = canvas.box(left, top, left + rng.uniform(0.2, 0.6), top + rng.uniform(0.2, 0.6))
            canvas.colour(label, where, tuple(0.25 + 0.5 * value / 255 for value in colour), 0.08)
    light = 1.08 - 0.25 * np.abs(canvas.y - 0.3) + _texture(rng, height, width)
    return Scene(canvas.labels, np.clip(canvas.picture * light[..., None], 0, 1).astype(np.float32))


def encode(picture: Tensor) -> Tensor:
    """Encode a picture (H, W, 3) in 0..1 as a latent (4, H/8, W/8) in LATENT units, by a fixed linear map.

    The map is the pseudo-inverse of the preview's latent-to-RGB factors, so that previews show the picture's colours,
    just as the stand-in VAE does. Three colours leave one direction of the four free: it holds the slope of the
    brightness within a cell, scaled to about unit deviation.
    """
    height, width = picture.shape[0] // CELL, picture.shape[1] // CELL
    cells = picture[: height * CELL, : width * CELL].reshape(height, CELL, width, CELL, 3).double()
    colour = cells.mean(dim=(1, 3)) * 2 - 1
    slope = (cells[:, : CELL // 2].mean(dim=(1, 3, 4)) - cells[:, CELL // 2 :].mean(dim=(1, 3, 4))) * 15
    factors = tiny_models.RGB_FACTORS.double()
    free = torch.linalg.svd(factors).U[:, 3]
    latent = colour @ torch.linalg.pinv(factors) + slope[..., None] * free
    return (latent / tiny_models.SCALE_FACTOR).movedim(-1, 0).float()


def accumulate(pairs: Iterable[tuple[np.ndarray, Tensor]], names: ClassTable) -> dict[str, Tensor]:
    """Reduce (label map, latent) pairs to the tensors of a statistics file: exact moments, summed in float64.

    The label map is brought to the latent grid by nearest neighbour.
    """
    ids = torch.tensor(sorted({*names.ids, 255}))
    count = total = squares = None
    for labels, latent in pairs:
        height, width = latent.shape[-2:]
        rows, columns = (torch.arange(n) * m // n for n, m in ((height, labels.shape[0]), (width, labels.shape[1])))
        grid = torch.from_numpy(labels)[rows][:, columns]
        here = (grid == ids[:, None, None]).double()
        value = latent.double()
        if count is None:
            count = torch.zeros_like(here)
            total = torch.zeros(len(ids), *value.shape, dtype=torch.float64)
            squares = torch.zeros_like(total)
        count += here
        total.addcmul_(here[:, None], value)
        squares.addcmul_(here[:, None], value**2)
    if count is None:
        raise HarnessError("no scenes to reduce.")
    seen = count.sum(dim=(1, 2)) > 0
    ids, count, total, squares = ids[seen], count[seen], total[seen], squares[seen]

    def moments(number: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        mean = first / number.clamp(min=1)
        return mean.float(), (second / number.clamp(min=1) - mean**2).clamp(min=0).sqrt().float()

    joint = moments(count[:, None], total, squares)
    by_class = moments(count.sum(dim=(1, 2))[:, None], total.sum(dim=(2, 3)), squares.sum(dim=(2, 3)))
    spatial = moments(count.sum(dim=0), total.sum(dim=0), squares.sum(dim=0))
    return {
        "class_ids": ids,
        "joint.count": count.int(),
        "joint.mean": joint[0],
        "joint.std": joint[1],
        "class.count": count.sum(dim=(1, 2)).long(),
        "class.mean": by_class[0],
        "class.std": by_class[1],
        "spatial.mean": spatial[0],
        "spatial.std": spatial[1],
    }


def make_statistics(
    dataset: str = "cityscapes", scenes: int = SCENES, more: Mapping[int, tuple[int, int, int]] | None = None
) -> Statistics:
    """Draw scenes and reduce them; `dataset` names the class table."""
    names = table(dataset)

    def pairs() -> Iterator[tuple[np.ndarray, Tensor]]:
        for seed in range(scenes):
            scene = draw_scene(1000 + seed, names, more)
            yield scene.labels, encode(torch.from_numpy(scene.picture))

    tensors = accumulate(pairs(), names)
    found = {str(int(k)): names.name_of(int(k)) for k in tensors["class_ids"]}
    metadata = {
        "dataset": dataset,
        "class_names": json.dumps(found),
        "palette": DEFAULT_PALETTE[dataset],
        "label_rule": "nearest",
        "latent_channels": "4",
        "latent_downscale": str(CELL),
        "vae": "linear stand-in",
        "image_size": f"{HEIGHT}x{WIDTH}",
        "images": str(scenes),
        "created": "",
        "software": "scp-diff demonstration",
        "source": "street scenes drawn by rule",
    }
    return Statistics.from_tensors(tensors, metadata)


def write_statistics(
    path: Path, dataset: str = "cityscapes", more: Mapping[int, tuple[int, int, int]] | None = None
) -> None:
    """Write a statistics file of drawn scenes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_statistics(make_statistics(dataset, more=more), path)


def write_segmentation(
    path: Path, palette_name: str = "cityscapes", seed: int = 3, size: tuple[int, int] = (HEIGHT, WIDTH)
) -> None:
    """Write the segmentation image of a drawn scene, painted in a palette."""
    colours = palette(palette_name)
    names = table(colours.table.dataset)
    labels = draw_scene(seed, names, size=size).labels
    if colours.table.name != names.name:  # back to the finer table: any id that is read as the one drawn
        back = {coarse: fine for fine, coarse in sorted(colours.table.convert_to[names.name].items(), reverse=True)}
        labels = np.vectorize(lambda label: back.get(label, 0), otypes=[np.int64])(labels)
    hint = hint_from_labels(torch.from_numpy(labels)[None], colours)[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    _save_image(Image.fromarray((hint * 255).round().byte().numpy()), path)


def write_pairs(photos: Path, labels: Path, palette_name: str, count: int = 4) -> None:
    """Write drawn scenes as pictures and, named alike, their segmentation images."""
    names = table(palette(palette_name).table.dataset)
    photos.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        picture = Image.fromarray((draw_scene(seed, names).picture * 255).round().astype(np.uint8))
        _save_image(picture, photos / f"street_{seed}.png")
        write_segmentation(labels / f"street_{seed}.png", palette_name, seed)


def write_masked(path: Path, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """Write a picture with a hole, as the page's mask editor leaves it: LoadImage gives the hole as its mask."""
    height, width = size
    picture = np.full((height, width, 4), 200, np.uint8)
    picture[..., 3] = 255
    picture[height // 2 : height * 7 // 8, width // 4 : width * 3 // 4, 3] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    _save_image(Image.fromarray(picture), path)


def _save_image(image: Image.Image, path: Path) -> None:
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")


def dataset_of(prompt: Mapping[str, Any]) -> tuple[str, str]:
    """Return (dataset, palette) that a prompt's SCPLabelsFromImage or SCPRecolor reads; cityscapes if it has none."""
    for node in prompt.values():
        name = node["inputs"].get("palette")
        if node["class_type"] == "SCPLabelsFromImage" and isinstance(name, str):
            return palette(name).table.dataset, name
        if node["class_type"] == "SCPRecolor":
            dataset = palette(node["inputs"]["to_palette"]).table.dataset
            return dataset, DEFAULT_PALETTE[dataset]
    return "cityscapes", "cityscapes"


def _painted_in(name: str, otherwise: str) -> str:
    """The palette that a picture's name begins with, as ade20k_labels.png does."""
    beginning = name.partition("_")[0]
    return beginning if beginning in palettes() else otherwise


def _cached(kind: str, suffix: str, write: Callable[[Path], None], cache: Path) -> Path:
    """Return a file made by `write`, made only once for as long as the scripts that make it stay the same."""
    digest = hashlib.sha256(Path(tiny_models.__file__).read_bytes() + Path(__file__).read_bytes()).hexdigest()[:12]
    path = cache / f"{kind}-{digest}{suffix}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    return path


def _mark(more: Mapping[int, object] | None) -> str:
    return "-" + hashlib.sha256(repr(sorted(more)).encode()).hexdigest()[:8] if more else ""


def _place(source: Path, target: Path) -> None:
    """Put a file under another name, without a second copy on the disk where the file system can."""
    # (Replacing a file by a second link to itself does nothing, and leaves that link to be removed.)
    with replacing(target) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            temporary.write_bytes(source.read_bytes())


def prepare(
    prompt: Mapping[str, Any],
    base: Path = BASE,
    *,
    more: Mapping[int, tuple[int, int, int]] | None = None,
    cache: Path | None = None,
) -> list[Path]:
    """Write every file that an API prompt names (models, statistics, input picture); return their paths.

    The names of the demo's trained model bring that; any other is a stand-in. Pictures that are already in the input
    folder stay as they are; models and statistics are always ours.
    """
    cache = cache or BASE.parent / "stand-ins"
    dataset, palette_name = dataset_of(prompt)
    writers: dict[tuple[str, str], tuple[str, str, Callable[[Path], None]]] = {
        ("CheckpointLoaderSimple", "ckpt_name"): ("checkpoints", "checkpoint", tiny_models.write_checkpoint),
        ("ControlNetLoader", "control_net_name"): ("controlnet", "controlnet", tiny_models.write_controlnet),
        ("VAELoader", "vae_name"): ("vae", "vae", tiny_models.write_vae),
        ("SCPLoadStatistics", "statistics"): (
            "scp_statistics",
            f"statistics-{dataset}{_mark(more)}",
            partial(write_statistics, dataset=dataset, more=more),
        ),
    }
    written = []
    links = (value for node in prompt.values() for value in node["inputs"].values() if isinstance(value, list))
    masked = {source for source, slot in links if slot == 1}
    for number, node in prompt.items():
        if node["class_type"] == "SCPReduceStatistics":
            folders = [base / "input" / node["inputs"][name] for name in ("images_folder", "labels_folder")]
            if not folders[0].exists():
                streets = node["inputs"]["images_folder"].startswith(demo_inputs.BEGINNING)
                demo_inputs.write_pairs(*folders) if streets else write_pairs(*folders, node["inputs"]["palette"])
            written += folders
        for key, value in node["inputs"].items():
            if not isinstance(value, str):
                continue
            if value in demo_model.FILES:
                written.append(demo_model.install_model(base, value))
            elif (node["class_type"], key) in writers:
                folder, kind, write = writers[node["class_type"], key]
                target = base / "models" / folder / value
                _place(_cached(kind, target.suffix, write, cache), target)
                written.append(target)
            elif (node["class_type"], key) == ("LoadImage", "image"):
                target = base / "input" / value
                if not target.exists() and not demo_inputs.install_picture(base, value):
                    write_masked(target) if number in masked else write_segmentation(
                        target, _painted_in(value, palette_name)
                    )
                written.append(target)
    return written


def main(folder: Path) -> None:
    started = time.monotonic()
    write_segmentation(folder / "demo_street.png")
    write_statistics(folder / "demo_cityscapes.safetensors")
    print(f"{folder}: a segmentation image and a statistics file in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: demo_set.py FOLDER")
    main(Path(sys.argv[1]))
