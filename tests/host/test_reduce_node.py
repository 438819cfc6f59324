"""SCPReduceStatistics in the real host: progress seen over the websocket, a cancel that takes effect, the same file."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import aiohttp
import demo_set
import numpy as np
import pytest
import tiny_models
from comfy_server import PromptRejected, Server
from PIL import Image

from scp_prior import load_statistics
from scp_prior.checkpoint import checkpoint_path
from scp_prior.classes import palette, table
from scp_prior.datasets import open_dataset
from scp_prior.reduce import Plan, finish, reduce
from scp_prior.vae import load_encoder

SIZE = (64, 128)
PAIRS, MANY = 12, 150


@pytest.fixture(scope="module")
def photos(base: Path) -> Path:
    """A folder of the host's input: photos/ and maps/ of a dozen drawn streets, and many/ of links to them."""
    tiny_models.write_vae(base / "models" / "vae" / "tiny_vae.safetensors")
    folder = base / "input" / "streets"
    for name in ("photos", "maps", "many/photos", "many/maps"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(PAIRS):
        labels, picture = drawn(i)
        Image.fromarray(picture).save(folder / "photos" / f"street {i}.png")
        Image.fromarray(labels).save(folder / "maps" / f"street {i}.png")
    for i in range(MANY):
        for kind in ("photos", "maps"):
            (folder / "many" / kind / f"{i:04}.png").symlink_to(folder / kind / f"street {i % PAIRS}.png")
    return folder


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A small street: label ids (H, W) uint8 and picture (H, W, 3) uint8."""
    scene = demo_set.draw_scene(seed, table("cityscapes"), size=(128, 256))
    return scene.labels.astype(np.uint8), (scene.picture * 255).round().astype(np.uint8)


def graph(name: str, folder: str = "streets", **more) -> dict:
    inputs = {"vae": ["1", 0], "images_folder": f"{folder}/photos", "labels_folder": f"{folder}/maps"}
    inputs |= {"palette": "cityscapes-grey", "width": SIZE[1], "height": SIZE[0], "name": name, "batch_size": 4}
    return {
        "1": {"class_type": "VAELoader", "inputs": {"vae_name": "tiny_vae.safetensors"}},
        "2": {"class_type": "SCPReduceStatistics", "inputs": inputs | {"on_error": "stop"} | more},
    }


async def run_watched(server: Server, prompt: dict, *, cancel_after: int | None = None, timeout: float = 120) -> dict:
    """Run a prompt with a websocket open: progress values seen, how it ended, and seconds from cancel to end."""
    seen: list[int] = []
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/ws?clientId=watch") as socket:
        body = {"prompt": prompt, "client_id": "watch"}
        async with session.post(f"{server.url}/prompt", json=body) as answer:
            assert answer.status == 200, await answer.text()
        cancelled = 0.0
        async with asyncio.timeout(timeout):
            async for message in socket:
                if message.type != aiohttp.WSMsgType.TEXT:
                    continue
                event = json.loads(message.data)
                kind, data = event["type"], event["data"]
                if kind == "progress" and data["node"] == "2":
                    seen.append(data["value"])
                    if cancel_after is not None and not cancelled and len(seen) >= cancel_after:
                        cancelled = time.monotonic()
                        async with session.post(f"{server.url}/interrupt") as answer:
                            assert answer.status == 200
                if kind in ("execution_success", "execution_error", "execution_interrupted"):
                    return {"seen": seen, "ended": kind, "data": data, "after": time.monotonic() - cancelled}
    raise AssertionError("the websocket closed")


def watch(server, prompt, **more) -> dict:
    return asyncio.run(run_watched(server, prompt, **more))


def test_photos_become_a_file_the_graph_can_use(server, base, photos):
    ended = watch(server, graph("streets"))
    assert ended["ended"] == "execution_success"
    assert ended["seen"][-1] == PAIRS
    assert ended["seen"] == sorted(ended["seen"])
    path = base / "models" / "scp_statistics" / "streets.safetensors"
    made = load_statistics(path)
    assert made.metadata["images"] == str(PAIRS)
    assert made.metadata["image_size"] == f"{SIZE[0]}x{SIZE[1]}"
    assert not checkpoint_path(path).exists()

    # The command line's reduction with the same weights, read by our own code, is the independent word.
    dataset = open_dataset("folder", images=photos / "photos", labels=photos / "maps", palette="cityscapes-grey")
    encoder, plan = load_encoder(base / "models" / "vae" / "tiny_vae.safetensors"), Plan(SIZE, 4)
    other = finish(reduce(dataset, encoder, plan), dataset, encoder, plan)
    assert made.metadata["vae"].split("sha256:")[1] == other.metadata["vae"].split("sha256:")[1]
    ours, theirs = made.tensors(), other.tensors()
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert float((ours[key].double() - theirs[key].double()).abs().max()) < 1e-3, key


def test_the_statistics_wire_goes_on_into_a_prior(server, base, photos):
    prompt = graph("wired")
    Image.open(photos / "maps" / "street 0.png").save(base / "input" / "street0.png")
    prompt |= {
        "3": {"class_type": "LoadImage", "inputs": {"image": "street0.png"}},
        "4": {
            "class_type": "SCPLabelsFromImage",
            "inputs": {"image": ["3", 0], "palette": "cityscapes-grey", "tolerance": 0.0},
        },
        "5": {
            "class_type": "SCPPriorLatent",
            "inputs": {"statistics": ["2", 0], "labels": ["4", 0], "method": "joint", "seed": 1}
            | {"strength": 1.0, "batch_size": 1, "width": SIZE[1], "height": SIZE[0]},
        },
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 0]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "wired"}},
    }
    assert [node for node, _ in server.pictures(server.run(prompt))].count("7") == 1


def test_a_cancel_takes_effect_at_once_and_keeps_what_was_done(server, base, photos):
    prompt = graph("cancelled", "streets/many", batch_size=1)
    stopped = watch(server, prompt, cancel_after=3)
    assert stopped["ended"] == "execution_interrupted"
    assert stopped["after"] < 5  # a second or one batch, on a machine that may be busy
    path = base / "models" / "scp_statistics" / "cancelled.safetensors"
    assert not path.exists()
    assert checkpoint_path(path).exists()
    done = stopped["seen"][-1]
    assert 3 <= done < MANY
    resumed = watch(server, prompt)
    assert resumed["ended"] == "execution_success"
    assert resumed["seen"][0] > done, "it began again from the first photo"
    assert load_statistics(path).metadata["images"] == str(MANY)
    assert not checkpoint_path(path).exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images_folder": "../../models"}, "is not a folder in"),
        ({"images_folder": "/etc"}, "is not a folder in"),
        ({"name": "../escape"}, "cannot be a file's name"),
        ({"name": ""}, "cannot be a file's name"),
        ({"name": "nul.x"}, "cannot be a file's name"),
        ({"name": "é" * 80}, "cannot be a file's name"),
        ({"palette": "rainbow"}, "Choose one of"),
    ],
)
def test_nothing_leaves_its_folder(server, photos, changes, words):
    with pytest.raises(PromptRejected) as refused:
        server.post(graph(**{"name": "x", **changes}))
    assert words in str(refused.value.node_errors["2"]["errors"])


def test_merge_and_save(server, base, photos):
    server.run(graph("one"))
    server.run(graph("many", "streets/many"))
    prompt = {
        "1": {"class_type": "SCPLoadStatistics", "inputs": {"statistics": "one.safetensors"}},
        "2": {"class_type": "SCPLoadStatistics", "inputs": {"statistics": "many.safetensors"}},
        "3": {"class_type": "SCPMergeStatistics", "inputs": {"statistics_a": ["1", 0], "statistics_b": ["2", 0]}},
        "4": {
            "class_type": "SCPSaveStatistics",
            "inputs": {"statistics": ["3", 0], "name": "both", "overwrite": False},
        },
    }
    server.run(prompt)
    both = load_statistics(base / "models" / "scp_statistics" / "both.safetensors")
    assert both.metadata["images"] == str(PAIRS + MANY)
    assert palette(both.metadata["palette"]).table.name == "cityscapes"


def test_another_folder_of_the_same_names_is_not_taken_for_the_first(server, base, photos):
    """Cancelled on one folder, run on another: nothing of the first may be in the file."""
    other = photos / "other"
    for kind in ("photos", "maps"):
        (other / kind).mkdir(parents=True)
    for i in range(MANY):
        Image.new("RGB", (256, 128), (9, 9, 9)).save(other / "photos" / f"{i:04}.png")
        Image.new("L", (256, 128), 7).save(other / "maps" / f"{i:04}.png")
    stopped = watch(server, graph("mixed", "streets/many", batch_size=1), cancel_after=3)
    assert stopped["ended"] == "execution_interrupted"
    server.run(graph("mixed", "streets/other", batch_size=1))
    made = load_statistics(base / "models" / "scp_statistics" / "mixed.safetensors")
    assert made.class_ids.tolist() == [7]
    assert made.metadata["images"] == str(MANY)
