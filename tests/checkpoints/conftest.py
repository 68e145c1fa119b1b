import sys

import pytest

from tests.support.confined import Reader


@pytest.fixture(scope="session")
def reader():
    """Opens files in another process, under limits."""
    if sys.platform != "linux":
        pytest.skip("memory is measured as Linux counts it")
    reader = Reader()
    yield reader
    reader.close()
