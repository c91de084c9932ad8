"""Other libraries' states, by way of adapters that are found by their entry points.

An adapter is a module, or any object, with the attributes of `Adapter`. One is given to this package by an entry point
of the group ``quantum_memory.adapters``, whose name is the one that ``memory.to(name)`` takes. A value is recognised by
the package that its class comes from, so that no library is imported which the program has not imported itself.
"""

from __future__ import annotations

import functools
from importlib.metadata import entry_points
from typing import Any, Protocol

from quantum_memory.errors import InvalidStateError, MissingError

GROUP = "quantum_memory.adapters"
"""The group of the entry points."""


class Adapter(Protocol):
    """What an adapter has.

    It may have a function ``within(value)`` as well, which returns what a value is inside a tree, where not every array
    is a state; by default that is what `take` returns.

    Attributes
    ----------
    PACKAGES
        Names of the packages, as they are imported, whose values it may recognise.
    """

    PACKAGES: tuple[str, ...]

    def recognizes(self, value: object) -> bool:
        """Tell whether this is a value that `take` takes, of one of the packages."""

    def take(self, value: Any) -> Any:
        """Return a value as a quantum state or as a memory, without changing a number of it.

        Raises
        ------
        InvalidStateError
            It says something that cannot be kept.
        """

    def give(self, state: Any, **options: Any) -> Any:
        """Return a quantum state as what the library takes.

        Raises
        ------
        InvalidStateError
            The library has no such states, or not with these options.
        """


def names() -> list[str]:
    """Return the names that `given` takes."""
    return sorted(_found())


def adapter(name: str) -> Adapter:
    """Return an adapter by its name.

    Raises
    ------
    MissingError
        There is none.
    """
    found = _found()
    if name not in found:
        raise MissingError(f"there is no adapter {name!r:.40}", next_step=f"there are: {', '.join(names())}")
    return found[name]


def all_of_them() -> list[Adapter]:
    """Return all adapters."""
    return list(_found().values())


def adapter_of(value: object) -> Adapter | None:
    """Return the adapter that takes a value, or None."""
    packages = {kind.__module__.partition(".")[0] for kind in type(value).__mro__} - {"builtins"}
    fitting = (one for one in all_of_them() if packages.intersection(one.PACKAGES))
    return next((one for one in fitting if one.recognizes(value)), None)


def given(state: Any, name: str, **options: Any) -> Any:
    """Return a quantum state as what another library takes.

    Raises
    ------
    MissingError
        There is no adapter of this name, or the library is not installed.
    InvalidStateError
        The library has no such states, or not with these options.
    """
    one = adapter(name)
    try:
        return one.give(state, **options)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in one.PACKAGES:
            raise
        raise MissingError(f"{error.name} is not installed", next_step=f"pip install it to use to({name!r})") from error
    except TypeError as error:
        if options and "unexpected keyword argument" in str(error):
            raise InvalidStateError(f"to({name!r}) takes no such option: {error}", next_step="see its page") from error
        raise


@functools.cache
def _found() -> dict[str, Adapter]:
    return {entry.name: entry.load() for entry in entry_points(group=GROUP)}
