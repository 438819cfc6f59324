"""What the pack costs inside the real host: importing it, and a prior latent from node to node.

    python benchmarks/in_host.py

Milliseconds of this machine, of one process; medians where something is run often.
"""

from __future__ import annotations

import json
import statistics as stats
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def inside(base: str) -> None:
    """The half that runs in the host's process: import the pack, then time its nodes."""
    import asyncio

    import comfy.options

    comfy.options.enable_args_parsing()
    import torch

    import nodes

    torch.set_num_threads(1)
    asyncio.run(nodes.init_builtin_extra_nodes())  # as the host does first: what these import is not the pack's cost
    start = time.process_time()
    asyncio.run(nodes.load_custom_node(str(Path(base) / "custom_nodes" / "scp-diff")))
    imported = 1e3 * (time.process_time() - start)
    with torch.inference_mode():
        times = node_times(nodes.NODE_CLASS_MAPPINGS, Path(base))
    print(json.dumps({"import": imported, **times}))


def node_times(host_nodes: dict, base: Path) -> dict[str, float]:
    """Milliseconds of each node on a 512x1024 map, with warm caches; SCPPriorLatent with a new seed each time."""
    import torch

    library = next(module for name, module in sys.modules.items() if name.endswith("scp-diff.scp_prior"))
    folder = base / "models" / "scp_statistics"
    folder.mkdir(parents=True, exist_ok=True)
    library.save_statistics(cityscapes(library), folder / "bench.safetensors")

    def run(name: str, **inputs):
        node = host_nodes[name].PREPARE_CLASS_CLONE(None)
        return node.EXECUTE_NORMALIZED(**inputs).args

    bands = torch.randint(0, 19, (1, 16, 32), generator=torch.Generator().manual_seed(0))
    image = (bands.repeat_interleave(32, 1).repeat_interleave(32, 2) / 255).unsqueeze(-1).expand(-1, -1, -1, 3)
    labels = run("SCPLabelsFromImage", image=image.contiguous(), palette="cityscapes-grey", tolerance=0.0)[0]
    statistics = run("SCPLoadStatistics", statistics="bench.safetensors")[0]
    hint = run("SCPHintFromLabels", labels=labels, palette="auto")[0]
    prior = {"statistics": statistics, "labels": labels, "method": "joint", "strength": 1.0, "batch_size": 1}
    return {
        "SCPLoadStatistics": median(lambda i: run("SCPLoadStatistics", statistics="bench.safetensors")),
        "SCPLabelsFromImage": median(
            lambda i: run("SCPLabelsFromImage", image=image, palette="cityscapes-grey", tolerance=0.0)
        ),
        "SCPLabelsFromImage (auto)": median(
            lambda i: run("SCPLabelsFromImage", image=hint, palette="auto", tolerance=24.0)
        ),
        "SCPRecolor (auto)": median(
            lambda i: run(
                "SCPRecolor", image=hint, from_palette="auto", to_palette="cityscapes-ids-grey", tolerance=24.0
            )
        ),
        "SCPHintFromLabels": median(lambda i: run("SCPHintFromLabels", labels=labels, palette="auto")),
        "SCPPriorLatent": median(lambda i: run("SCPPriorLatent", seed=i, **prior)),
    }


def median(call) -> float:
    """Median CPU milliseconds of 15 calls after a first one."""
    call(0)
    times = []
    for i in range(1, 16):
        start = time.process_time()
        call(i)
        times.append(1e3 * (time.process_time() - start))
    return stats.median(times)


def cityscapes(library):
    """Random statistics of the released Cityscapes file's size."""
    import torch

    g = torch.Generator().manual_seed(0)
    k, c, h, w = 20, 4, 64, 128
    count = torch.randint(0, 200, (k, h, w), generator=g, dtype=torch.int32)
    tensors = {
        "class_ids": torch.tensor([*range(19), 255]),
        "joint.count": count,
        "joint.mean": torch.randn(k, c, h, w, generator=g),
        "joint.std": torch.rand(k, c, h, w, generator=g),
        "class.count": count.sum((1, 2)),
        "class.mean": torch.randn(k, c, generator=g),
        "class.std": torch.rand(k, c, generator=g),
        "spatial.mean": torch.randn(c, h, w, generator=g),
        "spatial.std": torch.rand(c, h, w, generator=g),
    }
    return library.Statistics.from_tensors(tensors, {"dataset": "cityscapes", "palette": "cityscapes"})


def main() -> None:
    """Start the host's process and print its table."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from layout import BASE, host_python
    from setup_host import host_environment, setup_host

    comfyui = setup_host()
    environment = host_environment()
    environment["PYTHONPATH"] = ":".join([str(comfyui), environment["PYTHONPATH"]])
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else every run would compile the pack anew, as no user's does
    command = [str(host_python()), str(Path(__file__).resolve()), "--cpu", "--base-directory", str(BASE)]
    runs = []
    for _ in range(3):  # the first compiles the pack's modules
        done = subprocess.run(command, cwd=comfyui, env=environment, capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    goals = {"import": "50 (the pack's own)", "SCPPriorLatent": "30 (labels -> latent)"}
    print(f"{'CPU ms, 512x1024, 1 thread':32s} {'best of 3':>10s}   goal")
    for name in runs[0]:
        print(f"{name:32s} {min(run[name] for run in runs):10.1f}   {goals.get(name, '')}")


if __name__ == "__main__":
    if "--base-directory" in sys.argv:
        # The host is on the path by PYTHONPATH; this script's own folder must not be in front of it.
        del sys.path[0]
        inside(sys.argv[sys.argv.index("--base-directory") + 1])
    else:
        main()
