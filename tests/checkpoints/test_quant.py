"""Quantized files, written as the tools that people use write them, against the same weights dequantized."""

import json
import struct

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.support.goldens import difference
from tests.support.layouts import K_TYPES, add_tokenizer, llama_cpp_name, write_gguf, write_gguf_folder
from wan_core import WanPipeline
from wan_core.checkpoints import inspect, load_dit, load_text_encoder
from wan_core.checkpoints.quant import QuantizedTensor
from wan_core.checkpoints.tokenizer import open_tokenizer
from wan_core.config import DiTConfig, TextConfig
from wan_core.dit import WanDiT
from wan_core.errors import CheckpointError
from wan_core.lora import AppliedLora, read_lora
from wan_core.memory import ModelOffloader
from wan_core.testing import tiny_preset, train_tokenizer
from wan_core.text import UMT5, Tokenizer

CONFIG = DiTConfig(dim=256, ffn_dim=512, heads=2, layers=3, text_dim=256)
TEXT = TextConfig(dim=256, dim_attn=256, ffn_dim=512, heads=4, layers=2, vocab=384)
GGUF_TYPES = ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")  # that the gguf package can write


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {name: p.detach() + 0.02 * torch.randn_like(p) for name, p in WanDiT(CONFIG).named_parameters()}


def is_block_matrix(name: str, tensor: torch.Tensor) -> bool:
    return name.startswith("blocks.") and tensor.ndim == 2


def velocity(model: WanDiT) -> torch.Tensor:
    torch.manual_seed(5)
    with torch.inference_mode():
        return model(torch.randn(1, 16, 2, 4, 6), torch.tensor([700]), torch.randn(1, 9, 256))


@pytest.mark.parametrize("kind", (*GGUF_TYPES, *K_TYPES))
def test_gguf_computes_what_its_dequantized_weights_compute(tmp_path, state, kind):
    path = tmp_path / "wan.gguf"
    dequantized = write_gguf(path, state, lambda name, t: kind if is_block_matrix(name, t) else "F32")
    model = load_dit(path, CONFIG, dtype=torch.float32)
    assert torch.equal(velocity(model), velocity(load_dit(dequantized, CONFIG)))
    info = inspect(path)
    assert info.layout == "gguf" and {"F16": "fp16", "BF16": "bf16"}.get(kind, kind) in info.quantisation


def test_types_mix_in_one_gguf_file(tmp_path, state):
    def kind_of(name, tensor):
        if not is_block_matrix(name, tensor):
            return "F32" if tensor.numel() <= 1024 or "modulation" in name or tensor.ndim == 5 else "BF16"
        return "Q6_K" if ".v." in name or "ffn.2" in name else "Q4_K"

    dequantized = write_gguf(tmp_path / "wan.gguf", state, kind_of)
    model = load_dit(tmp_path / "wan.gguf", CONFIG, dtype=torch.float32)
    assert torch.equal(velocity(model), velocity(load_dit(dequantized, CONFIG, dtype=torch.float32)))
    assert model.patch_embedding.weight.shape == (256, 16, 1, 2, 2)


def test_a_flattened_tensor_gets_its_shape_back(tmp_path, state):
    flat = state | {"patch_embedding.weight": state["patch_embedding.weight"].flatten(1)}

    def more(writer):
        writer.add_array("comfy.gguf.orig_shape.patch_embedding.weight", [256, 16, 1, 2, 2])

    write_gguf(tmp_path / "wan.gguf", flat, lambda name, t: "F32", more=more)
    assert torch.equal(velocity(load_dit(tmp_path / "wan.gguf", CONFIG)), velocity(load_dit(state, CONFIG)))


