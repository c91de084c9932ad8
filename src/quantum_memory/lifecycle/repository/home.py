"""What checkpoints, or backups, are kept in, as those who list, name and remove them see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from quantum_memory.lifecycle.repository.folder import H

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterable

    from quantum_memory.durability.chunk_collection import Collected
    from quantum_memory.errors import MissingError, QuantumMemoryError
    from quantum_memory.lifecycle.repository.folder import Refs
    from quantum_memory.lifecycle.repository.manifest_file import Kind


class Home(Protocol[H]):
    """Where checkpoints or backups are.

    Attributes
    ----------
    path
        Of the folder, or its address.
    kind
        What is in it.
    """

    path: str

    @property
    def kind(self) -> Kind: ...

    @property
    def is_there(self) -> bool:
        """Whether anything was ever saved in it."""

    # --- what is there

    def ids(self) -> list[str]:
        """Return the ids of all, in no order."""

    def listed(self) -> tuple[list[H], dict[str, QuantumMemoryError]]:
        """Return all heads in the order of saving, and what is wrong with those whose head cannot be read."""

    def manifest_path(self, one: str) -> str:
        """Return where one is, for people.

        Raises
        ------
        MissingError
            None can have this id.
        """

    def named(self, one: str) -> dict[str, Any]:
        """Return how the log names one."""

    @property
    def list_hint(self) -> str:
        """What to do when there is no such one."""

    def missing(self, one: str) -> MissingError:
        """Return the error of one that is not there."""

    # --- together with others

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Hold it together with others, where it is there: nothing is removed meanwhile, or what is read stays."""

    def alone(self, timeout: float = ...) -> contextlib.AbstractContextManager[None]:
        """Be the only one who removes something, for a block, where others have to be kept out for that.

        Raises
        ------
        ConflictError
            Others are at work all the time.
        """

    # --- names

    def refs(self) -> Refs:
        """Return tags and pins."""

    def change_refs(self, change: Callable[[Refs], object]) -> None:
        """Change tags and pins; nobody else changes them meanwhile.

        Parameters
        ----------
        change
            Changes what it is given; it may be called again, with what others have made of it.
        """

    # --- what goes

    def remove(self, ids: list[str]) -> None:
        """Remove some, durably; it is held alone."""

    def needed(self, without: Iterable[str] = ()) -> set[bytes]:
        """Return the names of the chunks that any needs, where that has to be known before something goes.

        Parameters
        ----------
        without
            Ids of those that are about to go.

        Raises
        ------
        IntegrityError
            Nobody knows it.
        """

    def collect(self, *, needed: set[bytes] | None = None) -> Collected:
        """Remove what none needs; it is held alone.

        Parameters
        ----------
        needed
            What `needed` gives, for who has just removed something: what takes long may then be left to the next time.
        """

    # --- the log

    def note(self, action: str, **facts: Any) -> None:
        """Take down what was done, for people."""

    def log(self) -> list[dict[str, Any]]:
        """Return what was done, the oldest first."""
