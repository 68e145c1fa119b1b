"""Every native Wan family: its tiny MODEL, of ComfyUI's own class, and what its conditioning nodes are given."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import comfy.clip_vision
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models
import comfy_extras.nodes_bernini as bernini
import comfy_extras.nodes_camera_trajectory as camera
import comfy_extras.nodes_model_patch as patches
import comfy_extras.nodes_scail as scail
import comfy_extras.nodes_wan as wan
import comfy_extras.nodes_wandancer as dancer
import comfy_extras.nodes_wanmove as move
import torch

SIDE, FRAMES = 64, 9
SIZE = {"width": SIDE, "height": SIDE, "length": FRAMES, "batch_size": 1}
TINY = {"dim": 128, "ffn_dim": 128, "num_heads": 1, "num_layers": 2}


@dataclass(frozen=True)
class Family:
    """One row of the table in the docs."""

    native: str  # the class of comfy.supported_models that a file of it is detected as
    given: tuple[tuple[Any, dict | Callable[[], dict]], ...] = ()  # (node, what is connected to it), each a run
    sizes: dict = field(default_factory=dict)  # what the class is constructed with, besides TINY
    shift: float = 8.0
    cfg: float = 3.0
    told: dict | None = None  # in the header of a file, where its tensors do not tell the family
    pair: bool = True


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def images(count: int = 1, side: int = SIDE) -> torch.Tensor:
    return noise(count, side, side, 3).sigmoid()


def vision() -> comfy.clip_vision.Output:
    output = comfy.clip_vision.Output()
    output.penultimate_hidden_states = noise(1, 257, 1280)
    return output


def heard(layers: int, width: int, **more) -> dict:
    """What an audio encoder gives: a second of sound."""
    return {"encoded_audio_all_layers": [noise(1, 50, width) + n for n in range(layers)], **more}


def speech() -> dict:
    """InfiniteTalk's node; its patch has 40 heads, whatever its width."""
    patch = patches.MultiTalkModelPatch(in_dim=640, num_layers=2, operations=comfy.ops.manual_cast)
    return {
        **BOTH,
        "mode": {"mode": "single_speaker"},
        "model_patch": as_patcher(patch),
        "audio_encoder_output_1": heard(13, 768),
        "motion_frame_count": 5,
    }


START = {"start_image": images()}
VISION = {"clip_vision_output": vision()}
BOTH = START | VISION
ENDS = START | {"end_image": images().flip(1)}
CLIP_ENDS = ENDS | {"clip_vision_start_image": vision(), "clip_vision_end_image": vision()}
VIDEO, ONE = images(FRAMES), images()
PATH = {"camera_conditions": camera.WanCameraEmbedding.execute("Pan Up", SIDE, SIDE, FRAMES).result[0]}
TRACKS = str([[{"x": 8 + n, "y": 20 + n} for n in range(121)]])
MUSIC = {"audio_feature": noise(1, 40, 35), "fps": 30.0, "audio_inject_scale": 1.0}
WAV2VEC = {"audio_encoder_output": heard(25, 1024)}
WHISPER = {"audio_encoder_output": heard(33, 1280, audio_samples=16000)}
POSES = {"reference_image": images(2), "pose_video": VIDEO, **VISION, "previous_frames": images(5)}
MASKS = {"reference_image_mask": images(2).round(), "pose_video_mask": VIDEO.round()}

