import pytest

from wan_core import WanPipeline


@pytest.fixture(scope="module")
def pipe(official_folder):
    return WanPipeline.from_pretrained(official_folder())


@pytest.fixture(scope="module")
def open_pipe(official_folder):
    opened = {}

    def get(name):
        if name not in opened:
            opened[name] = WanPipeline.from_pretrained(official_folder(name))
        return opened[name]

    return get
