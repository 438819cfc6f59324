"""The authors' three files -> Statistics, against plain readings and slow loops."""

from __future__ import annotations

import copy
import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from shared_data import require

from scp_prior import classes, load_statistics, save_statistics
from scp_prior.errors import SCPError
from scp_prior.release import convert_release, find_release_files

SCALE = 0.18215
C, H, W = 4, 3, 5


def oracle(path: Path) -> dict:
    return np.load(path, allow_pickle=True).item()


def close(ours: torch.Tensor, theirs: np.ndarray, rtol: float = 1e-6) -> None:
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=rtol, atol=1e-12)


@pytest.fixture
def released() -> dict[str, Path]:
    return find_release_files(require("parity/ref_stats/cityscapes"))


class Made:
    """A small release whose numbers are known: classes 2 and 5 and 255 in the joint file, 2, 5 and 9 categorical."""

    def __init__(self, folder: Path):
        self.folder = folder
        random = np.random.default_rng(5)
        count = np.zeros((256, 1, H, W), np.float32)
        for class_id in (2, 5, 255):
            count[class_id, 0] = random.integers(0, 4, (H, W))
        count[2, 0, 0, 0] = 3
        self.joint = {
            "mean": random.normal(size=(256, C, H, W)).astype(np.float32),
            "std": random.uniform(0.1, 2, (256, C, H, W)).astype(np.float32),
            "count": count,
        }
        self.categorical = {
            k: {"mean": random.normal(size=C).astype("f4"), "std": random.uniform(0.1, 2, C).astype("f4")}
            for k in (5, 2, 9)
        }
        self.spatial = {"mean": np.ones((C, H, W), "f4"), "std": np.full((C, H, W), 2, "f4")}

    def save(self, *kinds: str) -> dict[str, Path]:
        names = {"categorical": "categorical", "spatial": "spatial", "joint": "spatial_class"}
        paths = {}
        for kind in kinds:
            paths[kind] = self.folder / f"x_{names[kind]}_mean_std.npy"
            np.save(paths[kind], getattr(self, kind), allow_pickle=True)
        return paths

    def convert(self, *kinds: str, dataset: str = "cityscapes", **options):
        return convert_release(**self.save(*kinds), dataset=dataset, **options).tensors()


@pytest.fixture
def made(tmp_path) -> Made:
    return Made(tmp_path)


# The recorded release


def test_the_recorded_release_is_read_value_for_value(released):
    statistics = convert_release(**released, dataset="cityscapes")
    ours = statistics.tensors()
    joint, spatial, categorical = (oracle(released[kind]) for kind in ("joint", "spatial", "categorical"))
    ids = [k for k in range(256) if joint["count"][k].any() or k in categorical]
    assert ours["class_ids"].tolist() == ids == [*range(19), 255]
    for row, class_id in enumerate(ids):
        seen = joint["count"][class_id, 0] > 0
        for part in ("mean", "std"):
            expected = np.where(seen, joint[part][class_id], 0)
            close(ours[f"joint.{part}"][row] * SCALE, expected)
            close(ours[f"class.{part}"][row] * SCALE, categorical[class_id][part])
        assert ours["joint.count"][row].tolist() == joint["count"][class_id, 0].tolist()
        assert int(ours["class.count"][row]) == int(joint["count"][class_id].sum())
    close(ours["spatial.mean"] * SCALE, spatial["mean"])
    close(ours["spatial.std"] * SCALE, spatial["std"])
    assert ours["joint.count"].dtype == torch.int32
    assert ours["class.count"].dtype == torch.int64
    assert {ours[key].dtype for key in ours if key.endswith(("mean", "std"))} == {torch.float32}


def test_the_recorded_release_survives_saving(released, tmp_path):
    statistics = convert_release(**released, dataset="cityscapes")
    save_statistics(statistics, tmp_path / "s.safetensors")
    again = load_statistics(tmp_path / "s.safetensors")
    assert again.metadata == statistics.metadata
    for key, tensor in statistics.tensors().items():
        assert torch.equal(again.tensors()[key], tensor)


