"""Folders of everything that there can be in one, and what is in a folder."""

import contextlib
import os
import stat
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

from quantum_memory.lifecycle.backup_manager import BackupManager

LENGTHS = [0, 1, 511, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1]
LARGE = [(4 << 20) - 1, 4 << 20, (4 << 20) + 1]
PAST, FUTURE = -2_000_000_000_123_456_789, 13_000_000_000_123_456_789
"""1906, and 2381: what ext4 can say."""


class Thing(NamedTuple):
    """What is at a path.

    Attributes
    ----------
    kind
        "file", "folder" or "link".
    content
        Bytes of a file, the target of a link.
    mode, modified
        Of files and folders; of links only the time.
    """

    kind: str
    content: bytes | None
    mode: int
    modified: int


def manager(place, **options):
    return BackupManager(place / "backups", **{"durable": False, **options})


def looked_at(top):
    """Return everything in a file or folder, by its path as bytes; nothing is followed."""
    found = {}
    todo = [(b"", os.fsencode(top))]
    while todo:
        path, at = todo.pop()
        facts = os.lstat(at)
        mode, modified = stat.S_IMODE(facts.st_mode), facts.st_mtime_ns
        if stat.S_ISLNK(facts.st_mode):
            found[path] = Thing("link", os.readlink(at), 0, modified)  # noqa: PTH115 - as it is
        elif stat.S_ISREG(facts.st_mode):
            found[path] = Thing("file", Path(os.fsdecode(at)).read_bytes(), mode, modified)
        elif stat.S_ISDIR(facts.st_mode):
            found[path] = Thing("folder", None, mode, modified)
            todo += [(path + b"/" + name if path else name, at + b"/" + name) for name in os.listdir(at)]  # noqa: PTH208 - bytes
    return found


def seen(top):
    """Return the same without the times of folders, which others change, and the model of a disk does not follow."""
    return {
        path: thing._replace(modified=0) if thing.kind == "folder" else thing for path, thing in looked_at(top).items()
    }


@contextlib.contextmanager
def too_deep(folder):
    """Have folders in a folder that go deeper than a path can say, for a block."""
    begin, length, names = Path.cwd(), len(os.fsencode(folder)), []
    while length < 4096:
        # What can be listed ends at 3851 bytes, well below the limit of 4096, so that it can be restored elsewhere.
        names.append("d" * (min(250, 3599 - length) if length < 3590 else 250))
        length += 1 + len(names[-1])
    try:
        os.chdir(folder)
        for name in names:
            Path(name).mkdir()
            os.chdir(name)
        yield
    finally:
        for name in reversed(names):
            os.chdir("..")
            Path(name).rmdir()
        os.chdir(begin)


def shape(found):
    """Return what was looked at, without bytes."""
    return {path: thing.kind for path, thing in found.items()}


_PIECES = st.sampled_from(
    [b"a", b"b", b"-", b".", b" ", b"\n", b"'", b'"', b"\\", b"\xff", b"\xed\xb2\x80", "ü".encode(), "🜛".encode(),
     b"\x01", b"~", b"$(x)", b"*"]
)  # fmt: skip
NAMES = st.one_of(
    st.lists(_PIECES, min_size=1, max_size=4).map(b"".join),
    st.sampled_from([b"x" * 255, "é".encode() * 127 + b"!", b".x.0123456789abcdeg.qmtmp", b"lock", b"chunks", b"..."]),
).filter(lambda name: name not in {b".", b".."})
MODES = st.one_of(st.sampled_from([0o000, 0o200, 0o400, 0o644, 0o600, 0o755, 0o777]), st.integers(0, 0o777))
TIMES = st.one_of(
    st.sampled_from([PAST, -1, 0, 1, 999_999_999, FUTURE]), st.integers(1_000_000_000 * 10**9, 1_700_000_000 * 10**9)
)
TARGETS = st.one_of(
    NAMES, st.sampled_from([b".", b"..", b"/", b"/etc/passwd", b"../../../x", b"nowhere/at/all", b"a" * 1000])
)
FILES = st.tuples(st.just("file"), st.sampled_from(LENGTHS[:6]), st.integers(0, 255), st.booleans(), MODES, TIMES)
LINKS = st.tuples(st.just("link"), TARGETS, TIMES)
TREES = st.recursive(
    st.one_of(FILES, FILES, LINKS),
    lambda inner: st.tuples(st.just("folder"), st.dictionaries(NAMES, inner, max_size=4), MODES, TIMES),
    max_leaves=8,
)
FOLDERS = st.tuples(st.just("folder"), st.dictionaries(NAMES, TREES, max_size=5), MODES, TIMES)


def content(length, first, repeated):
    """Return bytes that follow from three numbers; not repeated, no two parts of them are the same."""
    if repeated:
        return bytes([first]) * length
    return b"".join(b"%08d%d" % (k, first) for k in range(length // 9 + 1))[:length]


def grow(at, tree):
    """Make of a description what it describes, at a path in bytes."""
    kind, *facts = tree
    if kind == "link":
        target, modified = facts
        os.symlink(target, at)  # noqa: PTH211 - as it is
        os.utime(at, ns=(modified, modified), follow_symlinks=False)
        return
    if kind == "folder":
        inside, mode, modified = facts
        Path(os.fsdecode(at)).mkdir()
        for name, one in inside.items():
            grow(at + b"/" + name, one)
    else:
        length, first, repeated, mode, modified = facts
        Path(os.fsdecode(at)).write_bytes(content(length, first, repeated))
    Path(os.fsdecode(at)).chmod(mode)
    os.utime(at, ns=(modified, modified))
