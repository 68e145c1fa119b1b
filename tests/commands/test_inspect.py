import shutil
from dataclasses import replace

import pytest
import torch

from tests.support.sparse import write_sparse
from wan_core.checkpoints.expected import EXPECTED
from wan_core.cli import OK, main
from wan_core.config import PRESETS
from wan_core.testing import tiny_preset


def test_inspect_of_a_folder(official_folder, capfd):
    assert main(["inspect", str(official_folder("i2v-a14b"))]) == OK
    shown = capfd.readouterr().out
    assert "i2v-a14b, official layout" in shown and shown.count("billion parameters") == 4


def test_a_part_is_called_what_its_names_call_it(official_folder, tmp_path, capfd):
    """No tensor tells Bernini-R from text-to-video."""
    folder = tmp_path / "Bernini-R"
    folder.symlink_to(official_folder("t2v-a14b"))
    for path in (folder, folder / "high_noise_model"):
        assert main(["inspect", str(path)]) == OK
        shown = capfd.readouterr().out
        assert "a diffusion transformer: bernini-r" in shown and "t2v" not in shown.replace(str(path), "")


def test_the_name_of_what_a_link_leads_to_counts(official_folder, tmp_path, capfd):
    folder = shutil.copytree(official_folder("t2v-a14b"), tmp_path / "Bernini-R")
    (tmp_path / "model").symlink_to(folder)
    assert main(["inspect", str(tmp_path / "model")]) == OK
    assert "model: bernini-r-a14b" in capfd.readouterr().out


def test_an_expert_is_named_once(official_folder, capfd):
    main(["inspect", str(official_folder("fun-control-a14b") / "low_noise_model")])
    assert "transformer: fun-control-a14b, official" in capfd.readouterr().out


def transformer(file, config):
    return write_sparse(file, {n: torch.empty(shape, device="meta") for n, shape in EXPECTED["dit"](config).items()})


@pytest.mark.parametrize(
    "name, found", [("wan21-t2v-1.3b", "wan21-t2v-1.3b"), ("t2v-a14b", "t2v-a14b or wan21-t2v-14b")]
)
def test_a_width_tells_presets_apart(tmp_path, capfd, name, found):
    file = transformer(tmp_path / "wan.safetensors", PRESETS[name].dit)
    assert main(["inspect", str(file)]) == OK
    assert f"a diffusion transformer: {found}, " in capfd.readouterr().out


def test_fun_control_of_wan21_has_a_name(tmp_path, capfd):
    config = replace(tiny_preset("wan21-i2v-14b-720p").dit, in_channels=48)
    file = transformer(tmp_path / "wan2.1_fun_control.safetensors", config)
    assert main(["inspect", str(file)]) == OK
    assert "Fun-Control of Wan2.1" in capfd.readouterr().out
