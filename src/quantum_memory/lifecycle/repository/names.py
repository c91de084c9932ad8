"""The names that people give to what is in a folder of manifests, and what they mean by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

from quantum_memory.errors import ConflictError, MissingError
from quantum_memory.lifecycle.repository.folder import H, check_name

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

    from quantum_memory.lifecycle.repository.folder import Refs
    from quantum_memory.lifecycle.repository.home import Home


class Names(Generic[H]):
    """Finds, tags and pins what is in a folder, or at an address.

    Parameters
    ----------
    folder
        Where it is.
    """

    def __init__(self, folder: Home[H]) -> None:
        self._of = folder

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Hold the folder together with others, where it is there: nothing is removed meanwhile."""
        return self._of.held()

    def resolve(self, said: str) -> str:
        """Return the id that is meant by an id, the beginning of one, a tag, or the name of exactly one.

        Raises
        ------
        MissingError, ConflictError
            It means none, or several.
        """
        there = self._of.ids()
        if said in there:
            return said
        if tagged := self._of.refs().tags.get(said):
            return tagged
        found = [one for one in there if one.startswith(said)] if said else []
        found = found or [one.id for one in self._of.listed()[0] if self.is_called(one, said)]
        if not found:
            raise self._of.missing(said)
        if len(found) > 1:
            raise ConflictError(
                f"{said!r:.80} means {len(found)} {self._of.kind.what}s",
                path=self._of.path,
                next_step=f"give an id: {', '.join(sorted(found)[-3:])}",
            )
        return found[0]

    def is_called(self, one: H, name: str) -> bool:  # noqa: ARG002 - some have names
        """Tell whether a head has a name of its own, and this is it."""
        return False

    def described(self, one: H, refs: Refs) -> dict[str, Any]:
        """Return what is known of a head, with ``tags`` and ``pinned``."""
        return {**vars(one), "tags": refs.tags_of(one.id), "pinned": one.id in refs.pins}

    def tag(self, said: str, tag: str) -> None:
        """Give one a name of its own; a tagged one is never removed by a policy."""
        check_name(tag, "tag")
        one = self._change_refs(said, lambda refs, one: refs.tags.__setitem__(tag, one))
        self._of.note("tagged", **{self._of.kind.what: one}, tag=tag)

    def untag(self, tag: str) -> None:
        """Take a tag away."""

        def taken_away(refs: Refs) -> None:
            if refs.tags.pop(tag, None) is None:
                raise MissingError(f"there is no tag {tag!r:.80}", path=self._of.path, next_step=self._of.list_hint)

        self._of.change_refs(taken_away)

    def pin(self, said: str) -> None:
        """Keep one whatever the policy says."""
        self._change_refs(said, lambda refs, one: refs.pins.add(one))

    def unpin(self, said: str) -> None:
        """Leave one to the policy again."""
        self._change_refs(said, lambda refs, one: refs.pins.discard(one))

    def _change_refs(self, said: str, change: Callable[[Refs, str], object]) -> str:
        """Change what is said of one, and return its id.

        Raises
        ------
        MissingError
            There is none, or others have just removed it, who could not know of this.
        """
        found = [""]

        def changed(refs: Refs) -> None:
            found[0] = self.resolve(said)
            change(refs, found[0])

        self._of.change_refs(changed)
        if found[0] not in self._of.ids():
            raise self._of.missing(found[0])
        return found[0]
