"""The table of families: what is not built here is named, and nothing else is refused."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.support.layouts import state_of
from wan_core.checkpoints import inspect, load_dit
from wan_core.checkpoints.families import FAMILIES, family_of
from wan_core.errors import CheckpointError

OTHERS = [family for family in FAMILIES if not family.loads and not family.lacks]
HEADERS = {  # family → what the header of its files says, as its tensors are those of another one
    "FlowRVS": {"config": json.dumps({"transformer": {"model_type": "flow_rvs"}})},
    "Causal Forcing": {"config": json.dumps({"transformer": {"causal_ar": True}})},
    "Animate 2": {"config": json.dumps({"image_model": "wan2.1", "model_type": "animate2"})},
}


@pytest.fixture
def file(official_folder, tmp_path):
    """Family → a file of it: a text-to-video model, and what tells the family."""

    def write(family, prefix=""):
        state = state_of(official_folder("wan21-t2v-14b"), "dit")
        state |= {name + ("weight" if name.endswith(".") else ""): torch.ones(1) for name in family.tensors[:1]}
        state = {prefix + name: tensor.contiguous() for name, tensor in state.items()}
        save_file(state, tmp_path / "model.safetensors", HEADERS.get(family.name))
        return tmp_path / "model.safetensors"

    return write


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("family", OTHERS, ids=lambda family: family.name)
def test_other_families_are_refused_by_name(family, prefix, file):
    path = file(family, prefix)
    for use in (load_dit, inspect):
        with pytest.raises(CheckpointError) as caught:
            use(path)
        assert caught.value.found == f"{path} is {family.name}" and caught.value.needed and caught.value.fix


def test_a_vace_branch_without_its_transformer(official_folder, tmp_path):
    state = state_of(official_folder("vace-a14b") / "high_noise_model", "dit")
    branch = {name: t.contiguous() for name, t in state.items() if name.startswith("vace_")}
    save_file(branch, tmp_path / "module.safetensors")
    for use in (load_dit, inspect):
        with pytest.raises(CheckpointError, match=r"a VACE branch without its transformer.*a whole VACE model"):
            use(tmp_path / "module.safetensors")


@pytest.mark.parametrize("name", ["t2v-a14b", "i2v-a14b", "vace-a14b"])
def test_the_families_that_are_built(official_folder, name):
    names = state_of(official_folder(name) / "high_noise_model", "dit")
    assert family_of(names, {"config": '{"model_type": "t2v"}'}).loads
    assert family_of(names, {}).name == ("VACE" if name == "vace-a14b" else "Wan")


def test_the_first_row_that_fits_counts():
    """Animate and SCAIL have the image branch of Wan2.1 as well, and are told by what only they have."""
    branch = {"img_emb.proj.0.bias"}
    for family in OTHERS:
        if family.tensors:
            assert family_of({family.tensors[0] + "x" * family.tensors[0].endswith("."), *branch}, {}) == family
    assert family_of(branch, HEADERS["Animate 2"]).name == "Animate 2"
