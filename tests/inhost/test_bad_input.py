"""What an artist is told, and by which node, when something is wrong."""

from __future__ import annotations

import json

import pytest
import torch


@pytest.fixture(scope="module")
def folder(host):
    """The model folder, with a good file and every kind of bad one."""
    from builders import make_statistics, save_toy_statistics
    from safetensors.torch import save_file

    folder = host.base / "models" / "scp_statistics"
    save_toy_statistics(folder / "good.safetensors", (8, 16))
    whole = (folder / "good.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "text.safetensors").write_text("not a model")
    (folder / "hand.npy").write_bytes(b"x")
    (host.base / "models" / "outside.safetensors").write_bytes(whole)
    save_file({"lora.weight": torch.zeros(2)}, folder / "lora.safetensors", metadata={"format": "pt"})
    save_toy_statistics(folder / "ade.safetensors", (8, 16), dataset="ade20k", palette="ade20k-controlnet")
    own = {"dataset": "mine", "palette": "mine", "class_names": json.dumps({0: "grass", 1: "sidewalk"})}
    save_toy_statistics(folder / "own.safetensors", (8, 16), **own)
    wide = make_statistics((0, 1, 2), channels=16, size=(8, 16), dataset="cityscapes", palette="cityscapes")
    host.library.save_statistics(wide, folder / "wide.safetensors")
    return folder


@pytest.fixture
def load(host, folder):
    return lambda name: host.run(host.nodes["SCPLoadStatistics"], statistics=name)[0]


def read(host, ids, palette="cityscapes-grey", **more):
    image = (ids.float() / 255).unsqueeze(-1).expand(*ids.shape, 3)
    return host.run(host.nodes["SCPLabelsFromImage"], image=image, palette=palette, tolerance=0.0, **more)[0]


def street(height=64, width=128):
    return torch.arange(width).div(width / 3, rounding_mode="floor").expand(1, height, width)


def prior(host, statistics, labels, **more):
    inputs = {"method": "joint", "seed": 1, "strength": 1.0, "batch_size": 1} | more
    return host.run(host.nodes["SCPPriorLatent"], statistics=statistics, labels=labels, **inputs)


class TestFiles:
    def test_only_safetensors_are_offered(self, host, folder):
        options = host.nodes["SCPLoadStatistics"].INPUT_TYPES()["required"]["statistics"][1]["options"]
        assert "good.safetensors" in options
        assert "hand.npy" not in options

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("cut.safetensors", "cut short"),
            ("text.safetensors", "cannot be read as a safetensors file"),
            ("lora.safetensors", "not a statistics file"),
            ("none.safetensors", "is not in"),
            ("../outside.safetensors", "is not in"),
            ("../../models/outside.safetensors", "is not in"),
            ("/etc/passwd", "is not in"),
            ("hand.npy", "is not in"),
        ],
    )
    def test_the_loader_refuses_before_anything_runs(self, host, load, name, words):
        told = host.nodes["SCPLoadStatistics"].validate_inputs(statistics=name)
        assert isinstance(told, str)
        assert words in told
        with pytest.raises(host.library.SCPError, match=words):
            load(name)

    def test_a_good_file_passes_and_its_fingerprint_follows_the_file(self, host, folder):
        node = host.nodes["SCPLoadStatistics"]
        assert node.validate_inputs(statistics="good.safetensors") is True
        before = node.fingerprint_inputs(statistics="good.safetensors")
        assert before == node.fingerprint_inputs(statistics="good.safetensors")
        path = folder / "good.safetensors"
        path.write_bytes(path.read_bytes())
        assert before != node.fingerprint_inputs(statistics="good.safetensors")

    def test_an_empty_folder_is_named(self, host, monkeypatch, tmp_path):
        monkeypatch.setitem(
            host.folder_paths.folder_names_and_paths, "scp_statistics", ([str(tmp_path)], {".safetensors"})
        )
        monkeypatch.setattr(host.folder_paths, "filename_list_cache", {})
        told = host.nodes["SCPLoadStatistics"].validate_inputs(statistics="x.safetensors")
        assert str(tmp_path) in told
        assert "Put one" in told


class TestLabels:
    @pytest.mark.parametrize("palette", ["nonsense", ""])
    def test_a_palette_that_is_not_there(self, host, palette):
        for node in ("SCPLabelsFromImage", "SCPHintFromLabels"):
            assert "Choose one of" in host.nodes[node].validate_inputs(palette=palette)

    def test_a_wrong_palette_names_the_better_one(self, host):
        labels = host.nodes["SCPHintFromLabels"]
        picture = host.run(labels, labels=read(host, street()), palette="cityscapes")[0]
        with pytest.raises(host.library.SCPError, match="Palette 'cityscapes.*' fits it better"):
            host.run(host.nodes["SCPLabelsFromImage"], image=picture, palette="ade20k", tolerance=0.0)

    def test_a_wrong_palette_that_happens_to_match_is_still_noticed(self, host, caplog):
        """A dark id map read as ade20k: everything is near black, "other"."""
        dark = (street() / 255).unsqueeze(-1).expand(1, 64, 128, 3)
        host.run(host.nodes["SCPLabelsFromImage"], image=dark, palette="ade20k", tolerance=24.0)
        assert "grey' fits it better" in caplog.text

    def test_unmatched_pixels_are_unlabelled_and_in_the_mask(self, host):
        ids = street().clone()
        ids[:, :8] = 200  # no trainId
        image = (ids.float() / 255).unsqueeze(-1).expand(1, 64, 128, 3)
        labels, unmatched = host.run(
            host.nodes["SCPLabelsFromImage"], image=image, palette="cityscapes-grey", tolerance=0.0
        )
        assert (labels.labels[:, :8] == 255).all()
        assert torch.equal(unmatched.bool(), ids == 200)

    def test_hints_of_another_data_set_are_refused(self, host):
        with pytest.raises(host.library.SCPError, match="cityscapes.*ade20k"):
            host.run(host.nodes["SCPHintFromLabels"], labels=read(host, street()), palette="ade20k")

    def test_auto_paints_what_the_released_controlnet_wants(self, host):
        node, ids = host.nodes["SCPHintFromLabels"], street()
        hint = host.run(node, labels=read(host, ids, "ade20k-grey"), palette="auto")[0]
        assert torch.equal((hint * 255).round().long()[0, 0, -1], torch.tensor([0, 0, 60]))  # id 2 of the 7x7x7 grid
        hint = host.run(node, labels=read(host, ids), palette="auto")[0]
        assert torch.equal((hint * 255).round().long()[0, 0, 0], torch.tensor([128, 64, 128]))


