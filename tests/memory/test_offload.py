import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wan_core.config import DiTConfig
from wan_core.dit import WanDiT
from wan_core.memory import DeviceSlot, Offloaded
from wan_core.memory.shortage import is_out_of_memory


class Expert(nn.Module):
    """One layer that says where its weights are when it is called."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.seen = []

    def remember(self):
        return self

    def forward(self, others):
        where = {p.device.type for p in self.parameters()}
        self.seen.append((where, {p.device.type for other in others for p in other.parameters()}))


def test_one_module_at_a_time_is_on_the_device():
    """The meta device stands in for the accelerator: weights there are seen to be there and nowhere else."""
    high, low = Expert(), Expert()
    slot = DeviceSlot("meta", exclusive=True)
    experts = Offloaded(high, slot, low), Offloaded(low, slot)
    before = [p.clone() for p in (*high.parameters(), *low.parameters())]
    experts[0]([low])
    experts[1]([high])
    assert high.seen == low.seen == [({"meta"}, {"cpu"})]
    slot.finish()
    after = [*high.parameters(), *low.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after)), "the host weights come back as they were"
    assert slot.resident == ()


def test_release_comes_before_the_next_arrival():
    events = []

    class Watched(DeviceSlot):
        def release(self):
            events.append("release")
            super().release()

        def bring(self, module):
            if module not in self.resident:
                events.append("bring")
            return super().bring(module)

    slot = Watched("meta", exclusive=True)
    for expert in (Expert(), Expert()):
        slot.bring(expert)
        slot.bring(expert)
    assert events == ["bring", "release", "bring", "release"]


def test_without_turns_everything_stays():
    slot = DeviceSlot("meta")
    experts = Expert(), Expert()
    for expert in experts:
        slot.bring(expert)
    slot.finish()
    assert slot.resident == experts
    slot.release()
    assert all(p.device.type == "cpu" for expert in experts for p in expert.parameters())


def test_weights_are_never_copied_back_or_twice():
    expert = Expert()
    address = [p.data_ptr() for p in expert.parameters()]
    slot = DeviceSlot("cpu", exclusive=True)
    for _ in range(50):
        slot.bring(expert)
        slot.release()
    assert [p.data_ptr() for p in expert.parameters()] == address


def test_reading_ahead_maps_the_next_expert_while_the_first_one_runs(tmp_path):
    """The kernel counts the file's pages as this process's own once they have been touched."""
    code = """
        import sys, time, torch
        from pathlib import Path
        from wan_core.checkpoints import load_dit
        from wan_core.memory import DeviceSlot, Offloaded

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
        slot = DeviceSlot("cpu", exclusive=True)
        before = mapped("low.safetensors")
        Offloaded(high, slot, low)(torch.zeros(1, 16, 1, 2, 2), torch.tensor([900]), torch.zeros(1, 1, 64))
        deadline = time.monotonic() + 30
        while mapped("low.safetensors") < 0.9 * size and time.monotonic() < deadline:
            time.sleep(0.01)
        print(before / size < 0.3, mapped("low.safetensors") / size > 0.9, low not in slot.resident)
    """
    model = WanDiT(DiTConfig(dim=512, ffn_dim=1536, heads=4, layers=6, text_dim=64))  # 100 MB
    for name in ("high", "low"):
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code), tmp_path], capture_output=True, text=True)
    assert run.stdout.split() == ["True"] * 3, run.stdout + run.stderr


def test_reading_can_be_stopped_at_once():
    slot = DeviceSlot("cpu", exclusive=True)
    module = nn.ParameterList(torch.zeros(1 << 22) for _ in range(16))
    slot.read_ahead(module)
    thread = slot._reader._thread
    slot.finish()
    assert not thread.is_alive()


@pytest.mark.parametrize("error, expected", [
    (torch.OutOfMemoryError("CUDA out of memory"), True),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
    (RuntimeError("CUDA error: out of memory"), True),
    (RuntimeError("shape mismatch"), False),
])  # fmt: skip
def test_what_counts_as_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


def test_a_failed_arrival_leaves_the_module_on_the_host(monkeypatch):
    slot, expert = DeviceSlot("meta"), Expert()

    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(expert, "load_state_dict", fail)
    with pytest.raises(torch.OutOfMemoryError):
        slot.bring(expert)
    assert slot.resident == () and all(p.device.type == "cpu" for p in expert.parameters())


def test_an_expert_whose_place_was_taken_comes_back():
    slot, expert = DeviceSlot("meta", exclusive=True), Expert()
    run = Offloaded(expert, slot).remember()
    run([])
    slot.bring(Expert())
    run([])
    assert [where for where, _ in expert.seen] == [{"meta"}, {"meta"}]
