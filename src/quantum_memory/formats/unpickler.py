"""Pickles, read without pickle: a small machine that knows the twenty operations that plain data need.

Nothing is imported, looked up or called by a name that a pickle says. A name is one of an allow-list, which gives a
function of ours that checks its arguments and builds plain values; every other name, and every operation beside the
few below, is refused before anything comes of it. `ARRAYS` and `NUMBERS` are the names that NumPy arrays, dates and
complex numbers need.

Why memory and time are bounded: an operation takes at least one byte of the pickle and makes at most one object that is
no longer than its own bytes; arrays are views of those bytes; and the finished tree is walked, counting what is shared
as often as it is met, before anybody else sees it.
"""

from __future__ import annotations

import datetime
import math
import pickletools
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import RESTORE, BudgetError, IntegrityError, UnsafeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from quantum_memory.durability.files import Readable

    Name = tuple[str, str]

MAX_OPERATIONS = 1 << 19
"""Operations of a pickle, each about a microsecond and up to a hundred bytes: a complex number takes seven."""
MAX_LEVELS = 100
"""Levels of nesting of what a pickle holds."""

_DISTRUST = "do not trust this file: no release writes one like it"
_FEW = 1 << 16
_PUSHED = frozenset(
    {
        "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
        "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
    }
)  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: Mapping[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|O8")


class _Named:
    """An allowed name, not yet called."""

    def __init__(self, name: Name, target: Any) -> None:
        self.name = name
        self.target = target


class _DType:
    """A dtype in the making: what ``numpy.dtype(...)`` and its state say."""

    def __init__(self, described: object, align: object = False, copy: object = True) -> None:
        if not isinstance(described, str) or not _DTYPE.fullmatch(described) or (align, copy) != (False, True):
            raise UnsafeError(f"its pickle has an array of dtype {described!r:.40}", next_step=_DISTRUST)
        self.described = described
        self.order = "|"

    def build(self, state: Any) -> None:
        """Take the state of a plain dtype: version, byte order, and nothing of fields or sub-arrays."""
        version, order, *rest = state
        if version not in {3, 4} or order not in {"<", ">", "|", "="} or rest[:3] != [None] * 3 or len(rest) > 7:
            raise UnsafeError("its pickle has a dtype that no release writes", next_step=_DISTRUST)
        self.order = order

    @property
    def made(self) -> np.dtype[Any]:
        """The dtype."""
        return np.dtype(self.order + self.described)


_NDARRAY = object()


class _Array:
    """An array in the making, as NumPy pickles one: an empty array, then its state."""

    def __init__(self, kind: object, shape: object, typecode: object) -> None:
        if not isinstance(kind, _Named) or kind.target is not _NDARRAY or shape != (0,) or typecode != b"b":
            raise UnsafeError("its pickle makes an array in a way that NumPy does not", next_step=_DISTRUST)
        self.value: Any = None

    def build(self, state: Any) -> None:
        """Take the state: version, shape, dtype, whether the order is Fortran's, and the bytes or the list of items."""
        version, shape, dtype, fortran, data = state
        if (
            self.value is not None
            or version != 1
            or not isinstance(dtype, _DType)
            or not isinstance(shape, tuple)
            or not all(type(n) is int and n >= 0 for n in shape)
            or not isinstance(fortran, bool)
        ):
            raise UnsafeError("its pickle has an array that no release writes", next_step=_DISTRUST)
        if dtype.described == "O8":
            if not isinstance(data, list) or len(shape) > 1 or len(data) != math.prod(shape):
                raise IntegrityError("its pickle has an array of objects of another length than it says")
            self.value = data if shape else _Item(data)
            return
        if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.made.itemsize:
            raise IntegrityError("its pickle has an array whose shape does not fit its bytes")
        self.value = np.frombuffer(data, dtype.made).reshape(shape, order="F" if fortran else "C")


class _Item:
    """The one item of an array of objects without axes."""

    def __init__(self, data: list[Any]) -> None:
        self.data = data


def _datetime(data: object) -> str:
    """Return a naive date and time as ISO 8601 text; the year, month, ... are bytes."""
    if not isinstance(data, bytes) or len(data) != 10:
        raise UnsafeError("its pickle has a date that no release writes", next_step=_DISTRUST)
    fold, month = divmod(data[2], 128)
    day, hour, minute, second = data[3:7]
    year, microsecond = int.from_bytes(data[:2], "big"), int.from_bytes(data[7:], "big")
    return datetime.datetime(year, month, day, hour, minute, second, microsecond, fold=fold).isoformat()


def _complex(real: object, imaginary: object) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise UnsafeError("its pickle has a complex number that is not two floats", next_step=_DISTRUST)
    return complex(real, imaginary)


ARRAYS: Mapping[Name, Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _DType,
    ("datetime", "datetime"): _datetime,
}
"""The names in pickled NumPy arrays of numbers and of objects, in those of NumPy 1 and 2, and of naive dates, which
become text. An array of objects becomes the list of them, or the object itself where it has no axes."""

NUMBERS: Mapping[Name, Any] = {("builtins", "complex"): _complex}
"""The name that complex numbers have in a pickle."""


def loads(data: bytes | Readable, allowed: Mapping[Name, Any], *, max_bytes: int) -> Any:
    """Return the plain values that a pickle of protocol 3, 4 or 5 holds.

    Parameters
    ----------
    data
        The pickle, to its last byte.
    allowed
        For each name (module and name in it) that may occur, what it stands for: a function that is called with the
        arguments that the pickle gives, and checks them. Nothing is imported.
    max_bytes
        How long the pickle may be.

    Returns
    -------
    None, bool, int, float, complex, str, bytes, lists, tuples, dicts with keys of text, and arrays. The arrays are
    views of the pickle, which cannot be written to.

    Raises
    ------
    UnsafeError
        It asks for a name that is not allowed, or for an operation that plain data do not need; the error names it.
    IntegrityError
        It is damaged.
    """
    length = len(data) if isinstance(data, bytes) else data.size
    if length > max_bytes:
        raise BudgetError(
            f"its pickle has {length} bytes, and {max_bytes} are allowed",
            next_step=f"pass max_bytes={length} if you trust the file",
        )
    pickled = data if isinstance(data, bytes) else data.read(0, length)
    try:
        result = _Machine(allowed).run(pickled)
        return _Walk(length).value(result, 0)
    except (IntegrityError, UnsafeError) as error:
        error.next_step = error.next_step or RESTORE
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, DeprecationWarning) as error:
        # pickletools warns of escapes that are none, which is an error where a program has made it one.
        raise IntegrityError(f"its pickle is damaged: {error!s:.200}", next_step=RESTORE) from error


