"""Weight files on a disk that fills up: a typed error, the file before as it was, and no half of the new one."""

import resource
import signal
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

from wan_core.checkpoints.write import write_state, write_tensors
from wan_core.errors import WriteError

WRITERS = {"weights.safetensors": write_tensors, "state.pt": write_state}
SMALL, LARGE = {"a": torch.ones(4)}, {"a": torch.ones(2**18)}


@contextmanager
def disk_of(size):
    """No file gets larger than this: what a full disk is to the program that writes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [0, 100, 5000, 2**18])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk(tmp_path, name, size):
    path, write = tmp_path / name, WRITERS[name]
    write(SMALL, path)
    before = path.read_bytes()
    with pytest.raises(WriteError, match=f"{name} cannot be written.*Free some space"), disk_of(size):
        write(LARGE, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_is_gone(tmp_path, name):
    with pytest.raises(WriteError):
        WRITERS[name](SMALL, tmp_path / "gone" / name)


def test_what_is_written_is_read(tmp_path):
    write_tensors(SMALL | {"b": torch.ones(2, 3).t()}, tmp_path / "a.safetensors")
    read = load_file(tmp_path / "a.safetensors")
    assert read["a"].equal(SMALL["a"]) and read["b"].shape == (3, 2)
