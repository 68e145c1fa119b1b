"""Images, frames and masks to conditioning and latents."""

from comfy_api.latest import io

from ..wan_core.config import PRESETS
from .load import CATEGORY

FAMILIES = {"A14B": PRESETS["t2v-a14b"], "5B": PRESETS["ti2v-5b"]}
MAX_SIZE, MAX_LENGTH = 8192, 4093


def size_inputs(preset=PRESETS["t2v-a14b"], width=832, height=480):
    """Width, height and length; steps that keep a size typed on the canvas legal."""
    unit = preset.vae.space_stride * preset.dit.patch[1]
    tooltip = (
        f"Pixels, a multiple of {unit}. Another value, from a file or the API, is refused with the nearest legal one."
    )
    size = {"min": unit, "max": MAX_SIZE, "step": unit, "tooltip": tooltip}
    seconds = preset.frames // preset.fps
    return [
        io.Int.Input("width", default=width, **size),
        io.Int.Input("height", default=height, **size),
        io.Int.Input(
            "length",
            default=preset.frames,
            min=1,
            max=MAX_LENGTH,
            step=4,
            tooltip=(
                f"Frames: a multiple of 4, plus 1. {preset.frames} frames are {seconds} seconds at {preset.fps} fps."
            ),
        ),
    ]


def prompt_inputs():
    return [io.Conditioning.Input(name, tooltip="From the prompt node.") for name in ("positive", "negative")]


def outputs(added: str, latent: str):
    """Both prompts with what the node adds to them, and the latent; `added` and `latent` say what these are."""
    return [
        io.Conditioning.Output("positive", display_name="positive", tooltip=f"The prompt with {added}."),
        io.Conditioning.Output("negative", display_name="negative", tooltip=f"The negative prompt with {added}."),
        io.Latent.Output("latent", display_name="latent", tooltip=latent),
    ]


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
                io.Int.Input(
                    "batch_size", default=1, min=1, max=64, tooltip="Clips made in one run, each with its own noise."
                ),
                io.Combo.Input(
                    "family",
                    options=list(FAMILIES),
                    tooltip=(
                        "A14B (also VACE and Wan 2.1): 16 channels, 1/8 of the size. "
                        "5B: 48 channels, 1/16; width and height must then be multiples of 32."
                    ),
                ),
            ],
            outputs=[
                io.Latent.Output(tooltip="The empty latent; length 81 becomes 21 latent frames, 1 + (length − 1) / 4.")
            ],
        )

    @classmethod
    def execute(cls, width, height, length, batch_size, family) -> io.NodeOutput:
        from .host.conditioning import empty_latent

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
                *prompt_inputs(),
                io.Vae.Input("vae", tooltip="The Wan 2.1 VAE; another one is refused."),
                *size_inputs(),
                io.Image.Input(
                    "start_image",
                    tooltip=(
                        "The first frame; scaled to cover the size and cropped at the edges. "
                        "Several images are taken as the first frames."
                    ),
                ),
                io.Image.Input("end_image", optional=True, tooltip="The last frame, if the clip is to end with one."),
            ],
            outputs=outputs("the images", "An empty latent of the size, for the sampler."),
        )

    @classmethod
    def execute(cls, positive, negative, vae, width, height, length, start_image, end_image=None) -> io.NodeOutput:
        from .host.conditioning import image_to_video, with_values

        values, latent = image_to_video(vae, width, height, length, start_image, end_image)
        return io.NodeOutput(*with_values(positive, negative, values), {"samples": latent})


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
                io.Vae.Input("vae", tooltip="The Wan 2.2 VAE; another one is refused."),
                *size_inputs(PRESETS["ti2v-5b"], 1280, 704),
                io.Image.Input(
                    "start_image",
                    optional=True,
                    tooltip=(
                        "The first frame, kept exactly; scaled to cover the size and cropped. "
                        "Leave it out for text-to-video."
                    ),
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The latent, with a noise mask where an image is given.")],
        )

    @classmethod
    def execute(cls, vae, width, height, length, start_image=None) -> io.NodeOutput:
        from .host.conditioning import text_and_image_to_video

        return io.NodeOutput(text_and_image_to_video(vae, width, height, length, start_image))


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
                *prompt_inputs(),
                io.Vae.Input("vae", tooltip="The Wan 2.1 VAE; another one is refused."),
                *size_inputs(),
                io.Image.Input(
                    "video",
                    optional=True,
                    tooltip=(
                        "Frames to keep or to follow, scaled to cover the size; "
                        "missing ones are grey, those beyond the length are dropped."
                    ),
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip=(
                        "White where the model generates, black where frames are kept. "
                        "One mask a frame; missing ones are white. Without a mask everything is generated."
                    ),
                ),
                io.Image.Input(
                    "reference_images",
                    optional=True,
                    tooltip=(
                        "What the subject looks like; each image is fitted onto white. Join several with Batch Images."
                    ),
                ),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=10.0, step=0.01, tooltip="Weight of the condition; 0 is none."
                ),
            ],
            outputs=[
                *outputs("the condition", "An empty latent with room for the references in front."),
                io.Int.Output(
                    "trim_latent",
                    display_name="trim_latent",
                    tooltip=(
                        "How many latent frames in front hold references: "
                        "connect it to trim_amount of TrimVideoLatent, after the sampler."
                    ),
                ),
            ],
        )

    @classmethod
    def execute(
        cls, positive, negative, vae, width, height, length, video=None, mask=None, reference_images=None, strength=1.0
    ) -> io.NodeOutput:
        from .host.conditioning import vace, with_values

        values, latent, references = vace(vae, width, height, length, video, mask, reference_images, strength)
        texts = with_values(positive, negative, values, append=True)
        return io.NodeOutput(*texts, {"samples": latent}, references)


NODES = [Wan22EmptyLatent, Wan22I2VConditioning, Wan22TI2V, Wan22VCU]