class _Machine:
    """The stack, the marks on it and the memo, as the protocol has them."""

    def __init__(self, allowed: Mapping[Name, Any]) -> None:
        self._allowed = allowed
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, pickled: bytes) -> Any:
        """Return what the pickle leaves on the stack."""
        end = 0
        for count, (operation, argument, position) in enumerate(pickletools.genops(pickled)):
            if count > MAX_OPERATIONS:
                raise UnsafeError(f"its pickle has more than {MAX_OPERATIONS} operations", next_step=_DISTRUST)
            self._do(operation.name, argument)
            end = position or 0
        if end + 1 != len(pickled) or self._marks or len(self._stack) != 1:
            raise IntegrityError("its pickle does not end where its data do")
        return self._stack[0]

    def _do(self, operation: str, argument: Any) -> None:
        stack = self._stack
        if operation in _PUSHED:
            stack.append(argument)
        elif operation in _CONSTANTS:
            stack.append(_CONSTANTS[operation])
        elif operation in _EMPTY:
            stack.append(_EMPTY[operation]())
        elif operation in _TUPLES:
            stack.append(tuple(self._popped(_TUPLES[operation])))
        else:
            self._do_more(operation, argument)

    def _do_more(self, operation: str, argument: Any) -> None:
        stack, memo = self._stack, self._memo
        match operation:
            case "MARK":
                self._marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(self._to_mark()))
            case "APPEND" | "APPENDS":
                items = self._popped(1) if operation == "APPEND" else self._to_mark()
                self._top(list).extend(items)
            case "SETITEM" | "SETITEMS":
                items = self._popped(2) if operation == "SETITEM" else self._to_mark()
                if len(items) % 2 or not all(type(key) is str for key in items[::2]):
                    raise UnsafeError("its pickle has a dict with keys that are not text", next_step=_DISTRUST)
                self._top(dict).update(zip(items[::2], items[1::2], strict=True))
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                self._name(*argument.split(" ", 1))
            case "STACK_GLOBAL":
                self._name(*self._popped(2))
            case "REDUCE":
                function, arguments = self._popped(2)
                if not isinstance(function, _Named) or not callable(function.target) or type(arguments) is not tuple:
                    raise UnsafeError("its pickle calls what is no function", next_step=_DISTRUST)
                stack.append(function.target(*arguments))
            case "BUILD":
                (state,) = self._popped(1)
                if type(stack[-1]) not in {_Array, _DType} or type(state) is not tuple:
                    raise UnsafeError(f"its pickle sets the state of a {type(stack[-1]).__name__}", next_step=_DISTRUST)
                stack[-1].build(state)
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:
                raise UnsafeError(
                    f"its pickle has the operation {operation}, which plain data do not need", next_step=_DISTRUST
                )

    def _name(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str) or (module, name) not in self._allowed:
            raise UnsafeError(
                f"its pickle asks for {module!s:.60}.{name!s:.60}, which is not allowed", next_step=_DISTRUST
            )
        self._stack.append(_Named((module, name), self._allowed[module, name]))

    def _popped(self, count: int) -> list[Any]:
        """Take items from the top of the stack, but none from below the last mark."""
        start = len(self._stack) - count
        if start < (self._marks[-1] if self._marks else 0):
            raise IntegrityError("its pickle takes more from the stack than there is")
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _to_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _top(self, kind: type[Any]) -> Any:
        if type(self._stack[-1]) is not kind:
            raise UnsafeError(f"its pickle adds items to a {type(self._stack[-1]).__name__}", next_step=_DISTRUST)
        return self._stack[-1]


