"""Palettes in the host: finding out which, repainting, and class tables of the user's in the model folder."""

from __future__ import annotations

import os
import sys

import pytest
import torch

WITH_PALETTES = {
    "SCPLabelsFromImage": ["palette"],
    "SCPHintFromLabels": ["palette"],
    "SCPRecolor": ["from_palette", "to_palette"],
    "SCPReduceStatistics": ["palette"],
}
MEADOW = "id,name,rgb\n1,meadow,#44aa33\n2,brook,#3366cc\n3,sky,#90c0f0\n255,void,#101010\n"


@pytest.fixture
def folder(host, tmp_path, monkeypatch):
    """A model folder with class tables of every kind, and much else."""
    folder = tmp_path / "models" / "scp_statistics"
    (folder / "sub").mkdir(parents=True)
    known = host.folder_paths.folder_names_and_paths
    monkeypatch.setitem(known, "scp_statistics", ([str(folder)], known["scp_statistics"][1]))
    monkeypatch.setattr(host.folder_paths, "filename_list_cache", {})
    files = {
        "meadow.csv": MEADOW,
        "sub/other.json": '[{"id": 0, "name": "car", "rgb": "#0102fa"}, {"id": 1, "name": "fern", "rgb": [9, 90, 9]}]',
        "ade20k.csv": "id,name,rgb\n1,not a wall,#ff00ff\n",
        "broken.csv": "id,name,rgb\n1,meadow,#44aa33\n1,brook,#3366cc\n",
        ".hidden.csv": MEADOW,
        "notes.txt": MEADOW,
        "settings.json": '{"steps": [1, 2]}',
        "cut.json": '[{"id": 1, "name": "meadow", "rgb": [1, 2',
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder.parent / "outside.csv").write_text(MEADOW)
    return folder


def options(host, node: str, name: str) -> list[str]:
    return host.nodes[node].INPUT_TYPES()["required"][name][1]["options"]


