from wan_core.cli import OK, main


def test_inspect_of_a_folder(official_folder, capfd):
    assert main(["inspect", str(official_folder("i2v-a14b"))]) == OK
    shown = capfd.readouterr().out
    assert "i2v-a14b, official layout" in shown and shown.count("billion parameters") == 4
