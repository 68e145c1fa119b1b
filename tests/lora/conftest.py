import pytest


@pytest.fixture(scope="module")
def folder(official_folder):
    """One expert of a tiny model."""
    return official_folder() / "high_noise_model"
