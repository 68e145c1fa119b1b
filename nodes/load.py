"""Loaders: experts, text encoder, VAE."""

import re
from pathlib import Path

import folder_paths
from comfy_api.latest import io

CATEGORY = "Wan 2.2"
SHARD = re.compile(r"(.+)[/\\][^/\\]+-\d{5}-of-\d{5}\.safetensors")


def choices(category: str) -> list[str]:
    """Files of a models folder; of diffusion_models also the folders that hold shards, in place of the shards.

    Not those that begin with a dot, such as the ._x that macOS puts beside each x.
    """
    files = folder_paths.get_filename_list(category)
    if category in ("diffusion_models", "text_encoders"):
        files = sorted({*files, *_gguf_files(category)})
    files = [file for file in files if not Path(file).name.startswith(".")]
    if category != "diffusion_models":
        return files
    shards = {file: match[1] for file in files if (match := SHARD.fullmatch(file))}
    return sorted(set(shards.values())) + [file for file in files if file not in shards]


def _gguf_files(category: str) -> list[str]:
    """ComfyUI itself does not list them."""
    found = []
    for root in folder_paths.get_folder_paths(category):
        found += folder_paths.filter_files_extensions(folder_paths.recursive_search(root, [".git"])[0], [".gguf"])
    return found


def find(category: str, name: str) -> str | None:
    """The choice that `name` means, with either slash."""
    return next((c for c in choices(category) if c.replace("\\", "/") == name.replace("\\", "/")), None)


def check_names(category: str, *names) -> bool | str:
    """What `validate_inputs` wants: True, or what to do about the first name that is not there."""
    for name in names:
        if name is not None and find(category, str(name)) is None:
            return f"{name} is not in the folder models/{category}. Put it there and press R, or choose another file."
    return True


def full_path(category: str, name: str) -> str:
    """Full path of one of `choices`."""
    name = find(category, name) or name
    for root in folder_paths.get_folder_paths(category):
        if (folder := Path(root) / name).is_dir():
            return str(folder)
    return folder_paths.get_full_path_or_raise(category, name)


class Wan22ExpertLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        files = choices("diffusion_models")
        return io.Schema(
            node_id="Wan22ExpertLoader",
            display_name="Load Wan 2.2 Experts",
            category=CATEGORY,
            description="Loads the high-noise and the low-noise expert of a Wan 2.2 model, or a single model.",
            search_aliases=["load wan", "wan moe loader", "high noise low noise", "unet loader"],
            inputs=[
                io.Combo.Input(
                    "high_noise",
                    options=files,
                    tooltip=(
                        "A file or a folder of shards in models/diffusion_models: "
                        "the high-noise expert, or the only model (5B, Wan 2.1). "
                        "fp8, scaled fp8, int8 and GGUF files too."
                    ),
                ),
                io.Combo.Input(
                    "low_noise",
                    options=["none", *files],
                    tooltip="The low-noise expert of the same release; none for a single model.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    "high_noise", display_name="high_noise", tooltip="The high-noise expert, or the only model."
                ),
                io.Model.Output(
                    "low_noise",
                    display_name="low_noise",
                    tooltip="The low-noise expert; empty where low_noise is none.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, high_noise=None, low_noise=None):
        return check_names("diffusion_models", high_noise, None if low_noise == "none" else low_noise)

    @classmethod
    def execute(cls, high_noise, low_noise) -> io.NodeOutput:
        from .host.loading import load_pair

        low = None if low_noise == "none" else full_path("diffusion_models", low_noise)
        return io.NodeOutput(*load_pair(full_path("diffusion_models", high_noise), low))


class Wan22TextEncoderLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Wan22TextEncoderLoader",
            display_name="Load Wan 2.2 Text Encoder",
            category=CATEGORY,
            description="Loads umT5 with its tokenizer.",
            search_aliases=["umt5", "clip loader", "t5"],
            inputs=[
                io.Combo.Input(
                    "text_encoder",
                    options=choices("text_encoders"),
                    tooltip=(
                        "A file in models/text_encoders that holds its tokenizer, such as umt5_xxl_fp16.safetensors; "
                        "fp8, scaled fp8 and GGUF files too."
                    ),
                ),
            ],
            outputs=[io.Clip.Output(tooltip="The text encoder, for the prompt node.")],
        )

    @classmethod
    def validate_inputs(cls, text_encoder=None):
        return check_names("text_encoders", text_encoder)

    @classmethod
    def execute(cls, text_encoder) -> io.NodeOutput:
        from .host.text import load_clip

        return io.NodeOutput(load_clip(full_path("text_encoders", text_encoder)))


class Wan22VAELoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Wan22VAELoader",
            display_name="Load Wan 2.2 VAE",
            category=CATEGORY,
            description="Loads the Wan 2.1 VAE (14B models) or the Wan 2.2 VAE (5B).",
            search_aliases=["wan vae", "vae loader"],
            inputs=[
                io.Combo.Input(
                    "vae_name",
                    options=choices("vae"),
                    tooltip="A file in models/vae: wan_2.1_vae for the 14B models, wan2.2_vae for the 5B.",
                ),
            ],
            outputs=[io.Vae.Output(tooltip="16 latent channels at 1/8 of the size (2.1), or 48 at 1/16 (2.2).")],
        )

    @classmethod
    def validate_inputs(cls, vae_name=None):
        return check_names("vae", vae_name)

    @classmethod
    def execute(cls, vae_name) -> io.NodeOutput:
        from .host.vae import load_vae

        return io.NodeOutput(load_vae(full_path("vae", vae_name)))


NODES = [Wan22ExpertLoader, Wan22TextEncoderLoader, Wan22VAELoader]
