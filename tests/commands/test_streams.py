"""Where a command prints to must not decide what becomes of its work."""

import shlex
import subprocess
import sys

import pytest

from wan_core.cli import BAD_INPUT, BAD_MODEL, FAILED, OK
from wan_core.media.read import read_video

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a shell's redirections")
WAN = f"{shlex.quote(sys.executable)} -m wan_core"


def shell(command: str, cwd=None) -> tuple[int, str, str]:
    """(exit code of `wan`, standard output, standard error) of a line for bash; `wan` is the command line."""
    line = command.replace("wan ", f"{WAN} ") + '; exit "${PIPESTATUS[0]}"'
    run = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=cwd)
    assert "Traceback" not in run.stderr and "Exception ignored" not in run.stderr, run.stderr
    return run.returncode, run.stdout, run.stderr


@pytest.mark.parametrize("redirected", [">&- 2>&- <&-", ">/dev/full", "2>&1 | head -c 1", "2>/dev/full"])
def test_a_finished_clip_is_kept_and_told_of(tmp_path, redirected):
    code, shown, _ = shell(f"wan demo --out clip.mp4 {redirected}", tmp_path)
    assert code == (FAILED if redirected == ">/dev/full" else OK)
    assert len(read_video(tmp_path / "clip.mp4")) == 17
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "clip.png"]
    assert ("clip.mp4" in shown) is (redirected == "2>/dev/full")


@pytest.mark.parametrize(
    "command, code",
    [
        ("wan plan 2>&-", OK),
        ("wan plan | head -1", OK),
        ("wan --help >&-", OK),
        ("wan paint 2>&-", BAD_INPUT),
        ("wan inspect nowhere >&- 2>&-", BAD_MODEL),
        ("wan generate nowhere cat 2>&1 | true", BAD_MODEL),
        ("wan train vae nowhere --out x 2>&-", BAD_MODEL),
    ],
)
def test_exit_codes_do_not_depend_on_who_reads(tmp_path, command, code):
    assert shell(command, tmp_path)[0] == code


def test_a_full_disk_behind_the_output_is_said(tmp_path):
    code, _, shown = shell("wan plan >/dev/full", tmp_path)
    assert code == FAILED and shown == "error: <stdout>: No space left on device.\n"
