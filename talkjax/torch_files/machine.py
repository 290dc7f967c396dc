"""A stack machine that runs the pickles of weight files, and nothing else."""

import dataclasses
import io
import math
import pickletools
from typing import Any

import jax.numpy as jnp
import numpy as np

MAX_STEPS = 300_000  # a file of weights needs some 40 for each tensor
MAX_RANK = 8
MAX_KEY = 512  # characters of a name
_LARGEST = 1 << 40  # elements, for arithmetic on sizes to stay within 64 bits
_DTYPES = {
    "Float": np.float32, "Double": np.float64, "Half": np.float16, "BFloat16": jnp.bfloat16,
    "Char": np.int8, "Byte": np.uint8, "Short": np.int16, "Int": np.int32, "Long": np.int64,
    "Bool": np.bool_,
}  # fmt: skip
_STORAGES = {f"torch {name}Storage": np.dtype(dtype) for name, dtype in _DTYPES.items()}
_FUNCTIONS = {
    "collections OrderedDict",
    "torch Size",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
}
DAMAGED = "it is damaged, or no file of weights; fetch it again"
ONLY_WEIGHTS = "only plain weights are read; save the model's state_dict() instead"


class BadFileError(Exception):
    """What is wrong with a file, and what to do; `load` adds the file's name."""

    def __init__(self, reason: str, advice: str = DAMAGED):
        super().__init__(f"{reason}; {advice}")


@dataclasses.dataclass(frozen=True)
class _Global:
    name: str  # "module name"


