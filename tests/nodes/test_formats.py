"""Quantized files in ComfyUI: our loaders beside the same weights dequantized, and beside the native loader."""

import pytest


@pytest.mark.parametrize(
    "layout",
    ["plain e4m3", "plain e5m2", "scaled e4m3", "metadata in tensors", "metadata e5m2", "metadata in the header"],
)
def test_fp8_experts(measured, layout):
    to_dequantized, to_native = measured["stored_experts"][layout]
    assert to_dequantized < 1e-5 and to_native < 1e-4


@pytest.mark.parametrize("whose", ["the checkpoint's", "the model's"])
def test_metadata_of_the_header_names_layers_as_the_file_does_or_without_its_prefix(measured, whose):
    assert measured["prefixed_metadata"][whose] < 1e-4


def test_int8_experts(measured):
    """ComfyUI rounds what goes into an int8 layer as well."""
    to_dequantized, to_native = measured["stored_experts"]["int8"]
    assert to_dequantized < 0.05 and to_native < 0.05


@pytest.mark.parametrize("prefix", ["", " model.diffusion_model."])
@pytest.mark.parametrize("layout", ["mxfp8", "nvfp4", "rotated int8"])
def test_experts_that_comfyui_alone_dequantizes(measured, layout, prefix):
    """ComfyUI rounds what goes into an int8 layer as well."""
    to_native, to_original = measured["packed_experts"][layout + prefix]
    assert to_native < (0.05 if "int8" in layout else 1e-4) and 0 < to_original < 1


def test_gguf_experts(measured):
    found = measured["gguf_experts"]
    assert found["plain"] < 1e-4 and found["lora"] < 1e-4
    assert found["lora changes"] > 1e-2 and found["after"] == 0
    assert found["still quantized"] and found["bytes"][0] < 0.5 * found["bytes"][1]


@pytest.mark.parametrize(
    "layout", ["plain e4m3", "scaled e4m3", "metadata in tensors", "metadata in the header", "gguf"]
)
def test_quantized_text_encoders(measured, layout):
    assert measured["stored_text_encoders"][layout] < 0.03, "both compute in bfloat16"


def test_text_encoders_take_the_memory_of_their_file(measured):
    found = measured["text_encoder_bytes"]
    assert found["quantized"] and all(0.2 < share <= 1 for share in found["share"])
