"""Model files and folders that are built valid and then damaged, as hypothesis strategies.

A builder draws {file name: bytes}; a new format adds its own here. By hand, many of one kind:

python -m tests.support.damage --kind gguf --count 20000 --seed 0
"""

import shutil
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.support.confined import Reader
from tests.support.damage.folders import model
from tests.support.damage.ggufs import gguf
from tests.support.damage.headers import index, safetensors
from tests.support.damage.pickles import archive, stream
from tests.support.damage.tokenizers import spiece, tokenizer_json
from tests.support.damage.values import LORAS

BUILDERS = {
    "gguf": gguf(),
    "safetensors": safetensors(),
    "archive": archive(),
    "stream": stream(),
    "index": index(),
    "lora": safetensors(LORAS),
    "spiece": spiece(),
    "tokenizer.json": tokenizer_json(),
    "model": model(),
}
# Which doors of `confined.DOORS` a kind goes through, where not those of weights, and whether as a folder.
_DOORS = {"lora": "lora", "spiece": "tokenizer", "tokenizer.json": "tokenizer", "model": "model"}
_FOLDERS = ("index", "spiece", "tokenizer.json", "model")


def check(kind: str, reader: Reader, folder: Path, count: int, number: int = 0) -> None:
    """Open `count` damaged files of a kind, always the same ones for a number, in `folder`.

    Raises:
        AssertionError: one of them, then left in `folder`, does what no file may do.
    """

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def run(data):
        files = data.draw(BUILDERS[kind])
        shutil.rmtree(folder, ignore_errors=True)
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        path = folder if kind in _FOLDERS else folder / next(iter(files))
        reader.open(path, _DOORS.get(kind, "weights"))

    run()
