"""Pickles are programs. This virtual machine knows numbers, strings, containers and descriptions of tensors.

It has the instructions that torch writes into state dicts and calls nothing from the file; sizes are known before
anything is allocated for them.
"""

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

import torch

from ....errors import excerpt
from ..limits import LARGEST
from ..safetensors import DTYPES

_MOST_INSTRUCTIONS = 500_000  # a tensor takes about 40

_STORAGES = {
    f"torch {name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
} | {"torch.storage UntypedStorage": torch.uint8}
_DTYPES = {str(dtype).replace(".", " "): dtype for dtype in DTYPES.values()}


class Storage(NamedTuple):
    """A run of numbers in the file."""

    key: str
    dtype: torch.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


class TensorView(NamedTuple):
    """A tensor: which numbers of a storage it shows; offset and stride in elements."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Global(str):
    """The name of something in Python, as "module name"."""


def interpret(file: BinaryIO) -> tuple[Any, list[Storage]]:
    """What the pickle at the file's position makes, and the storages it names; the position is then behind it.

    Raises:
        ValueError: with the first instruction that no plain state dict needs, or that makes no sense.
    """
    machine = PickleVM()
    try:
        for count, (instruction, argument, _) in enumerate(pickletools.genops(file)):
            if count >= _MOST_INSTRUCTIONS:
                raise ValueError(f"more than {_MOST_INSTRUCTIONS:,} instructions")
            if instruction.name == "STOP":
                return machine.stack.pop(), list(machine.storages.values())
            if instruction.name not in _INSTRUCTIONS:
                raise ValueError(f"the instruction {instruction.name}")
            _INSTRUCTIONS[instruction.name](machine, argument)
    except (IndexError, KeyError, TypeError) as error:  # an empty stack, an empty memo slot, too few arguments
        raise ValueError("a pickle that makes no sense") from error
    raise ValueError("a pickle without an end")


class PickleVM:
    """The stack, the stacks below its marks, and the memo of a pickle."""

    def __init__(self) -> None:
        self.stack: list = []
        self.marked: list[list] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def push(self, value) -> None:
        self.stack.append(value)

    def protocol(self, version: int) -> None:
        if version not in (2, 3):
            raise ValueError(f"a pickle of protocol {version}")

    def mark(self, _) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def since_mark(self) -> list:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def take(self, count: int) -> list:
        if len(self.stack) < count:
            raise IndexError
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def tuple(self, count: int) -> None:
        self.push(tuple(self.take(count)))

    def memoize(self, slot: int) -> None:
        self.memo[slot] = self.stack[-1]

    def extend(self, items: list) -> None:
        if type(self.stack[-1]) is not list:
            raise TypeError
        self.stack[-1].extend(items)

    def set_items(self, items: list) -> None:
        if type(self.stack[-1]) not in (dict, OrderedDict) or len(items) % 2:
            raise TypeError
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing nested tuples can take for ever or overflow the stack, and large integers can share one hash.
            if type(key) is not str and not (type(key) is int and abs(key) < 2**32):
                raise ValueError("a key that is no name")
            self.stack[-1][key] = value

    def name(self, name: str) -> None:
        if name not in _CALLS and name not in _STORAGES and name not in _DTYPES:
            raise ValueError(f"it names {excerpt(name.replace(' ', '.'), 100)}, which a state dict does not need")
        self.push(_Global(name))

    def call(self, _) -> None:
        function, arguments = self.take(2)
        if type(function) is not _Global or function not in _CALLS or type(arguments) is not tuple:
            raise ValueError("a call of something else than a tensor")
        self.push(_CALLS[function](*arguments))

    def attribute(self, _) -> None:
        state = self.stack.pop()
        if type(self.stack[-1]) is not OrderedDict or type(state) is not dict or set(state) - {"_metadata"}:
            raise ValueError("attributes of something else than a state dict")

    def storage(self, _) -> None:
        """("storage", type, key, device, count), and before torch 1.6 a view, which nothing writes any more."""
        kind, type_, key, device, count, *view = self.stack.pop()
        if (type(kind), type(key), type(device), type(count)) != (str, str, str, int) or kind != "storage":
            raise TypeError
        if (
            type(type_) is not _Global
            or type_ not in _STORAGES
            or not 0 <= count <= LARGEST
            or view not in ([], [None])
        ):
            raise ValueError("an impossible storage")
        storage = Storage(key, _STORAGES[type_], count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError("a storage of two sizes")
        self.push(storage)


def _tensor(storage, offset, shape, stride, requires_grad=False, hooks=None, dtype=None) -> TensorView:
    if (type(storage), type(offset), type(shape), type(stride)) != (Storage, int, tuple, tuple) or offset < 0:
        raise TypeError
    if (
        type(requires_grad) is not bool
        or hooks
        or (dtype is not None and (type(dtype) is not _Global or dtype not in _DTYPES))
    ):
        raise TypeError
    return TensorView(storage, storage.dtype if dtype is None else _DTYPES[dtype], offset, shape, stride)


def _parameter(data, requires_grad, hooks) -> TensorView:
    if type(data) is not TensorView or type(requires_grad) is not bool or hooks:
        raise TypeError
    return data


_CALLS: Mapping[str, Callable] = {
    "collections OrderedDict": lambda: OrderedDict(),
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
}
_INSTRUCTIONS: Mapping[str, Callable] = {
    "PROTO": PickleVM.protocol,
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"), PickleVM.push),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "MARK": PickleVM.mark,
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.tuple(1),
    "TUPLE2": lambda machine, _: machine.tuple(2),
    "TUPLE3": lambda machine, _: machine.tuple(3),
    "APPEND": lambda machine, _: machine.extend(machine.take(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), PickleVM.memoize),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, slot: machine.push(machine.memo[slot])),
    "GLOBAL": PickleVM.name,
    "REDUCE": PickleVM.call,
    "BUILD": PickleVM.attribute,
    "BINPERSID": PickleVM.storage,
}
