"""Images, frames and masks to conditioning and latents."""

import comfy.latent_formats
import comfy.model_management
import comfy.utils
import node_helpers
import torch
from comfy_api.latest import io

from ..wan_core.config import PRESETS
from .load import CATEGORY

FAMILIES = {"A14B": PRESETS["t2v-a14b"], "5B": PRESETS["ti2v-5b"]}
MAX_SIZE, MAX_LENGTH = 8192, 4093


def size_inputs(preset=PRESETS["t2v-a14b"], width=832, height=480):
    """Width, height and length; steps that keep a size typed on the canvas legal."""
    multiple = preset.vae.space_stride * preset.dit.patch[1]
    return [
        io.Int.Input(
            "width",
            default=width,
            min=multiple,
            max=MAX_SIZE,
            step=multiple,
            tooltip=f"Pixels, a multiple of {multiple}.",
        ),
        io.Int.Input(
            "height",
            default=height,
            min=multiple,
            max=MAX_SIZE,
            step=multiple,
            tooltip=f"Pixels, a multiple of {multiple}.",
        ),
        io.Int.Input(
            "length", default=preset.frames, min=1, max=MAX_LENGTH, step=4, tooltip="Frames: a multiple of 4, plus 1."
        ),
    ]


def empty_latent(preset, width, height, length, batch_size=1) -> torch.Tensor:
    """Zeros (batch, channels, T', h, w) where ComfyUI keeps latents.

    Raises:
        InputError: a size or length that the model cannot make; the nearest one is named.
    """
    from ..wan_core.errors import InputError
    from ..wan_core.shapes import LONGEST_SEQUENCE, check_shape

    shape = check_shape(length, height, width, preset.vae, preset.dit)
    if batch_size * shape.tokens(preset.vae, preset.dit) > LONGEST_SEQUENCE:
        raise InputError(
            f"{batch_size} clips of {length} frames of {width}×{height}",
            "less in one run",
            "Make fewer clips at a time",
        )
    return torch.zeros(batch_size, *shape.latent(preset.vae), device=comfy.model_management.intermediate_device())


