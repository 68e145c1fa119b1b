import numpy as np
import pytest

from tests.support.frames import noise
from wan_core.errors import InputError, VideoError
from wan_core.media.mp4 import write_mp4
from wan_core.media.read import iter_video, read_video, video_info


@pytest.mark.parametrize("content", [b"", b"not a video", None])
def test_files_that_are_no_video(tmp_path, content):
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError if path.exists() else InputError):
        read_video(path)


def test_the_first_frames_of_a_clip(tmp_path):
    path = tmp_path / "clip.mp4"
    write_mp4([noise(9)], path, 16)
    assert video_info(path) == (9, 64, 96)
    assert np.array_equal(read_video(path, limit=3), read_video(path)[:3])
    assert len(list(iter_video(path, limit=0))) == 0
