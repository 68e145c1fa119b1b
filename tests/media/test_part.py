"""What a killed run leaves behind plays."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.processes import left_behind
from wan_core.media.read import count_frames

WRITER = """
    import os, sys, time
    import numpy as np
    path, fps, cores = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.cpu_count = lambda: cores
    from wan_core.video import write_mp4
    rng = np.random.default_rng(0)

    def chunks():
        sent = 0
        while True:
            yield rng.integers(0, 256, (4 if sent else 1, 60, 104, 3), np.uint8).repeat(4, 1).repeat(4, 2)
            sent += 4 if sent else 1
            print(sent, flush=True)
            time.sleep(0.5)

    write_mp4(chunks(), path, fps)
"""


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("fps, frames, cores", [(16, 61, 2), (24, 73, 64)])
def test_all_but_a_fragment_and_a_second_plays_after_both_are_killed(tmp_path, fps, frames, cores):
    """Frames come as from a decoder, four at a time and slowly."""
    command = [sys.executable, "-c", textwrap.dedent(WRITER), tmp_path / "clip.mp4", fps, cores]
    environment = os.environ | {"WRITER": str(tmp_path)}
    with subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, text=True, env=environment
    ) as writer:
        written = next(sent for sent in map(int, writer.stdout) if sent >= frames)
        (encoder,) = children(writer.pid)
        for process in (writer.pid, encoder):
            os.kill(process, signal.SIGKILL)
    assert left_behind(tmp_path) == []
    (part,) = tmp_path.iterdir()
    assert part.name == "clip.mp4.part"
    fragment = second = fps
    assert count_frames(part) >= written - fragment - second
