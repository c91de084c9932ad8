"""Remove all checkpoints of one content at an address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantum_memory.errors import shell_word
from quantum_memory.lifecycle.repository.purging import elsewhere

if TYPE_CHECKING:
    from quantum_memory.lifecycle.checkpoints.cloud_home import CloudHome
    from quantum_memory.lifecycle.repository.folder import Refs
    from quantum_memory.lifecycle.repository.purging import Purged


def purge(home: CloudHome, content_id: str | None, done: Purged) -> list[str]:
    """Remove checkpoints with a content, whatever tags and policies say, and return their ids.

    What stays for now, or is not reached, is said in `done`.
    """
    repository = home.repository
    if repository is None:
        return []
    listed, bad = home.listed()
    refs = home.refs()
    gone = [one.id for one in listed if one.content_id == content_id]
    for one in gone:
        facts = {"tags": refs.tags_of(one), "pinned": one in refs.pins}
        done.checkpoints.append({"folder": home.path, "id": one, **facts})
    done.unreached += [f"the damaged checkpoint {one} in {home.path}: {error}" for one, error in bad.items()]
    done.unreached += elsewhere(home, set(gone))
    if gone and not done.dry_run:

        def without(refs: Refs) -> None:
            refs.tags = {tag: one for tag, one in refs.tags.items() if one not in gone}
            refs.pins = refs.pins - set(gone)

        home.change_refs(without)
        home.remove(gone)
        for one in gone:
            home.note("purged", checkpoint=one)
    if not done.dry_run:
        found = home.collect()
        done.chunks += found.chunks_removed
        done.nbytes += found.bytes_removed
    others = [
        f"the version {version.id} at {home.path}, which is no checkpoint"
        for version in repository.history()
        if "name" not in version.metadata and version.metadata.get("content_id") == content_id
    ]
    done.unreached += others
    if gone:
        done.unreached.append(
            f"objects at {home.path} that are younger than an hour, or in versions of others: "
            f"qmem checkpoint -C {shell_word(home.path)} gc removes them when nobody needs them any more"
        )
    return gone
