"""Sizes of the parts of a model. The default of each is that of a release."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from ..errors import CheckpointError, quoted
from .fields import check_values, head_size, mapping, stated_values


@dataclass(frozen=True)
class DiTConfig:
    """Diffusion transformer. Defaults: A14B text-to-video. Source: Wan2.2 wan/configs/wan_t2v_A14B.py."""

    dim: int = 5120
    ffn_dim: int = 13824
    heads: int = 40
    layers: int = 40
    in_channels: int = 16  # image-to-video 36: noise 16 + mask 4 + image 16; Fun-Control 52: 16 more of the control
    out_channels: int = 16
    text_dim: int = 4096
    text_len: int = 512
    freq_dim: int = 256
    patch: tuple[int, int, int] = (1, 2, 2)
    eps: float = 1e-6
    vace_layers: tuple[int, ...] = ()  # main blocks that receive a VACE residual; empty: no VACE branch
    vace_channels: int = 96  # inactive 16 + reactive 16 + mask 64
    image_dim: int = 0  # width of CLIP's image tokens, 1280 in Wan2.1's image-to-video models; 0: no image branch
    image_positions: int = 0  # image tokens that have a learned position, 514 in FLF2V; 0: no positions
    reference_channels: int = 0  # latent channels of Fun-Control's reference image; 0: takes none

    def __post_init__(self):
        check_values(type(self), vars(self))
        if self.vace_layers and self.vace_layers[-1] >= self.layers:
            raise CheckpointError(
                f"a model config with {self.layers} layers and vace_layers {quoted(self.vace_layers)}",
                "layers that exist",
            )
        branches = {name: getattr(self, name) for name in ("image_dim", "image_positions", "reference_channels")}
        if (self.vace_layers and any(branches.values())) or (self.image_positions and not self.image_dim):
            raise CheckpointError(
                f"a model config with vace_layers {self.vace_layers} and {branches}",
                "a VACE branch, or an image branch with or without positions, or a reference",
            )
        if self.dim % self.heads or (self.dim // self.heads) % 2:
            raise CheckpointError(
                f"a transformer of width {self.dim} with {self.heads} heads",
                "a width that divides into heads of an even size",
                "Pass config= with the num_heads of the model's config.json",
            )

    @property
    def is_image_to_video(self) -> bool:
        """Whether mask and image channels follow those of the noise, as in I2V-A14B: 4 + 16 of 36."""
        return self.in_channels == self.out_channels + 20

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @classmethod
    def from_dict(cls, config: "DiTConfig | Mapping") -> "DiTConfig":
        """From our own dataclass, the official `config.json`, or the diffusers `transformer/config.json`.

        What is missing takes the numbers of A14B.
        """
        return config if isinstance(config, DiTConfig) else cls(**cls.values(config))

    @staticmethod
    def values(config: Mapping) -> dict:
        """The numbers that a config in either form states, under our names."""
        names = _DIT_DIFFUSERS if "num_attention_heads" in mapping(config) else _DIT_OFFICIAL
        values, size = stated_values(DiTConfig, config, names), head_size(config, "attention_head_dim")
        return values | ({"dim": values["heads"] * size} if size is not None and "heads" in values else {})


_DIT_OFFICIAL = {
    "dim": "dim",
    "ffn_dim": "ffn_dim",
    "num_heads": "heads",
    "num_layers": "layers",
    "in_dim": "in_channels",
    "out_dim": "out_channels",
    "text_dim": "text_dim",
    "text_len": "text_len",
    "freq_dim": "freq_dim",
    "patch_size": "patch",
    "eps": "eps",
    "vace_layers": "vace_layers",
    "vace_in_dim": "vace_channels",
}
_DIT_DIFFUSERS = {
    "ffn_dim": "ffn_dim",
    "num_attention_heads": "heads",
    "num_layers": "layers",
    "in_channels": "in_channels",
    "out_channels": "out_channels",
    "text_dim": "text_dim",
    "freq_dim": "freq_dim",
    "patch_size": "patch",
    "eps": "eps",
    "vace_layers": "vace_layers",
    "vace_in_channels": "vace_channels",
    "image_dim": "image_dim",
    "pos_embed_seq_len": "image_positions",
}


@dataclass(frozen=True)
class TextConfig:
    """umT5 encoder. Defaults: umT5-xxl. Source: Wan2.2 wan/modules/t5.py umt5_xxl."""

    dim: int = 4096
    dim_attn: int = 4096
    ffn_dim: int = 10240
    heads: int = 64
    layers: int = 24
    vocab: int = 256384
    buckets: int = 32
    max_distance: int = 128
    eps: float = 1e-6

    def __post_init__(self):
        check_values(type(self), vars(self))
        if self.dim_attn % self.heads:
            raise CheckpointError(
                f"a text encoder with {self.heads} heads of {self.dim_attn} values", "a width that divides"
            )

    @classmethod
    def from_dict(cls, config: "TextConfig | Mapping") -> "TextConfig":
        """From our own dataclass, the official constructor's names, or the HF `text_encoder/config.json`.

        What is missing takes the numbers of umT5-xxl.
        """
        return config if isinstance(config, TextConfig) else cls(**cls.values(config))

    @staticmethod
    def values(config: Mapping) -> dict:
        """The numbers that a config in either form states, under our names."""
        names = _TEXT_HF if "d_model" in mapping(config) else _TEXT_OFFICIAL
        values, size = stated_values(TextConfig, config, names), head_size(config, "d_kv")
        if config.get("shared_pos"):
            raise CheckpointError("a T5 encoder with one shared position table", "umT5: a table in every layer")
        return values | ({"dim_attn": values["heads"] * size} if size is not None and "heads" in values else {})


_TEXT_OFFICIAL = {
    "dim": "dim",
    "dim_attn": "dim_attn",
    "dim_ffn": "ffn_dim",
    "num_heads": "heads",
    "num_layers": "layers",
    "encoder_layers": "layers",
    "vocab_size": "vocab",
    "vocab": "vocab",
    "num_buckets": "buckets",
}
_TEXT_HF = {
    "d_model": "dim",
    "d_ff": "ffn_dim",
    "num_heads": "heads",
    "num_layers": "layers",
    "vocab_size": "vocab",
    "relative_attention_num_buckets": "buckets",
    "relative_attention_max_distance": "max_distance",
    "layer_norm_epsilon": "eps",
}


@dataclass(frozen=True)
class ImageEncoderConfig:
    """CLIP vision encoder. Defaults: ViT-H/14. Source: Wan2.1 wan/modules/clip.py clip_xlm_roberta_vit_h_14."""

    dim: int = 1280
    ffn_dim: int = 5120
    heads: int = 16
    layers: int = 31  # that are run: the last of the 32 in the file is not
    patch: int = 14
    image_size: int = 224
    eps: float = 1e-5

    def __post_init__(self):
        check_values(type(self), vars(self))
        if self.dim % self.heads or self.image_size % self.patch:
            raise CheckpointError(
                f"a vision encoder of width {self.dim} with {self.heads} heads, and patches of {self.patch} in images "
                f"of {self.image_size} pixels",
                "sizes that divide",
            )

    @property
    def tokens(self) -> int:
        """Tokens of an image: one for each patch, and one for the class."""
        return (self.image_size // self.patch) ** 2 + 1


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.split())


# Latent statistics. Source: Wan2.2 wan/modules/vae2_1.py and vae2_2.py.
_MEAN21 = _numbers("""
    -0.7571 -0.7089 -0.9113  0.1075 -0.1745  0.9653 -0.1517  1.5508
     0.4134 -0.0715  0.5517 -0.3632 -0.1922 -0.9497  0.2503 -0.2921
