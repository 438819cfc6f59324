"""Converting a released checkpoint: memory and time, beside plainly copying as many bytes.

    python benchmarks/convert.py            # a stand-in of 13.8 GB; needs 25 GB of disk and several minutes
    python benchmarks/convert.py --quick    # one of 1.2 GB

The stand-in has the names and shapes of Stable Diffusion 2.1, its ControlNet, VAE and OpenCLIP-H as the host's own
classes have them, float32, with the Adam states of what the authors trained (ControlNet and U-Net decoder).

Memory is VmHWM of /proc/self/status, the most that was resident at once, mapped file pages included, of a process that
does nothing else; less what it was after importing the library and torch. The copy reads just the bytes which the
conversion must read, in the same order and blocks, and writes and syncs as many as the conversion writes. Before each
round the source is dropped from the page cache, so both read from the disk. Rounds alternate; the best of each counts.
Ratios hold; seconds are of this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRAINED = ("control_model.", "model.diffusion_model.output_blocks.", "model.diffusion_model.out.")
TILE = 16 << 20
MEMORY_GOAL, TIME_GOAL = 3.0, 2.0

SD21 = {
    "image_size": 32,
    "in_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "num_head_channels": 64,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": 1024,
    "legacy": False,
}
QUICK = {
    **SD21,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 0],
}
VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}


def shapes(comfyui: str, quick: bool) -> dict[str, tuple[int, ...]]:
    """Every weight of the state dict, from the host's own classes, which are built without memory."""
    sys.path.insert(0, comfyui)
    sys.argv = ["x", "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.ops
    import torch
    from comfy.cldm.cldm import ControlNet
    from comfy.ldm.models.autoencoder import AutoencoderKL
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    sys.path.append(str(ROOT / "scripts"))
    from tiny_models import _text_spec

    config = {**(QUICK if quick else SD21), "dtype": torch.float32, "operations": comfy.ops.disable_weight_init}
    depth = [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0] if not quick else [1, 1, 0, 0]
    with torch.device("meta"):
        unet = UNetModel(**config, out_channels=4, transformer_depth_output=depth, device="meta")
        control = ControlNet(**config, hint_channels=3, device="meta")
        vae = AutoencoderKL(ddconfig=VAE, embed_dim=4)
    text = _text_spec(layers=4) if quick else _text_spec()
    parts = {
        "model.diffusion_model.": {key: tuple(value.shape) for key, value in unet.state_dict().items()},
        "first_stage_model.": {key: tuple(value.shape) for key, value in vae.state_dict().items()},
        "cond_stage_model.model.": text,
        "control_model.": {key: tuple(value.shape) for key, value in control.state_dict().items()},
    }
    return {start + key: shape for start, part in parts.items() for key, shape in part.items()}


def generate(path: Path, weights: Mapping[str, tuple[int, ...]]) -> None:
    """Write a Lightning checkpoint of these shapes: torch's own pickle and layout, then numbers over its holes."""
    import torch

    sys.path.insert(0, str(ROOT))
    from scp_prior.torch_zip import read_directory

    # Memory that nobody touches is not there.
    state = {key: torch.empty(shape) for key, shape in weights.items()}
    trained = [key for key in state if key.startswith(TRAINED)]
    adam = {
        i: {"step": i, "exp_avg": torch.empty_like(state[key]), "exp_avg_sq": torch.empty_like(state[key])}
        for i, key in enumerate(trained)
    }
    groups = [{"lr": 1e-5, "betas": (0.9, 0.999), "params": list(range(len(trained)))}]
    content = {
        "epoch": 10,
        "global_step": 100_000,
        "pytorch-lightning_version": "1.5.0",
        "state_dict": state,
        "optimizer_states": [{"state": adam, "param_groups": groups}],
        "lr_schedulers": [],
        "callbacks": {},
    }
    with torch.serialization.skip_data():
        torch.save(content, path)
    tile = (torch.randn(TILE // 4, generator=torch.Generator().manual_seed(0)) * 0.05).numpy().tobytes()
    with path.open("rb+") as file:
        for name, record in read_directory(path).records.items():
            if name.startswith("data/"):
                file.seek(record.start)
                for done in range(0, record.size, TILE):
                    file.write(tile[: min(TILE, record.size - done)])
        os.fsync(file.fileno())


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def convert(source: Path, out: Path, dtype: str) -> dict[str, float]:
    """The conversion, in a process of its own."""
    sys.path.insert(0, str(ROOT))
    from scp_prior.weights import convert_weights

    before = resident("VmHWM")
    start = time.perf_counter()
    done = convert_weights(source, out, out, dtype=dtype)
    seconds = time.perf_counter() - start
    written = done.controlnet.stat().st_size + done.checkpoint.stat().st_size
    return {"seconds": seconds, "peak": resident("VmHWM") - before, "base": before, "written": written}


def copy(source: Path, out: Path, written: int) -> dict[str, float]:
    """Read the bytes which the conversion must read, and write as many as it writes."""
    sys.path.insert(0, str(ROOT))
    from scp_prior.halves import find_halves
    from scp_prior.torch_file import open_torch_file

    tensors = open_torch_file(source).tensors
    halves = find_halves(tensors)
    start, read = time.perf_counter(), 0
    for keys in (halves.controlnet, halves.checkpoint):
        need = sum(tensors[key].nbytes for key in keys)
        share, sent = written * need // sum(tensors[key].nbytes for key in (*halves.controlnet, *halves.checkpoint)), 0
        with source.open("rb", buffering=0) as file, (out / f"{len(keys)}.copy").open("wb") as copied:
            for stored in sorted((tensors[key] for key in keys), key=lambda stored: stored.start):
                file.seek(stored.start)
                for done in range(0, stored.nbytes, TILE):
                    block = file.read(min(TILE, stored.nbytes - done))
                    read += len(block)
                    wanted = len(block) * share // need
                    copied.write(memoryview(block)[:wanted])
                    sent += wanted
            copied.write(bytes(share - sent))
            copied.flush()
            os.fsync(copied.fileno())
    return {"seconds": time.perf_counter() - start, "read": read}


def forget(path: Path) -> None:
    """Drop a file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def apart(*words: str) -> dict[str, float]:
    """Run a part of this benchmark in a process of its own; what it answers."""
    command = [sys.executable, str(Path(__file__).resolve()), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".host" / "stubs")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def rounds(source: Path, folder: Path, dtype: str, count: int) -> None:
    """Alternate, and print the line of one dtype."""
    ours, theirs = [], []
    for i in range(count):
        for kind in ("convert", "copy"):
            out = folder / f"{dtype}-{kind}-{i}"
            out.mkdir()
            forget(source)
            if kind == "convert":
                ours.append(apart("--part", "convert", str(source), str(out), dtype))
            else:
                theirs.append(apart("--part", "copy", str(source), str(out), str(ours[-1]["written"])))
            for path in out.iterdir():
                path.unlink()
    mine, plain = min(run["seconds"] for run in ours), min(run["seconds"] for run in theirs)
    peak, base = max(run["peak"] for run in ours), max(run["base"] for run in ours)
    print(
        f"{dtype}: reads {theirs[0]['read'] / 1e9:.2f} GB, writes {ours[0]['written'] / 1e9:.2f} GB\n"
        f"  peak memory over the interpreter   {peak / 1e9:6.2f} GB   (it had {base / 1e9:.2f}; goal: under "
        f"{MEMORY_GOAL:.0f})\n"
        f"  time   copy {plain:7.1f} s   convert {mine:7.1f} s   {mine / plain:5.2f}x   (goal: under {TIME_GOAL:.0f}x)",
        flush=True,
    )


def main() -> None:
    """Make the stand-in, measure, print, remove it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path, help="where there is room (default: the system's temporary folder)")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        name, source, *rest = args.part
        if name == "shapes":
            answer = shapes(str(ROOT / ".host" / "ComfyUI"), source == "quick")
        elif name == "convert":
            answer = convert(Path(source), Path(rest[0]), rest[1])
        else:
            answer = copy(Path(source), Path(rest[0]), int(rest[1]))
        print(json.dumps(answer))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        source = Path(name) / "released.ckpt"
        weights = {
            key: tuple(shape) for key, shape in apart("--part", "shapes", *(["quick"] * args.quick or ["full"])).items()
        }
        start = time.perf_counter()
        generate(source, weights)
        size = source.stat().st_size
        print(f"stand-in: {len(weights)} weights, {size / 1e9:.2f} GB, made in {time.perf_counter() - start:.0f} s")
        for dtype in ("float16", "float32"):
            rounds(source, Path(name), dtype, args.rounds)


if __name__ == "__main__":
    main()
