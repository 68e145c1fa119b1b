"""Weight files that are built valid and then damaged, as hypothesis strategies.

A builder draws {file name: bytes}; a new format adds its own here.
"""

from .ggufs import gguf
from .headers import index, safetensors
from .pickles import archive, stream

BUILDERS = {"gguf": gguf(), "safetensors": safetensors(), "archive": archive(), "stream": stream(), "index": index()}