def test_gguf_text_encoder_with_its_tokenizer(tmp_path):
    torch.manual_seed(4)
    state = UMT5(TEXT).state_dict()
    proto = train_tokenizer(384)
    path = tmp_path / "umt5.gguf"
    dequantized = write_gguf(
        path,
        {llama_cpp_name(name): t for name, t in state.items()},
        lambda name, t: "F32" if t.ndim == 1 or "rel_b" in name else "Q8_0",
        "t5encoder",
        lambda writer: add_tokenizer(writer, proto),
    )
    ids, mask = Tokenizer.from_proto(proto)("A red circle moves to the right")
    assert torch.equal(open_tokenizer(path)("A red circle moves to the right")[0], ids)
    assert torch.equal(
        open_tokenizer(path)("Ａ　ﬁne  红色的圆形")[0], Tokenizer.from_proto(proto)("Ａ　ﬁne  红色的圆形")[0]
    )
    encoder = load_text_encoder(path, TEXT, dtype=torch.float32)
    reference = load_text_encoder({ours: dequantized[llama_cpp_name(ours)] for ours in state}, TEXT)
    assert torch.equal(encoder(ids, mask), reference(ids, mask))


def fp8(state, dtype=torch.float8_e4m3fn):
    """Block matrices as fp8 with one factor each: (quantized state, factors, dequantized in float32)."""
    quantized, scales, dequantized = dict(state), {}, dict(state)
    for name, tensor in state.items():
        if is_block_matrix(name, tensor):
            scales[name] = tensor.abs().max() / torch.finfo(dtype).max
            quantized[name] = (tensor / scales[name]).to(dtype)
            dequantized[name] = quantized[name].float() * scales[name]
    return quantized, scales, dequantized


def beside(weight: str, word: str) -> str:
    return weight.removesuffix("weight") + word


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=["e4m3", "e5m2"])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize(
    "layout", ["plain", "scaled", "scaled, full precision", "metadata in tensors", "metadata in the header"]
)
def test_fp8(tmp_path, state, dtype, prefix, layout, caplog):
    quantized, scales, dequantized = fp8(state, dtype)
    metadata = None
    if layout == "plain":
        quantized = {name: t.to(dtype) if is_block_matrix(name, t) else t for name, t in state.items()}
        dequantized = {name: t.float() for name, t in quantized.items()}
    elif layout.startswith("scaled"):
        quantized |= {beside(name, "scale_weight"): scale for name, scale in scales.items()}
        quantized |= {beside(name, "scale_input"): torch.ones(1) for name in scales}
        quantized["scaled_fp8"] = torch.zeros(2 if "full" in layout else 0, dtype=dtype)
    else:
        quantized |= {beside(name, "weight_scale"): scale.view(1) for name, scale in scales.items()}
        layers = {name.removesuffix(".weight"): {"format": str(dtype).removeprefix("torch.")} for name in scales}
        if layout == "metadata in the header":
            metadata = {"_quantization_metadata": json.dumps({"layers": layers})}
        else:
            quantized |= {
                f"{layer}.comfy_quant": torch.tensor(list(json.dumps(note).encode()), dtype=torch.uint8)
                for layer, note in layers.items()
            }
    path = tmp_path / "wan.safetensors"
    save_file({prefix + name: t.contiguous() for name, t in quantized.items()}, path, metadata)
    model = load_dit(path, CONFIG, dtype=torch.float32)
    assert [record.message.endswith("computed in float32, a layer at a time") for record in caplog.records] == [True]
    assert isinstance(model.blocks[0].ffn[0].weight.data, QuantizedTensor)
    assert difference(velocity(model), velocity(load_dit(dequantized, CONFIG))) < 1e-5  # mapped biases lie unaligned
    assert load_dit(path, CONFIG).compute_dtype == torch.bfloat16
    assert str(dtype).removeprefix("torch.").replace("float8", "fp8") in inspect(path).quantisation


@pytest.mark.parametrize("per_row", [False, True])
def test_int8(state, per_row):
    quantized, dequantized = dict(state), dict(state)
    for name, tensor in state.items():
        if is_block_matrix(name, tensor):
            largest = tensor.abs().amax(dim=1, keepdim=True) if per_row else tensor.abs().max()
            scale = largest / 127
            quantized[name] = (tensor / scale).round().to(torch.int8)
            quantized[beside(name, "weight_scale")] = scale
            note = json.dumps({"format": "int8_tensorwise"}).encode()
            quantized[beside(name, "comfy_quant")] = torch.tensor(list(note), dtype=torch.uint8)
            dequantized[name] = quantized[name].float() * scale
    model = load_dit(quantized, CONFIG, dtype=torch.float32)
    assert torch.equal(velocity(model), velocity(load_dit(dequantized, CONFIG)))


