"""Prompt cleaning, tokenisation, and the umT5 encoder."""

from .encoder import UMT5
from .tokenizer import LARGEST_PROTO, Tokenizer, clean

__all__ = ["LARGEST_PROTO", "UMT5", "Tokenizer", "clean"]
