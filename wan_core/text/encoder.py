"""umT5 encoder: transformers' own, under the official parameter names. Source: Wan2.2 wan/modules/t5.py T5Encoder."""

from typing import Any

from torch import Tensor, nn

from ..config import TextConfig
from ..errors import CheckpointError

# Official name of a layer → its name in Hugging Face files, ComfyUI's too. N is the number of the block.
HUGGING_FACE = {
    "token_embedding": "shared",
    "blocks.N.norm1": "encoder.block.N.layer.0.layer_norm",
    "blocks.N.attn.q": "encoder.block.N.layer.0.SelfAttention.q",
    "blocks.N.attn.k": "encoder.block.N.layer.0.SelfAttention.k",
    "blocks.N.attn.v": "encoder.block.N.layer.0.SelfAttention.v",
    "blocks.N.attn.o": "encoder.block.N.layer.0.SelfAttention.o",
    "blocks.N.norm2": "encoder.block.N.layer.1.layer_norm",
    "blocks.N.ffn.gate.0": "encoder.block.N.layer.1.DenseReluDense.wi_0",
    "blocks.N.ffn.fc1": "encoder.block.N.layer.1.DenseReluDense.wi_1",
    "blocks.N.ffn.fc2": "encoder.block.N.layer.1.DenseReluDense.wo",
    "blocks.N.pos_embedding.embedding": "encoder.block.N.layer.0.SelfAttention.relative_attention_bias",
    "norm": "encoder.final_layer_norm",
}
# Official name of a layer → sizes in `TextConfig` that its weight's shape is made of.
_SHAPES = {
    "token_embedding": ("vocab", "dim"),
    "blocks.N.norm1": ("dim",),
    "blocks.N.attn.q": ("dim_attn", "dim"),
    "blocks.N.attn.k": ("dim_attn", "dim"),
    "blocks.N.attn.v": ("dim_attn", "dim"),
    "blocks.N.attn.o": ("dim", "dim_attn"),
    "blocks.N.norm2": ("dim",),
    "blocks.N.ffn.gate.0": ("ffn_dim", "dim"),
    "blocks.N.ffn.fc1": ("ffn_dim", "dim"),
    "blocks.N.ffn.fc2": ("dim", "ffn_dim"),
    "blocks.N.pos_embedding.embedding": ("buckets", "heads"),
    "norm": ("dim",),
}


def parameter_shapes(config: TextConfig) -> dict[str, tuple[int, ...]]:
    """Official name → shape of every parameter of `UMT5`, without constructing it."""
    return {
        f"{layer.replace('N', str(n))}.weight": tuple(getattr(config, size) for size in sizes)
        for n in range(config.layers)
        for layer, sizes in _SHAPES.items()
    }


def hugging_face_names(layers: int) -> dict[str, str]:
    """Official name → name in Hugging Face files, of every layer of an encoder with this many blocks."""
    return {
        official.replace("N", str(n)): theirs.replace("N", str(n))
        for n in range(layers)
        for official, theirs in HUGGING_FACE.items()
    }


def hugging_face_sizes(config: TextConfig) -> dict[str, Any]:
    """The sizes under the names of Hugging Face's config.json."""
    return {
        "vocab_size": config.vocab,
        "d_model": config.dim,
        "d_kv": config.dim_attn // config.heads,
        "d_ff": config.ffn_dim,
        "num_layers": config.layers,
        "num_heads": config.heads,
        "relative_attention_num_buckets": config.buckets,
        "relative_attention_max_distance": config.max_distance,
    }


class UMT5(nn.Module):
    """Text encoder of the Wan family. Its state dict has the official names, as those of the other models have."""

    def __init__(self, config: TextConfig):
        super().__init__()
        from transformers import UMT5Config, UMT5EncoderModel  # importing it takes two seconds

        self.config = config
        theirs = UMT5Config(
            **hugging_face_sizes(config),
            dropout_rate=0.0,
            layer_norm_epsilon=config.eps,
            feed_forward_proj="gated-gelu_pytorch_tanh",  # "gated-gelu" is the same function in many small operations
        )
        self.encoder = UMT5EncoderModel(theirs).encoder  # the model around it registers the embedding a second time
        self._names = {
            f"{official}.weight": name.replace("shared", "encoder.embed_tokens") + ".weight"
            for official, name in hugging_face_names(config.layers).items()
        }
        self.register_state_dict_post_hook(_to_official)
        self.register_load_state_dict_pre_hook(_from_official)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states.

        Args:
            ids: (B, L) int64 token ids.
            mask: (B, L), 1 for tokens and 0 for padding, which no token attends to.
        Returns:
            (B, L, dim) in the weights' dtype; rows of padding mean nothing.
        Raises:
            CheckpointError: ids that the vocabulary does not have: the tokenizer is of another model.
        """
        largest = int(ids.max()) if ids.numel() else 0
        if largest >= self.config.vocab:
            raise CheckpointError(
                f"the tokenizer gives the id {largest}, and the text encoder has {self.config.vocab} words",
                "the tokenizer that the text encoder was trained with",
            )
        return self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state


def _to_official(module: Any, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    """Hook after `state_dict`."""
    for official, own in module._names.items():
        state[prefix + official] = state.pop(prefix + own)


def _from_official(module: Any, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
    """Hook before `load_state_dict`, which hands it a copy of the caller's dict."""
    for official, own in module._names.items():
        if prefix + official in state:
            state[prefix + own] = state.pop(prefix + official)
