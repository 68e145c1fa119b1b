import pytest

from tests.support.frames import noise
from wan_core.media.metadata import from_ffmetadata, to_ffmetadata
from wan_core.media.mp4 import write_mp4
from wan_core.media.read import read_metadata


def test_metadata_survives_any_text(tmp_path):
    stored = {"prompt": 'a=b; c#d \\ "e"\nnew line 猫\t🎬', "seed": "7", "comment": "{}"}
    write_mp4([noise(2)], tmp_path / "clip.mp4", 16, stored | {"lines": "a\r\nb", "broken": "a\ud800b"})
    found = read_metadata(tmp_path / "clip.mp4")
    assert {key: found[key] for key in stored} == stored
    assert (found["lines"], found["broken"]) == ("a\nb", "a?b")


@pytest.mark.parametrize("text", ["ends with \\", "a\\\nb\\", "\\", "a\\\\"])
def test_backslashes_do_not_swallow_the_next_entry(tmp_path, text):
    write_mp4([noise(2)], tmp_path / "clip.mp4", 16, {"prompt": text, "seed": "7"})
    found = read_metadata(tmp_path / "clip.mp4")
    assert found["prompt"].rstrip(" ") == text and found["seed"] == "7"


def test_hostile_text_changes_no_argument(tmp_path):
    hostile = "-y; rm -rf / $(touch pwned) `touch pwned` | -f null\n;FFMETADATA1\n[CHAPTER]"
    path = tmp_path / "-i evil' \" 12:30.mp4"
    write_mp4([noise(2)], path, 16, {"prompt": hostile})
    assert read_metadata(path)["prompt"] == hostile
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_is_written_is_what_is_read():
    """Without ffmpeg between: keys too, and values with every character that the format knows."""
    stored = {"key = ; # \\ \n": "= ; # \\ \n end", "empty": "", "": "no key", "last": "[CHAPTER]"}
    assert from_ffmetadata(to_ffmetadata(stored)) == stored


def test_lines_that_are_no_entries_are_passed_over():
    text = ";FFMETADATA1\nno entry\nseed=7=8\n[CHAPTER]\nprompt=two\\\nlines\nunfinished=x"
    assert from_ffmetadata(text) == {"seed": "7=8", "prompt": "two\nlines"}
