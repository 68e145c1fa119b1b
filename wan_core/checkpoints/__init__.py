"""Reading models: files, folders, layouts."""

from .build import load_dit, load_image_encoder, load_text_encoder, load_vae
from .folders import ModelFolder
from .model_files import ModelFiles, find_model, open_model
from .summary import FolderInfo, PartInfo, inspect
from .tokenizer import open_tokenizer

__all__ = [
    "FolderInfo",
    "ModelFiles",
    "ModelFolder",
    "PartInfo",
    "find_model",
    "inspect",
    "load_dit",
    "load_image_encoder",
    "load_text_encoder",
    "load_vae",
    "open_model",
    "open_tokenizer",
]
