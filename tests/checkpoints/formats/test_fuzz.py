"""Damaged weight files: a typed error or a good read; no crash, no hang, no memory beyond the file's size and 256 MB.

WAN_FUZZ=20000 draws that many files of every kind, different ones each time.
"""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.damage import BUILDERS

MORE = int(os.environ.get("WAN_FUZZ", "0"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Duplicate name")  # the zip writer, of a name that is meant to be there twice
@pytest.mark.parametrize("kind", BUILDERS)
def test_damaged_files(kind, reader, tmp_path):
    @settings(
        max_examples=MORE or 400,
        derandomize=not MORE,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def check(data):
        files = data.draw(BUILDERS[kind])
        for old in tmp_path.iterdir():
            old.unlink()
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        reader.open(tmp_path if len(files) > 1 else tmp_path / name)

    check()