def test_metadata_says_where_the_numbers_are_from(released):
    metadata = convert_release(**released, dataset="cityscapes").metadata
    assert metadata["dataset"] == "cityscapes"
    assert metadata["palette"] == classes.released_palette("cityscapes")
    assert metadata["image_size"] == "96x192"
    assert (metadata["latent_channels"], metadata["latent_downscale"]) == ("4", "8")
    assert metadata["images"] == "unknown"
    assert {int(k): v for k, v in json.loads(metadata["class_names"]).items()} == dict(
        classes.table("cityscapes").names
    )
    assert all(path.name in metadata["source"] for path in released.values())
    assert "Apache-2.0" in metadata["source"]
    assert metadata["created"].endswith("+00:00")
    assert metadata["software"]
    assert metadata["vae"].startswith("stabilityai/stable-diffusion-2-1")


@pytest.mark.parametrize(
    ("dataset", "rule"), [("cityscapes", "nearest"), ("ade20k", "nearest"), ("coco-stuff", "nearest; 255->150")]
)
def test_label_rule_of_each_release(made, dataset, rule):
    statistics = convert_release(**made.save("categorical"), dataset=dataset)
    assert statistics.metadata["label_rule"] == rule
    assert statistics.metadata["image_size"] == "unknown"


# Parts and what is derived


def test_only_the_given_parts_without_a_joint_file(made):
    categorical = made.convert("categorical")
    assert set(categorical) == {"class_ids", "class.count", "class.mean", "class.std"}
    assert categorical["class_ids"].tolist() == [2, 5, 9]
    assert categorical["class.count"].tolist() == [0, 0, 0]
    close(categorical["class.mean"][2] * SCALE, made.categorical[9]["mean"])
    spatial = made.convert("spatial")
    assert set(spatial) == {"class_ids", "spatial.mean", "spatial.std"}
    close(spatial["spatial.std"] * SCALE, made.spatial["std"])


def test_scale_factor_divides_means_and_stds(made):
    one, two = made.convert("joint", "spatial", scale_factor=1.0), made.convert("joint", "spatial", scale_factor=2.0)
    for key in one:
        factor = 2 if key.endswith(("mean", "std")) else 1
        assert torch.allclose(one[key], two[key] * factor)


def samples_of(made: Made, class_id: int, channel: int, y: int, x: int) -> list[float]:
    """As many numbers as the count, with exactly the mean and std of the cell."""
    n = int(made.joint["count"][class_id, 0, y, x])
    mean, std = (float(made.joint[part][class_id, channel, y, x]) for part in ("mean", "std"))
    if n < 2:
        return [mean] * n
    pair = std * math.sqrt(n / 2)
    return [mean - pair, mean + pair] + [mean] * (n - 2)


def test_marginals_are_the_moments_of_the_pooled_samples(made):
    """Each cell is turned into samples with its moments; pooling these is what the law of total variance promises."""
    made.joint["std"][made.joint["count"].repeat(C, axis=1) == 1] = 0
    for class_id in (2, 5):  # every position is seen by something
        made.joint["count"][class_id, 0] += 1
    made.joint["std"][made.joint["count"].repeat(C, axis=1) == 1] = 0
    ours = made.convert("joint")
    assert ours["class_ids"].tolist() == [2, 5, 255]
    positions = [(y, x) for y in range(H) for x in range(W)]
    for row, class_id in enumerate((2, 5, 255)):
        for channel in range(C):
            pooled = np.concatenate([samples_of(made, class_id, channel, y, x) for y, x in positions])
            assert float(ours["class.mean"][row, channel]) * SCALE == pytest.approx(pooled.mean(), rel=1e-5)
            assert float(ours["class.std"][row, channel]) * SCALE == pytest.approx(pooled.std(), rel=1e-5)
        assert int(ours["class.count"][row]) == made.joint["count"][class_id].sum()
    for y, x in positions:
        for channel in range(C):
            pooled = np.concatenate([samples_of(made, k, channel, y, x) for k in (2, 5, 255)])
            assert float(ours["spatial.mean"][channel, y, x]) * SCALE == pytest.approx(pooled.mean(), rel=1e-5)
            assert float(ours["spatial.std"][channel, y, x]) * SCALE == pytest.approx(pooled.std(), rel=1e-5, abs=1e-6)


