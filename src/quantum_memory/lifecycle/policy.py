"""What policies of when to save and of what to keep share: they read as the code that makes them, and are combined."""

from __future__ import annotations

import datetime
import math
import operator
import re
import zoneinfo
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, TypeVar, cast

from quantum_memory.errors import InvalidStateError

if TYPE_CHECKING:
    from typing import SupportsIndex

P = TypeVar("P", bound="Policy")

Mode = Literal["min", "max"]
"""Which of two values of a metric is the better one: the lower or the higher."""

_SECONDS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}


@dataclass(frozen=True, repr=False)
class Policy:
    """A few values, equal to any other of its class with the same, whose repr is the code that makes it."""

    def __repr__(self) -> str:
        given = [
            _written(value) if one.default is MISSING else f"{one.name}={_written(value)}"
            for one in fields(self)
            if (value := getattr(self, one.name)) != one.default
        ]
        return f"{type(self).__name__}({', '.join(given)})"


@dataclass(frozen=True, repr=False)
class Combined(Policy, Generic[P]):
    """Policies that act as one: in the order in which they were combined, and each of them once."""

    sign: ClassVar[str]

    parts: tuple[P, ...]

    def __repr__(self) -> str:
        return f" {self.sign} ".join(f"({one!r})" if isinstance(one, Combined) else repr(one) for one in self.parts)


def joined(kind: type[Combined[P]], *policies: P) -> P:
    """Return policies as one of a kind; those that are of that kind already are taken apart first."""
    parts = (policy.parts if isinstance(policy, kind) else (policy,) for policy in policies)
    once = tuple(dict.fromkeys(part for some in parts for part in some))
    return once[0] if len(once) == 1 else cast("P", kind(once))


def whole(value: SupportsIndex, name: str) -> int:
    """Return a number that a policy is made with; it is whole and at least 1.

    Raises
    ------
    InvalidStateError
        It is not.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise InvalidStateError(f"{name} is {value!r:.40}", next_step="give a whole number of at least 1")
    return number


def check_not_negative(value: float, name: str) -> None:
    """Refuse a number that a policy is made with, if it is negative or not finite.

    Raises
    ------
    InvalidStateError
        It is.
    """
    if not (isinstance(value, int | float) and 0 <= value < math.inf):
        raise InvalidStateError(f"{name} is {value!r:.40}", next_step="give a finite number that is not negative")


def check_mode(mode: str) -> None:
    """Refuse what is no `Mode`.

    Raises
    ------
    InvalidStateError
        It is neither.
    """
    if mode not in {"min", "max"}:
        raise InvalidStateError(f"mode is {mode!r:.40}", next_step='give "min" where lower is better, otherwise "max"')


def duration(given: str | float) -> datetime.timedelta:
    """Return a length of time.

    Raises
    ------
    InvalidStateError
        It is none, or it is not at least a microsecond.
    """
    seconds = None
    if isinstance(given, int | float):
        seconds = float(given)
    elif isinstance(given, str) and (found := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhdw])", given)):
        seconds = float(found[1]) * _SECONDS[found[2]]
    try:
        if seconds is not None and (length := datetime.timedelta(seconds=seconds)) > datetime.timedelta():
            return length
    except (OverflowError, ValueError):  # more days than there are, or NaN
        pass
    raise InvalidStateError(f"{given!r:.40} is no length of time", next_step='give one such as "12h", "7d" or "1w"')


def spelled(length: datetime.timedelta) -> str:
    """Return a length of time in the largest unit of which it is a whole number."""
    for unit, seconds in _SECONDS.items():
        if not length % datetime.timedelta(seconds=seconds):
            return f"{length // datetime.timedelta(seconds=seconds)}{unit}"
    whole_seconds, microseconds = divmod(length // datetime.timedelta(microseconds=1), 10**6)
    return f"{whole_seconds}.{microseconds:06}".rstrip("0") + "s"


def zone(name: str) -> datetime.tzinfo:
    """Return a time zone. UTC needs no list of them.

    Raises
    ------
    InvalidStateError
        There is none of that name.
    """
    if name == "UTC":
        return datetime.UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidStateError(
            f"no time zone {name!r:.40} is known here",
            next_step='give one such as "Europe/Berlin"; where none is known, install the package tzdata',
        ) from error


def _written(value: object) -> str:
    return f"{{{', '.join(map(repr, sorted(value)))}}}" if isinstance(value, frozenset) else repr(value)
