"""What configs may state: the type and the range of every value are checked before anything is computed with them."""

import json
from dataclasses import MISSING, fields

import pytest
import torch
from safetensors.torch import save_file

from tests.support.small_parts import NARROW, VAE, shapes_of
from wan_core import config as tables
from wan_core.checkpoints.formats import from_state_dict
from wan_core.checkpoints.infer import infer_vae
from wan_core.config import DiTConfig, TextConfig, VAEConfig
from wan_core.errors import CheckpointError

WILD = {
    "text": "x" * 10_000,
    "list": [0] * 10_000,
    "object": {"a": {}},
    "large": 10**9,
    "larger": 10**19,
    "beyond printing": 10**5000,
    "negative": -1,
    "fraction": 1.5,
    "infinite": float("inf"),
    "none": float("nan"),
    "true": True,
    "empty": "",
}
FORMS = {
    "official": (DiTConfig, tables._DIT_OFFICIAL, {}),
    "diffusers": (DiTConfig, tables._DIT_DIFFUSERS, {"num_attention_heads": 40}),
    "text": (TextConfig, tables._TEXT_OFFICIAL, {}),
    "Hugging Face": (TextConfig, tables._TEXT_HF, {"d_model": 4096, "num_heads": 64}),
}
FIELDS = [(form, name) for form, (_, names, _) in FORMS.items() for name in names]


@pytest.mark.parametrize("value", WILD.values(), ids=WILD)
@pytest.mark.parametrize("form, name", [*FIELDS, ("diffusers", "attention_head_dim"), ("Hugging Face", "d_kv")])
def test_a_value_of_another_type_or_range(form, name, value):
    cls, _, stated = FORMS[form]
    with pytest.raises(CheckpointError) as caught:
        cls.values(stated | {name: value})
    assert "a model config with" in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("value", WILD.values(), ids=WILD)
@pytest.mark.parametrize("cls", [DiTConfig, TextConfig, VAEConfig])
def test_no_field_of_a_config_takes_it(cls, value):
    for entry in fields(cls):
        assert entry.default is not MISSING
        if entry.type is str and value in ("2.1", "2.2"):
            continue
        with pytest.raises(CheckpointError):
            cls(**{entry.name: value})


def test_the_product_is_never_made(reader, tmp_path):
    """A text times a billion is a billion texts."""
    save_file({name: torch.zeros(shape) for name, shape in shapes_of(NARROW).items()}, tmp_path / "model.safetensors")
    for heads in ("x" * 1000, [0] * 1000, 2**62, 1):
        for size in (10**9, "x", 10**19):
            config = {"num_attention_heads": heads, "attention_head_dim": size}
            (tmp_path / "config.json").write_text(json.dumps(config))
            assert "a model config with" in reader.open(tmp_path)


@pytest.mark.parametrize("layers", [257, 10_000, 2**20])
def test_more_layers_than_any_model_has(layers):
    with pytest.raises(CheckpointError, match=f"layers = {layers}.*at most 256"):
        DiTConfig(layers=layers)
    with pytest.raises(CheckpointError, match=f"layers = {layers}.*at most 256"):
        TextConfig(layers=layers)


@pytest.mark.parametrize("layers", [(0, 0), (1, 0), (40,), (-1,), (True,), tuple(range(10_000)), ("0",), [0, 5]])
def test_vace_layers_are_layers_in_order(layers):
    with pytest.raises(CheckpointError, match="layers"):
        DiTConfig(vace_layers=layers)


@pytest.mark.parametrize("patch", [(1, 2), (1, 2.0, 2), (True, 2, 2), (2, 2, 2)])
def test_there_is_one_patch(patch):
    with pytest.raises(CheckpointError, match="patch"):
        DiTConfig(patch=patch)


def test_a_config_of_a_vae_is_quoted_in_part():
    weights = from_state_dict({name: torch.zeros(shape) for name, shape in shapes_of(VAE).items()})
    for value in WILD.values():
        with pytest.raises(CheckpointError) as caught:
            infer_vae(weights, {"z_dim": value})
        assert len(str(caught.value)) < 400


def test_a_vae_of_a_width_that_none_has():
    shapes = shapes_of(VAE) | {"encoder.conv1.weight": (2**40, 3, 0, 3, 3)}
    with pytest.raises(CheckpointError, match="dim = 1099511627776"):
        infer_vae(from_state_dict({name: torch.empty(shape, device="meta") for name, shape in shapes.items()}))


def test_good_configs_are_taken():
    assert (
        DiTConfig.from_dict({"num_attention_heads": 2, "attention_head_dim": 128, "patch_size": [1, 2, 2]}).dim == 256
    )
    assert TextConfig.from_dict({"d_model": 64, "d_kv": 16, "num_heads": 4}).dim_attn == 64
