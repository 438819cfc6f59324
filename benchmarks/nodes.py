"""What every node costs by itself on a 512x1024 picture, in the real host.

    python benchmarks/nodes.py

Prints median CPU milliseconds, one thread, warm caches, of the node as the host runs it: its pictures are drawn and
written for the page. Encoding by a VAE or a text encoder is not the node's own and stands still here. Nodes that work
on files (reduce, convert, save) take as long as their files. Ends with 1 where a node is missing, fails or is too slow.
"""

from __future__ import annotations

import json
import statistics as stats
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HEIGHT, WIDTH = 512, 1024
GOAL, GOAL_OF_LEGEND = 100.0, 50.0
LEGEND = "the legend alone"
ROUNDS = 15


class StillVae:
    """Stands in for a VAE of Stable Diffusion: gives the latent it always gives."""

    def __init__(self, latent: Any):
        self.latent_channels, self.downscale_ratio = latent.shape[1], 8
        self.first_stage_model, self._latent = self, latent

    def encode(self, _: object) -> Any:
        """Whatever the picture."""
        return self._latent


class StillClip:
    """Stands in for a text encoder."""

    def tokenize(self, text: str) -> str:
        """The text itself."""
        return text

    def encode_from_tokens_scheduled(self, _: str) -> list:
        """Whatever the words."""
        return []


class StillModel:
    """Stands in for Stable Diffusion 2.1: what nodes ask of a model, less the network."""

    def __init__(self):
        import comfy.latent_formats
        import comfy.model_base

        latents = comfy.latent_formats.SD15()
        config = type("Config", (), {"sampling_settings": {}})
        self._objects = {
            "latent_format": latents,
            "process_latent_in": latents.process_in,
            "process_latent_out": latents.process_out,
            "model_sampling": comfy.model_base.model_sampling(config, comfy.model_base.ModelType.EPS),
        }

    def get_model_object(self, name: str) -> Any:
        """As the host's ModelPatcher has it."""
        return self._objects[name]


def inside(base: Path) -> dict[str, float | str]:
    """In the host's process: milliseconds of each node, or what is wrong with it."""
    import torch

    import nodes

    torch.set_num_threads(1)
    found: dict[str, float | str] = {}
    for what, node_id, inputs in cases(nodes.NODE_CLASS_MAPPINGS, base):
        node = nodes.NODE_CLASS_MAPPINGS.get(node_id)
        try:
            found[what] = "missing" if node is None else median(run_with(node, inputs))
        except Exception as error:  # one node that fails must not hide the others' times
            found[what] = f"{type(error).__name__}: {error}"
    found[LEGEND] = median(legend_alone())
    return found


