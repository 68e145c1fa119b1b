"""Sizes and defaults of the Wan2.2 family as frozen dataclasses; each number names its source."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from .errors import CheckpointError

TRAIN_TIMESTEPS = 1000  # Wan2.2 wan/configs/shared_config.py: num_train_timesteps
# The default first; flow/solvers.py holds them, flow/schedule.py their grids.
SOLVERS = ("unipc", "dpmpp_2m", "euler")

# Wan2.2 wan/configs/shared_config.py: sample_neg_prompt
NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，"
    "残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，"
    "三条腿，背景人很多，倒着走"
)


def _check_numbers(config, *names: str) -> None:
    """Refuse sizes that are no positive whole numbers, and an epsilon that is no positive number."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**20:
            raise CheckpointError(f"a model config with {name} = {value!r}", "a positive whole number")
    if not isinstance(config.eps, (int, float)) or not 0 < config.eps < 1:
        raise CheckpointError(f"a model config with eps = {config.eps!r}", "a small positive number")


def _renamed(config: Mapping, names: Mapping[str, str]) -> dict:
    """The entries of `config` that `names` maps, under our names."""
    if not isinstance(config, Mapping):
        raise CheckpointError(
            f"a model config that is a {type(config).__name__}", "a dataclass of wan_core.config, or a dict"
        )
    return {ours: config[theirs] for theirs, ours in names.items() if config.get(theirs) is not None}


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
        _check_numbers(
            self, "dim", "ffn_dim", "heads", "layers", "in_channels", "out_channels", "text_dim", "text_len", "freq_dim"
        )
        if self.patch != (1, 2, 2) or not all(isinstance(n, int) and 0 <= n < self.layers for n in self.vace_layers):
            raise CheckpointError(
                f"a model config with patch {self.patch} and vace_layers {self.vace_layers}",
                "patch (1, 2, 2), layers that exist",
            )
        branches = {name: getattr(self, name) for name in ("image_dim", "image_positions", "reference_channels")}
        _check_numbers(self, *(name for name, size in branches.items() if size != 0))
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
        diffusers = isinstance(config, Mapping) and "num_attention_heads" in config
        values = _renamed(config, _DIT_DIFFUSERS if diffusers else _DIT_OFFICIAL)
        try:
            if "attention_head_dim" in config and "heads" in values:
                values["dim"] = values["heads"] * config["attention_head_dim"]
            for name in ("patch", "vace_layers"):
                if name in values:
                    values[name] = tuple(values[name])
        except TypeError as error:
            raise CheckpointError(
                "a model config whose numbers make no sense", fix="Download config.json again"
            ) from error
        return values


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
        _check_numbers(self, "dim", "dim_attn", "ffn_dim", "heads", "layers", "vocab", "buckets", "max_distance")
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
        values = _renamed(config, _TEXT_HF if isinstance(config, Mapping) and "d_model" in config else _TEXT_OFFICIAL)
        if config.get("shared_pos"):
            raise CheckpointError("a T5 encoder with one shared position table", "umT5: a table in every layer")
        if isinstance(config.get("d_kv"), int) and isinstance(values.get("heads"), int):
            values["dim_attn"] = config["d_kv"] * values["heads"]
        return values


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


@dataclass(frozen=True)
class Preset:
    """Everything that a generation needs when the caller says nothing. Source: Wan2.2 wan/configs/wan_*.py."""

    name: str
    task: str  # t2v | i2v | ti2v | vace
    dit: DiTConfig
    vae: VAEConfig
    steps: int
    shift: float
    guidance: float  # of the high-noise expert, or of the only model
    guidance_low: float | None = None  # of the low-noise expert
    boundary: float | None = None  # None: one model
    width: int = 1280
    height: int = 720
    frames: int = 81
    fps: int = 16
    text: TextConfig = TextConfig()
    negative_prompt: str = NEGATIVE_PROMPT

    @property
    def two_experts(self) -> bool:
        return self.boundary is not None


