"""The models that are built here, each with the official numbers of a generation."""

from dataclasses import dataclass, field, replace

from ..errors import CheckpointError
from .sizes import DiTConfig, ImageEncoderConfig, TextConfig, VAEConfig

TRAIN_TIMESTEPS = 1000  # Wan2.2 wan/configs/shared_config.py: num_train_timesteps
# The default first; flow/solvers.py holds them, flow/schedule.py their grids.
SOLVERS = ("unipc", "dpmpp_2m", "euler")

# Wan2.2 wan/configs/shared_config.py: sample_neg_prompt
NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，"
    "残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，"
    "三条腿，背景人很多，倒着走"
)
# Wan2.1 wan/configs/wan_i2v_14B.py, and its copy for first and last frames
_NEGATIVE_PROMPT_I2V = "镜头晃动，" + NEGATIVE_PROMPT
_NEGATIVE_PROMPT_FLF2V = "镜头切换，" + _NEGATIVE_PROMPT_I2V
# What to do with a model that is not built here.
USE_COMFYUI = "Load it in ComfyUI with Load Diffusion Model; the Wan 2.2 sampler takes its MODEL"


@dataclass(frozen=True)
class Preset:
    """Everything that a generation needs when the caller says nothing. Source: Wan2.2 wan/configs/wan_*.py.

    Of Bernini-R its ports state boundary, shift and solver; its other numbers are those of text-to-video.
    """

    name: str
    task: str  # t2v | i2v | ti2v | vace | bernini | fun-control | fun-inp | clip-i2v | clip-flf2v
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
    text: TextConfig = field(default_factory=TextConfig)
    negative_prompt: str = NEGATIVE_PROMPT
    image_encoder: ImageEncoderConfig | None = None  # of models with a CLIP branch
    mark: str = ""  # a word in the names of models that no tensor tells from another preset's

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

# Bernini-R, community. Boundary, shift and solver as its ports state them; where nothing is stated, T2V's numbers.
_BERNINI_A14B = replace(_T2V_A14B, name="bernini-r-a14b", task="bernini", shift=3.0, mark="bernini")
_WAN21_T2V_1_3B = replace(_WAN21_T2V_14B, name="wan21-t2v-1.3b", dit=_1_3B, width=832, height=480)
# Wan2.2-Fun of VideoX-Fun: examples/wan2.2_fun, config/wan2.2/wan_civitai_i2v.yaml and wan_civitai_5b.yaml
_FUN_CONTROL_A14B = replace(
    _I2V_A14B,
    name="fun-control-a14b",
    task="fun-control",
    dit=replace(_A14B, in_channels=52, reference_channels=16),
    steps=50,
    guidance=6.0,
    guidance_low=6.0,
)
_FUN_INP_5B = replace(_TI2V_5B, name="fun-inp-5b", task="fun-inp", dit=replace(_5B, in_channels=100), guidance=6.0)
_WAN21_I2V_14B = replace(  # Wan2.1 wan_i2v_14B.py; the README's shift for 480p
    _WAN21_T2V_14B,
    name="wan21-i2v-14b-720p",
    task="clip-i2v",
    dit=replace(_A14B, in_channels=36, image_dim=1280),
    steps=40,
    negative_prompt=_NEGATIVE_PROMPT_I2V,
    image_encoder=ImageEncoderConfig(),
)

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        _T2V_A14B,
        _I2V_A14B,
        _TI2V_5B,
        # community Wan2.2-VACE-Fun-A14B: the VACE-14B layout twice; VideoX-Fun examples/wan2.2_vace_fun
        replace(_WAN21_VACE_14B, name="vace-a14b", shift=12.0, guidance_low=5.0, boundary=0.875),
        _WAN21_T2V_14B,
        _WAN21_T2V_1_3B,
        _WAN21_VACE_14B,
        replace(_WAN21_VACE_14B, name="wan21-vace-1.3b", dit=_VACE_1_3B, width=832, height=480),
        _BERNINI_A14B,
        replace(_WAN21_T2V_1_3B, name="bernini-r-1.3b", task="bernini", shift=3.0, mark="bernini"),
        _FUN_CONTROL_A14B,
        replace(
            _FUN_INP_5B,
            name="fun-control-5b",
            task="fun-control",
            dit=replace(_5B, in_channels=148, reference_channels=48),
            steps=40,
        ),
        _FUN_INP_5B,
        _WAN21_I2V_14B,
        replace(_WAN21_I2V_14B, name="wan21-i2v-14b-480p", shift=3.0, width=832, height=480, mark="480p"),
        replace(  # Wan2.1 wan/first_last_frame2video.py
            _WAN21_I2V_14B,
            name="wan21-flf2v-14b",
            task="clip-flf2v",
            dit=replace(_WAN21_I2V_14B.dit, image_positions=514),
            steps=50,
            shift=16.0,
            negative_prompt=_NEGATIVE_PROMPT_FLF2V,
        ),
    )
}
# What a model is recognised as: the presets, and one expert by itself of pairs that no single model looks like.
_RECOGNISED = (
    *PRESETS.values(),
    *(replace(pair, guidance_low=None, boundary=None) for pair in (_I2V_A14B, _BERNINI_A14B, _FUN_CONTROL_A14B)),
)

MARKS = " ".join({preset.mark for preset in _RECOGNISED})  # as the names of a model that may be any of them


def preset_for(dit: DiTConfig, vae: VAEConfig, two_experts: bool, names: str = "") -> Preset:
    """The preset whose defaults fit a model of any width, carrying that model's own sizes.

    Args:
        names: what folder, files and headers call the model: a preset with a `mark` is taken only where it is in them.
    Raises:
        CheckpointError: no model of the family has these channels.
    """
    fits = presets_like(dit, two_experts, names)
    if not fits:
        found = f"a transformer with {dit.in_channels} input and {dit.out_channels} output channels"
        found += " and a CLIP image branch" if dit.image_dim else ""
        found += " (Fun-Control of Wan2.1)" if is_fun_control_21(dit) else ""
        raise CheckpointError(
            found + (", twice" if two_experts else ""),
            "16 in (text-to-video, VACE, Bernini-R), 36 in (image-to-video), 52 in (Fun-Control, a pair) or 48, 100 or "
            "148 in and 48 out (TI2V-5B, Fun-InP and Fun-Control 5B, single models)",
            USE_COMFYUI,
        )
    return replace(fits[0], dit=dit, vae=vae)


def is_fun_control_21(dit: DiTConfig) -> bool:
    """Whether a transformer has the channels of a model that there is no preset for."""
    return (dit.in_channels, dit.out_channels) == (48, 16)


def presets_like(dit: DiTConfig, two_experts: bool, names: str = "") -> list[Preset]:
    """The presets of models with these channels, branches and experts, the likeliest first.

    Those that `names` mark come before those without a mark, and those of the same width before the others.
    """
    fits = [
        preset
        for preset in _RECOGNISED
        if _traits(preset.dit, preset.two_experts) == _traits(dit, two_experts) and preset.mark in names.lower()
    ]
    return sorted(fits, key=lambda preset: (not preset.mark, preset.dit.dim != dit.dim))


def _traits(dit: DiTConfig, two_experts: bool) -> tuple[int | bool, ...]:
    """What tells the models of the family apart, besides their width."""
    branches = (dit.vace_layers, dit.image_dim, dit.image_positions, dit.reference_channels)
    return dit.in_channels, dit.out_channels, *map(bool, branches), two_experts
