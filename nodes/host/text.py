"""Text encoders: ComfyUI's own umT5, of any width, from files that it reads itself and from GGUF."""

import re
from collections.abc import Iterable
from typing import Any

import comfy.sd
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.text_encoders.wan import UMT5XXlModel, WanT5Model, WanT5Tokenizer

from ...wan_core.checkpoints.build import check_part
from ...wan_core.checkpoints.formats import Weights, open_weights
from ...wan_core.checkpoints.key_maps import to_official
from ...wan_core.checkpoints.tokenizer import embedded_tokenizer
from ...wan_core.text import clean
from ...wan_core.text.encoder import hugging_face_names, hugging_face_sizes
from .gguf import GGUFOps, quantized_state
from .loading import load_file, rename_quantization

KEY = "umt5xxl"  # the name under which native nodes expect the tokens
LENGTH = 512
EOS = 1
DEQUANTIZED = torch.bfloat16  # what quantized matrices are dequantized to

State = dict[str, torch.Tensor]


class BFloat16Model(UMT5XXlModel):
    """ComfyUI's umT5 in bfloat16, as the official code runs it; core's own always computes in float32."""

    def process_tokens(self, tokens, device):
        embeddings, *rest = super().process_tokens(tokens, device)
        return embeddings.to(torch.bfloat16), *rest


class TextEncoder(WanT5Model):
    """ComfyUI's umT5, which is not asked for rows of padding: the mask makes zeros of them."""

    def load_sd(self, state):
        return self.umt5xxl.transformer.load_state_dict(state, strict=False, assign=True)  # no second copy

    def encode_token_weights(self, token_weight_pairs):
        """Embeddings (1, 512, dim), zeros after the last token, and no pooled output."""
        sections = token_weight_pairs[KEY]
        if len(sections) != 1:
            return super().encode_token_weights(token_weight_pairs)
        text, pooled = super().encode_token_weights({KEY: [_without_padding(sections[0])]})
        return torch.nn.functional.pad(text, (0, 0, 0, max(0, LENGTH - text.shape[1]))), pooled


def _without_padding(tokens: list) -> list:
    ends = (n for n, token in enumerate(tokens, 1) if isinstance(token[0], int) and token[0] == EOS)
    return tokens[: next(ends, len(tokens))]


def load_clip(path: str) -> comfy.sd.CLIP:
    """A CLIP from a umT5 file: ComfyUI's, plain or quantized, or GGUF.

    Raises:
        CheckpointError: not a umT5 encoder, or without its tokenizer.
    """
    weights = open_weights(path)
    gguf, part = weights.is_ggml, check_part(weights, "text_encoder", in_comfyui=True)
    proto = embedded_tokenizer(weights)  # after the check: a file of another kind has no tokenizer either
    official, metadata = (quantized_state(part.weights), {}) if gguf else _read(weights)
    names = _hugging_face(official, part.config.layers)
    state = {theirs: official[ours] for theirs, ours in names.items()}
    options: dict[str, Any] = {f"{KEY}_model_config": hugging_face_sizes(part.config), "dtype": DEQUANTIZED}
    if gguf:
        options["custom_operations"] = GGUFOps
    else:
        state, _ = comfy.utils.convert_old_quants(state, "", metadata=rename_quantization(metadata, names))
        layers = comfy.utils.detect_layer_quantization(state, "")
        stored = comfy.utils.weight_dtype(state)
        if layers or stored.itemsize == 1:
            options["quantization_metadata"] = layers or {}
        else:
            options["dtype"] = stored
        if not layers and state["shared.weight"].dtype.itemsize == 1:  # else ComfyUI casts the whole table every time
            state["shared.weight"] = state["shared.weight"].to(DEQUANTIZED)
    if state["shared.weight"].dtype == torch.bfloat16:
        options[f"{KEY}_class"] = BFloat16Model
    return comfy.sd.CLIP(
        comfy.supported_models_base.ClipTarget(WanT5Tokenizer, TextEncoder),
        state_dict=[state],
        tokenizer_data={"spiece_model": torch.frombuffer(bytearray(proto), dtype=torch.uint8)},
        model_options=options,
        parameters=comfy.utils.calculate_parameters(state),
        disable_dynamic=gguf,
    )


def _read(weights: Weights) -> tuple[State, dict]:
    """Tensors under official names, and the metadata of the header, of a file that ComfyUI reads itself."""
    state, metadata = load_file(weights)
    names = to_official("text_encoder", state, weights.source)
    return {ours: state[theirs] for ours, theirs in names.items()}, rename_quantization(metadata, names)


def _hugging_face(official: Iterable[str], layers: int) -> dict[str, str]:
    """Names as ComfyUI's class has them → official names; scales and formats of a layer go with it."""
    names = hugging_face_names(layers)
    split = {name: name.rpartition(".") for name in official}
    return {names.get(layer, layer) + dot + leaf: name for name, (layer, dot, leaf) in split.items()}


def encode(clip: comfy.sd.CLIP, text: str) -> list:
    """CONDITIONING of a prompt by any Wan CLIP, ours or native, as the official code would encode it."""
    text = re.sub(r"\\(?=[()])", r"\\\\", clean(text))  # the tokenizer takes a backslash before a bracket for an escape
    tokens = clip.tokenize(text, disable_weights=True)
    for name, batches in tokens.items():
        # ComfyUI's tokenizer pads to 512 and never cuts; the official one cuts before the end-of-sequence token.
        tokens[name] = [batch if len(batch) <= LENGTH else [*batch[: LENGTH - 1], (EOS, 1.0)] for batch in batches]
    return clip.encode_from_tokens_scheduled(tokens)
