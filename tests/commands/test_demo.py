from wan_core.cli import OK, main
from wan_core.media.read import read_video


def test_demo(tmp_path, capfd):
    out = tmp_path / "demo.mp4"
    assert main(["demo", "--out", str(out)]) == OK
    assert read_video(out).shape == (17, 64, 64, 3) and str(out) in capfd.readouterr().out
