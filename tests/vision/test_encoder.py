"""The vision tower: the numbers of the official code and of transformers, from every layout of its file."""

import math
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from wan_core.checkpoints import inspect, load_image_encoder
from wan_core.checkpoints.build import check_part
from wan_core.checkpoints.key_maps import find_part
from wan_core.config import ImageEncoderConfig
from wan_core.errors import CheckpointError
from wan_core.pipeline.estimate import parameters as count_parameters
from wan_core.testing import official_clip
from wan_core.vision import ImageEncoder
from wan_core.vision.encoder import MEAN, STD, parameter_shapes

CONFIG = ImageEncoderConfig(160, 96, 2, 3, 14, 28)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    encoder = ImageEncoder(CONFIG).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return encoder


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1


def transformers_model(encoder, projection):
    """transformers' own model with these weights, and random ones for what the tower leaves out."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=CONFIG.dim,
        intermediate_size=CONFIG.ffn_dim,
        num_hidden_layers=CONFIG.layers + 1,
        num_attention_heads=CONFIG.heads,
        image_size=CONFIG.image_size,
        patch_size=CONFIG.patch,
        hidden_act="gelu",
        projection_dim=8,
    )
    model = (CLIPVisionModelWithProjection if projection else CLIPVisionModel)(config).eval()
    inner = getattr(model, "vision_model", model)
    assert not inner.load_state_dict(encoder.state_dict(), strict=False).unexpected_keys
    return model


def written(encoder, layout, folder):
    """The path of the weights in one of the layouts that people have."""
    if layout == "official":
        torch.save(official_clip(encoder), folder / "models_clip.pth")
        return folder / "models_clip.pth"
    model = transformers_model(encoder, projection=layout == "comfyui")
    if layout == "comfyui":
        state = {name: t.half() for name, t in model.state_dict().items()}
        state["vision_model.embeddings.position_ids"] = torch.arange(CONFIG.tokens)[None]
        save_file(state, folder / "clip_vision_h.safetensors")
        return folder / "clip_vision_h.safetensors"
    model.save_pretrained(folder / "image_encoder")
    return folder / "image_encoder"


@pytest.mark.parametrize("layout", ["official", "diffusers", "comfyui"])
def test_every_layout_gives_the_same_tokens(encoder, images, tmp_path, layout):
    path = written(encoder, layout, tmp_path)
    loaded = load_image_encoder(path)
    assert loaded.config == CONFIG and {p.dtype for p in loaded.parameters()} == {torch.float32}
    expected = deepcopy(encoder).half().float()(images) if layout == "comfyui" else encoder(images)
    assert torch.equal(loaded(images), expected)
    assert "a CLIP vision encoder: CLIP ViT of width 160" in str(inspect(path))


def test_tokens_are_those_of_the_official_forward(encoder, images):
    """Written out from the official arithmetic on the official file's tensors."""
    w = {name.removeprefix("visual."): t for name, t in official_clip(encoder).items()}
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))

    def norm(x, name):
        return F.layer_norm(x, (CONFIG.dim,), w[name + ".weight"], w[name + ".bias"], 1e-5)

    def linear(x, name):
        return F.linear(x, w[name + ".weight"], w[name + ".bias"])

    x = F.conv2d((images * 0.5 + 0.5 - mean) / std, w["patch_embedding.weight"], stride=CONFIG.patch)
    x = torch.cat((w["cls_embedding"].expand(2, -1, -1), x.flatten(2).transpose(1, 2)), dim=1) + w["pos_embedding"]
    x = norm(x, "pre_norm")
    for n in range(CONFIG.layers):  # the file has one more
        block = f"transformer.{n}."
        q, k, v = linear(norm(x, block + "norm1"), block + "attn.to_qkv").view(2, -1, 3, CONFIG.heads, 80).unbind(2)
        scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(80)
        attended = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v).flatten(2)
        x = x + linear(attended, block + "attn.proj")
        x = x + linear(F.gelu(linear(norm(x, block + "norm2"), block + "mlp.0")), block + "mlp.2")
    assert f"transformer.{CONFIG.layers}.norm1.weight" in w
    torch.testing.assert_close(encoder(images), x, rtol=1e-5, atol=1e-5)


def test_tokens_are_the_penultimate_hidden_states_of_transformers(encoder, images):
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    pixels = (images / 2 + 0.5 - mean) / std
    theirs = transformers_model(encoder, projection=False)(pixel_values=pixels, output_hidden_states=True)
    torch.testing.assert_close(encoder(images), theirs.hidden_states[-2], rtol=1e-5, atol=1e-5)


def test_the_real_encoder_makes_257_tokens_of_1280():
    config = ImageEncoderConfig()
    with torch.device("meta"):
        encoder = ImageEncoder(config)
    assert encoder(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 257, 1280) == (1, config.tokens, config.dim)
    assert parameter_shapes(config) == {name: tuple(p.shape) for name, p in encoder.state_dict().items()}
    parameters = sum(p.numel() for p in encoder.parameters())
    assert parameters == count_parameters("image_encoder", config)
    assert 0.60e9 < parameters < 632_076_800, "ViT-H/14 without its last layer"


def test_a_file_is_recognised_by_its_names(encoder, tmp_path):
    for layout in ("official", "diffusers", "comfyui"):
        weights = check_part(written(encoder, layout, tmp_path), "image_encoder").weights
        assert find_part("image_encoder", [f"vision_model.{name}" for name in weights])
        assert not any(find_part(kind, weights) for kind in ("dit", "vae", "text_encoder"))


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda state: state.pop("visual.transformer.1.attn.to_qkv.weight"),
            "lacks 3 of .*encoder.layers.1.self_attn.q_proj",
        ),
        (lambda state: state.pop("visual.transformer.1.mlp.0.bias"), "lacks 1 of"),
        (
            lambda state: state.update({"visual.pos_embedding": torch.zeros(1, 7, 160)}),
            "width 160 with 7 positions and 4 layers.*1280 wide with 257",
        ),
        (
            lambda state: state.update({"visual.transformer.0.attn.to_qkv.weight": torch.zeros(161, 160)}),
            r"\(161, 160\).*q, k and v",
        ),
        (lambda state: state.update({"visual.transformer.0.more": torch.zeros(1)}), "has 1 tensors"),
        (
            lambda state: state.update({f"visual.transformer.{n}.norm1.bias": torch.zeros(1) for n in range(9999)}),
            "and 9999 layers",
        ),
    ],
)
def test_damaged_files(encoder, tmp_path, change, message):
    state = official_clip(encoder)
    change(state)
    torch.save(state, tmp_path / "clip.pth")
    with pytest.raises(CheckpointError, match=message):
        load_image_encoder(tmp_path / "clip.pth")


def test_other_parts_are_refused(official_folder):
    with pytest.raises(CheckpointError, match="holds a VAE. Needed: a CLIP vision encoder"):
        load_image_encoder(official_folder() / "Wan2.1_VAE.pth")
