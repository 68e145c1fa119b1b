"""Pickles made to harm: each is refused for what is wrong with it, within the limits of `confined`."""

import io
import pickle
import struct
import tarfile
import zipfile

import pytest
import torch

from wan_core.checkpoints.formats.limits import LARGEST_HEADER

PLENTY = LARGEST_HEADER - 1000  # bytes: nearly as long as a pickle may be
EMPTY = b"\x80\2}."  # the pickle of an empty dict


def saved(**options) -> bytes:
    data = io.BytesIO()
    torch.save({"a": torch.arange(8.0)}, data, **options)
    return data.getvalue()


def saved_old() -> bytes:
    return saved(_use_new_zipfile_serialization=False)


def archive(program: bytes, *records: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name, content in [("m/data.pkl", program), *records]:
            file.writestr(zipfile.ZipInfo(name), content, compression)
    return data.getvalue()


def patched(data: bytes, mark: bytes, at: int, value: int) -> bytes:
    """Another 32-bit number behind the last of these marks."""
    position = data.rindex(mark) + at
    return data[:position] + struct.pack("<L", value) + data[position + 4 :]


def text(value: str) -> bytes:
    return b"X" + struct.pack("<L", len(value)) + value.encode()


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def numbers(values: tuple) -> bytes:
    return b"(" + b"".join(number(value) for value in values) + b"t"


def view(count: int, offset: int, shape: tuple, stride: tuple) -> bytes:
    """A program for one tensor."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(count) + b"tQ"
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + numbers(shape) + numbers(stride)
    return b"\x80\2}" + text("a") + rebuild + b"\x89ccollections\nOrderedDict\n)RtRs."


def shown(offset: int, shape: tuple, stride: tuple) -> bytes:
    """A file with eight numbers and a tensor with this view of them."""
    return archive(view(8, offset, shape, stride), ("m/data/0", bytes(32)))


def shown_often(names: int) -> bytes:
    """A megabyte that every one of these tensors shows."""
    once = view(2**18, 0, (2**18,), (1,))[3:-1]
    program = b"".join(once.replace(text("a"), text(str(k))) for k in range(names))
    return archive(b"\x80\2}" + program + b".", ("m/data/0", bytes(2**20)))


def crowded(records: int) -> bytes:
    """A directory that lists one record very often."""
    data = archive(EMPTY)
    start, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    data = data[:start] + data[start:end] * records + data[end:]
    return patched(data, b"PK\5\6", 12, (end - start) * records)


def call(module: str, name: str, argument: bytes) -> bytes:
    return archive(b"\x80\2}" + text("a") + f"c{module}\n{name}\n".encode() + argument + b"\x85Rs.")


def old(count: int) -> bytes:
    """A file in the format before torch 1.6 with a tensor of one number in a storage of `count`."""
    parts = [torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {}]
    program = view(count, 0, (1,), (1,)).replace(b"tQ", b"NtQ")
    return (
        b"".join(pickle.dumps(part, 2) for part in parts)
        + program
        + pickle.dumps(["0"], 2)
        + struct.pack("<q", count)
        + bytes(4)
    )


def tar_format() -> bytes:
    """The format before torch 0.1.10."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as file:
        for name in ("storages", "tensors", "pickle"):
            file.addfile(tarfile.TarInfo(name))
    return data.getvalue()


FILES = {
    "cut": (lambda: saved()[:-100], "it was cut"),
    "longer": (lambda: saved() + b"x", "something follows it"),
    "a comment": (lambda: patched(saved() + bytes(2), b"PK\5\6", 20, 2), "something follows it"),
    "something in front": (lambda: b"PK\3\4" + saved(), "somewhere else"),
    "a directory somewhere else": (lambda: patched(archive(EMPTY), b"PK\5\6", 16, 0), "somewhere else"),
    "a compressed program": (lambda: archive(bytes(100_000_000), compression=zipfile.ZIP_DEFLATED), "compressed"),
    "compressed numbers": (
        lambda: archive(EMPTY, ("m/data/0", bytes(100_000_000)), compression=zipfile.ZIP_DEFLATED),
        "compressed",
    ),
    "a size beyond the file": (
        lambda: patched(patched(archive(EMPTY), b"PK\1\2", 20, 2**31), b"PK\1\2", 24, 2**31),
        "not where it should be",
    ),
    "a record inside another": (
        lambda: patched(archive(EMPTY, ("m/data/0", bytes(8))), b"PK\1\2", 42, 0),
        "inside another",
    ),
    "one record twice": (lambda: archive(EMPTY, ("m/data.pkl", EMPTY)), "of one name"),
    "one name in two cases": (lambda: archive(EMPTY, ("m/DATA.PKL", EMPTY)), "of one name"),
    "two folders": (lambda: archive(EMPTY, ("x/data.pkl", EMPTY)), "more than one folder"),
    "a hundred thousand records": (lambda: crowded(100_000), "100,000 records"),
    "a directory beyond the limit": (lambda: crowded(120_000), "a directory of 6,720,000 bytes"),
    "big-endian numbers": (lambda: archive(view(8, 0, (8,), (1,)), ("m/byteorder", b"big")), "big-endian"),
    "TorchScript": (lambda: archive(EMPTY, ("m/constants.pkl", EMPTY)), "TorchScript"),
    "the tar format": (tar_format, "cannot be read"),
    "an expanded tensor": (lambda: shown(0, (2**40,), (0,)), "more than it holds"),
    "a tensor expanded in one dimension": (lambda: shown(0, (4, 8), (0, 1)), "more than it holds"),
    "overlapping rows": (lambda: shown(0, (2, 5), (3, 1)), "more than it holds"),
    "a reversed tensor": (lambda: shown(7, (8,), (-1,)), "strides"),
    "a stride beyond 64 bits": (lambda: shown(0, (1, 8), (2**63, 1)), "strides"),
    "no numbers of a product beyond 64 bits": (lambda: shown(0, (2**40, 2**40, 0), (1, 1, 1)), "impossible shape"),
    "an offset beyond the numbers": (lambda: shown(4, (8,), (1,)), "more than it holds"),
    "a negative offset": (lambda: shown(-4, (8,), (1,)), "makes no sense"),
    "a negative size": (lambda: shown(0, (-8,), (1,)), "impossible shape"),
    "nine dimensions": (lambda: shown(0, (1,) * 9, (1,) * 9), "impossible shape"),
    "a product beyond 64 bits": (lambda: shown(0, (2**32, 2**32), (2**32, 1)), "impossible shape"),
    "a product of nearly 64 bits": (lambda: shown(0, (2**32, 2**30), (2**30, 1)), "more than it holds"),
    "a storage beyond the file": (lambda: archive(view(2**40, 0, (8,), (1,)), ("m/data/0", bytes(32))), "another size"),
    "one storage under a hundred names": (lambda: shown_often(100), "100 tensors of 104,857,600 bytes"),
    "code": (lambda: call("os", "system", text("true")), "os.system"),
    "a bytearray of a terabyte": (lambda: call("builtins", "bytearray", number(2**40)), "builtins.bytearray"),
    "a storage of a terabyte": (
        lambda: call("torch.storage", "UntypedStorage", number(2**40)),
        "a call of something else",
    ),
    "a tensor of a terabyte": (lambda: call("torch", "FloatTensor", number(2**40)), "torch.FloatTensor"),
    "bytes doubled forty times": (
        lambda: archive(b"\x80\2" + b"c_codecs\nencode\n" * 40 + text("a") + (text("hex") + b"\x86R") * 40 + b"."),
        "_codecs.encode",
    ),
    "a name that takes for ever to hash": (lambda: archive(b"\x80\2})q\0" + b"h\0\x86q\0" * 64 + b"Ns."), "no name"),
    "a name as deep as the stack": (lambda: archive(b"\x80\2})" + b"\x85" * 490_000 + b"Ns."), "no name"),
    "names with one hash": (
        lambda: archive(b"\x80\2}(" + b"".join(number(k * (2**61 - 1)) + b"N" for k in range(2, 50_000)) + b"u."),
        "no name",
    ),
    "a list that holds itself": (lambda: archive(b"\x80\2]q\0h\0a."), "no named tensors"),
    "a dict that holds itself": (lambda: archive(b"\x80\2}q\0" + text("a") + b"h\0s."), "no named tensors"),
    "empty dicts": (lambda: archive(b"\x80\2(" + b"}" * PLENTY + b"t."), "instructions"),
    "marks": (lambda: archive(b"\x80\2" + b"(" * PLENTY + b"."), "instructions"),
    "notes": (
        lambda: archive(b"\x80\2" + b"".join(b"}r" + struct.pack("<L", k) for k in range(240_000)) + b"."),
        "no named tensors",
    ),
    "lists as deep as the stack": (
        lambda: archive(b"\x80\2" + b"]" * 240_000 + b"a" * 239_999 + b"."),
        "no named tensors",
    ),
    "no end": (lambda: archive(b"\x80\2}"), "exhausted"),
    "more than the limit": (lambda: archive(EMPTY + bytes(LARGEST_HEADER)), "believable size"),
    "old: a storage beyond the file": (lambda: old(2**40), "where its pickle describes"),
    "old: longer": (lambda: saved_old() + b"x", "where its pickle describes"),
    "old: cut": (lambda: saved_old()[:-1], "where its pickle describes"),
    "old: a number of elements that differs": (
        lambda: saved_old()[:-40] + struct.pack("<q", 9) + bytes(32),
        "another size",
    ),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Duplicate name")  # the zip writer, of a name that is meant to be there twice
@pytest.mark.parametrize("name", FILES)
def test_it_is_refused(name, reader, tmp_path):
    data, message = FILES[name]
    (tmp_path / "model.pth").write_bytes(data())
    assert message in reader.open(tmp_path / "model.pth")