def cases(host_nodes: dict, base: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(what, node id, inputs) of everything that is timed."""
    import torch

    library = pack_library()
    # Not the host's `nodes`, which is loaded already: what this folder has beside this file.
    sys.path.append(str(Path(__file__).parent))
    from in_host import cityscapes

    folder = base / "models" / "scp_statistics"
    folder.mkdir(parents=True, exist_ok=True)
    library.save_statistics(cityscapes(library), folder / "bench.safetensors")

    def run(node_id: str, **inputs: Any) -> Any:
        return run_with(host_nodes[node_id], inputs)(0).args[0]

    g = torch.Generator().manual_seed(0)
    ids = patches(g)
    grey = (ids / 255).unsqueeze(-1).expand(-1, -1, -1, 3).contiguous()
    labels = run("SCPLabelsFromImage", image=grey, palette="cityscapes-grey", tolerance=0.0)
    colours = run("SCPHintFromLabels", labels=labels, palette="cityscapes")
    blurred = (colours + torch.randn(colours.shape, generator=g) * 0.02).clamp(0, 1)
    statistics = run("SCPLoadStatistics", statistics="bench.safetensors")
    prior = {"statistics": statistics, "labels": labels, "method": "joint", "strength": 1.0, "batch_size": 1}
    latent = run("SCPPriorLatent", seed=0, **prior)
    mask, model = (ids == 13).float(), StillModel()
    start = {"model": model, "timestep": 799, "steps": 20, "scheduler": "ddim_uniform"}
    five = "sky: a\nroad: b\ncar: c\nbuilding: d\nperson: e"

    yield "SCPLoadStatistics", "SCPLoadStatistics", {"statistics": "bench.safetensors"}
    exact = {"image": colours, "palette": "cityscapes", "tolerance": 24.0}
    yield "SCPLabelsFromImage, exact map", "SCPLabelsFromImage", exact
    yield "SCPLabelsFromImage, noisy map", "SCPLabelsFromImage", {**exact, "image": blurred}
    yield "SCPLabelsFromImage, auto, noisy", "SCPLabelsFromImage", {**exact, "image": blurred, "palette": "auto"}
    yield "SCPPreviewLabels", "SCPPreviewLabels", {"labels": labels, "statistics": statistics}
    yield "SCPHintFromLabels", "SCPHintFromLabels", {"labels": labels, "palette": "auto"}
    yield "SCPMaskFromLabels", "SCPMaskFromLabels", {"labels": labels, "class_name": "car"}
    paint = {"palette": "cityscapes", "class_name": "car", "width": WIDTH, "height": HEIGHT}
    yield "SCPPaintLabels", "SCPPaintLabels", {**paint, "labels": labels, "mask": mask}
    names = ("road", "sky", "car", "building", "person", "pole")
    masks = {"masks": (torch.stack([ids[0] == k for k in range(6)])).float(), "palette": "cityscapes"}
    yield "SCPLabelsFromMasks, six masks", "SCPLabelsFromMasks", {**masks, "classes": "\n".join(names)}
    recolour = {"image": blurred, "from_palette": "auto", "to_palette": "cityscapes", "tolerance": 24.0}
    yield "SCPRecolor", "SCPRecolor", recolour
    for view in ("mean", "coverage", "spread"):
        yield (
            f"SCPPriorLatent, {view}",
            "SCPPriorLatent",
            {**prior, "seed": 1, "view": view, "class_strength": "car: 0.5"},
        )
    yield "SCPDenoiseStart", "SCPDenoiseStart", start
    yield "SCPNoisedLatent", "SCPNoisedLatent", {**start, "latent": latent, "seed": 1}
    words = {"conditioning": [], "clip": StillClip(), "labels": labels, "prompts": five, "strength": 1.0}
    yield "SCPRegionPrompts, five lines", "SCPRegionPrompts", words
    photo = {"image": colours, "vae": StillVae(latent["samples"]), "mask": mask, "grow_mask_by": 64}
    yield "SCPInpaintLatent", "SCPInpaintLatent", {"latent": latent, **photo}


def patches(g: Any) -> Any:
    """(1, 512, 1024) int64: 19 classes in squares of 32 pixels."""
    import torch

    return torch.randint(0, 19, (1, 16, 32), generator=g).repeat_interleave(32, 1).repeat_interleave(32, 2)


def legend_alone() -> Callable[[int], object]:
    """Draws the legend of such a map, without writing it."""
    import torch

    library = pack_library()
    drawing, classes = (sys.modules[f"{library.__name__}.{name}"] for name in ("legend", "classes"))
    labels, palette = patches(torch.Generator().manual_seed(0)), classes.palette("cityscapes")
    return lambda _: drawing.legend(labels, palette)


def pack_library() -> Any:
    """The pack's own copy of scp_prior."""
    return next(module for name, module in sys.modules.items() if name.endswith("scp-diff.scp_prior"))


def run_with(node: type, inputs: dict[str, Any]) -> Callable[[int], Any]:
    """A call of the node as the host makes it; a seed counts up, so that nothing is the same twice."""

    def call(i: int) -> Any:
        changed = {"seed": inputs["seed"] + i} if "seed" in inputs else {}
        return node.PREPARE_CLASS_CLONE(None).EXECUTE_NORMALIZED(**{**inputs, **changed})

    return call


def median(call: Callable[[int], object]) -> float:
    """Median CPU milliseconds, after two calls that fill the caches."""
    times = []
    for i in range(ROUNDS + 2):
        start = time.process_time()
        call(i)
        times.append(1e3 * (time.process_time() - start))
    return stats.median(times[2:])


def main() -> int:
    """Run the half that is inside the host and print its table."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from in_host import run
    from layout import BASE

    found = run(Path(__file__).resolve(), ["--inside", str(BASE)], timeout=600)
    print(f"{'CPU ms, ' + f'{HEIGHT}x{WIDTH}, 1 thread':34s} {'median':>8s} {'goal':>6s}")
    good = True
    for what, time_or_words in found.items():
        goal = GOAL_OF_LEGEND if what == LEGEND else GOAL
        fast = not isinstance(time_or_words, str) and time_or_words < goal
        good &= fast
        shown = time_or_words if isinstance(time_or_words, str) else f"{time_or_words:8.1f} {goal:6.0f}"
        print(f"{what:34s} {shown}{'' if fast else '   <-'}")
    return 0 if good else 1


if __name__ == "__main__":
    if "--inside" in sys.argv:
        print(json.dumps(inside(Path(sys.argv[-1]))))
    else:
        sys.exit(main())