def test_derived_spatial_statistics_nearly_meet_the_recorded_ones(released):
    """The recorded joint file saw every image once, the spatial one 40 draws with replacement: close, not equal."""
    derived = convert_release(joint=released["joint"], dataset="cityscapes").tensors()
    recorded = convert_release(spatial=released["spatial"], dataset="cityscapes").tensors()
    difference = (derived["spatial.mean"] - recorded["spatial.mean"]) * SCALE
    assert 0.01 < float(difference.abs().mean()) < 0.25


def test_derived_spatial_statistics_meet_the_latents_themselves(released):
    latents = np.load(require("parity/cityscapes_inputs.npz"))["latent"].astype(np.float64)
    derived = convert_release(joint=released["joint"], dataset="cityscapes").tensors()
    close(derived["spatial.mean"] * SCALE, latents.mean(0), rtol=2e-3)
    close(derived["spatial.std"] * SCALE, latents.std(0), rtol=2e-4)


def test_a_position_nothing_was_seen_at_gets_the_overall_moments(made):
    made.joint["count"][:, :, 1, 2] = 0
    ours = made.convert("joint")
    total = ours["class.count"].double()
    overall = (total[:, None] * ours["class.mean"]).sum(0) / total.sum()
    variance = (total[:, None] * (ours["class.std"].double() ** 2 + (ours["class.mean"] - overall) ** 2)).sum(0)
    close(ours["spatial.mean"][:, 1, 2].double(), overall.numpy(), rtol=1e-5)
    close(ours["spatial.std"][:, 1, 2].double(), (variance / total.sum()).sqrt().numpy(), rtol=1e-5)


def test_a_class_only_the_categorical_file_knows_has_no_cells(made):
    ours = made.convert("joint", "categorical")
    assert ours["class_ids"].tolist() == [2, 5, 9, 255]
    assert int(ours["joint.count"][2].sum()) == 0
    assert int(ours["class.count"][2]) == 0
    assert int(ours["joint.count"][3].sum()) == made.joint["count"][255].sum()
    close(ours["class.mean"][2] * SCALE, made.categorical[9]["mean"])


def test_a_class_only_the_joint_file_knows_gets_its_pooled_moments(made):
    both, alone = made.convert("joint", "categorical"), made.convert("joint")
    assert torch.equal(both["class.mean"][3], alone["class.mean"][2])
    assert torch.equal(both["class.std"][3], alone["class.std"][2])


def test_cells_nothing_was_seen_at_are_zero_whatever_the_file_says(made):
    empty = (made.joint["count"] == 0).repeat(C, axis=1)
    made.joint["mean"][empty] = np.nan
    made.joint["std"][empty] = -np.inf
    ours = made.convert("joint")
    assert torch.isfinite(ours["joint.mean"]).all()
    assert float(ours["joint.std"][ours["joint.count"].unsqueeze(1).expand(-1, C, -1, -1) == 0].abs().max()) == 0


# Classes drawn once


