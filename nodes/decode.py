"""Pixels to latents and back, and latents straight into a video file."""

from comfy_api.latest import InputImpl, io, ui

from .load import CATEGORY


def tile_inputs():
    return [
        io.Int.Input(
            "tile_size",
            default=0,
            min=0,
            max=4096,
            step=32,
            tooltip=(
                "Side of a tile in pixels; 0 works on the whole frame. Tiles have at least 32 pixels; "
                "256 suits most cards."
            ),
        ),
        io.Int.Input(
            "overlap",
            default=64,
            min=0,
            max=4096,
            step=32,
            advanced=True,
            tooltip=(
                "Pixels that neighbouring tiles share and blend, at most half a tile. No effect with tile size 0."
            ),
        ),
    ]


def check_tile(size) -> bool | str:
    """What `validate_inputs` wants: True, or which tile sizes there are."""
    if isinstance(size, int) and (size == 0 or 32 <= size <= 4096):
        return True
    return f"tile_size is {size}. It can be 0 (the whole frame) or 32 to 4096 pixels, such as 256."


class Wan22VAEEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Wan22VAEEncode",
            display_name="Wan 2.2 VAE Encode",
            category=CATEGORY,
            description="Frames to a video latent; tiles in space, feature cache in time.",
            search_aliases=["encode video", "vae encode tiled"],
            inputs=[
                io.Image.Input(
                    "pixels",
                    tooltip=(
                        "Frames, a multiple of 4, plus 1; those beyond the last full group of four are left out, "
                        "and the node says so. Width and height are cropped to whole patches."
                    ),
                ),
                io.Vae.Input("vae", tooltip="The Wan VAE of the model: 2.1 for 14B, 2.2 for the 5B."),
                *tile_inputs(),
            ],
            outputs=[io.Latent.Output(tooltip="The video latent.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, tile_size=0):
        return check_tile(tile_size)

    @classmethod
    def execute(cls, pixels, vae, tile_size, overlap) -> io.NodeOutput:
        from .host.preview import send_status
        from .host.vae import encode, whole_frames

        whole = whole_frames(vae, pixels)
        if whole.shape != pixels[..., :3].shape:
            frames, height, width = whole.shape[:3]
            send_status(
                cls.hidden.unique_id,
                f"Encoded the first {frames} of {len(pixels)} frames at {width}×{height}: "
                "4n + 1 frames, whole patches.",
            )
        return io.NodeOutput({"samples": encode(vae, whole, tile_size, overlap)})


class Wan22VAEDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Wan22VAEDecode",
            display_name="Wan 2.2 VAE Decode",
            category=CATEGORY,
            description="A video latent to frames; tiles in space, feature cache in time.",
            search_aliases=["decode video", "vae decode tiled"],
            inputs=[
                io.Latent.Input("samples", tooltip="The latent from the sampler."),
                io.Vae.Input("vae", tooltip="The Wan VAE of the model: 2.1 for 14B, 2.2 for the 5B."),
                *tile_inputs(),
            ],
            outputs=[
                io.Image.Output(tooltip="The frames of all clips, one after the other: n latent frames become 4n − 3.")
            ],
        )

    @classmethod
    def validate_inputs(cls, tile_size=0):
        return check_tile(tile_size)

    @classmethod
    def execute(cls, samples, vae, tile_size, overlap) -> io.NodeOutput:
        from .host.vae import decode

        return io.NodeOutput(decode(vae, samples["samples"], tile_size, overlap))


class Wan22VAEDecodeToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Wan22VAEDecodeToVideo",
            display_name="Wan 2.2 Decode to Video File",
            category=CATEGORY,
            description=(
                "Decodes a few frames at a time straight into an mp4: memory does not grow with the clip. "
                "One file for each clip of a batch."
            ),
            search_aliases=["save video", "video combine", "stream decode", "mp4"],
            inputs=[
                io.Latent.Input(
                    "samples", tooltip="The latent from the sampler; of a batch, every clip gets a file of its own."
                ),
                io.Vae.Input("vae", tooltip="The Wan VAE of the model: 2.1 for 14B, 2.2 for the 5B."),
                io.Float.Input(
                    "fps",
                    default=16.0,
                    min=1.0,
                    max=120.0,
                    step=1.0,
                    tooltip="Frames per second: 16 for A14B and Wan 2.1, 24 for the 5B.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="video/wan22",
                    tooltip=(
                        "Folder and name inside the output folder; a number and .mp4 are added. "
                        "%date:yyyy-MM-dd% and %Node.input% are filled in. At most 200 bytes between slashes."
                    ),
                ),
                io.Audio.Input(
                    "audio", optional=True, tooltip="Sound for the clip, cut, or filled with silence, to its length."
                ),
            ],
            outputs=[io.Video.Output(tooltip="The saved video, for nodes that take one; of a batch, the first.")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, samples, vae, fps, filename_prefix, audio=None) -> io.NodeOutput:
        from .host.video import save_clips

        graphs = cls.hidden.prompt, cls.hidden.extra_pnginfo
        saved = save_clips(vae, samples["samples"], fps, filename_prefix, *graphs, audio)
        shown = [ui.SavedResult(path.name, subfolder, io.FolderType.output) for path, subfolder in saved]
        return io.NodeOutput(InputImpl.VideoFromFile(str(saved[0][0])), ui=ui.PreviewVideo(shown))


NODES = [Wan22VAEEncode, Wan22VAEDecode, Wan22VAEDecodeToVideo]