CLIP = {"model_type": "i2v", "in_dim": 36}
FAMILIES = {
    "T2V": Family("WAN21_T2V", shift=12.0),
    "I2V-A14B": Family(
        "WAN21_T2V", ((wan.WanImageToVideo, START), (wan.WanFirstLastFrameToVideo, ENDS)), {"in_dim": 36}, 5.0
    ),
    "TI2V-5B": Family(
        "WAN22_T2V",
        ((wan.Wan22ImageToVideoLatent, {}), (wan.Wan22ImageToVideoLatent, START)),
        {"in_dim": 48, "out_dim": 48},
    ),
    "Wan 2.1 I2V": Family("WAN21_I2V", ((wan.WanImageToVideo, BOTH), (wan.WanImageToVideo, VISION)), CLIP, 3.0),
    "Wan 2.1 FLF2V": Family(
        "WAN21_I2V", ((wan.WanFirstLastFrameToVideo, CLIP_ENDS),), CLIP | {"flf_pos_embed_token_number": 514}
    ),
    "VACE": Family(
        "WAN21_Vace",
        ((wan.WanVaceToVideo, {"control_video": VIDEO, "reference_image": ONE}), (wan.WanVaceToVideo, {})),
        {"model_type": "vace", "vace_layers": 1, "vace_in_dim": 96},
    ),
    "Fun-Control A14B": Family(
        "WAN21_T2V",
        (
            (wan.Wan22FunControlToVideo, {"control_video": VIDEO, "ref_image": ONE}),
            (wan.Wan22FunControlToVideo, {"control_video": VIDEO}),
        ),
        {"in_dim": 52, "in_dim_ref_conv": 16},
        5.0,
    ),
    "Fun-Control 5B": Family(
        "WAN22_T2V",
        ((wan.Wan22FunControlToVideo, {"control_video": VIDEO, "ref_image": ONE}),),
        {"in_dim": 148, "out_dim": 48, "in_dim_ref_conv": 48},
        5.0,
    ),
    "Fun-Control 2.1": Family(
        "WAN21_FunControl2V", ((wan.WanFunControlToVideo, {**BOTH, "control_video": VIDEO}),), CLIP | {"in_dim": 48}
    ),
    "Fun-InP A14B": Family("WAN21_T2V", ((wan.WanFunInpaintToVideo, ENDS),), {"in_dim": 36}, 5.0),
    "Fun-InP 5B": Family("WAN22_T2V", ((wan.WanFunInpaintToVideo, ENDS),), {"in_dim": 100, "out_dim": 48}, 5.0),
    "Fun-InP 2.1": Family("WAN21_I2V", ((wan.WanFunInpaintToVideo, {**ENDS, **VISION}),), CLIP),
    "Fun-Camera A14B": Family(
        "WAN22_Camera",
        ((wan.WanCameraImageToVideo, {**START, **PATH}), (wan.WanCameraImageToVideo, PATH)),
        {"model_type": "camera_2.2", "in_dim": 36},
        5.0,
    ),
    "Fun-Camera 2.1": Family(
        "WAN21_Camera", ((wan.WanCameraImageToVideo, {**BOTH, **PATH}),), {"model_type": "camera", "in_dim": 32}
    ),
    "Bernini-R": Family(
        "WAN21_T2V",
        (
            (
                bernini.BerniniConditioning,
                {
                    "source_video": VIDEO,
                    "reference_video": images(5, 48),
                    "reference_images": {"reference_image_0": images(2, 32)},
                },
            ),
        ),
        shift=3.0,
    ),
    "Phantom": Family("WAN21_T2V", ((wan.WanPhantomSubjectToVideo, {"images": images(2)}),), shift=3.0),
    "ATI": Family("WAN21_I2V", ((wan.WanTrackToVideo, {**BOTH, "tracks": TRACKS}),), CLIP, 5.0),
    "Wan-Move": Family(
        "WAN21_I2V",
        ((move.WanMoveTrackToVideo, {**BOTH, "tracks": move.WanMoveTracksFromCoords.execute(TRACKS).result[0]}),),
        CLIP,
        5.0,
    ),
    "InfiniteTalk": Family(
        "WAN21_I2V",
        (
            (wan.WanInfiniteTalkToVideo, speech),
            (wan.WanInfiniteTalkToVideo, lambda: speech() | {"previous_frames": VIDEO}),
        ),
        CLIP | {"dim": 640, "num_heads": 5},
        cfg=1.0,
    ),
    "Animate 2": Family(
        "WAN_Animate2",
        (
            (wan.WanAnimate2ToVideo, {"pose_video": VIDEO, "reference_image": ONE, **VISION}),
            (wan.WanAnimate2ToVideo, {"pose_video": VIDEO, "pose_start_percent": 0.2, "pose_end_percent": 0.4}),
        ),
        {"model_type": "animate2", "in_dim": 36},
        5.0,
        told={"model_type": "animate2"},
    ),
    "Animate": Family(
        "WAN22_Animate",
        ((wan.WanAnimateToVideo, {"pose_video": VIDEO, "face_video": ONE, "reference_image": ONE, **VISION}),),
        {"model_type": "animate", "in_dim": 36, "num_layers": 5},
        5.0,
        cfg=1.0,
        pair=False,  # its face encoder takes 512x512 pixels, however small the rest is
    ),
    "SCAIL": Family(
        "WAN21_SCAIL",
        (
            (scail.WanSCAILToVideo, {"reference_image": ONE, "pose_video": VIDEO}),
            (scail.WanSCAILToVideo, {**VISION, "pose_video": VIDEO, "pose_end": 0.4}),
        ),
        {"model_type": "scail", "in_dim": 20},
        5.0,
    ),
    "SCAIL-2": Family(
        "WAN21_SCAIL2", ((scail.WanSCAILToVideo, POSES | MASKS),), {"model_type": "scail2", "in_dim": 20}, 5.0
    ),
    "S2V": Family(
        "WAN22_S2V",
        (
            (wan.WanSoundImageToVideo, {**WAV2VEC, "ref_image": ONE, "control_video": VIDEO, "ref_motion": images(5)}),
            (
                wan.WanSoundImageToVideoExtend,
                {**WAV2VEC, "video_latent": {"samples": noise(1, 16, 3, SIDE // 8, SIDE // 8)}},
            ),
        ),
        {"model_type": "s2v"},
        3.0,
    ),
    "HuMo 17B": Family(
        "WAN21_HuMo",
        ((wan.WanHuMoImageToVideo, {**WHISPER, "ref_image": ONE}), (wan.WanHuMoImageToVideo, WHISPER)),
        {"model_type": "humo", "in_dim": 36},
    ),
    "HuMo 1.7B": Family(
        "WAN21_HuMo", ((wan.WanHuMoImageToVideo, {**WHISPER, "ref_image": ONE}),), {"model_type": "humo"}
    ),
    "WanDancer": Family(
        "WAN22_WanDancer",
        (
            (dancer.WanDancerVideo, {**BOTH, "audio_encoder_output": MUSIC}),
            (dancer.WanDancerVideo, {**VISION, "clip_vision_output_ref": vision()}),
            (dancer.WanDancerVideo, {"audio_encoder_output": MUSIC | {"fps": 15.0}}),
        ),
        {"model_type": "wandancer", "in_dim": 36},
        5.0,
    ),
    "FlowRVS": Family("WAN21_FlowRVS", sizes={"model_type": "flow_rvs"}, told={"model_type": "flow_rvs"}, pair=False),
}


def randomised(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The module, whose parameters ComfyUI has left as they lay in memory."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        scale = max(1, parameter[0].numel()) ** -0.5 if parameter.ndim > 1 else 0.1
        value = torch.randn(parameter.shape, generator=generator) * scale
        parameter.data = value + ("norm" in name and name.endswith("weight"))
    return module


def as_patcher(module: torch.nn.Module) -> comfy.model_patcher.ModelPatcher:
    return comfy.model_patcher.ModelPatcher(randomised(module), torch.device("cpu"), torch.device("cpu"))


def header(family: Family) -> dict[str, str] | None:
    return None if family.told is None else {"config": json.dumps({"transformer": family.told})}


def load(family: Family, seed: int):
    """A MODEL of the family, from tensors that ComfyUI tells it by."""
    config = getattr(comfy.supported_models, family.native)({"model_type": "t2v", **TINY, **family.sizes})
    config.set_inference_dtype(torch.float32, None)
    state = randomised(config.get_model({}).diffusion_model, seed).state_dict()
    model = comfy.sd.load_diffusion_model_state_dict(state, metadata=header(family))
    assert type(model.model.model_config).__name__ == family.native, type(model.model.model_config)
    return model
