"""The running host: the API client, the converter on its own description, the stand-ins in its own loaders."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import demo_set
import graph_convert
import numpy as np
import pytest
from comfy_server import ExecutionFailed, PromptRejected, Server, log_problems
from layout import HarnessError
from PIL import Image

Prompt = dict[str, dict[str, Any]]


def link(number: int, slot: int = 0) -> list[Any]:
    return [str(number), slot]


def sampling(
    checkpoint: str = "stand in.safetensors", text: str = "a road", seed: int = 1, *, hint: bool = True
) -> Prompt:
    """The host's own nodes only: encode a street, noise it, sample it next to a ControlNet."""
    nodes: dict[int, tuple[str, dict[str, Any]]] = {
        1: ("CheckpointLoaderSimple", {"ckpt_name": checkpoint}),
        2: ("CLIPTextEncode", {"clip": link(1, 1), "text": text}),
        3: ("CLIPTextEncode", {"clip": link(1, 1), "text": ""}),
        4: ("LoadImage", {"image": "street.png"}),
        5: ("ControlNetLoader", {"control_net_name": "stand in.safetensors"}),
        6: (
            "ControlNetApplyAdvanced",
            {"positive": link(2), "negative": link(3), "control_net": link(5), "image": link(4), "strength": 1.0}
            | {"start_percent": 0.0, "end_percent": 1.0},
        ),
        7: (
            "ImageScale",
            {"image": link(4), "upscale_method": "nearest-exact", "width": 128, "height": 64, "crop": "disabled"},
        ),
        8: ("VAEEncode", {"pixels": link(7), "vae": link(1, 2)}),
        9: (
            "KSampler",
            {
                "model": link(1),
                "seed": seed,
                "steps": 6,
                "cfg": 2.0,
                "sampler_name": "ddim",
                "scheduler": "ddim_uniform",
            }
            | {"positive": link(6), "negative": link(6, 1), "latent_image": link(8), "denoise": 0.6},
        ),
        10: ("VAEDecode", {"samples": link(9), "vae": link(1, 2)}),
        11: ("PreviewImage", {"images": link(10)}),
    }
    prompt = {str(number): {"class_type": kind, "inputs": inputs} for number, (kind, inputs) in nodes.items()}
    if not hint:
        prompt["9"]["inputs"].update(positive=link(2), negative=link(3))
    return prompt


@pytest.fixture(scope="module")
def sample(server: Server) -> Callable[..., np.ndarray]:
    def run(*arguments: Any, **more: Any) -> np.ndarray:
        prompt = sampling(*arguments, **more)
        demo_set.prepare(prompt, server.base)
        ((_, picture),) = server.pictures(server.run(prompt, timeout=300))
        with Image.open(io.BytesIO(picture)) as image:
            return np.asarray(image.convert("RGB"), np.float32) / 255

    return run


@pytest.fixture(scope="module")
def reference(sample: Callable[..., np.ndarray]) -> np.ndarray:
    return sample()


def test_the_picture_is_neither_flat_nor_saturated(reference: np.ndarray) -> None:
    assert reference.shape == (64, 128, 3)
    assert np.isfinite(reference).all()
    assert ((reference < 0.004) | (reference > 0.996)).mean() < 0.1
    assert reference.std() > 0.05


def test_the_picture_shows_what_the_latent_started_from(server: Server, reference: np.ndarray) -> None:
    with Image.open(server.base / "input" / "street.png") as image:
        start = np.asarray(image.resize((128, 64), Image.Resampling.BOX), np.float32) / 255
    assert np.corrcoef(start.ravel(), reference.ravel())[0, 1] > 0.4


@pytest.mark.parametrize(
    "more", [{"hint": False}, {"seed": 2}, {"text": "a red balloon"}, {"checkpoint": "other stand in.ckpt"}], ids=str
)
def test_everything_that_should_matter_does(
    sample: Callable[..., np.ndarray], reference: np.ndarray, more: dict[str, Any]
) -> None:
    # The two forms of checkpoint differ in their text encoder only, and words count for little.
    difference = np.abs(sample(**more) - reference).mean()
    assert difference > (0.02 if {"hint", "seed"} & set(more) else 0.0003)


def test_a_prompt_the_host_refuses_keeps_its_node_errors(server: Server) -> None:
    prompt = sampling()
    prompt["9"]["inputs"]["steps"] = 0
    with pytest.raises(PromptRejected, match=r"node 9 \(KSampler\)") as caught:
        server.post(prompt)
    assert list(caught.value.node_errors) == ["9"]


def test_an_output_the_host_would_silently_drop_is_refused_too(server: Server) -> None:
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": link(1)}},
        "3": {"class_type": "LoadImage", "inputs": {"image": "no such file.png"}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": link(3)}},
    }
    with pytest.raises(PromptRejected, match="no such file"):
        server.post(prompt)