@pytest.mark.parametrize("lost", [None, 5, 9])
@pytest.mark.parametrize("kinds", [("joint",), ("categorical",), ("joint", "categorical")])
def test_no_class_gets_moments_nobody_gave(made, kinds, lost):
    """Zeros stand for "nothing seen" in cells only: a class's own mean and std come from a file or its cells."""
    if lost is not None:
        lose_std(made, lost, "nan")
    ours = made.convert(*kinds)
    for row, class_id in enumerate(ours["class_ids"].tolist()):
        if "categorical" in kinds and class_id in made.categorical:
            close(ours["class.mean"][row] * SCALE, made.categorical[class_id]["mean"])
        else:
            count = made.joint["count"][class_id]
            cells = (count * made.joint["mean"][class_id]).sum((1, 2)) / count.sum()
            close(ours["class.mean"][row] * SCALE, cells, rtol=1e-5)
        assert float(ours["class.std"][row].min()) > 0


def test_a_count_is_0_where_no_file_says_it(made):
    alone, both = made.convert("categorical"), made.convert("categorical", "joint")
    assert alone["class.count"].tolist() == [0, 0, 0]
    known = [int(made.joint["count"][k].sum()) for k in (2, 5, 9, 255)]
    assert both["class.count"].tolist() == known
    assert [n > 0 for n in known] == [True, True, False, True]


@pytest.mark.parametrize("how", ["nan", "one nan", "missing"])
def test_an_unknown_std_is_pooled_from_the_joint_cells(made, how):
    expected = made.convert("joint")["class.std"][1]
    lose_std(made, 5, how)
    ours = made.convert("joint", "categorical")
    assert torch.equal(ours["class.std"][1], expected)
    close(ours["class.mean"][1] * SCALE, made.categorical[5]["mean"])


@pytest.mark.parametrize("how", ["nan", "one nan", "missing"])
@pytest.mark.parametrize("kinds", [("categorical",), ("categorical", "joint")])
def test_an_unknown_std_without_joint_cells_is_the_mean_of_the_others(made, how, kinds):
    lose_std(made, 9, how)
    ours = made.convert(*kinds)
    row = ours["class_ids"].tolist().index(9)
    others = [i for i in range(len(ours["class_ids"])) if i != row]
    close(ours["class.std"][row], ours["class.std"][others].double().mean(0).numpy(), rtol=1e-6)
    close(ours["class.mean"][row] * SCALE, made.categorical[9]["mean"])


def test_one_joint_sample_is_no_std_either(made):
    lose_std(made, 5, "nan")
    made.joint["count"][5] = 0
    made.joint["count"][5, 0, 1, 1] = 1
    made.joint["std"][5] = 0
    ours = made.convert("categorical", "joint")
    assert float(ours["class.std"][1].min()) > 0.1


def test_no_std_at_all_is_an_error(made):
    for class_id in (2, 5, 9):
        lose_std(made, class_id, "nan")
    with pytest.raises(SCPError, match="every class was seen once"):
        made.convert("categorical")
    assert made.convert("categorical", "joint")["class.std"].min() > 0


def lose_std(made: Made, class_id: int, how: str) -> None:
    if how == "missing":
        del made.categorical[class_id]["std"]
    else:
        made.categorical[class_id]["std"][slice(None) if how == "nan" else 1] = np.nan


# Refusals


