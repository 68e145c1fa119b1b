"""Opens model files in a process of its own under limits of memory and time, so that a crash fails only one test.

python -m tests.support.confined     reads a JSON list a line, [doors, path]; answers with one JSON object a line
"""

import json
import logging
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.support.small_parts import DIT, NARROW, TEXT, VAE, shapes_of
from wan_core.checkpoints import inspect, load_dit, load_text_encoder, load_vae, open_model, open_tokenizer
from wan_core.checkpoints.formats import open_weights
from wan_core.errors import WanError
from wan_core.lora import read_lora
from wan_core.pipeline import WanPipeline

SPARE = 256 << 20  # bytes that opening a file may take beside the file's own size
SECONDS = 5  # of processor time that one door may take
LONGEST = 600  # characters of a message beside the paths in it: what is needed and what to do, and 200 of the file
_LIMIT = 4 << 30  # of address space, beside what the process has at its start: more is refused by the kernel
_HANGS = 120  # seconds without an answer, even on a busy machine


class Reader:
    """The process; it is started again where a file has killed it."""

    def __init__(self):
        self._process = None

    def open(self, path: Path, doors: str = "weights") -> str:
        """The first of `messages`."""
        return self.messages(path, doors)[0]

    def messages(self, path: Path, doors: str = "weights") -> list[str]:
        """The message of the typed error that each door refused the file with, or "" where it was read.

        Args:
            doors: a key of DOORS.
        Raises:
            AssertionError: any other error, a crash, a hang, too much time or memory, or a message that is too long.
        """
        answers = self._ask(doors, path)
        size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
        for answer in answers:
            door, message = f"{answer['door']}({path.name})", answer["message"]
            assert answer["typed"], f"{door}: {message}"
            assert answer["peak"] <= size + SPARE, f"{door}: {answer['peak']:,} bytes for a file of {size:,}"
            assert answer["seconds"] <= SECONDS, f"{door}: {answer['seconds']:.1f} s"
            assert len(message.replace(str(path), "")) <= LONGEST, f"{door}: a message of {len(message):,} characters"
            assert not message or message.isprintable(), f"{door}: control characters in {message!r}"
        return [answer["message"] for answer in answers]

    def _ask(self, doors: str, path: Path) -> list[dict]:
        if self._process is None:
            self._start()
        print(json.dumps([doors, str(path)]), file=self._process.stdin, flush=True)
        line = self._line(_HANGS)
        if not line:
            what = "hangs" if self._process.poll() is None else "kills"
            self.close()
            raise AssertionError(f"{path.name} {what} the process that opens it")
        return json.loads(line)

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.confined"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._line(5 * _HANGS) != "ready\n":
            self.close()
            raise RuntimeError("the process that opens files does not start")

    def _line(self, seconds: float) -> str:
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if ready else ""
        if ready and not line:
            self._process.wait()
        return line

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
        self._process = None


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(field))
    return int(line.split()[1]) * 1024


def _read(path: Path) -> None:
    """Every tensor is what the header says; and the file or folder is looked at."""
    weights = open_weights(path)
    for name, info in weights.info.items():
        tensor = weights.tensor(name, transient=True)
        if not info.qtype:
            assert (tensor.shape, tensor.dtype) == (info.shape, info.dtype), f"{name} is not what the header says"
        tensor.flatten()[-1:].tolist()
    inspect(path)


def _prompt(path: Path) -> None:
    tokenizer = open_tokenizer(path)
    for prompt in ("a red circle moves to the right", "一只猫 Ａ　ﬁne ½", ""):
        tokenizer(prompt)


def _generate(path: Path) -> None:
    """A pipeline, and the encoding of a prompt."""
    pipe = WanPipeline.from_pretrained(path)
    pipe.text_encoder(*pipe.tokenizer("a red circle"))


def _lora(path: Path) -> None:
    for expert in (None, "high", "low"):
        lora = read_lora(path, shapes_of(DIT), expert)
        assert len(str(lora.report)) < LONGEST + len(str(path)) and str(lora.report).isprintable()
        for change in lora.changes.values():
            change.full()


DOORS: dict[str, tuple[Callable[[Path], object], ...]] = {
    "weights": (_read, load_dit, load_vae, load_text_encoder, _prompt, _lora),
    "lora": (_lora, inspect),
    "tokenizer": (_prompt,),
    "model": (inspect, open_model, _generate),
}


def _judge(door: Callable[[Path], object], path: Path) -> dict:
    try:
        door(path)
    except WanError as error:
        cause = error.__cause__
        while cause is not None:
            if isinstance(cause, MemoryError) or "allocate" in str(cause):
                return {"typed": False, "message": f"memory ran out: {cause}"}
            cause = cause.__cause__ or cause.__context__
        return {"typed": True, "message": str(error)}
    except BaseException:
        return {"typed": False, "message": traceback.format_exc()}
    return {"typed": True, "message": ""}


def _measured(door: Callable[[Path], object], path: Path) -> dict:
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    at_rest, start = _status("VmRSS:"), time.process_time()
    signal.setitimer(signal.ITIMER_PROF, 4 * SECONDS)  # of processor time: what hangs is killed
    answer = _judge(door, path)
    return answer | {
        "door": door.__name__,
        "seconds": time.process_time() - start,
        "peak": _status("VmHWM:") - at_rest,
    }


def _warm_up() -> None:
    """Import what a good part imports, so that it is not counted to a file."""
    import sentencepiece
    import tokenizers
    import torch

    assert sentencepiece and tokenizers
    torch.set_num_threads(1)
    for load, config in ((load_dit, NARROW), (load_vae, VAE), (load_text_encoder, TEXT)):
        load({name: torch.zeros(shape) for name, shape in shapes_of(config).items()}, config)


def main() -> None:
    import resource

    logging.disable()
    _warm_up()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize:") + _LIMIT,) * 2)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        doors, path = json.loads(line)
        sys.stdout.write(json.dumps([_measured(door, Path(path)) for door in DOORS[doors]]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
