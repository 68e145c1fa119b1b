"""The zip archive that a .pth file is: where its records lie, checked before anything else reads them.

torch writes the records uncompressed, one behind the other, and their directory at the end of the file.
Source: PKWARE's APPNOTE.TXT, section 4.3.
"""

import struct
import zipfile
from typing import BinaryIO, NamedTuple

from ....errors import excerpt, quoted
from ..limits import LARGEST_HEADER, MOST_TENSORS

_PICKLE = "data.pkl"

_LOCAL = struct.Struct("<4s22xHH")  # in front of every record: …, length of its name and of what follows the name
_END = struct.Struct("<4s8xLLH")  # …, size of the directory, its start, length of a comment
_LOCATOR = struct.Struct("<4s4xQ4x")  # where the 64-bit end is
_END64 = struct.Struct("<4s36xQQ")  # …, size of the directory, its start


class Record(NamedTuple):
    start: int  # of its contents in the file
    size: int  # bytes


def read_archive(file: BinaryIO, size: int) -> tuple[dict[str, Record], bytes]:
    """Name → record, without the archive's folder, and the pickle that says which tensors the records are.

    Raises:
        ValueError: with what is wrong: truncated or over-long, compressed, duplicate or overlapping records.
    """
    directory = _find_directory(file, size)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            records = _check_entries(file, entries, directory)
            if _PICKLE not in records or records[_PICKLE].size > LARGEST_HEADER:
                raise ValueError(f"no {_PICKLE} of a believable size in it")
            pickle = archive.read(next(entry for entry in entries if _name(entry) == _PICKLE))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error, OSError) as error:
        raise ValueError(f"a damaged archive ({excerpt(error)})") from error
    if "byteorder" in records:
        file.seek(records["byteorder"].start)
        if file.read(3) == b"big":
            raise ValueError("numbers in big-endian order")
    return records, pickle


def _name(entry: zipfile.ZipInfo) -> str:
    return entry.filename.partition("/")[2]


def _find_directory(file: BinaryIO, size: int) -> int:
    """Where the directory starts. It has to be the last thing in the file, so that every reader finds the same one."""
    file.seek(max(0, size - _END64.size - _LOCATOR.size - _END.size))
    tail = file.read().rjust(_END64.size + _LOCATOR.size + _END.size, b"\0")
    signature, length, start, comment = _END.unpack(tail[-_END.size :])
    if signature != b"PK\5\6" or comment:
        raise ValueError("an archive without its end: it was cut, or something follows it")
    end = size - _END.size
    locator, position = _LOCATOR.unpack(tail[_END64.size : -_END.size])
    if locator == b"PK\6\7":
        end -= _LOCATOR.size + _END64.size
        signature, length, start = _END64.unpack(tail[: _END64.size])
        if signature != b"PK\6\6" or position != end:
            raise ValueError("a damaged archive (its end is somewhere else)")
    if start + length != end:
        raise ValueError("a damaged archive (its directory is somewhere else)")
    if length > LARGEST_HEADER:
        raise ValueError(f"a directory of {length:,} bytes")
    return start


def _check_entries(file: BinaryIO, entries: list[zipfile.ZipInfo], directory: int) -> dict[str, Record]:
    if len(entries) > MOST_TENSORS + 100:  # beside the tensors it has a pickle and a few short records
        raise ValueError(f"{len(entries):,} records")
    folders = {entry.filename.partition("/")[0] for entry in entries}
    # Other readers ignore case and cut names at a NUL, so neither may matter.
    names = {entry.orig_filename.lower() for entry in entries}
    if len(folders) != 1 or len(names) != len(entries) or any("\0" in name for name in names):
        raise ValueError("records of one name, or in more than one folder")
    records, end = {}, 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
            raise ValueError(f"a compressed record, {quoted(entry.filename)}")
        if entry.header_offset < end:
            raise ValueError(f"a record inside another, {quoted(entry.filename)}")
        file.seek(entry.header_offset)
        signature, name, extra = _LOCAL.unpack(file.read(_LOCAL.size).ljust(_LOCAL.size, b"\0"))
        record = Record(entry.header_offset + _LOCAL.size + name + extra, entry.file_size)
        end = record.start + record.size
        if signature != b"PK\3\4" or end > directory:
            raise ValueError(f"a record that is not where it should be, {quoted(entry.filename)}")
        records[_name(entry)] = record
    return records