def test_embeddings_dequantize_the_rows_they_look_up():
    torch.manual_seed(4)
    state = UMT5(TEXT).state_dict()
    quantized = state | {"token_embedding.weight": state["token_embedding.weight"].to(torch.float8_e4m3fn)}
    ids = torch.tensor([[5, 7, 200, 1]])
    looked_up = load_text_encoder(quantized, TEXT).encoder.embed_tokens(ids)
    assert torch.equal(looked_up, quantized["token_embedding.weight"][ids].bfloat16())


@pytest.mark.parametrize(
    "note, message",
    [
        ({"format": "nvfp4"}, "blocks.0.ffn.0 as nvfp4.*ComfyUI"),
        ({"format": "int8_tensorwise", "convrot": True}, "rotation"),
        ([], "cannot be read"),
        ({"form": 1}, "cannot be read"),
        ({"format": "x" * 5000}, "cannot be read"),
    ],
)
def test_formats_that_only_comfyui_dequantizes_are_refused_by_name(state, note, message):
    note = torch.tensor(list(json.dumps(note).encode()), dtype=torch.uint8)
    with pytest.raises(CheckpointError, match=message):
        load_dit(state | {"blocks.0.ffn.0.comfy_quant": note}, CONFIG)


def test_a_scale_of_another_size_is_refused(state):
    quantized, *_ = fp8(state)
    with pytest.raises(CheckpointError, match=r"7 scales for blocks.0.ffn.0.weight"):
        load_dit(quantized | {"blocks.0.ffn.0.scale_weight": torch.ones(7)}, CONFIG)


def test_a_scale_for_each_row_is_for_matrices(state):
    """Of five dimensions, a factor a row would be taken along the last one."""
    quantized = state | {
        "patch_embedding.weight": state["patch_embedding.weight"].to(torch.float8_e4m3fn),
        "patch_embedding.scale_weight": torch.ones(CONFIG.dim),
    }
    with pytest.raises(CheckpointError, match=r"256 scales for patch_embedding.weight.*each row of a matrix"):
        load_dit(quantized, CONFIG)
    one = load_dit(quantized | {"patch_embedding.scale_weight": torch.full((1,), 2.0)}, CONFIG, dtype=torch.float32)
    weight = quantized["patch_embedding.weight"].float() * 2
    expected = load_dit(state | {"patch_embedding.weight": weight}, CONFIG, dtype=torch.float32)
    assert torch.equal(velocity(one), velocity(expected))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool])
def test_whole_numbers_without_a_scale_are_refused(state, dtype):
    for name in ("blocks.0.ffn.0.weight", "time_embedding.0.weight"):
        with pytest.raises(CheckpointError, match=f"stores {name} as .* without a scale"):
            load_dit(state | {name: state[name].to(dtype)}, CONFIG)


def test_an_embedding_whose_rows_end_within_a_block(tmp_path):
    """As converters write it that count a tensor's numbers and not those of its rows."""
    config = TextConfig(dim=48, dim_attn=48, ffn_dim=96, heads=4, layers=1, vocab=384)
    torch.manual_seed(4)
    state = UMT5(config).state_dict()
    flat = {llama_cpp_name(name): t for name, t in state.items()}
    flat["token_embd.weight"] = flat["token_embd.weight"].view(-1, 32)

    def more(writer):
        writer.add_array("comfy.gguf.orig_shape.token_embd.weight", [384, 48])

    kinds = {"token_embd.weight": "Q8_0"}
    table = write_gguf(tmp_path / "umt5.gguf", flat, lambda name, t: kinds.get(name, "F32"), "t5encoder", more)
    ids = torch.tensor([[5, 7, 200, 1]])
    looked_up = load_text_encoder(tmp_path / "umt5.gguf", config, dtype=torch.float32).encoder.embed_tokens(ids)
    assert torch.equal(looked_up, table["token_embd.weight"].view(384, 48)[ids])