""")
_STD21 = _numbers("""
     2.8184  1.4541  2.3275  2.6558  1.2196  1.7708  2.6052  2.0743
     3.2687  2.1526  2.8652  1.5579  1.6382  1.1253  2.8251  1.9160
""")
_MEAN22 = _numbers("""
    -0.2289 -0.0052 -0.1323 -0.2339 -0.2799  0.0174  0.1838  0.1557
    -0.1382  0.0542  0.2813  0.0891  0.1570 -0.0098  0.0375 -0.1825
    -0.2246 -0.1207 -0.0698  0.5109  0.2665 -0.2108 -0.2158  0.2502
    -0.2055 -0.0322  0.1109  0.1567 -0.0729  0.0899 -0.2799 -0.1230
    -0.0313 -0.1649  0.0117  0.0723 -0.2839 -0.2083 -0.0520  0.3748
     0.0152  0.1957  0.1433 -0.2944  0.3573 -0.0548 -0.1681 -0.0667
""")
_STD22 = _numbers("""
     0.4765  1.0364  0.4514  1.1677  0.5313  0.4990  0.4818  0.5013
     0.8158  1.0344  0.5894  1.0901  0.6885  0.6165  0.8454  0.4978
     0.5759  0.3523  0.7135  0.6804  0.5833  1.4146  0.8986  0.5659
     0.7069  0.5338  0.4889  0.4917  0.4069  0.4999  0.6866  0.4093
     0.5709  0.6065  0.6415  0.4944  0.5726  1.2042  0.5458  1.6887
     0.3971  1.0600  0.3943  0.5537  0.5444  0.4089  0.7468  0.7744
""")


@dataclass(frozen=True)
class VAEConfig:
    """Wan-VAE. Defaults: 2.1. Source: Wan2.2 wan/modules/vae2_1.py `_video_vae`, vae2_2.py."""

    version: str = "2.1"
    dim: int = 96  # encoder width of the first stage
    decoder_dim: int = 96
    z_channels: int = 16
    mean: tuple[float, ...] = field(default=_MEAN21, repr=False)
    std: tuple[float, ...] = field(default=_STD21, repr=False)

    multipliers: ClassVar[tuple[int, ...]] = (1, 2, 4, 4)  # width of each stage, in units of dim
    temporal_down: ClassVar[tuple[bool, ...]] = (False, True, True)  # encoder resamplings that also halve time

    def __post_init__(self):
        check_values(type(self), vars(self))
        if self.version not in ("2.1", "2.2") or not len(self.mean) == len(self.std) == self.z_channels:
            raise CheckpointError(
                f"a VAE config of version {quoted(self.version)} with {self.z_channels} channels, "
                f"{len(self.mean)} means and {len(self.std)} deviations",
                "version 2.1 or 2.2, and one of each for every channel",
            )

    @property
    def pixel_fold(self) -> int:
        """Side of the pixel square folded into channels before the first convolution."""
        return 1 if self.version == "2.1" else 2

    @property
    def space_stride(self) -> int:
        """Pixels per latent, along height and width."""
        return 8 * self.pixel_fold

    @classmethod
    def wan22(cls, dim: int = 160, decoder_dim: int = 256) -> "VAEConfig":
        return cls("2.2", dim, decoder_dim, 48, _MEAN22, _STD22)
