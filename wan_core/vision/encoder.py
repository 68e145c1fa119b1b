"""CLIP's vision tower, up to its last layer but one: transformers' own layers. Source: Wan2.1 wan/modules/clip.py."""

import torch
from torch import Tensor, nn

from ..config import ImageEncoderConfig

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of the pixels CLIP was shown


def parameter_shapes(config: ImageEncoderConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an encoder's tensors. Written out, as importing transformers takes two seconds."""
    square, wide, narrow = (config.dim, config.dim), (config.ffn_dim, config.dim), (config.dim, config.ffn_dim)
    layers: dict[str, tuple[int, ...]] = {f"self_attn.{name}_proj": square for name in ("q", "k", "v", "out")}
    layers |= {"mlp.fc1": wide, "mlp.fc2": narrow, "layer_norm1": square[:1], "layer_norm2": square[:1]}
    modules = {f"encoder.layers.{n}.{name}": shape for n in range(config.layers) for name, shape in layers.items()}
    modules["pre_layrnorm"] = square[:1]
    embeddings = {
        "embeddings.class_embedding": square[:1],
        "embeddings.patch_embedding.weight": (config.dim, 3, config.patch, config.patch),
        "embeddings.position_embedding.weight": (config.tokens, config.dim),
    }
    weights = {f"{name}.weight": shape for name, shape in modules.items()}
    return embeddings | weights | {f"{name}.bias": shape[:1] for name, shape in modules.items()}


class ImageEncoder(nn.Module):
    """Image tokens of CLIP. Its state dict has the names that transformers gives them."""

    def __init__(self, config: ImageEncoderConfig):
        super().__init__()
        from transformers import CLIPVisionConfig, CLIPVisionModel  # importing it takes two seconds

        self.config = config
        theirs = CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=config.dim,
                intermediate_size=config.ffn_dim,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                image_size=config.image_size,
                patch_size=config.patch,
                layer_norm_eps=config.eps,
                hidden_act="gelu",
            )
        )
        theirs = getattr(theirs, "vision_model", theirs)  # before transformers 5 it is inside
        self.embeddings = Embeddings(config)
        self.pre_layrnorm, self.encoder = theirs.pre_layrnorm, theirs.encoder

    @property
    def device(self) -> torch.device:
        return self.embeddings.class_embedding.device

    def forward(self, images: Tensor) -> Tensor:
        """Hidden states before the last layer.

        Args:
            images: (B, 3, S, S) in [-1, 1], S = config.image_size.
        Returns:
            (B, config.tokens, dim) in the weights' dtype.
        """
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        tokens = self.embeddings((images * 0.5 + 0.5 - mean) / std)
        return self.encoder(inputs_embeds=self.pre_layrnorm(tokens)).last_hidden_state


class Embeddings(nn.Module):
    """The class token and the patches of an image, with their positions."""

    def __init__(self, config: ImageEncoderConfig):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(config.dim))
        self.patch_embedding = nn.Conv2d(3, config.dim, config.patch, config.patch, bias=False)
        self.position_embedding = nn.Embedding(config.tokens, config.dim)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) normalised → (B, tokens, dim)."""
        patches = self.patch_embedding(pixels.to(self.patch_embedding.weight.dtype)).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(pixels), 1, -1)
        return torch.cat((first, patches), dim=1) + self.position_embedding.weight
