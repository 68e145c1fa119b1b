"""Prompt cleaning, tokenisation, and the umT5 encoder."""

from .encoder import UMT5
from .tokenizer import Tokenizer, clean

__all__ = ["UMT5", "Tokenizer", "clean"]
