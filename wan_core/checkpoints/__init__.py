"""Reading models: files, folders, layouts."""

from .build import load_dit, load_text_encoder, load_vae
from .describe import FolderInfo, PartInfo, inspect
from .folder import ModelFolder, find_model

__all__ = [
    "FolderInfo", "ModelFolder", "PartInfo", "find_model", "inspect", "load_dit", "load_text_encoder", "load_vae",
]  # fmt: skip