def spoil(made: Made, what: str) -> None:
    joint, spatial, categorical = made.joint, made.spatial, made.categorical
    at = (2, 1, 0, 0)
    changes = {
        "joint mean nan": lambda: joint["mean"].__setitem__(at, np.nan),
        "joint std inf": lambda: joint["std"].__setitem__(at, np.inf),
        "joint std negative": lambda: joint["std"].__setitem__(at, -1),
        "count nan": lambda: joint["count"].__setitem__((2, 0, 0, 0), np.nan),
        "count negative": lambda: joint["count"].__setitem__((2, 0, 0, 0), -1),
        "count fraction": lambda: joint["count"].__setitem__((2, 0, 0, 0), 1.5),
        "count huge": lambda: joint["count"].__setitem__((2, 0, 0, 0), 2**33),
        "count zero": lambda: joint["count"].fill(0),
        "joint shape": lambda: joint.update(std=joint["std"][:, :3]),
        "joint without count": lambda: joint.pop("count"),
        "joint extra": lambda: joint.update(extra=joint["std"].copy()),
        "spatial nan": lambda: spatial["mean"].__setitem__((0, 0, 0), np.nan),
        "spatial too large": lambda: spatial.update(mean=np.full((C, H, W), 1e300)),
        "spatial shape": lambda: spatial.update(std=spatial["std"][:, :, 1:]),
        "class mean nan": lambda: categorical[9]["mean"].__setitem__(0, np.nan),
        "class std inf": lambda: categorical[9]["std"].__setitem__(0, np.inf),
        "class std negative": lambda: categorical[9]["std"].__setitem__(0, -1),
        "class without mean": lambda: categorical[9].pop("mean"),
        "class shape": lambda: categorical[9].update(std=np.zeros(3)),
        "class channels": lambda: categorical.update({9: {"mean": np.zeros(3), "std": np.zeros(3)}}),
        "class name": lambda: categorical.update({"road": dict(categorical.pop(9))}),
        "class id": lambda: categorical.update({-1: copy.deepcopy(categorical[9])}),
        "class value": lambda: categorical.update({9: 3}),
        "class empty": categorical.clear,
    }
    changes[what]()


@pytest.mark.parametrize(
    ("kind", "what", "found"),
    [
        ("joint", "joint mean nan", r"x_spatial_class_mean_std.npy: class 2 has a mean that is not a finite"),
        ("joint", "joint std inf", r"class 2 has a std that is not a finite"),
        ("joint", "joint std negative", r"class 2 has a negative std"),
        ("joint", "count nan", r"class 2 has the count nan"),
        ("joint", "count negative", r"class 2 has the count -1"),
        ("joint", "count fraction", r"class 2 has the count 1.5"),
        ("joint", "count huge", r"class 2 has the count"),
        ("joint", "count zero", r"counts are all zero"),
        ("joint", "joint shape", r"\(256, 4, 3, 5\), \(256, 3, 3, 5\) and \(256, 1, 3, 5\)"),
        ("joint", "joint without count", r"expected the arrays mean, std, count"),
        ("joint", "joint extra", r"extra \(256, 4, 3, 5\)"),
        ("spatial", "spatial nan", r"mean that is not a finite"),
        ("spatial", "spatial too large", r"mean that is not a finite"),
        ("spatial", "spatial shape", r"came \(4, 3, 5\) and \(4, 3, 4\)"),
        ("categorical", "class mean nan", r"class 9 has a mean that is not a finite"),
        ("categorical", "class std inf", r"class 9 has a std that is not a finite"),
        ("categorical", "class std negative", r"class 9 has a negative std"),
        ("categorical", "class without mean", r"class 9: expected a mean"),
        ("categorical", "class shape", r"class 9: its std is not of the shape"),
        ("categorical", "class channels", r"3 and 4 channels"),
        ("categorical", "class name", r"expected {class id"),
        ("categorical", "class id", r"class ids from -1 to 9"),
        ("categorical", "class value", r"expected {class id"),
        ("categorical", "class empty", r"holds nothing"),
    ],
)
def test_bad_values_are_refused_by_name(made, kind, what, found):
    assert made.convert(kind)
    spoil(made, what)
    with pytest.raises(SCPError, match=found):
        made.convert(kind)


def test_files_of_different_sets_are_refused_with_names_and_shapes(made):
    made.spatial = {"mean": np.ones((C, H, W + 1), "f4"), "std": np.ones((C, H, W + 1), "f4")}
    found = r"x_spatial_mean_std.npy is of shape \(4, 3, 6\) and x_spatial_class_mean_std.npy of shape \(4, 3, 5\)"
    with pytest.raises(SCPError) as error:
        made.convert("joint", "spatial")
    for part in ("x_spatial_mean_std.npy", "x_spatial_class_mean_std.npy", "(4, 3, 6)", "(4, 3, 5)"):
        assert part in str(error.value), found
    made.spatial = {"mean": np.ones((3, H, W), "f4"), "std": np.ones((3, H, W), "f4")}
    with pytest.raises(SCPError) as error:
        made.convert("categorical", "spatial")
    for part in ("x_spatial_mean_std.npy", "x_categorical_mean_std.npy", "(3, 3, 5)", "(4,)"):
        assert part in str(error.value)


