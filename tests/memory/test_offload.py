import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wan_core.config import DiTConfig
from wan_core.dit import WanDiT
from wan_core.memory import ModelOffloader, OffloadedExpert


class Expert(nn.Module):
    """One layer that says where its weights are when it is called."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.seen = []

    def session(self):
        return self

    def forward(self, others):
        where = {p.device.type for p in self.parameters()}
        self.seen.append((where, {p.device.type for other in others for p in other.parameters()}))


def test_one_module_at_a_time_is_on_the_device():
    """The meta device stands in for the accelerator: weights there are seen to be there and nowhere else."""
    high, low = Expert(), Expert()
    offloader = ModelOffloader("meta", exclusive=True)
    experts = OffloadedExpert(high, offloader, low), OffloadedExpert(low, offloader)
    before = [p.clone() for p in (*high.parameters(), *low.parameters())]
    experts[0]([low])
    experts[1]([high])
    assert high.seen == low.seen == [({"meta"}, {"cpu"})]
    offloader.end_run()
    after = [*high.parameters(), *low.parameters()]
    pairs = zip(before, after, strict=True)
    assert all(torch.equal(a, b) for a, b in pairs), "the host weights come back as they were"
    assert offloader.resident == ()


def test_a_module_is_offloaded_before_the_next_is_loaded():
    events = []

    class Watched(ModelOffloader):
        def offload(self):
            events.append("offload")
            super().offload()

        def load(self, module):
            if module not in self.resident:
                events.append("load")
            return super().load(module)

    offloader = Watched("meta", exclusive=True)
    for expert in (Expert(), Expert()):
        offloader.load(expert)
        offloader.load(expert)
    assert events == ["load", "offload", "load", "offload"]


def test_modules_that_are_not_exclusive_stay_on_the_device():
    offloader = ModelOffloader("meta")
    experts = Expert(), Expert()
    for expert in experts:
        offloader.load(expert)
    offloader.end_run()
    assert offloader.resident == experts
    offloader.offload()
    assert all(p.device.type == "cpu" for expert in experts for p in expert.parameters())


def test_weights_are_never_copied_back_or_twice():
    expert = Expert()
    address = [p.data_ptr() for p in expert.parameters()]
    offloader = ModelOffloader("cpu", exclusive=True)
    for _ in range(50):
        offloader.load(expert)
        offloader.offload()
    assert [p.data_ptr() for p in expert.parameters()] == address


@pytest.mark.slow
def test_the_next_expert_is_prefetched_while_the_first_one_runs(tmp_path):
    """The kernel counts the file's pages as this process's own once they have been touched."""
    code = """
        import sys, time, torch
        from pathlib import Path
        from wan_core.checkpoints import load_dit
        from wan_core.memory import ModelOffloader, OffloadedExpert

        def mapped(name):
            resident, inside = 0, False
            for line in open("/proc/self/smaps"):
                if "-" in line.split()[0]:
                    inside = name in line
                elif inside and line.startswith("Rss:"):
                    resident += int(line.split()[1]) * 1024
            return resident

        root = Path(sys.argv[1])
        high, low = load_dit(root / "high.safetensors"), load_dit(root / "low.safetensors")
        size = sum(p.nbytes for p in low.parameters())
        offloader = ModelOffloader("cpu", exclusive=True)
        before = mapped("low.safetensors")
        OffloadedExpert(high, offloader, low)(torch.zeros(1, 16, 1, 2, 2), torch.tensor([900]), torch.zeros(1, 1, 64))
        deadline = time.monotonic() + 30
        while mapped("low.safetensors") < 0.9 * size and time.monotonic() < deadline:
            time.sleep(0.01)
        print(before / size < 0.3, mapped("low.safetensors") / size > 0.9, low not in offloader.resident)
    """
    model = WanDiT(DiTConfig(dim=512, ffn_dim=1536, heads=4, layers=6, text_dim=64))  # 100 MB
    for name in ("high", "low"):
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code), tmp_path], capture_output=True, text=True)
    assert run.stdout.split() == ["True"] * 3, run.stdout + run.stderr


def test_a_prefetch_can_be_stopped_at_once():
    offloader = ModelOffloader("cpu", exclusive=True)
    module = nn.ParameterList(torch.zeros(1 << 22) for _ in range(16))
    offloader.prefetch(module)
    thread = offloader._prefetch._thread
    offloader.end_run()
    assert not thread.is_alive()


def test_a_failed_load_leaves_the_module_on_the_host(monkeypatch):
    offloader, expert = ModelOffloader("meta"), Expert()

    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(expert, "load_state_dict", fail)
    with pytest.raises(torch.OutOfMemoryError):
        offloader.load(expert)
    assert offloader.resident == () and all(p.device.type == "cpu" for p in expert.parameters())


def test_an_offloaded_expert_is_loaded_again():
    offloader, expert = ModelOffloader("meta", exclusive=True), Expert()
    run = OffloadedExpert(expert, offloader).session()
    run([])
    offloader.load(Expert())
    run([])
    assert [where for where, _ in expert.seen] == [{"meta"}, {"meta"}]
