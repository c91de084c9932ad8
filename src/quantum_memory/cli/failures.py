"""How a verb fails: with a sentence, what to do next, and an exit code that says what kind of failure it was.

====  =================================================================
code  meaning
====  =================================================================
0     done
1     unexpected
2     wrong usage or input
3     of several files, some failed and some did not, or differently
4     corrupt
5     a version that this release does not read
6     not found
7     conflict
8     input or output failed
9     refused as unsafe
10    encrypted, and not with the key that was given
130   interrupted
141   whoever read the output has closed the pipe
====  =================================================================

Of all but the first, the class of the error knows its code. One file has the code of its error; so have several that
all fail alike.
"""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING, Any

import click

from quantum_memory.cli.output import plain, print_json
from quantum_memory.errors import QuantumMemoryError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PARTIAL, INTERRUPTED, CLOSED_PIPE = 3, 130, 141


def exit_code(error: Exception) -> int:
    """Return the exit code that belongs to an error."""
    if isinstance(error, QuantumMemoryError | click.ClickException):
        return error.exit_code
    return StorageError.exit_code if isinstance(error, OSError) else 1


def describe(error: Exception) -> dict[str, Any]:
    """Return an error as the object that `--json` prints: type, message, path, next_step, exit_code."""
    message, path, next_step = str(error), None, None
    if isinstance(error, QuantumMemoryError):
        message, path, next_step = error.message, error.path, error.next_step
    elif isinstance(error, click.ClickException):
        message = error.format_message()
        context = getattr(error, "ctx", None)
        next_step = f"see {context.command_path if context else 'qmem'} --help"
    elif isinstance(error, OSError):
        message, path = error.strerror or message, error.filename
    else:
        message = f"unexpected {type(error).__name__}: {message}"
        next_step = "QMEM_TRACEBACK=1 qmem ... shows the rest"
    facts = {"message": message, "path": path, "next_step": next_step, "exit_code": exit_code(error)}
    return {"type": type(error).__name__, **facts}


def sentence(error: Exception) -> str:
    """Return what is wrong and what to do next, on one line or two."""
    facts = describe(error)
    where = "" if facts["path"] is None else f"{plain(facts['path'])}: "
    then = "" if facts["next_step"] is None else f"\n  Next: {plain(facts['next_step'])}."
    return f"{where}{plain(facts['message'])}.{then}"


def complain(error: Exception) -> None:
    """Say on standard error what is wrong; with QMEM_TRACEBACK set, also where in the code."""
    if os.environ.get("QMEM_TRACEBACK"):
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    click.echo(click.style("qmem: ", fg="red") + sentence(error), err=True)


def each_file(
    paths: Iterable[str],
    look: Callable[[str], dict[str, Any]],
    show: Callable[[dict[str, Any]], object],
    *,
    as_json: bool,
    fail: Callable[[Exception], object] | None = None,
) -> int:
    """Look at each file, show what was found and what failed, and return the exit code for all.

    An error goes to `fail`, which by default says it on standard error.
    With `as_json`, one object is printed instead: for one file what was found, or ``{"error": ...}``; for several
    ``{"files": [...]}`` of such objects.
    """
    found: list[dict[str, Any]] = []
    codes = set()
    for path in paths:
        try:
            facts = look(path)
        except Exception as error:
            if isinstance(error, QuantumMemoryError):
                error.at(path)
            codes.add(exit_code(error))
            found.append({"error": describe(error)})
            (complain if as_json or fail is None else fail)(error)
        else:
            codes.add(0)
            found.append(facts)
            if not as_json:
                show(facts)
    if as_json:
        print_json(found[0] if len(found) == 1 else {"files": found})
    return codes.pop() if len(codes) == 1 else PARTIAL
