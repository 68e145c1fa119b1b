import pytest

from tests.support.goldens import golden
from wan_core.checkpoints import load_vae


@pytest.fixture(scope="package")
def vae21():
    return load_vae(golden("vae21").weights())


@pytest.fixture(scope="package")
def vae22():
    return load_vae(golden("vae22").weights())
