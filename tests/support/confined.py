"""Opens weight files in a process of its own under limits of memory and time, so that a crash fails only one test.

python tests/support/confined.py     reads paths, one a line; answers with one JSON object a line
"""

import json
import select
import subprocess
import sys
import traceback
from pathlib import Path

from wan_core.checkpoints import inspect
from wan_core.checkpoints.formats import open_weights
from wan_core.errors import WanError

SPARE = 256 << 20  # bytes that opening a file may take beside the file's own size
_LIMIT = 4 << 30  # of address space, beside what the process has at its start: more is refused by the kernel
_SECONDS = 30  # a file is opened in milliseconds; more than this is a hang, even on a busy machine


class Reader:
    """The process; it is started again where a file has killed it."""

    def __init__(self):
        self._process = None

    def open(self, path: Path) -> str:
        """The message of the typed error that the file was refused with, or "" for a file that was read.

        Raises:
            AssertionError: any other error, a crash, a hang, or too much memory.
        """
        answer = self._ask(path)
        assert answer["typed"], f"{path.name}: {answer['message']}"
        size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
        assert answer["peak"] <= size + SPARE, f"{path.name}: {answer['peak']:,} bytes for a file of {size:,}"
        return answer["message"]

    def _ask(self, path: Path) -> dict:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        print(path, file=self._process.stdin, flush=True)
        ready, _, _ = select.select([self._process.stdout], [], [], _SECONDS)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            self.close()
            raise AssertionError(f"{path.name} {'kills' if ready else 'hangs'} the process that opens it")
        return json.loads(line)

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


def _use(path: Path) -> None:
    weights = open_weights(path)
    for name, info in weights.info.items():
        tensor = weights.tensor(name, transient=True)
        if not info.qtype:
            assert (tensor.shape, tensor.dtype) == (info.shape, info.dtype), f"{name} is not what the header says"
        tensor.flatten()[-1:].tolist()
    inspect(path)


def _judge(path: Path) -> dict:
    try:
        _use(path)
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


def main() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize:") + _LIMIT,) * 2)
    at_rest = _status("VmRSS:")
    for line in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        answer = _judge(Path(line.rstrip("\n")))
        sys.stdout.write(json.dumps(answer | {"peak": _status("VmHWM:") - at_rest}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
