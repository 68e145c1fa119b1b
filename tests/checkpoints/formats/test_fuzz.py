"""Damaged model files: a typed error or a good read through every door; no crash, no hang, no long message, no memory
beyond the file's size and 256 MB.

`python -m tests.support.damage` draws them by the thousand.
"""

import pytest

from tests.support.damage import BUILDERS, check


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Duplicate name")  # the zip writer, of a name that is meant to be there twice
@pytest.mark.parametrize("kind", BUILDERS)
def test_damaged_files(kind, reader, tmp_path):
    check(kind, reader, tmp_path / "files", count=400)
