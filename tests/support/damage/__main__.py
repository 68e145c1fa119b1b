"""python -m tests.support.damage --kind gguf --count 20000 --seed 0

Damaged files by the thousand. A run of a hundred has a seed of its own, which is printed where one of its files fails;
`--count 100 --seed S` draws the same hundred again. What failed is kept in a folder.
"""

import argparse
import shutil
import tempfile
import time
import warnings
from pathlib import Path

from tests.support.confined import Reader
from tests.support.damage import BUILDERS, check

_RUN = 100  # files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=BUILDERS, action="append", help="may be given again; default: every kind")
    parser.add_argument("--count", type=int, default=20_000, help="files of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the first hundred; the next has the next number")
    parser.add_argument("--keep", type=Path, default=Path("build/damaged"), help="where files that fail are kept")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="Duplicate name")  # the zip writer, of a name that is meant twice
    failures = 0
    for kind in options.kind or BUILDERS:
        failures += _run(kind, options)
    return min(failures, 1)


def _run(kind: str, options: argparse.Namespace) -> int:
    """How many runs of a hundred failed."""
    reader, failures, start = Reader(), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(options.seed, options.seed + -(-options.count // _RUN)):
            try:
                check(kind, reader, Path(scratch) / "files", min(_RUN, options.count), number)
            except AssertionError as error:
                failures += 1
                kept = options.keep / f"{kind}-{number}"
                shutil.copytree(Path(scratch) / "files", kept, dirs_exist_ok=True)
                print(f"{kind}: seed {number} fails, its files are in {kept}\n{error}", flush=True)
            done = (number - options.seed + 1) * _RUN
            if done % 1000 == 0 and done < options.count:
                print(f"{kind}: {done:,} files, {time.monotonic() - start:.0f} s, {failures} failed", flush=True)
    reader.close()
    print(f"{kind}: {options.count:,} files, {time.monotonic() - start:.0f} s, {failures} failed", flush=True)
    return failures


if __name__ == "__main__":
    raise SystemExit(main())
