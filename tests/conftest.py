import pytest
import torch

from wan_core.testing import write_tiny_model


@pytest.fixture(autouse=True)
def inference():
    """No graph is wanted anywhere but where a test switches it on."""
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def official_folder(tmp_path_factory):
    """preset name → a tiny random model in the official layout; made once per preset."""
    made = {}

    def folder(name="t2v-a14b"):
        if name not in made:
            made[name] = write_tiny_model(tmp_path_factory.mktemp(name), name)
        return made[name]

    return folder
