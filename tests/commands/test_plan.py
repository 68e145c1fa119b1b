import re
import subprocess
import sys

import pytest

from wan_core.cli import BAD_INPUT, BAD_MODEL, OK, main


def test_plan_of_the_real_model(capfd):
    assert main(["plan", "--preset", "t2v-a14b"]) == OK
    shown = capfd.readouterr().out
    assert "26 high-noise + 14 low-noise steps" in shown and "1280x720, 81 frames" in shown and "75,600 tokens" in shown
    rows = re.findall(r"^ *(\d+) +(\d+) +([\d.]+) +(high|low)$", shown, re.M)
    assert len(rows) == 40 and rows[0] == ("1", "999", "0.9999", "high") and rows[26][3] == "low"
    assert re.search(r"one expert +26\.61 GiB", shown)


def test_plan_warns_when_an_expert_gets_no_step(capfd):
    assert main(["plan", "--boundary", "0"]) == OK
    assert "warning: the low-noise expert gets no step" in capfd.readouterr().err


def test_plan_of_a_folder_and_of_a_single_model(official_folder, capfd):
    assert main(["plan", str(official_folder("ti2v-5b")), "--width", "64", "--height", "64", "--frames", "5"]) == OK
    shown = capfd.readouterr().out
    assert shown.startswith("ti2v-5b: 50 steps") and "expert gets" not in shown


def test_plan_names_the_legal_size(capfd):
    assert main(["plan", "--preset", "ti2v-5b", "--height", "720"]) == BAD_INPUT
    assert "multiples of 32. The nearest legal width is 1280, height 704 or 736" in capfd.readouterr().err


def test_an_empty_model_is_not_the_default(capfd):
    assert main(["plan", ""]) == BAD_MODEL
    assert "the model is ''" in capfd.readouterr().err


@pytest.mark.slow
def test_a_reader_that_stops_early_is_no_error():
    command = f"set -o pipefail; {sys.executable} -u -m wan_core plan | head -1"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert run.returncode == 0 and not run.stderr