class _Walk:
    """Make plain values of what the machine left, within what an honest pickle of this length can hold."""

    def __init__(self, length: int) -> None:
        self._values = _FEW + length
        self._text = 16 * (_FEW + length)
        self._array_bytes = length

    def value(self, node: Any, level: int) -> Any:
        """Return `node` with arrays in the place of those in the making."""
        self._values -= 1
        if level > MAX_LEVELS or self._values < 0:
            raise UnsafeError("its pickle holds itself, or is nested without end", next_step=_DISTRUST)
        kind = type(node)
        if kind is str or kind is bytes:
            self._text -= len(node)
            if self._text < 0:
                raise UnsafeError("its pickle repeats its text without end", next_step=_DISTRUST)
            return node
        if kind is tuple:
            return tuple(self.value(item, level + 1) for item in node)
        if kind is list:  # in place, as the dict below: a copy could take as much memory again
            for index, item in enumerate(node):
                node[index] = self.value(item, level + 1)
            return node
        if kind is dict:
            for key, item in node.items():
                self.value(key, level)
                node[key] = self.value(item, level + 1)
            return node
        if kind is _Array and node.value is not None:
            return self._array(node.value, level)
        if kind in {_Named, _DType, _Array}:
            raise UnsafeError("its pickle holds a part of an array that is not whole", next_step=_DISTRUST)
        return node

    def _array(self, value: Any, level: int) -> Any:
        if isinstance(value, _Item):
            return self.value(value.data[0], level + 1)
        if isinstance(value, list):
            return self.value(value, level + 1)
        self._array_bytes -= value.nbytes
        if self._array_bytes < 0:
            raise UnsafeError("its pickle repeats its arrays without end", next_step=_DISTRUST)
        return value