@dataclasses.dataclass(frozen=True)
class Storage:
    """A flat piece of memory that tensors share.

    Attributes:
      key: its name in the file.
      dtype: of its elements.
      length: in elements.
    """

    key: str
    dtype: np.dtype
    length: int

    @property
    def bytes(self) -> int:
        """Its length in bytes."""
        return self.length * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage, certain to stay within it.

    Attributes:
      storage: what it views.
      offset: of its first element, in elements.
      size: its shape.
      strides: in elements.
    """

    storage: Storage
    offset: int
    size: tuple[int, ...]
    strides: tuple[int, ...]


def _tensor(storage: Any, offset: Any, size: Any, strides: Any, *unused: Any) -> Tensor:
    """What torch._utils._rebuild_tensor and its successor would make; gradients are ignored."""
    if not isinstance(storage, Storage) or len(size) != len(strides) or len(size) > MAX_RANK:
        raise BadFileError("a tensor has no storage, or sides and strides that do not fit")
    if any(type(n) is not int or not 0 <= n < _LARGEST for n in (offset, *size, *strides)):
        raise BadFileError("a tensor's size, stride or offset is out of range")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, strides, strict=True))
    if count > storage.length or (count and last >= storage.length):
        raise BadFileError(f"a tensor of shape {tuple(size)} reaches out of its storage")
    return Tensor(storage, offset, tuple(size), tuple(strides))


# ---- the machine --------------------------------------------------------------------------------


class Machine:
    """Runs one pickle; `storages` are those that it names."""

    def __init__(self):
        self.storages: dict[str, Storage] = {}
        self._steps = 0

    def run(self, stream: io.BytesIO) -> Any:
        """The object that the pickle describes; leaves the stream behind it."""
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[int, Any] = {}

        def above_mark() -> list[Any]:
            start = marks.pop()
            items = stack[start:]
            del stack[start:]
            return items

        for opcode, arg, _ in pickletools.genops(stream):
            self._steps += 1
            if self._steps > MAX_STEPS:
                raise BadFileError("its pickle has too many steps")
            match opcode.name:
                case "PROTO" | "FRAME":
                    pass
                case "STOP":
                    return stack.pop()
                case "MARK":
                    marks.append(len(stack))
                case "POP":
                    stack.pop()
                case "POP_MARK":
                    above_mark()
                case "NONE":
                    stack.append(None)
                case "NEWTRUE" | "NEWFALSE":
                    stack.append(opcode.name == "NEWTRUE")
                case (
                    "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1" | "LONG4"
                    | "FLOAT" | "BINFLOAT" | "STRING" | "BINSTRING" | "SHORT_BINSTRING"
                    | "UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8"
                ):  # fmt: skip
                    stack.append(arg)
                case "EMPTY_TUPLE":
                    stack.append(())
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    count = int(opcode.name[-1])
                    items = tuple(stack[-count:])
                    del stack[-count:]
                    stack.append(items)
                case "TUPLE":
                    stack.append(tuple(above_mark()))
                case "EMPTY_LIST":
                    stack.append([])
                case "LIST":
                    stack.append(above_mark())
                case "APPEND" | "APPENDS":
                    items = [stack.pop()] if opcode.name == "APPEND" else above_mark()
                    _expect(stack[-1], list).extend(items)
                case "EMPTY_DICT":
                    stack.append({})
                case "DICT":
                    items = above_mark()
                    stack.append(_mapping(zip(items[::2], items[1::2], strict=True)))
                case "SETITEM" | "SETITEMS":
                    if opcode.name == "SETITEM":
                        marks.append(len(stack) - 2)
                    items = above_mark()
                    pairs = _mapping(zip(items[::2], items[1::2], strict=True))
                    _expect(stack[-1], dict).update(pairs)
                case "PUT" | "BINPUT" | "LONG_BINPUT":
                    memo[arg] = stack[-1]
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "GET" | "BINGET" | "LONG_BINGET":
                    stack.append(memo[arg])
                case "GLOBAL":
                    stack.append(_known(arg))
                case "STACK_GLOBAL":
                    name, module = (_expect(stack.pop(), str) for _ in range(2))
                    stack.append(_known(f"{module} {name}"))
                case "BINPERSID":
                    stack.append(self._storage(stack.pop()))
                case "REDUCE":
                    arguments = _expect(stack.pop(), tuple)
                    stack.append(self._call(_expect(stack.pop(), _Global).name, arguments))
                case "BUILD":  # attributes of an OrderedDict, such as torch's versions: not needed
                    stack.pop()
                    _expect(stack[-1], dict)
                case _:
                    raise BadFileError(f"its pickle uses {opcode.name}, which weights do not need")
        raise BadFileError("its pickle does not end")

    def _call(self, name: str, arguments: tuple) -> Any:
        match name:
            case "collections OrderedDict":  # Python 2 gave a list of pairs
                pairs = _expect(arguments[0], list) if arguments else []
                self._steps += len(pairs)  # one list can be used again and again
                return _mapping(pairs)
            case "torch Size":
                return _expect(arguments[0], tuple)
            case "torch._utils _rebuild_parameter":
                return _expect(arguments[0], Tensor)
            case "torch._utils _rebuild_tensor" | "torch._utils _rebuild_tensor_v2":
                return _tensor(*arguments)
        raise BadFileError(f"it calls {name.replace(' ', '.')}", ONLY_WEIGHTS)

    def _storage(self, identity: Any) -> Storage:
        kind = identity[0] if isinstance(identity, tuple) and identity else None
        if kind == "module":
            raise BadFileError("it is a whole pickled model", ONLY_WEIGHTS)
        if kind != "storage" or len(identity) not in (5, 6) or any(identity[5:]):
            raise BadFileError("it refers to something other than a storage")
        _, dtype, key, _, length = identity[:5]
        key = str(key) if type(key) is int else key
        typed = isinstance(dtype, _Global) and dtype.name in _STORAGES
        if (
            not typed
            or type(key) is not str
            or type(length) is not int
            or not 0 <= length < _LARGEST
        ):
            raise BadFileError("a storage is not described as PyTorch does")
        storage = Storage(key, _STORAGES[dtype.name], length)
        if self.storages.setdefault(key, storage) != storage:
            raise BadFileError(f"storage {key[:20]!r} is described in two ways")
        return storage


def _known(name: str) -> _Global:
    if name not in _FUNCTIONS and name not in _STORAGES:
        shown = name.replace(" ", ".")[:100]
        raise BadFileError(f"it needs {shown!r}", ONLY_WEIGHTS)
    return _Global(name)


def _mapping(pairs: Any) -> dict:
    """A dictionary; keys are such that hashing them costs nothing and cannot recurse."""
    out = {}
    for key, value in pairs:
        if type(key) not in (str, int) or len(str(key)) > MAX_KEY:
            raise BadFileError("a mapping has keys that are no names")
        out[key] = value
    return out


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise BadFileError(f"its pickle has something else where {kind.__name__} belongs")
    return value