class TestPrior:
    def test_labels_of_another_data_set(self, host, load):
        with pytest.raises(host.library.SCPError, match="read as cityscapes.*ade20k.*SCP Labels From Image"):
            prior(host, load("ade.safetensors"), read(host, street()))

    def test_classes_numbered_differently(self, host, load):
        with pytest.raises(host.library.SCPError, match="0 is 'road' in the label map and 'grass' in the statistics"):
            prior(host, load("own.safetensors"), read(host, street()))

    def test_ids_of_ones_own_classes_go_with_any_statistics(self, host, load):
        labels = read(host, street(), "ids")
        assert torch.equal(labels.labels, street().long())
        own = prior(host, load("own.safetensors"), labels)[0]["samples"]
        assert torch.isfinite(own).all()
        named = prior(host, load("good.safetensors"), read(host, street()))[0]["samples"]
        assert torch.equal(prior(host, load("good.safetensors"), labels)[0]["samples"], named)
        hint = host.run(host.nodes["SCPHintFromLabels"], labels=labels, palette="cityscapes")[0]
        assert torch.equal((hint * 255).round().long()[0, 0, 0], torch.tensor([128, 64, 128]))
        with pytest.raises(host.library.SCPError, match="No released ControlNet.*Choose the palette"):
            host.run(host.nodes["SCPHintFromLabels"], labels=labels, palette="auto")

    def test_the_34_ids_are_turned_into_train_ids(self, host, load):
        statistics = load("good.safetensors")
        of_train_ids = prior(host, statistics, read(host, street()))[0]["samples"]
        ids = torch.tensor([7, 8, 11])[street().long()]  # road, sidewalk, building
        of_ids = prior(host, statistics, read(host, ids, "cityscapes-ids-grey"))[0]["samples"]
        assert torch.equal(of_train_ids, of_ids)

    def test_sizes_that_cannot_be(self, host, load):
        statistics = load("good.safetensors")
        with pytest.raises(host.library.SCPError, match="The width could be 120 or 128"):
            prior(host, statistics, read(host, street(64, 125)))
        with pytest.raises(host.library.SCPError, match="width and height on this node.*The height could be 96 or 104"):
            prior(host, statistics, read(host, street()), height=100)
        assert prior(host, statistics, read(host, street(50, 125)), width=128, height=64)[0]["samples"].shape == (
            1,
            4,
            8,
            16,
        )

    def test_batches_that_do_not_fit(self, host, load):
        statistics, three = load("good.safetensors"), read(host, street().expand(3, -1, -1))
        with pytest.raises(host.library.SCPError, match="multiple of 3; it is 4. Set batch_size to 3 or 6"):
            prior(host, statistics, three, batch_size=4)
        assert prior(host, statistics, three)[0]["samples"].shape[0] == 3
        assert prior(host, statistics, three, batch_size=6)[0]["samples"].shape[0] == 6

    def test_a_class_the_statistics_do_not_know_is_reported(self, host, load, caplog):
        ids = street().clone()
        ids[:, :, :32] = 13
        latent, _ = prior(host, load("good.safetensors"), read(host, ids))
        assert torch.isfinite(latent["samples"]).all()
        assert "car (class 13, 25.0%)" in caplog.text

    def test_a_model_of_other_latents(self, host, model, load):
        labels = read(host, street())
        with pytest.raises(host.library.SCPError, match="4 channels; wide.safetensors holds statistics of 16"):
            prior(host, load("wide.safetensors"), labels, model=model)
        _, preview = prior(host, load("good.safetensors"), labels, model=model)
        assert preview.shape == (1, 64, 128, 3)

    def test_methods_that_are_not_there(self, host):
        assert "Choose one of: joint" in host.nodes["SCPPriorLatent"].validate_inputs(method="best")
        assert host.nodes["SCPPriorLatent"].validate_inputs(method=None) is True


def test_changing_the_seed_reads_no_file(host, load, folder):
    statistics, labels = load("good.safetensors"), read(host, street())
    first = prior(host, statistics, labels, seed=1)[0]["samples"]
    hidden = folder / "good.hidden"
    (folder / "good.safetensors").rename(hidden)
    try:
        second = prior(host, statistics, labels, seed=2)[0]["samples"]
        assert torch.equal(prior(host, statistics, labels, seed=1)[0]["samples"], first)
    finally:
        hidden.rename(folder / "good.safetensors")
    assert not torch.equal(first, second)
