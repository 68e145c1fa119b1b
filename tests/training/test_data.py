from wan_core.training.data import list_clips


def test_what_macos_leaves_beside_every_clip_is_no_clip(tmp_path):
    for name in ("b.mp4", "a.PNG", "a.txt", "._b.mp4", ".DS_Store", "._a.PNG"):
        (tmp_path / name).touch()
    assert [file.name for file in list_clips(tmp_path)] == ["a.PNG", "b.mp4"]