def test_quantized_weights_stay_quantized(tmp_path, state):
    write_gguf(tmp_path / "wan.gguf", state, lambda name, t: "Q4_0" if is_block_matrix(name, t) else "F32")
    model = load_dit(tmp_path / "wan.gguf", CONFIG, dtype=torch.bfloat16)
    velocity(model)
    for name, p in model.named_parameters():
        if is_block_matrix(name, p):
            assert p.data.nbytes == p.numel() * 18 // 32, name
    slot = ModelOffloader("cpu", exclusive=True)
    before = velocity(model)
    slot.load(model)
    assert isinstance(model.blocks[0].ffn[0].weight.data, QuantizedTensor) and torch.equal(velocity(model), before)
    slot.prefetch(model)
    slot.end_run()
    assert torch.equal(velocity(model), before)


def test_loras_run_beside_quantized_weights(state):
    quantized, _, dequantized = fp8(state)
    scales = {beside(name, "scale_weight"): scale for name, scale in fp8(state)[1].items()}
    torch.manual_seed(8)
    lora = {"diffusion_model.text_embedding.0.diff": torch.randn(256, 256) * 0.02}
    for name in ("blocks.0.ffn.0", "blocks.2.self_attn.q"):
        out, width = state[name + ".weight"].shape
        lora |= {f"diffusion_model.{name}.lora_down.weight": torch.randn(4, width) * 0.1}
        lora |= {f"diffusion_model.{name}.lora_up.weight": torch.randn(out, 4) * 0.1}
    results = []
    for weights in (quantized | scales, dequantized):
        model = load_dit(weights, CONFIG, dtype=torch.float32)
        plain = velocity(model)
        applied = AppliedLora(model, read_lora(lora, model), 0.8)
        results.append(velocity(model))
        assert not torch.equal(results[-1], plain)
        applied.remove()
        assert torch.equal(velocity(model), plain)
    assert torch.equal(*results)


def test_gguf_refusals(tmp_path, state):
    path = tmp_path / "wan.gguf"
    writer = gguf.GGUFWriter(path, "wan")
    writer.add_tensor("blocks.0.ffn.0.weight", np.zeros((4, 136), np.uint8), raw_dtype=gguf.GGMLQuantizationType.IQ4_XS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match=r"IQ4_XS.*Q4_K_M"):
        inspect(path)
    whole = path.read_bytes()
    for damaged in (
        whole[:-40],
        whole + b"\0" * 64,
        b"GGUX" + whole[4:],
        whole[:60],
        whole[:4] + struct.pack(">I", 3) + whole[8:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            inspect(path)


def test_a_crafted_header_does_not_hang_or_allocate(tmp_path):
    path = tmp_path / "bomb.gguf"
    string = struct.pack("<Q", 1) + b"k"
    heads = [
        struct.pack("<4sIQQ", b"GGUF", 3, 2**60, 0),
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 2**60),
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + string + struct.pack("<IIQ", 9, 8, 2**60),
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + string + struct.pack("<IIQ", 9, 9, 2**60),
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + string + struct.pack("<IIQ", 9, 0, 2**63),
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 20)
        + b"".join(struct.pack("<QBIQ", 1, 65 + n, 8, 1 << 20) + bytes(1 << 20) for n in range(20)),
        struct.pack("<4sIQQ", b"GGUF", 3, 1, 0) + string + struct.pack("<I4QIQ", 4, *[2**62] * 4, 0, 0),
        struct.pack("<4sIQQ", b"GGUF", 3, 1, 0) + string + struct.pack("<IQIQ", 1, 2**40, 0, 0),
    ]
    for head in heads:
        path.write_bytes(head)
        with pytest.raises(CheckpointError):
            inspect(path)


@pytest.mark.slow
def test_a_folder_of_gguf_files_is_a_model(official_folder, tmp_path):
    folder = write_gguf_folder(tmp_path, official_folder(), tiny_preset("t2v-a14b"))
    pipes = [WanPipeline.from_pretrained(path, torch_dtype=torch.float32) for path in (folder, official_folder())]
    assert isinstance(pipes[0].high.blocks[0].ffn[0].weight.data, QuantizedTensor)
    size = {"height": 64, "width": 96, "num_frames": 5}
    clips = [pipe("a red circle", **size, num_inference_steps=4, seed=1).frames[0] for pipe in pipes]
    assert difference(*map(torch.as_tensor, clips)) < 0.05, "Q8_0 is close to the original"
