"""Reading models: files, folders, layouts."""

from .build import load_dit, load_text_encoder, load_vae
from .model_files import ModelFolder, find_model
from .summary import FolderInfo, PartInfo, inspect

__all__ = [
    "FolderInfo",
    "ModelFolder",
    "PartInfo",
    "find_model",
    "inspect",
    "load_dit",
    "load_text_encoder",
    "load_vae",
]
