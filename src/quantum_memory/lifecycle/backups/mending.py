"""Mend the small files of a folder of backups: what holds for it as a whole, tags and pins, and what was checked."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import IntegrityError, MissingFileError, QuantumMemoryError
from quantum_memory.lifecycle.backups import manifest as manifests
from quantum_memory.lifecycle.backups.config import Config, new_config, read_copies, salvaged_config, write_config
from quantum_memory.lifecycle.backups.repairs import DAMAGE, UNREAD
from quantum_memory.lifecycle.repository.folder import REFS, Refs
from quantum_memory.lifecycle.repository.manifest_file import read_whole
from quantum_memory.lifecycle.repository.signed_json import MAX_BYTES, SEALED, unsealed
from quantum_memory.state.json_text import from_json, max_nodes, to_json

if TYPE_CHECKING:
    from collections.abc import Set

    from quantum_memory.lifecycle.backups.checks import CheckRecord, Checks
    from quantum_memory.lifecycle.backups.folder import BackupFolder
    from quantum_memory.lifecycle.backups.repairs import Repair


def mend_config(repair: Repair) -> bool:
    """See to it that both files are there that say which keys open a folder; False where nothing was ever saved.

    Raises
    ------
    IntegrityError, MissingFileError, StorageError, UnsupportedVersionError
        Nobody can tell any more which keys open it, or not now.
    WrongKeyError, ConflictError
        The key is not the one.
    """
    folder, copies = repair.folder, dict(read_copies(repair.folder.path))
    for error in copies.values():
        if isinstance(error, UNREAD):
            raise error
    good = next((copy for copy in copies.values() if isinstance(copy, Config)), None)
    if good is None:
        errors = [copy for copy in copies.values() if isinstance(copy, QuantumMemoryError)]
        if not errors and not folder.ids():
            return False
        good = _rebuilt(folder)
        if good is None:
            error = errors[0] if errors else MissingFileError("its config.json is gone", path=folder.path)
            error.next_step = "restore config.json or config-copy.json from a copy: they hold what opens it"
            raise error
    folder.use(good)
    wrong = {name: copy for name, copy in copies.items() if copy != good}
    for name, copy in wrong.items():
        how = "written anew" if any(one == good for one in copies.values()) else "made anew from what can be read"
        if isinstance(copy, QuantumMemoryError):
            repair.set_aside(name, moved=False)
            repair.mended(name, copy.message, how)
        else:
            repair.mended(name, "it is gone" if copy is None else "it says something else than the other one", how)
    if wrong and not repair.dry_run:
        write_config(folder.path, good)
    return True


def _rebuilt(folder: BackupFolder) -> Config | None:
    """Return what holds for a folder of which both files are damaged, where that can be proven; None where not."""
    if folder.key is not None:
        return salvaged_config(folder.path, folder.key)
    for one in folder.ids():  # not encrypted is what has manifests that can be read, and none that only look whole
        with contextlib.suppress(*DAMAGE), ReadableFile(folder.manifest_path(one)) as source:
            read_whole(source, manifests.KIND)
            try:
                manifests.read_manifest(source, one)
            except DAMAGE:
                return None
            return new_config(None)
    return None


def mend_refs(repair: Repair) -> None:
    """Save the tags that can be read; where any may be lost, pin what is there, so that no policy removes it."""
    folder = repair.folder
    there = set(folder.ids()) - repair.done.manifests.keys()
    try:
        if gone := folder.refs().missing(there):
            if there:
                _forget_missing(repair, there, gone)
            else:  # the whole folder may be elsewhere just now: then its tags are to be there when it comes back
                step = "put back the files that were in backups/"
                repair.left("refs.json", IntegrityError("; ".join(gone), next_step=step))
        return
    except DAMAGE as error:
        wrong = error.message
    text = _opened(folder, _bytes(folder, "refs.json")).decode("utf-8", "replace")
    refs, all_read = _refs(text, there)
    if not all_read:
        refs.pins = there
        for one in sorted(there):
            repair.then("unpin", f"unpin {one}")
    repair.set_aside("refs.json", moved=False)
    how = "written anew" if all_read else f"written anew, with {len(refs.tags)} tags that can be read; all are pinned"
    repair.mended("refs.json", wrong, how)
    if not repair.dry_run:
        folder.write_refs(refs)


def _forget_missing(repair: Repair, there: set[str], gone: list[str]) -> None:
    repair.set_aside("refs.json", moved=False)
    repair.mended("refs.json", "; ".join(gone), "written anew, without what is of them")
    if not repair.dry_run:
        refs = repair.folder.refs()
        refs.tags = {tag: one for tag, one in refs.tags.items() if one in there}
        refs.pins &= there
        repair.folder.write_refs(refs)


def mend_checks(repair: Repair, record: CheckRecord, whole: Set[bytes]) -> None:
    """Forget what was found of chunks that are elsewhere now.

    Parameters
    ----------
    record
        What remembers.
    whole
        Names of the chunks that can be read.
    """
    try:
        record.read_checks()
    except DAMAGE as error:
        repair.set_aside("checks.json", moved=True)
        repair.mended("checks.json", error.message, "begun anew")
    if repair.dry_run:
        return

    def change(checks: Checks) -> None:
        checks.bad &= repair.folder.store.known - whole
        for one in repair.done.lost:
            checks.verified.pop(one, None)

    if repair.done.mended:
        record.remember(change)


def _bytes(folder: BackupFolder, name: str) -> bytes:
    with ReadableFile(os.path.join(folder.path, name)) as source:
        return source.read(0, min(source.size, MAX_BYTES))


_SEALED = re.compile(rb'"%s":"([A-Za-z0-9+/=]*)"' % SEALED.encode())


def _opened(folder: BackupFolder, text: bytes) -> bytes:
    """Return damaged text, of what is sealed what it says: all of it, or nothing."""
    if folder.sealer is None:
        return text
    found = _SEALED.search(text)
    with contextlib.suppress(ValueError):
        if found is not None:
            return to_json(unsealed({SEALED: found[1].decode()}, folder.sealer, REFS))
    return b""


_TAG = re.compile(r'"([A-Za-z0-9][A-Za-z0-9._-]{0,127})":"([a-z0-9][a-z0-9._-]{0,127})"')


def _refs(text: str, there: set[str]) -> tuple[Refs, bool]:
    """Return what can be read of damaged tags and pins, and whether that is all, but for a letter in a name."""
    with contextlib.suppress(*DAMAGE, LookupError, TypeError, ValueError):
        said = from_json(text.encode(), max_nodes=max_nodes(8 * len(text)))
        refs = Refs(dict(said["tags"]), set(said["pins"]))
        if there.issuperset([*refs.tags.values(), *refs.pins]):
            return refs, True
    return Refs({tag: one for tag, one in _TAG.findall(text) if one in there}), False
