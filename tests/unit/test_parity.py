"""Our priors against the authors' recorded outputs (shared/parity), in the model's units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from shared_data import require

from scp_prior import Statistics, prior_maps
from scp_prior.schedule import ddpm_sigmas

SCALE = 0.18215
CASES = ("clean", "clean_train", "unseen")
# Ours, theirs, tolerance.
JOINT = [("joint-spatial", "spatial-class-joint", 1e-4), ("joint-class", "class-spatial-joint", 1e-4)]
MARGINAL = [("spatial", "spatial", 2e-6), ("class", "class", 2e-6)]
MIXTURES = [("spatial-class@0.5,0.5", 0.5), ("spatial-class@0.3,0.7", 0.3)]


@pytest.fixture(scope="module")
def recorded() -> dict[str, torch.Tensor]:
    with np.load(require("parity/cityscapes_priors.npz")) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


@pytest.fixture(scope="module")
def schedule() -> dict[str, torch.Tensor]:
    with np.load(require("parity/schedule.npz")) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


@pytest.fixture(scope="module")
def statistics() -> Statistics:
    with np.load(require("parity/cityscapes_stats.npz")) as arrays:
        a = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    assert torch.equal(a["cat_ids"], a["joint_merged16_ids"])
    return Statistics.from_tensors(
        {
            "class_ids": a["cat_ids"],
            "joint.count": a["joint_merged16_count"].squeeze(1).to(torch.int32),
            "joint.mean": a["joint_merged16_mean"] / SCALE,
            "joint.std": a["joint_merged16_std"] / SCALE,
            "class.count": a["cat_n"],
            "class.mean": a["cat_mean"] / SCALE,
            "class.std": a["cat_std"] / SCALE,
            "spatial.mean": a["spatial_mean"] / SCALE,
            "spatial.std": a["spatial_std"] / SCALE,
        },
        {"dataset": "cityscapes", "label_rule": "nearest"},
    )


def noised(maps, recorded, schedule, key: str, step: int) -> torch.Tensor:
    """The authors' q_sample of a prior draw, with the noise they drew, from our maps; model units."""
    x0 = (maps.mean + maps.std * recorded[f"{key}/noise_x0"]) * SCALE
    noise = recorded[f"{key}/noise_q"]
    return schedule["sqrt_alphas_cumprod"][step] * x0 + schedule["sqrt_one_minus_alphas_cumprod"][step] * noise


def steps_of(recorded, key: str) -> list[int]:
    steps = sorted(int(k.split("/")[2]) for k in recorded if k.startswith(key + "/") and k.endswith("/x_t"))
    assert steps == [600, 799, 999]
    return steps


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("ours", "theirs", "tolerance"), JOINT + MARGINAL)
def test_same_noised_prior_from_the_same_noise(recorded, schedule, statistics, case, ours, theirs, tolerance):
    maps = prior_maps(statistics, recorded[f"{case}/label"][None].long(), ours)
    for step in steps_of(recorded, f"{case}/{theirs}"):
        x_t = noised(maps, recorded, schedule, f"{case}/{theirs}", step)
        assert (x_t - recorded[f"{case}/{theirs}/{step}/x_t"]).abs().max() <= tolerance


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("theirs", "weight"), MIXTURES)
def test_their_mixture_at_weights_summing_to_one_is_ours(recorded, schedule, statistics, case, theirs, weight):
    maps = prior_maps(statistics, recorded[f"{case}/label"][None].long(), "mixture", weight=weight)
    for step in steps_of(recorded, f"{case}/{theirs}"):
        x_t = noised(maps, recorded, schedule, f"{case}/{theirs}", step)
        assert (x_t - recorded[f"{case}/{theirs}/{step}/x_t"]).abs().max() <= 2e-6


@pytest.mark.parametrize("case", CASES)
def test_their_default_mixture_adds_the_two_means(recorded, statistics, case):
    """A difference on purpose: at their default scales of 1 and 1 the mean is a sum, not an average."""
    labels = recorded[f"{case}/label"][None].long()
    both = sum(prior_maps(statistics, labels, method).mean for method in ("spatial", "class")) * SCALE
    theirs = recorded[f"{case}/spatial-class@1.0,1.0/mean_map"]
    assert (both - theirs).abs().max() <= 2e-6
    ours = prior_maps(statistics, labels, "mixture").mean * SCALE
    assert (ours - theirs / 2).abs().max() <= 2e-6


@pytest.mark.parametrize("case", CASES)
def test_normal_is_the_hosts_start(recorded, statistics, case):
    maps = prior_maps(statistics, recorded[f"{case}/label"][None].long(), "normal")
    assert torch.equal(recorded[f"{case}/normal/999/x_t"], recorded[f"{case}/normal/noise_q"])
    assert not maps.mean.any()
    assert not maps.std.any()


@pytest.mark.parametrize("case", CASES)
def test_joint_without_pseudo_counts_is_joint_class(recorded, statistics, case):
    labels = recorded[f"{case}/label"][None].long()
    ours = prior_maps(statistics, labels, "joint", shrinkage=0)
    theirs = prior_maps(statistics, labels, "joint-class")
    assert all(torch.equal(a, b) for a, b in zip(ours[:3], theirs[:3], strict=True))
    assert ours.scene is theirs.scene is None


def test_unseen_case_really_holds_a_class_without_statistics(recorded, statistics):
    known = set(statistics.class_ids.tolist())
    assert set(recorded["unseen/label"].unique().tolist()) - known or not set(
        recorded["unseen/label"].unique().tolist()
    ) <= set(statistics.class_ids[statistics.categorical().count > 0].tolist())


def test_training_schedule(schedule):
    abar = schedule["alphas_cumprod"]
    torch.testing.assert_close(ddpm_sigmas(), ((1 - abar) / abar).sqrt(), rtol=1e-6, atol=0)


def test_their_start_from_a_picture_is_the_hosts_own_noising(recorded, schedule):
    """`x0` in the authors' code needs no node of ours: it is VAEEncode into KSampler. The formula, for the record."""
    key = "clean/x0"
    for step in steps_of(recorded, key):
        sigma = float(ddpm_sigmas()[step])
        host = recorded["clean/latent"] + sigma * recorded[f"{key}/noise_q"]
        x_t = host / (1 + sigma**2) ** 0.5
        assert (x_t - recorded[f"{key}/{step}/x_t"]).abs().max() <= 2e-6
