"""Options that several verbs have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from quantum_memory.cli.keys import key_options

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

_allow_pickle = click.option("--allow-pickle", is_flag=True, help="Read pickles, from a list of what they may name.")
_max_bytes = click.option(
    "--max-bytes",
    type=click.IntRange(min=0),
    metavar="N",
    help="How much memory it may take; for JSON, how long it is.",
)


def reading_options(command: F) -> F:
    """Add ``--allow-pickle``, ``--state``, ``--max-bytes`` and those of `key_options`, which say how a file is read."""
    state = click.option("--state", "state_id", metavar="ID", help="Which state of a store that holds several.")
    return _allow_pickle(state(_max_bytes(key_options(command))))


def source_options(command: F) -> F:
    """Add ``--allow-pickle``, ``--state`` and those of `key_options`."""
    state = click.option("--state", "state_id", metavar="ID", help="Which state of a store.")
    return _allow_pickle(state(key_options(command)))


def reading_options_of_two(command: F) -> F:
    """Add the same for two files, which the command calls A and B, with ``--state-a`` and ``--state-b``."""
    state_a, state_b = (
        click.option(f"--state-{one.lower()}", metavar="ID", help=f"Which state of {one}, a store that holds several.")
        for one in "AB"
    )
    return _allow_pickle(state_a(state_b(_max_bytes(key_options(command)))))
