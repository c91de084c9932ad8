"""Inputs that nobody meant: bytes and JSON, changed at random in the ways that readers stumble over.

Give a `Mutator` a whole file, change what a checksum covers, put the right checksum behind it, and have it read: what a
reader of damaged, forged or unknown input raises should be an error of ours (`check`).
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

from quantum_memory.errors import QuantumMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable

_EDGES = tuple(
    sorted({base + near for bits in (0, 7, 8, 15, 16, 31, 32, 53, 63, 64) for base in (1 << bits,) for near in (-1, 0)})
)
_ODD: tuple[Any, ...] = (
    None, True, False, -1, -0.0, 0.5, 1e308, math.nan, math.inf, -(1 << 63), 1 << 200, *_EDGES,
    "", "a", "0", "\0", "../x", "ü\u202e", "\ud800", "f8", "c128", "|O", "0" * 64, "=", "$array", "2026-01-31",
    [], {}, [[]], [None], {"": None}, {"$array": "classical"}, {"$dict": []}, {"$int": "f"}, {"$tuple": [0]},
    {"$bytes": "AAAA"}, {"$float": "7ff8000000000001"}, {"$scalar": ["<f8", "AAAAAAAAAAA="]},
)  # fmt: skip
_WIDTHS = (1, 2, 4, 8)
_FEW = 16
_HERE = 0.2


class Mutator:
    """Changes bytes and JSON at random, the same way each time for one seed.

    Parameters
    ----------
    seed
        Of the random numbers.

    Attributes
    ----------
    random
        These, for who has choices of his own to make.

    Examples
    --------
    >>> Mutator(1).data(b"some bytes") == Mutator(1).data(b"some bytes")
    True
    """

    def __init__(self, seed: int | str) -> None:
        self.random = random.Random(seed)  # noqa: S311 - no secrets

    def data(self, data: bytes, other: bytes = b"") -> bytes:
        """Return bytes that are changed in one place or in a few.

        Parameters
        ----------
        other
            Where pieces of other inputs are taken from.
        """
        for _ in range(self._some()):
            data = self._edited(data, other)
        return data

    def json(self, node: Any) -> Any:
        """Return what JSON has, changed in one place or in a few: a value, a key, an item more or less.

        Not all of it is JSON any more: there may be infinities, and text that is not Unicode.
        """
        for _ in range(self._some()):
            node = self._within(node, node)
        return node

    def below(self, count: int) -> int:
        """Return a number from 0 to one less."""
        return int(self.random.random() * count)

    def pick(self, choices: tuple[Any, ...] | list[Any]) -> Any:
        """Return one of these."""
        return choices[int(self.random.random() * len(choices))]

    def _some(self) -> int:
        """Return 1, and twice as seldom 2, and so on."""
        count = 1
        while self.random.random() < 0.5 and count < _FEW:
            count += 1
        return count

    def _edited(self, data: bytes, other: bytes) -> bytes:
        rand, length = self.random.random, len(data)
        at = int(rand() * (length + 1))
        end = min(length, at + 1 + int(rand() * _FEW))
        match int(rand() * 8):
            case 0 if at < length:
                return data[:at] + bytes((data[at] ^ 1 << int(rand() * 8),)) + data[at + 1 :]
            case 1:
                return data[:at] + self._number() + data[at + int(rand() * 9) :]
            case 2:
                number = self._number()
                return data[:at] + number + data[at + len(number) :]
            case 3:
                return data[:at] + data[end:]
            case 4:
                return data[:at] + data[at:end] * (1 + int(rand() * 4)) + data[end:]
            case 5:
                return data[:at] + self.random.randbytes(1 + int(rand() * _FEW)) + data[at:]
            case 6:
                there = int(rand() * (len(other or data) + 1))
                piece = (other or data)[there : there + 1 + int(rand() * 4 * _FEW)]
                return data[:at] + piece + data[at + len(piece) * int(rand() * 2) :]
            case _:
                return data[:at] if rand() < 0.2 else data[:at] + bytes(end - at) + data[end:]

    def _number(self) -> bytes:
        """Return a number at which computations overflow, or near it."""
        width = self.pick(_WIDTHS)
        value = self.pick(_EDGES) if self.random.random() < 0.7 else self.below(300)
        number: int = value % (1 << 8 * width)
        return number.to_bytes(width, "little" if self.below(2) else "big")

    def _within(self, node: Any, root: Any) -> Any:
        """Return a node in which something is another."""
        if not isinstance(node, dict | list) or not node or self.random.random() < _HERE:
            return self._other(node, root)
        if isinstance(node, dict):
            key = self.pick(list(node))
            return {**node, key: self._within(node[key], root)}
        at = self.below(len(node))
        return [*node[:at], self._within(node[at], root), *node[at + 1 :]]

    def _inside(self, node: Any) -> Any:
        """Return something that is in a node."""
        while isinstance(node, dict | list) and node and self.random.random() > _HERE:
            node = self.pick(list(node.values()) if isinstance(node, dict) else node)
        return node

    def _other(self, node: Any, root: Any) -> Any:
        """Return something in the place of a value."""
        choice = self.below(8)
        if isinstance(node, dict) and node and choice < 4:
            key = self.pick(list(node))
            rest = {name: item for name, item in node.items() if name != key}
            added = (rest, {**rest, self._text(key): node[key]}, {**node, self._text(key): self.pick(_ODD)})
            return self.pick(added)
        if isinstance(node, list) and node and choice < 4:
            at = self.below(len(node))
            return self.pick(
                (node[:at] + node[at + 1 :], [*node, node[at]], node[::-1], [*node[:at], self.pick(_ODD), *node[at:]])
            )
        if isinstance(node, str) and choice < 4:
            return self._text(node)
        if type(node) in {int, float} and choice < 4:
            return self.pick(
                (node + 1, node - 1, -node, node * 2, float(node) if abs(node) < 1 << 53 else 0, str(node))
            )
        if choice == 4:
            return self.pick(([node], {"a": node}, [node, node]))
        if choice == 5:
            return self._inside(root)
        return self.pick(_ODD)

    def _text(self, text: str) -> str:
        changed = self.data(text.encode("utf-8", "surrogatepass"))
        errors: str = self.pick(("replace", "ignore", "surrogateescape"))
        return changed.decode("utf-8", errors)


def check(read: Callable[[bytes], object], data: bytes, *, of_file: bool = True) -> None:
    """See that reading these bytes gives something, or an error of ours that helps.

    Parameters
    ----------
    of_file
        Whether the error is to say which file it is about.

    Raises
    ------
    AssertionError
        The error does not say that, or not what to do.
    BaseException
        Whatever is not an error of ours.
    """
    try:
        read(data)
    except QuantumMemoryError as error:
        assert error.path is not None or not of_file, f"{error!r} does not say which file"
        assert error.next_step, f"{error!r} does not say what to do"
