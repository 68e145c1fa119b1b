import pytest
import torch

from wan_core.testing import write_tiny_model

# Fixture → the mark of every test that uses it.
MARKS = {"comfyui": pytest.mark.comfyui, "canvas": pytest.mark.browser}
# Fixture → its tests run in one process, one after the other: what it starts is started once. The longest come first.
GROUPS = ("canvas", "server", "measured", "measured_families")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    for item in items:
        for fixture, mark in MARKS.items():
            if fixture in item.fixturenames:
                item.add_marker(mark)
        group = group_of(item)
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))
    order = [*GROUPS, None]
    items.sort(key=lambda item: order.index(group_of(item)))


def group_of(item) -> str | None:
    return next((fixture for fixture in GROUPS if fixture in item.fixturenames), None)


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