def test_files_given_in_each_others_place_are_refused(made):
    paths = made.save("joint", "spatial", "categorical")
    for kind in paths:
        for other in set(paths) - {kind}:
            with pytest.raises(SCPError, match="expected"):
                convert_release(**{kind: paths[other]}, dataset="cityscapes")


def test_arguments_are_checked(made):
    with pytest.raises(SCPError, match="no released data set 'pascal'"):
        made.convert("spatial", dataset="pascal")
    with pytest.raises(SCPError, match="at least one"):
        convert_release(dataset="cityscapes")
    for factor in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(SCPError, match="scale factor"):
            made.convert("spatial", scale_factor=factor)


def test_classes_that_were_not_seen_cost_no_memory(made):
    """Of 256 classes 3 are there: beside the file's own bytes, no more than a few of theirs may be held."""
    random = np.random.default_rng(1)
    h, w = 32, 48
    count = np.zeros((256, 1, h, w), np.float32)
    count[[2, 5, 255]] = 4
    made.joint = {part: random.random((256, C, h, w), np.float32) for part in ("mean", "std")} | {"count": count}
    path = made.save("joint")["joint"]
    tracemalloc.start()
    convert_release(joint=path, dataset="cityscapes")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 14_000_000
    assert peak < path.stat().st_size * 1.25


# Finding


NAMES = {
    "categorical": "ade20k_10000_categorical_mean_std.npy",
    "spatial": "ade20k_10000_spatial_mean_std.npy",
    "joint": "ade20k_10000_spatial_class_mean_std.npy",
}


def touch(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


def test_each_file_is_found_by_its_own_name(tmp_path):
    others = ("ade20k_10000_spatial_mean_std_raw.npy", "readme.txt", "ade20k.ckpt", "x.npy")
    touch(tmp_path / "a", *NAMES.values(), *others)
    expected = {kind: tmp_path / "a" / name for kind, name in NAMES.items()}
    assert find_release_files(tmp_path / "a") == expected
    assert find_release_files([str(tmp_path / "a")]) == expected
    assert find_release_files(reversed(list(expected.values()))) == expected
    assert find_release_files([tmp_path / "a", expected["joint"]]) == expected
    for kind, path in expected.items():
        assert find_release_files(path) == {**dict.fromkeys(NAMES), kind: path}


def test_folders_with_several_sets_and_doubled_files_are_refused(tmp_path):
    touch(tmp_path / "a", *NAMES.values(), "coco-stuff_10000_spatial_mean_std.npy")
    with pytest.raises(SCPError, match=r"several data sets \(ade20k_10000, coco-stuff_10000\)"):
        find_release_files(tmp_path / "a")
    (path,) = touch(tmp_path / "b", NAMES["joint"])
    with pytest.raises(SCPError, match="two joint files"):
        find_release_files([path, tmp_path / "a" / NAMES["joint"]])


def test_nothing_to_find_and_strange_names_are_errors(tmp_path):
    with pytest.raises(SCPError, match="No released statistics in"):
        find_release_files(tmp_path)
    with pytest.raises(SCPError, match="no path"):
        find_release_files([])
    with pytest.raises(SCPError, match="not named like a released file"):
        find_release_files(touch(tmp_path / "c", "statistics.npy"))
    with pytest.raises(SCPError, match="There is no file or folder"):
        find_release_files(tmp_path / NAMES["joint"])
