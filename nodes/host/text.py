"""Our umT5 as a real ComfyUI CLIP."""

import comfy.ops
import comfy.sd
import comfy.supported_models_base
import comfy.utils
import torch
from torch import nn

from ...wan_core.checkpoints.build import open_part
from ...wan_core.checkpoints.formats import from_state_dict
from ...wan_core.checkpoints.infer import infer_text
from ...wan_core.checkpoints.key_maps import to_official
from ...wan_core.checkpoints.tokenizer import embedded_tokenizer
from ...wan_core.config import TextConfig
from ...wan_core.errors import CheckpointError
from ...wan_core.text import UMT5, Tokenizer, clean
from .gguf import GGUFOps, quantized_state
from .loading import load_file

KEY = "umt5xxl"  # the name under which native nodes expect the tokens
LENGTH = 512
EOS = 1
QUANTISED = torch.bfloat16  # what quantised encoders compute in; umT5 needs its range


class HostTokenizer:
    """Official cleaning and 512 tokens; brackets are plain text."""

    def __init__(self, embedding_directory=None, tokenizer_data={}):
        self.proto = tokenizer_data["spiece_model"]
        self.tokenizer = Tokenizer.from_proto(self.proto.numpy().tobytes(), LENGTH)

    def tokenize_with_weights(self, text, return_word_ids=False, **kwargs):
        ids, _ = self.tokenizer(text)
        return {KEY: [[(i, 1.0, 0) if return_word_ids else (i, 1.0) for i in ids[0].tolist()]]}

    def state_dict(self):
        return {"spiece_model": self.proto}


class HostEncoder(nn.Module):
    """UMT5 behind the calls that ComfyUI's CLIP makes."""

    def __init__(self, config: TextConfig, layers, device="cpu", dtype=None, model_options={}):
        super().__init__()
        with torch.device(device):
            self.transformer = UMT5(config, layers).to(dtype)
        self.dtypes = {dtype}
        self.device = None

    def set_clip_options(self, options):
        self.device = options.get("execution_device", self.device)

    def reset_clip_options(self):
        self.device = None

    def load_sd(self, state):
        return self.transformer.load_state_dict(state, strict=False, assign=True)

    def encode_token_weights(self, tokens):
        """Embeddings (1, 512, dim), zeros after the last token, and no pooled output."""
        ids = torch.tensor([[token[0] for token in tokens[KEY][0]]], device=self.device)
        text = self.transformer(ids, torch.ones_like(ids)).float()
        return torch.nn.functional.pad(text, (0, 0, 0, LENGTH - text.shape[1])).cpu(), None


def load_clip(path: str) -> comfy.sd.CLIP:
    """A CLIP from a umT5 file: ComfyUI's, plain or quantised, or GGUF.

    Raises:
        CheckpointError: not a umT5 encoder, or without its tokenizer.
    """
    state, proto, layers = _read_gguf(path) if path.lower().endswith(".gguf") else _read_safetensors(path)
    config = infer_text(from_state_dict(state, path))

    def encoder(**kwargs):
        return HostEncoder(config, layers, **kwargs)

    target = comfy.supported_models_base.ClipTarget(HostTokenizer, encoder)
    stored = comfy.utils.weight_dtype(state)
    options = {"dtype": stored if layers is comfy.ops.manual_cast else QUANTISED}
    return comfy.sd.CLIP(
        target,
        state_dict=[state],
        tokenizer_data={"spiece_model": proto},
        model_options=options,
        parameters=comfy.utils.calculate_parameters(state),
        disable_dynamic=layers is GGUFOps,
    )


def _read_gguf(path: str):
    """Tensors under official names, the tokenizer, and the layers that they need."""
    state = quantized_state(open_part(path, "text_encoder"))  # first: a file of another kind has no tokenizer either
    return state, torch.frombuffer(bytearray(embedded_tokenizer(path)), dtype=torch.uint8), GGUFOps


def _read_safetensors(path: str):
    """The same of ComfyUI's files."""
    state, metadata = load_file(path)
    official = to_official("text_encoder", state, path)
    if "spiece_model" not in state:
        raise CheckpointError(
            f"{path} holds no tokenizer",
            "the tensor spiece_model, as in umt5_xxl_fp16.safetensors",
            "Use the text encoder of Comfy-Org's Wan downloads",
        )
    proto = state["spiece_model"]
    state = {ours: state[theirs] for ours, theirs in official.items()}
    state, _ = comfy.utils.convert_old_quants(state, "", metadata=metadata)
    notes = comfy.utils.detect_layer_quantization(state, "")
    plain_fp8 = not notes and comfy.utils.weight_dtype(state).itemsize == 1
    if not notes and not plain_fp8:
        return state, proto, comfy.ops.manual_cast
    # An embedding answers in the dtype that it is stored in, and no arithmetic exists for fp8.
    state = {
        name: t.to(QUANTISED) if t.dtype.itemsize == 1 and "embedding" in name and not notes else t
        for name, t in state.items()
    }
    return state, proto, comfy.ops.mixed_precision_ops(notes or {}, QUANTISED, full_precision_mm=True)


def encode(clip, text: str) -> list:
    """CONDITIONING of a prompt by any Wan CLIP, ours or native, as the official code would encode it."""
    tokens = clip.tokenize(clean(text), disable_weights=True)
    for name, batches in tokens.items():
        # Native tokenizers pad to 512 and never cut; the official one cuts before the end-of-sequence token.
        tokens[name] = [batch if len(batch) <= LENGTH else [*batch[: LENGTH - 1], (EOS, 1.0)] for batch in batches]
    return clip.encode_from_tokens_scheduled(tokens)