def test_a_node_that_raises_is_named_with_its_own_words(server: Server) -> None:
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "ImageCrop", "inputs": {"image": link(1), "width": 8, "height": 8, "x": 0, "y": 0}},
        "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 16, "height": 16, "batch_size": 1}},
        "4": {"class_type": "LatentCrop", "inputs": {"samples": link(3), "width": 64, "height": 64, "x": 0, "y": 0}},
        "5": {"class_type": "LatentBatchSeedBehavior", "inputs": {"samples": link(4), "seed_behavior": "fixed"}},
        "6": {"class_type": "VAELoader", "inputs": {"vae_name": "broken.safetensors"}},
        "7": {"class_type": "VAEDecode", "inputs": {"samples": link(5), "vae": link(6)}},
        "8": {"class_type": "PreviewImage", "inputs": {"images": link(7)}},
    }
    (server.base / "models" / "vae" / "broken.safetensors").write_bytes(b"no safetensors file")
    with pytest.raises(ExecutionFailed) as caught:
        server.run(prompt, timeout=60)
    assert (caught.value.node_id, caught.value.node_type) == ("6", "VAELoader")
    assert caught.value.reason


def test_upload_and_view_give_back_the_same_bytes(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "a picture.png"
    Image.new("RGB", (8, 8), (1, 2, 3)).save(path)
    name = server.upload_image(path)
    assert server.view(name, type="input") == path.read_bytes()


def test_a_workflow_saved_by_the_page_runs_after_conversion(server: Server, object_info: dict[str, Any]) -> None:
    workflow = {
        "nodes": [
            {"id": 1, "type": "EmptyImage", "mode": 0, "widgets_values": [16, 8, 1, 255]},
            {"id": 2, "type": "Note", "mode": 0, "widgets_values": ["a note"]},
            {
                "id": 3,
                "type": "SaveImage",
                "mode": 0,
                "inputs": [{"name": "images", "type": "IMAGE", "link": 1}],
                "widgets_values": ["converted"],
            },
        ],
        "links": [[1, 1, 0, 3, 0, "IMAGE"]],
    }
    prompt = graph_convert.convert(json.loads(json.dumps(workflow)), object_info)
    assert prompt["1"]["inputs"] == {"width": 16, "height": 8, "batch_size": 1, "color": 255}
    ((number, picture),) = server.pictures(server.run(prompt, timeout=60))
    assert number == "3"
    with Image.open(io.BytesIO(picture)) as image:
        assert image.size == (16, 8)
        assert image.convert("RGB").getpixel((0, 0)) == (0, 0, 255)


def test_a_host_that_cannot_start_says_why_at_once(base: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(HarnessError, match=r"not running \(exit code 2\)[\s\S]*no-such-option"),
        Server(base, extra_arguments=["--no-such-option"], log=tmp_path / "log", boot_timeout=60),
    ):
        pass


def test_the_server_stops_by_its_own_pid(server: Server) -> None:
    assert server.pid not in (None, os.getpid())
    another = Server(server.base)
    another.stop()  # never started: nothing to stop
    assert server.get("/system_stats")["system"]["comfyui_version"]


def test_a_script_runs_inside_the_host_with_the_pack(inhost: Callable[..., Any], tmp_path: Path) -> None:
    script = tmp_path / "inside the host.py"
    script.write_text(
        "import json, sys\nimport nodes, torch, folder_paths\n"
        "mine = sorted(name for name in nodes.NODE_CLASS_MAPPINGS if name.startswith('SCP'))\n"
        "print('noise')\n"
        "print(json.dumps([sys.argv[1:], mine, torch.is_inference_mode_enabled(), folder_paths.base_path]))\n"
    )
    arguments, mine, inference, where = inhost(script, "one", "two words")
    assert arguments == ["one", "two words"]
    assert {"SCPLoadStatistics", "SCPLabelsFromImage", "SCPPriorLatent"} <= set(mine)
    assert inference
    assert where.endswith("base directory")


def test_a_script_that_fails_inside_the_host_shows_its_error(inhost: Callable[..., Any], tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text("raise ValueError('the reason')\n")
    with pytest.raises(HarnessError, match="the reason"):
        inhost(script)


def test_log_problems_tells_our_failures_from_the_hosts_own() -> None:
    harmless = (
        "Traceback (most recent call last):\n  File x\nModuleNotFoundError: No module named 'kornia'\n\n"
        "Cannot import /a b/ComfyUI/comfy_extras/nodes_canny.py module for custom nodes: No module named 'kornia'\n"
    )
    reported = "!!! Exception during processing !!! two\nlines\nTraceback (most recent call last):\n  File y\n"
    ours = "Traceback (most recent call last):\n  File z\nCannot import /base/custom_nodes/scp-diff module\n"
    failed = "   0.0 seconds (IMPORT FAILED): /base/custom_nodes/scp-diff"
    assert log_problems(harmless + harmless + reported + "IMPORT FAILED: nodes_canny.py\n") == []
    assert log_problems(harmless + ours + harmless) == ["Traceback (most recent call last):"]
    assert log_problems(reported + ours) == ["Traceback (most recent call last):"]
    assert log_problems(failed) == [failed]
