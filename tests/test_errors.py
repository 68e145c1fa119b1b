"""Messages: one line, no control codes, and never more than a part of what a file says."""

import pytest

from wan_core.errors import LONGEST_EXCERPT, CheckpointError, excerpt, quoted, some

HOSTILE = [text * 10_000 for text in ("x", "é", "\0", "\x1b[31m\n", "\ud800", "\u202e", "\u2028")]
VALUES = [10**5000, [[1] * 10_000] * 10_000, {"a" * 10_000: "b" * 10_000}, b"x" * 10_000, object()]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:6]))
@pytest.mark.parametrize("show", [excerpt, quoted, lambda text: some([text] * 9)], ids=["excerpt", "quoted", "some"])
def test_what_a_file_says_is_cut_and_harmless(show, text):
    shown = show(text)
    assert 0 < len(shown) <= LONGEST_EXCERPT and shown.isprintable()
    shown.encode()


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_of_any_type_are_quoted(value):
    assert 0 < len(quoted(value)) <= LONGEST_EXCERPT


def test_short_ones_are_left_as_they_are():
    assert (excerpt("blocks.0 红色"), quoted("a"), quoted(1.5), quoted(None)) == ("blocks.0 红色", "'a'", "1.5", "None")
    assert some(["a", "b", "c"]) == "a, b, c" and some(["a", "b", "c", "d"]) == "a, b, c, …" and some([]) == ""


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:6]))
def test_an_error_is_one_line_that_every_terminal_can_print(text):
    error = CheckpointError(f"it says\n{text}", f"less\r\n  of {text}", f"cut \t{text}")
    for part in (str(error), error.found, error.needed, error.fix):
        assert part.isprintable()
        part.encode()


def test_spaces_in_a_path_stay():
    assert CheckpointError("/a  b/c\u00a0d\u3000e.safetensors").found == "/a  b/c\u00a0d\u3000e.safetensors"
