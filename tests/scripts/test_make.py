"""The script that made the demo model still runs from nothing to a folder that opens."""

from dataclasses import replace

import pytest

from scripts.demo_model import make, train_experts, train_vae
from wan_core import WanPipeline
from wan_core.demo import release


@pytest.mark.slow
def test_every_stage_runs_for_two_steps(tmp_path, monkeypatch):
    def short(stage):
        return replace(stage, run=replace(stage.run, steps=2), until=None)

    monkeypatch.setattr(train_vae, "STAGES", tuple(short(stage) for stage in train_vae.STAGES))
    monkeypatch.setattr(make, "STAGES", tuple(short(stage) for stage in train_experts.STAGES))
    monkeypatch.setattr(train_experts, "BASE", replace(train_experts.BASE, steps=2))
    for name, value in {"BASE_STOP": 2, "CLIPS": 4, "FIRST_CLIPS": 4, "IMAGE_CLIPS": 2, "BATCH": 2}.items():
        monkeypatch.setattr(train_experts, name, value)
    monkeypatch.setattr(release, "FOLDER", tmp_path / "model")
    monkeypatch.setattr(make, "save_logs", lambda folder, to: None)
    make.make(tmp_path / "run")
    pipe = WanPipeline.from_pretrained(release.demo_model("t2v-a14b"))
    assert pipe.preset.name == "t2v-a14b" and pipe.high.config == train_experts.CONFIG
    image = WanPipeline.from_pretrained(release.demo_model("i2v-a14b", tmp_path / "i2v"))
    assert image.preset.name == "i2v-a14b"
