"""Options that several verbs have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

allow_pickle = click.option("--allow-pickle", is_flag=True, help="Read pickles, from a list of what they may name.")


def reading_options(command: F) -> F:
    """Add ``--allow-pickle``, ``--state`` and ``--max-bytes``, which say how a file is read."""
    state = click.option("--state", "state_id", metavar="ID", help="Which state of a store that holds several.")
    most = click.option(
        "--max-bytes",
        type=click.IntRange(min=0),
        metavar="N",
        help="How much memory it may take; for JSON, how long it is.",
    )
    return allow_pickle(state(most(command)))