def painted(host, palette: str, ids, size=(64, 96)) -> torch.Tensor:
    """Stripes of the ids, (1, H, W, 3) in 0..1."""
    from scp_prior.classes import palette as built_in
    from scp_prior.labels import hint_from_labels

    columns = torch.tensor(ids)[torch.arange(size[1]) * len(ids) // size[1]]
    return hint_from_labels(columns.expand(1, *size), built_in(palette))


def rgb(image: torch.Tensor) -> list[list[int]]:
    """The distinct colours, in 8 bits."""
    return image.mul(255).round().long().flatten(0, -2).unique(dim=0).tolist()


STREET = [0, 1, 2, 8, 10, 13]
ROOM = [1, 2, 3, 5, 10, 21]


class TestAuto:
    def test_labels_are_those_of_the_palette_found(self, host, caplog):
        caplog.set_level("INFO")
        picture = painted(host, "ade20k-oneformer", [1, 3, 5, 138, 147, 150])
        labels, _ = host.run(host.nodes["SCPLabelsFromImage"], image=picture, palette="auto", tolerance=24.0)
        assert labels.palette.name == "ade20k-oneformer"
        assert labels.labels.unique().tolist() == [1, 3, 5, 138, 147, 150]
        assert "looks like ade20k-oneformer: fits 100%; next: " in caplog.text
        assert "confidence high" in caplog.text
        assert "WARNING" not in caplog.text

    def test_what_is_not_sure_is_a_warning(self, host, caplog):
        picture = painted(host, "cityscapes", [0, 2, 10, 13])
        labels, _ = host.run(host.nodes["SCPLabelsFromImage"], image=picture, palette="auto", tolerance=24.0)
        assert labels.palette.name == "cityscapes"
        assert "(or cityscapes-ids: the same colours)" in caplog.text
        blurred = torch.nn.functional.avg_pool2d(painted(host, "coco-stuff-grey", ROOM).movedim(-1, 1), 3, 1)
        host.run(host.nodes["SCPLabelsFromImage"], image=blurred.movedim(1, -1), palette="auto", tolerance=0.0)
        assert "confidence LOW: ids were blurred" in caplog.text

    @pytest.mark.parametrize(
        ("node", "more"),
        [("SCPLabelsFromImage", {"palette": "auto"}), ("SCPRecolor", {"from_palette": "auto", "to_palette": "ade20k"})],
    )
    def test_where_nothing_fits_the_nearest_is_named(self, host, node, more):
        noise = torch.rand(1, 64, 64, 3, generator=torch.manual_seed(0))
        with pytest.raises(host.library.SCPError, match=r"No palette fits this picture; the nearest is '[a-z0-9-]+'"):
            host.run(host.nodes[node], image=noise, tolerance=24.0, **more)

    def test_too_much_unmatched_stops_here_as_well(self, host):
        picture = painted(host, "ade20k", ROOM)
        picture[:, ::2] = 0.99
        words = (
            "50% of the picture matches no colour of palette 'ade20k'. It is the likeliest: choose another. Or raise"
        )
        with pytest.raises(host.library.SCPError, match=words):
            host.run(host.nodes["SCPLabelsFromImage"], image=picture, palette="auto", tolerance=0.0, max_unmatched=0.1)


class TestRecolor:
    @pytest.mark.parametrize("from_palette", ["auto", "ade20k-oneformer"])
    def test_a_preprocessor_s_colours_become_a_controlnet_s(self, host, caplog, from_palette):
        caplog.set_level("INFO")
        picture = painted(host, "ade20k-oneformer", [*ROOM, 138])
        image, unmatched = host.run(
            host.nodes["SCPRecolor"], image=picture, from_palette=from_palette, to_palette="ade20k", tolerance=24.0
        )
        assert torch.equal(image, painted(host, "ade20k", [*ROOM, 138]))
        assert not unmatched.any()
        assert "ade20k-oneformer -> ade20k, 0.0% of the picture unmatched" in caplog.text

    def test_batches_half_precision_and_portraits(self, host):
        node = host.nodes["SCPRecolor"]
        pictures = torch.cat([painted(host, "ade20k", ids, (96, 72)) for ids in (ROOM, [7, 9, 12])])
        wanted = torch.cat([painted(host, "ade20k-controlnet", ids, (96, 72)) for ids in (ROOM, [7, 9, 12])])
        for given in (pictures, pictures.half()):
            image, unmatched = host.run(
                node, image=given, from_palette="auto", to_palette="ade20k-controlnet", tolerance=24.0
            )
            assert torch.equal(image, wanted)
            assert (image.dtype, unmatched.dtype, unmatched.shape) == (torch.float32, torch.float32, (2, 96, 72))

    def test_what_gets_lost_is_said(self, host, caplog):
        picture = painted(host, "coco-stuff", [2, 103, 131])  # car, cloth, metal
        _, unmatched = host.run(
            host.nodes["SCPRecolor"],
            image=picture,
            from_palette="coco-stuff",
            to_palette="coco-stuff-panoptic",
            tolerance=0.0,
        )
        assert float(unmatched.mean()) == pytest.approx(2 / 3)
        assert "no colour in coco-stuff-panoptic: cloth 33.3%, metal 33.3%" in caplog.text

    def test_other_classes_are_refused(self, host):
        picture = painted(host, "ade20k", ROOM)
        run = {"image": picture, "to_palette": "cityscapes", "tolerance": 24.0}
        with pytest.raises(host.library.SCPError, match=r"looks like ade20k.*Choose a to_palette of ade20k"):
            host.run(host.nodes["SCPRecolor"], from_palette="auto", **run)
        with pytest.raises(host.library.SCPError, match="'ade20k' cannot be turned into 'cityscapes'"):
            host.run(host.nodes["SCPRecolor"], from_palette="ade20k", **run)


class TestOwnTables:
    @pytest.mark.parametrize(("node", "inputs"), WITH_PALETTES.items())
    def test_they_are_in_every_palette_combo(self, host, folder, node, inputs):
        for name in inputs:
            offered = options(host, node, name)
            assert offered[-5:] == ["ade20k.csv", "broken.csv", "cut.json", "meadow.csv", "sub/other.json"]
            assert len(offered) == len(set(offered))
            assert {"ade20k", "cityscapes", "coco-stuff-panoptic"} <= set(offered)

    def test_one_is_read_painted_and_found_out(self, host, folder, caplog):
        from scp_prior.classes import load_table
        from scp_prior.labels import hint_from_labels

        ids = torch.tensor([1, 2, 3, 255]).repeat_interleave(16).expand(1, 48, 64)
        picture = hint_from_labels(ids, load_table(folder / "meadow.csv")[1])
        for palette in ("meadow.csv", "auto"):
            labels, _ = host.run(host.nodes["SCPLabelsFromImage"], image=picture, palette=palette, tolerance=24.0)
            assert torch.equal(labels.labels, ids)
            assert labels.palette.table.name_of(2) == "brook"
        assert "looks like meadow.csv: fits 100%" in caplog.text
        hint = host.run(host.nodes["SCPHintFromLabels"], labels=labels, palette="meadow.csv")[0]
        assert torch.equal(hint, picture)
        assert "no colour" not in caplog.text
        hint = host.run(host.nodes["SCPHintFromLabels"], labels=labels, palette="ade20k")[0]
        assert rgb(hint) == [[0, 0, 0], [6, 230, 230]]
        assert "SCPHintFromLabelsClone: no colour in ade20k: meadow 25.0%, brook 25.0%" in caplog.text
        # By name: ADE20K has a sky as well.
        image, _ = host.run(
            host.nodes["SCPRecolor"], image=picture, from_palette="auto", to_palette="ade20k", tolerance=24.0
        )
        assert rgb(image) == [[0, 0, 0], [6, 230, 230]]
        assert "unmatched; looks like meadow.csv" in caplog.text
        assert caplog.text.count("no colour in ade20k: meadow 25.0%, brook 25.0%") == 2

    def test_from_photos_to_a_prior_of_one_s_own_classes(self, host, folder):
        """What the command line could do alone: statistics of a user's own colours, and a latent from such a map."""
        from PIL import Image

        from scp_prior.classes import load_table
        from scp_prior.labels import hint_from_labels

        ids = torch.tensor([1, 2, 3, 255]).repeat_interleave(16).expand(1, 64, 64)
        picture = hint_from_labels(ids, load_table(folder / "meadow.csv")[1])
        for kind in ("photos", "maps"):
            (host.base / "input" / "meadow" / kind).mkdir(parents=True, exist_ok=True)
            for number in range(3):
                pixels = picture if kind == "maps" else picture * (0.5 + 0.2 * number)
                saved = Image.fromarray(pixels[0].mul(255).round().byte().numpy())
                saved.save(host.base / "input" / "meadow" / kind / f"{number}.png")
        statistics = host.run(
            host.nodes["SCPReduceStatistics"],
            vae=host.nodes["CheckpointLoaderSimple"]().load_checkpoint("tiny.ckpt")[2],
            images_folder="meadow/photos",
            labels_folder="meadow/maps",
            palette="meadow.csv",
            width=64,
            height=64,
            name="meadow",
        )[0]
        assert (folder / "meadow.safetensors").is_file()
        assert statistics.class_names == {1: "meadow", 2: "brook", 3: "sky", 255: "void"}
        labels, _ = host.run(host.nodes["SCPLabelsFromImage"], image=picture, palette="auto", tolerance=24.0)
        drawn = {"method": "joint", "seed": 1, "strength": 1.0, "batch_size": 2}
        latent, _ = host.run(host.nodes["SCPPriorLatent"], statistics=statistics, labels=labels, **drawn)
        assert torch.isfinite(latent["samples"]).all()
        assert latent["samples"].shape[0] == 2

    def test_statistics_of_a_known_data_set_know_its_classes_by_name(self, host, folder):
        from builders import make_statistics

        (folder / "city.csv").write_text("id,name,rgb\n5,Road,#111111\n6,sky,#2222ff\n7,meadow,#22ff22\n")
        statistics = make_statistics((0, 1, 10), size=(8, 8), dataset="cityscapes", palette="cityscapes")
        colours = torch.tensor([[0x11, 0x11, 0x11], [0x22, 0x22, 0xFF], [0x22, 0xFF, 0x22]]) / 255
        drawn = {"statistics": statistics, "method": "joint", "seed": 1, "strength": 1.0, "batch_size": 1}

        def prior(image, palette):
            read = {"image": image.expand(1, 64, 64, 3), "palette": palette, "tolerance": 0.0}
            labels, _ = host.run(host.nodes["SCPLabelsFromImage"], **read)
            host.run(host.nodes["SCPPreviewLabels"], labels=labels, statistics=statistics)
            return host.run(host.nodes["SCPPriorLatent"], labels=labels, **drawn)[0]["samples"]

        own = colours[:2].repeat_interleave(32, 0)[:, None]
        same = torch.tensor([0, 10]).repeat_interleave(32)[:, None, None] / 255
        assert torch.equal(prior(own, "city.csv"), prior(same, "cityscapes-grey"))
        with pytest.raises(host.library.SCPError, match="cityscapes, .* has no class called 'meadow'.*city.csv"):
            prior(colours.repeat_interleave(22, 0)[:64, None], "city.csv")

    def test_one_called_like_a_built_in_palette_shadows_nothing(self, host, folder):
        picture = painted(host, "ade20k", ROOM)
        labels, _ = host.run(host.nodes["SCPLabelsFromImage"], image=picture, palette="ade20k", tolerance=0.0)
        assert labels.palette.table.name_of(1) == "wall"
        magenta = torch.tensor([1.0, 0.0, 1.0]).expand(1, 16, 16, 3)
        own, _ = host.run(host.nodes["SCPLabelsFromImage"], image=magenta, palette="ade20k.csv", tolerance=0.0)
        assert own.palette.table.name_of(1) == "not a wall"
        assert own.palette.table != labels.palette.table

    @pytest.mark.parametrize(("node", "inputs"), WITH_PALETTES.items())
    def test_a_broken_one_is_one_message_before_anything_runs(self, host, folder, node, inputs):
        for name in inputs:
            told = host.nodes[node].validate_inputs(**{name: "broken.csv"})
            assert "broken.csv, line 3: id 1 is there twice" in told
            assert "cut.json, line 1: not readable as JSON" in host.nodes[node].validate_inputs(**{name: "cut.json"})
            assert host.nodes[node].validate_inputs(**{name: "meadow.csv"}) is True

    def test_a_broken_one_is_left_out_of_auto_and_said(self, host, folder, caplog):
        picture = painted(host, "ade20k", ROOM)
        labels, _ = host.run(host.nodes["SCPLabelsFromImage"], image=picture, palette="auto", tolerance=24.0)
        assert labels.palette.name == "ade20k"
        assert [caplog.text.count(name) for name in ("broken.csv, line 3", "cut.json, line 1", "settings")] == [1, 1, 0]

    @pytest.mark.parametrize("name", ["../outside.csv", "/etc/passwd", "outside.csv", ".hidden.csv", "notes.txt"])
    def test_no_name_leads_out_of_the_folder(self, host, folder, name):
        for node, inputs in WITH_PALETTES.items():
            for one in inputs:
                assert "There is no palette" in host.nodes[node].validate_inputs(**{one: name})
        picture = painted(host, "ade20k", ROOM)
        with pytest.raises(host.library.SCPError, match=r"no class table \(.csv, .json\) in .*scp_statistics"):
            host.run(host.nodes["SCPLabelsFromImage"], image=picture, palette=name, tolerance=24.0)

    def test_a_changed_file_is_noticed(self, host, folder):
        path, node = folder / "meadow.csv", host.nodes["SCPLabelsFromImage"]
        green = torch.tensor([0x44, 0xAA, 0x33]).div(255).expand(1, 16, 16, 3)

        def reads() -> int:
            return int(host.run(node, image=green, palette="meadow.csv", tolerance=0.0)[0].labels[0, 0, 0])

        before = {name: node.fingerprint_inputs(palette=name) for name in ("meadow.csv", "auto", "ade20k")}
        assert reads() == 1
        path.write_text(MEADOW.replace("1,meadow", "7,meadow"))
        os.utime(path, ns=(1, 1))
        after = {name: node.fingerprint_inputs(palette=name) for name in before}
        assert reads() == 7
        assert (before["meadow.csv"] == after["meadow.csv"], before["auto"] == after["auto"]) == (False, False)
        assert before["ade20k"] == after["ade20k"]
        recolor = host.nodes["SCPRecolor"]
        first = recolor.fingerprint_inputs(from_palette="ade20k", to_palette="meadow.csv")
        path.unlink()
        assert recolor.fingerprint_inputs(from_palette="ade20k", to_palette="meadow.csv") != first

    def test_what_is_wired_in_may_be_any_file(self, host, folder):
        node = host.nodes["SCPLabelsFromImage"]
        before = node.fingerprint_inputs(palette=None)
        os.utime(folder / "meadow.csv", ns=(1, 1))
        assert node.fingerprint_inputs(palette=None) != before

    def test_files_that_no_list_can_show_or_no_one_can_read_are_not_there(self, host, folder):
        before = options(host, "SCPRecolor", "to_palette")
        for name in (b"\xff.csv", b"two\nlines.csv"):
            with open(os.path.join(os.fsencode(folder), name), "w") as file:
                file.write(MEADOW)
        os.mkfifo(folder / "pipe.json")
        (folder / "gone.csv").symlink_to(folder / "nowhere.csv")
        (folder / "folder.csv").mkdir()
        assert options(host, "SCPRecolor", "to_palette") == before

    def test_no_file_costs_the_pack_its_nodes(self, host, folder):
        """A schema that raises loses every node: here a number Python refuses to read, which is no error of JSON's."""
        (folder / "digits.json").write_text('[{"id": ' + "9" * 5000 + "}]")
        for name, node in host.nodes.items():
            if name.startswith("SCP"):
                node.INPUT_TYPES()
        told = host.nodes["SCPLabelsFromImage"].validate_inputs(palette="digits.json")
        assert "digits.json holds a number of thousands of digits" in told

    def test_many_files_are_read_once_and_listed_in_one_walk(self, host, folder, monkeypatch):
        for number in range(70):
            (folder / f"{number}.csv").write_text(MEADOW)
        nodes = sys.modules[host.nodes["SCPPaintLabels"].__module__.rpartition(".")[0]]
        walks, reads = [], []
        walk, read = os.walk, nodes.palettes.load_table
        monkeypatch.setattr(nodes.folders.os, "walk", lambda *a, **k: walks.append(a) or walk(*a, **k))
        monkeypatch.setattr(nodes.palettes, "load_table", lambda *a: reads.append(a) or read(*a))
        for _ in range(2):
            assert "69.csv" in options(host, "SCPPaintLabels", "palette")
        assert len(reads) == 70 + len(["ade20k.csv", "broken.csv", "cut.json", "meadow.csv", "sub/other.json"])
        assert len(walks) == 2 * len(["the list of palettes", "the classes of each"])

    def test_those_of_extra_model_paths_are_there_too(self, host, folder, tmp_path, monkeypatch):
        more = tmp_path / "more"
        more.mkdir()
        (more / "more.csv").write_text(MEADOW)
        (more / "meadow.csv").write_text(MEADOW.replace("meadow", "swamp"))
        folders, extensions = host.folder_paths.folder_names_and_paths["scp_statistics"]
        monkeypatch.setitem(
            host.folder_paths.folder_names_and_paths, "scp_statistics", ([*folders, str(more)], extensions)
        )
        assert {"more.csv", "meadow.csv"} <= set(options(host, "SCPRecolor", "to_palette"))
        picture = torch.tensor([0x44, 0xAA, 0x33]).div(255).expand(1, 16, 16, 3)
        labels, _ = host.run(host.nodes["SCPLabelsFromImage"], image=picture, palette="meadow.csv", tolerance=0.0)
        assert labels.palette.table.name_of(1) == "meadow"  # the first folder wins, as for every model
