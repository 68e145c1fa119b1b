"""Weight files that are built valid and then damaged, as hypothesis strategies.

A builder draws {file name: bytes}; a new format adds its own here.
"""

from tests.support.damage.ggufs import gguf
from tests.support.damage.headers import index, safetensors
from tests.support.damage.pickles import archive, stream

BUILDERS = {"gguf": gguf(), "safetensors": safetensors(), "archive": archive(), "stream": stream(), "index": index()}
