"""Read back what was pushed, and send anew what is damaged there and whole here."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import IntegrityError, QuantumMemoryError
from quantum_memory.lifecycle.backups.pushed import CLAIM, PART_BYTES, part_of, version_of
from quantum_memory.lifecycle.backups.pushed_checking import check
from quantum_memory.lifecycle.backups.pushed_owner import claim_of
from quantum_memory.lifecycle.backups.small_files import small_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.lifecycle.backups.pushing import Pusher

_NEXT = "look for another copy of these backups; what nothing needs goes with prune=True (--prune)"


def verify(pusher: Pusher, progress: Callable[[int], object] | None) -> None:
    """Read every object back, and write those anew that are damaged, as far as the folder has them."""
    target, done = pusher.target, pusher.done
    checked = check(target, progress)
    for key in checked.damaged:
        data = _bytes_of(pusher, key)
        if data is not None:
            target.replace(key, data)
            done.mended.append(key)
    if done.mended:
        checked = check(target, None)
    for key, why in checked.damaged.items():
        done.problems.append(IntegrityError(why, path=target.where(key), next_step=_NEXT))
    for one, why in checked.broken.items():
        done.problems.append(IntegrityError(f"the backup {one} cannot be pulled whole: {why}", path=target.name))


def _bytes_of(pusher: Pusher, key: str) -> bytes | None:
    """Return what an object is to be; None where the folder has that no more."""
    folder = pusher.folder
    if key == CLAIM:
        return claim_of(folder.known_config().id)
    try:
        if found := part_of(key):
            name, index = found
            with ReadableFile(os.path.join(folder.path, name)) as source:
                data = source.read(index * PART_BYTES, max(0, min(PART_BYTES, source.size - index * PART_BYTES)))
        elif small := version_of(key):
            data = small_here(folder, small)[0]
        else:
            return None
    except QuantumMemoryError:
        return None
    return data if key.endswith(hashlib.sha256(data).hexdigest()) else None
