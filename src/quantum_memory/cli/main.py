"""``qmem``: the command line. Each verb is a module of this package, imported when it runs."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

import click

from quantum_memory._version import __version__
from quantum_memory.cli import failures
from quantum_memory.cli.output import print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

_VERBS = {
    "demo": "Tell the whole story in a minute, on a path through PAD space.",
    "info": "Say what files hold, from their tables alone.",
    "verify": "Check every byte of files.",
    "compare": "Say what differs between two memories, and by how much.",
    "convert": "Write a memory in another format, and check it.",
    "versions": "List the versions at an address, name them, and go back to one.",
    "checkpoint": "Look at the checkpoints of a run, compare them, and prune them.",
    "backup": "Back up files and folders, check them, and give them back.",
    "purge": "Remove a memory from checkpoints and backups, chunks and all.",
    "migrate": "Make files of the first implementation new, with a way back.",
    "compress": "Look for a smaller form of saved states, with proof.",
    "bench": "Measure what compression makes of states, beside other codecs.",
}


class _Verbs(click.Group):
    """The verbs, of which only the one that was asked for is imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _VERBS:
            return None
        command: click.Command = getattr(import_module(f"quantum_memory.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Verbs"):
            formatter.write_dl(list(_VERBS.items()))


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 unexpected, 2 usage, 3 partly failed, 4 corrupt, 5 unsupported version, 6 not found, "
    "7 conflict, 8 input or output, 9 refused as unsafe, 10 wrong key or none, 130 interrupted.",
)
@click.version_option(__version__, prog_name="qmem", message="%(prog)s %(version)s")
def qmem() -> None:
    """Durable, certified storage of quantum states and the classical data around them."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; whatever happens is said in a sentence.

    Parameters
    ----------
    arguments
        Those after the name of the program; by default of this process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no failure
    try:
        code = _said(given)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        code = failures.CLOSED_PIPE
    except OSError as error:  # standard output itself: its disk is full
        _drop_output()
        failures.complain(error)
        code = failures.exit_code(error)
    if arguments is None and "icechunk" in sys.modules:
        _leave(code)
    return code


def _leave(code: int) -> NoReturn:
    """End the process without taking the interpreter down.

    Threads of the engine below may call into an interpreter that is gone, and abort the process, whose work is done.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _said(given: list[str]) -> int:
    """Run, and turn every exception but those of writing to standard output into a sentence and a code."""
    try:
        if "_QMEM_COMPLETE" in os.environ:
            from click.shell_completion import shell_complete

            return shell_complete(qmem, {}, "qmem", "_QMEM_COMPLETE", os.environ["_QMEM_COMPLETE"])
        with qmem.make_context("qmem", given) as context:
            code: int = qmem.invoke(context)
            return code
    except click.exceptions.Exit as finished:
        return finished.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("qmem: interrupted", err=True)
        return failures.INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        if "--json" in given:
            print_json({"error": failures.describe(error)})
        if isinstance(error, click.UsageError):
            error.show()
        else:
            failures.complain(error)
        return failures.exit_code(error)


def _drop_output() -> None:
    """Point standard output at nothing, so that Python does not fail once more when it flushes on leaving."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