def scaled(images: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Images (T, H, W, C) scaled to cover the size and cropped, as the native Wan nodes do it."""
    moved = comfy.utils.common_upscale(images.movedim(-1, 1), width, height, "bilinear", "center")
    return moved.movedim(1, -1)


class Wan22EmptyLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Wan22EmptyLatent",
            display_name="Wan 2.2 Empty Latent",
            category=CATEGORY,
            description="An empty video latent for text-to-video.",
            search_aliases=["empty latent video", "latent size"],
            inputs=[
                *size_inputs(),
                io.Int.Input("batch_size", default=1, min=1, max=64, tooltip="Clips made in one run."),
                io.Combo.Input(
                    "family",
                    options=list(FAMILIES),
                    tooltip="A14B (and Wan 2.1): 16 channels, 1/8 of the size. 5B: 48 channels, 1/16.",
                ),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width, height, length, batch_size, family) -> io.NodeOutput:
        return io.NodeOutput({"samples": empty_latent(FAMILIES[family], width, height, length, batch_size)})


class Wan22I2VConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Wan22I2VConditioning",
            display_name="Wan 2.2 Image to Video",
            category=CATEGORY,
            description="Starts a clip from an image, and ends it with another one where given. For I2V-A14B models.",
            search_aliases=["image to video", "i2v", "first last frame", "flf2v"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="From the prompt node."),
                io.Conditioning.Input("negative", tooltip="From the prompt node."),
                io.Vae.Input("vae", tooltip="The Wan 2.1 VAE."),
                *size_inputs(),
                io.Image.Input("start_image", tooltip="The first frame; scaled to cover the size and cropped."),
                io.Image.Input("end_image", optional=True, tooltip="The last frame, if the clip is to end with one."),
            ],
            outputs=[
                io.Conditioning.Output("positive", display_name="positive"),
                io.Conditioning.Output("negative", display_name="negative"),
                io.Latent.Output("latent", display_name="latent"),
            ],
        )

    @classmethod
    def execute(cls, positive, negative, vae, width, height, length, start_image, end_image=None) -> io.NodeOutput:
        from .host.vae import require

        preset = PRESETS["i2v-a14b"]
        require(vae, preset.vae.z_channels, "image-to-video A14B")
        latent = empty_latent(preset, width, height, length)
        video = torch.full((length, height, width, 3), 0.5)
        mask = torch.ones(1, 1, latent.shape[2] * 4, *latent.shape[3:])
        start = scaled(start_image[:length, ..., :3], width, height)
        video[: len(start)] = start
        mask[:, :, : len(start) + 3] = 0
        if end_image is not None:
            end = scaled(end_image[-length:, ..., :3], width, height)
            video[-len(end) :] = end
            mask[:, :, -len(end) :] = 0
        mask = mask.view(1, latent.shape[2], 4, *latent.shape[3:]).transpose(1, 2)
        values = {"concat_latent_image": vae.encode(video), "concat_mask": mask}
        positive, negative = (node_helpers.conditioning_set_values(c, values) for c in (positive, negative))
        return io.NodeOutput(positive, negative, {"samples": latent})


class Wan22TI2V(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Wan22TI2V",
            display_name="Wan 2.2 5B Text and Image to Video",
            category=CATEGORY,
            description="A latent for TI2V-5B; with an image, the clip starts from it.",
            search_aliases=["5b", "ti2v", "image to video latent"],
            inputs=[
                io.Vae.Input("vae", tooltip="The Wan 2.2 VAE."),
                *size_inputs(PRESETS["ti2v-5b"], 1280, 704),
                io.Image.Input("start_image", optional=True, tooltip="The first frame, kept exactly."),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, vae, width, height, length, start_image=None) -> io.NodeOutput:
        from .host.vae import require

        preset = PRESETS["ti2v-5b"]
        require(vae, preset.vae.z_channels, "TI2V-5B")
        latent = empty_latent(preset, width, height, length)
        if start_image is None:
            return io.NodeOutput({"samples": latent})
        given = vae.encode(scaled(start_image[:length, ..., :3], width, height))
        mask = torch.ones(1, 1, *latent.shape[2:])
        mask[:, :, : given.shape[2]] = 0
        # Zero for the model is not zero for the VAE: the free frames have to be nothing after normalisation.
        latent = comfy.latent_formats.Wan22().process_out(latent)
        latent[:, :, : given.shape[2]] = given
        return io.NodeOutput({"samples": latent, "noise_mask": mask})


class Wan22VCU(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Wan22VCU",
            display_name="Wan 2.2 VACE Condition",
            category=CATEGORY,
            description="Text, frames, masks and references in one place, for VACE models.",
            search_aliases=["vace", "vcu", "inpaint video", "reference to video", "control video"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="From the prompt node."),
                io.Conditioning.Input("negative", tooltip="From the prompt node."),
                io.Vae.Input("vae", tooltip="The Wan 2.1 VAE."),
                *size_inputs(),
                io.Image.Input("video", optional=True, tooltip="Control or source frames; missing ones are grey."),
                io.Mask.Input(
                    "mask", optional=True, tooltip="White where the model generates, black where frames are kept."
                ),
                io.Image.Input(
                    "reference_images", optional=True, tooltip="What the subject looks like, one image each."
                ),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=10.0, step=0.01, tooltip="Weight of the condition."
                ),
            ],
            outputs=[
                io.Conditioning.Output("positive", display_name="positive"),
                io.Conditioning.Output("negative", display_name="negative"),
                io.Latent.Output("latent", display_name="latent"),
                io.Int.Output(
                    "trim_latent",
                    display_name="trim_latent",
                    tooltip="Latent frames in front that hold references: trim them before decoding.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, positive, negative, vae, width, height, length, video=None, mask=None, reference_images=None, strength=1.0
    ) -> io.NodeOutput:
        from ..wan_core.conditioning import vcu
        from ..wan_core.media.resize import fit_on_white
        from .host.vae import RawVAE, require

        preset = PRESETS["vace-a14b"]
        require(vae, preset.vae.z_channels, "VACE")
        references = []
        for image in [] if reference_images is None else reference_images[..., :3]:
            references.append(fit_on_white(image.movedim(-1, 0) * 2 - 1, height, width))
        if video is not None:
            video = fill(scaled(video[:length, ..., :3], width, height), length, 0.5).movedim(-1, 0) * 2 - 1
        if mask is not None:
            mask = mask.reshape(-1, *mask.shape[-2:])[:length, ..., None]
            mask = fill(scaled(mask, width, height), length, 1.0).movedim(-1, 0)
        latent = empty_latent(preset, width, height, length)
        context = vcu(RawVAE(vae), video, mask, references, frames=length, height=height, width=width)
        values = {"vace_frames": [context[:, :32]], "vace_mask": [context[:, 32:]], "vace_strength": [strength]}
        positive, negative = (
            node_helpers.conditioning_set_values(c, values, append=True) for c in (positive, negative)
        )
        count = len(references)
        latent = torch.cat((latent.new_zeros(*latent.shape[:2], count, *latent.shape[3:]), latent), dim=2)
        return io.NodeOutput(positive, negative, {"samples": latent}, count)


def fill(frames: torch.Tensor, length: int, value: float) -> torch.Tensor:
    """Frames (T, H, W, C) followed by constant ones up to `length`."""
    missing = length - len(frames)
    return torch.cat((frames, frames.new_full((missing, *frames.shape[1:]), value))) if missing > 0 else frames


NODES = [Wan22EmptyLatent, Wan22I2VConditioning, Wan22TI2V, Wan22VCU]