_A14B = DiTConfig()
_1_3B = replace(_A14B, dim=1536, ffn_dim=8960, heads=12, layers=30)
_5B = replace(_A14B, dim=3072, ffn_dim=14336, heads=24, layers=30, in_channels=48, out_channels=48)
_VACE_14B = replace(_A14B, vace_layers=tuple(range(0, 40, 5)))
_VACE_1_3B = replace(_1_3B, vace_layers=tuple(range(0, 30, 2)))

_T2V_A14B = Preset(  # wan_t2v_A14B.py
    name="t2v-a14b",
    task="t2v",
    dit=_A14B,
    vae=VAEConfig(),
    steps=40,
    shift=12.0,
    guidance=4.0,
    guidance_low=3.0,
    boundary=0.875,
)
_I2V_A14B = replace(  # wan_i2v_A14B.py
    _T2V_A14B,
    name="i2v-a14b",
    task="i2v",
    dit=replace(_A14B, in_channels=36),
    shift=5.0,
    guidance=3.5,
    guidance_low=3.5,
    boundary=0.900,
)
_TI2V_5B = Preset(  # wan_ti2v_5B.py
    name="ti2v-5b",
    task="ti2v",
    dit=_5B,
    vae=VAEConfig.wan22(),
    steps=50,
    shift=5.0,
    guidance=5.0,
    height=704,
    frames=121,
    fps=24,
)
_WAN21_T2V_14B = Preset(  # Wan2.1 wan_t2v_14B.py
    name="wan21-t2v-14b",
    task="t2v",
    dit=_A14B,
    vae=VAEConfig(),
    steps=50,
    shift=5.0,
    guidance=5.0,
)
_WAN21_VACE_14B = replace(_WAN21_T2V_14B, name="wan21-vace-14b", task="vace", dit=_VACE_14B, shift=16.0)

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        _T2V_A14B,
        _I2V_A14B,
        _TI2V_5B,
        # community Wan2.2-VACE-Fun-A14B: the VACE-14B layout twice
        replace(_WAN21_VACE_14B, name="vace-a14b", guidance_low=5.0, boundary=0.875),
        _WAN21_T2V_14B,
        replace(_WAN21_T2V_14B, name="wan21-t2v-1.3b", dit=_1_3B, width=832, height=480),
        _WAN21_VACE_14B,
        replace(_WAN21_VACE_14B, name="wan21-vace-1.3b", dit=_VACE_1_3B, width=832, height=480),
    )
}
# What a model is recognised as: the presets, and one expert of the image-to-video pair by itself.
_RECOGNISED = (*PRESETS.values(), replace(_I2V_A14B, guidance_low=None, boundary=None))


def preset_for(dit: DiTConfig, vae: VAEConfig, two_experts: bool) -> Preset:
    """The preset whose defaults fit a model of any width, carrying that model's own sizes.

    Raises:
        CheckpointError: no model of the family has these channels.
    """
    fits = presets_like(dit, two_experts)
    if not fits:
        raise CheckpointError(
            f"a transformer with {dit.in_channels} input and {dit.out_channels} output channels"
            + (", twice" if two_experts else ""),
            "16 in (text-to-video, VACE), 36 in (image-to-video) or 48 in and out (TI2V-5B, a single model)",
        )
    return replace(fits[0], dit=dit, vae=vae)


def presets_like(dit: DiTConfig, two_experts: bool) -> list[Preset]:
    """The presets of models with these channels and experts, those of the same width first."""
    fits = [preset for preset in _RECOGNISED if _traits(preset.dit, preset.two_experts) == _traits(dit, two_experts)]
    return sorted(fits, key=lambda preset: preset.dit.dim != dit.dim)


def _traits(dit: DiTConfig, two_experts: bool) -> tuple[int | bool, ...]:
    """What tells the models of the family apart, besides their width."""
    branches = (dit.vace_layers, dit.image_dim, dit.image_positions, dit.reference_channels)
    return dit.in_channels, dit.out_channels, *map(bool, branches), two_experts
