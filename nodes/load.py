"""Loaders: experts, text encoder, VAE."""

import folder_paths
from comfy_api.latest import io

CATEGORY = "Wan 2.2"


def model_choices() -> list[str]:
    """Files of diffusion_models, and folders there that hold shards."""
    from pathlib import Path

    folders = set()
    for root in folder_paths.get_folder_paths("diffusion_models"):
        folders |= {str(index.parent.relative_to(root)) for index in Path(root).rglob("*.index.json")}
    shards = tuple(f"{folder}/" for folder in folders)
    files = folder_paths.get_filename_list("diffusion_models")
    return sorted(folders) + [file for file in files if not file.replace("\\", "/").startswith(shards or ("\0",))]


def model_path(name: str) -> str:
    """Full path of one of `model_choices`."""
    from pathlib import Path

    for root in folder_paths.get_folder_paths("diffusion_models"):
        if (Path(root) / name).is_dir():
            return str(Path(root) / name)
    return folder_paths.get_full_path_or_raise("diffusion_models", name)


class Wan22ExpertLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        files = model_choices()
        return io.Schema(
            node_id="Wan22ExpertLoader",
            display_name="Load Wan 2.2 Experts",
            category=CATEGORY,
            description="Loads the high-noise and the low-noise expert of a Wan 2.2 model, or a single model.",
            search_aliases=["load wan", "wan moe loader", "high noise low noise", "unet loader"],
            inputs=[
                io.Combo.Input("high_noise", options=files, tooltip="The high-noise expert, or the only model (5B, Wan 2.1)."),
                io.Combo.Input("low_noise", options=["none", *files], tooltip="The low-noise expert; none for a single model."),
            ],
            outputs=[io.Model.Output("high_noise", display_name="high_noise"), io.Model.Output("low_noise", display_name="low_noise")],
        )  # fmt: skip

    @classmethod
    def execute(cls, high_noise, low_noise) -> io.NodeOutput:
        from .host.pair import load_pair

        low = None if low_noise == "none" else model_path(low_noise)
        return io.NodeOutput(*load_pair(model_path(high_noise), low))


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
                io.Combo.Input("text_encoder", options=folder_paths.get_filename_list("text_encoders"),
                               tooltip="Such as umt5_xxl_fp16.safetensors."),
            ],
            outputs=[io.Clip.Output()],
        )  # fmt: skip

    @classmethod
    def execute(cls, text_encoder) -> io.NodeOutput:
        from .host.text import load_clip

        return io.NodeOutput(load_clip(folder_paths.get_full_path_or_raise("text_encoders", text_encoder)))


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
                io.Combo.Input("vae_name", options=folder_paths.get_filename_list("vae"),
                               tooltip="wan_2.1_vae for the 14B models, wan2.2_vae for the 5B."),
            ],
            outputs=[io.Vae.Output()],
        )  # fmt: skip

    @classmethod
    def execute(cls, vae_name) -> io.NodeOutput:
        from .host.vae import load_vae

        return io.NodeOutput(load_vae(folder_paths.get_full_path_or_raise("vae", vae_name)))


NODES = [Wan22ExpertLoader, Wan22TextEncoderLoader, Wan22VAELoader]
