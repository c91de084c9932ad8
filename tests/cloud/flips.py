"""Damage the objects of a repository, one at a time, and use it: ``python -m tests.cloud.flips refs FOLDER``.

In children, a new one where one dies: what reads the objects is a library that may end the process. It prints, as JSON,
how many changes were made, what came of them, and what must not: see `OUTCOMES`.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import quantum_memory as qm
from quantum_memory.errors import IntegrityError, QuantumMemoryError
from quantum_memory.formats.urls import URL
from quantum_memory.testing.damage import flip_bit
from quantum_memory.testing.faults import in_child

from ..reliability.loops.versions import answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KINDS = ("refs", "snapshots", "manifests", "chunks", "transactions")
OUTCOMES = {
    "damaged": "an `IntegrityError` says so",
    "refused": "another error of ours does",
    "unnoticed": "all that was saved is read, exactly",
    "other words": "so it is, but for what the history says of when and by whom it was written",
}
HANGS = 20.0
"""Seconds after which a use that has not ended counts as one that never does."""

SHORT = 64
"""Of objects of up to so many bytes every bit is flipped."""

FEW, FEWER = 16, 4
"""Of longer ones so many bits, evenly, and in the first bytes some more; of those that no version needs fewer."""


def memories() -> list[qm.MemoryState]:
    """Return two memories, of which the second has some of the first."""
    rng = np.random.default_rng(7)
    amplitudes = rng.normal(size=1 << 18).view(np.complex128)
    tree = {"w": rng.normal(size=(30, 40)), "few": np.arange(5), "empty": np.zeros((0, 3)), "a/b": ["x", 1.5, None]}
    first = qm.MemoryState(qm.StateVector(amplitudes / np.linalg.norm(amplitudes), qubit_order="big"), tree)
    other = first.quantum.amplitudes.copy()
    other[: 1 << 16] *= 1j
    return [first, qm.MemoryState(qm.StateVector(other, qubit_order="big"), {**tree, "few": np.arange(6)})]


def save(url: str) -> None:
    """Save the two, the first with a name, in two chunks."""
    for memory, name in zip(memories(), ("@one", ""), strict=True):
        state = memory.quantum
        assert isinstance(state, qm.StateVector)
        with qm.transaction(
            url + name,
            n_qubits=17,
            dtype=state.dtype,
            qubit_order="big",
            classical=memory.classical,
            chunk_bytes=1 << 20,
        ) as tx:
            part = tx.fork()
            part.write(0, state.amplitudes)
            tx.merge(part)


class Uses:
    """All that can be made of the repository, and what comes of it when nothing is wrong.

    Attributes
    ----------
    snapshots
        Of its versions, the newest first.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        first, second = memories()
        self._contents = {"": second.content_id, "@one": first.content_id}
        self.snapshots = [version.id for version in qm.repository(url).history()]
        self._words = self._said()
        assert self.tried() == "unnoticed"

    def tried(self, *, old: bool = False) -> str:
        """Use it, and return which of `OUTCOMES` it is; anything else is what must not be.

        Parameters
        ----------
        old
            Whether what is damaged is rather of the first version, which is then looked at first.
        """
        for name in sorted(self._contents, reverse=old):
            loaded = _said_of(lambda name=name: self._load(name))
            verified = _said_of(lambda name=name: self._verify(name))
            if loaded and not verified:
                return f"load says {loaded!r}, and verify says nothing"
            if error := loaded or verified:
                return _outcome(error)
        if error := _said_of(self._look):
            return _outcome(error)
        return "unnoticed" if self._said() == self._words else "other words"

    def _load(self, name: str) -> None:
        assert qm.load(self._url + name).content_id == self._contents[name], "it is something else"

    def _verify(self, name: str) -> None:
        assert qm.verify(self._url + name).content_id == self._contents[name], "it is verified to be something else"

    def _look(self) -> None:
        repository = qm.repository(self._url)
        found = [one.id for one in repository.history()]
        assert found == self.snapshots, found
        assert repository.tags() == {"one": self.snapshots[1]}
        assert repository.branches() == {"main": self.snapshots[0]}

    def _said(self) -> list[Any]:
        return [(one.message, one.written_at, one.metadata, one.tags) for one in qm.repository(self._url).history()]


def _said_of(use: Callable[[], object]) -> QuantumMemoryError | None:
    """Return the error of ours that a use ends with, if it does."""
    try:
        use()
    except QuantumMemoryError as error:
        said = error
    else:
        return None
    assert said.path, repr(said)
    assert said.next_step, repr(said)
    assert "\n" not in str(said), repr(said)
    return said


def _outcome(error: QuantumMemoryError) -> str:
    return "damaged" if isinstance(error, IntegrityError) else "refused"


def changes(content: bytes, few: int) -> Iterator[tuple[str, bytes | None]]:
    """Yield ways to change an object: how, and what it becomes; None: it is removed."""
    if len(content) <= SHORT:
        bits = [*range(8 * len(content))]
    else:
        places = {*range(0, len(content), max(1, len(content) // few)), *range(few // 8), len(content) - 1}
        bits = [8 * at + number % 8 for number, at in enumerate(sorted(places))]
    for bit in bits:
        yield f"bit {bit}", flip_bit(content, bit)
    rng = random.Random(len(content))
    for length in sorted({0, 1, len(content) // 2, len(content) - 1, *rng.choices(range(len(content)), k=few // 8)}):
        yield f"cut to {length}", content[:length]
    yield "longer", content + content[-16:]
    yield "zeros", bytes(len(content))
    yield "removed", None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("place", type=Path, help="an empty folder")
    parser.add_argument("--times", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(tried(options.kind, options.place, options.times)))  # noqa: T201


def tried(kind: str, place: Path, times: int) -> dict[str, Any]:
    """Change all objects of a kind in all ways, and return what came of it."""
    url = f"icechunk+file://{place}/run"
    answer(lambda: save(url))
    root = Path(URL.parse(url).key)
    whole = {str(path.relative_to(root)): path.read_bytes() for path in (root / kind).rglob("*") if path.is_file()}
    removed = _outcomes(root, url, [(path, None) for path in whole], place / "first")
    needed = {path for path, outcome in zip(whole, removed, strict=True) if outcome != "unnoticed"}
    cases = [
        (path, how, content)
        for path in whole
        for how, content in changes(whole[path], times * (FEW if path in needed else FEWER))
    ]
    outcomes = _outcomes(root, url, [(path, content) for path, _, content in cases], place / "second")
    found = [(path, how, outcome) for (path, how, _), outcome in zip(cases, outcomes, strict=True)]
    return {
        "objects": len(whole),
        "needed": len(needed),
        "changes": len(cases),
        "outcomes": Counter(outcome for path, _, outcome in found if path in needed),
        "of others": Counter(outcome for path, _, outcome in found if path not in needed),
        "wrong": [one for one in found if one[2] not in OUTCOMES],
    }


def _outcomes(root: Path, url: str, cases: list[tuple[str, bytes | None]], log: Path) -> list[str]:
    """Change one object after another, and return what came of each."""
    log.touch()

    def look(start: int) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        uses = Uses(url)
        with log.open("a", buffering=1, encoding="utf-8") as lines:
            for name, content in cases[start:]:
                path = root / name
                before = path.read_bytes()
                if content is None:
                    path.unlink()
                else:
                    path.write_bytes(content)
                signal.setitimer(signal.ITIMER_REAL, HANGS)
                try:
                    outcome = uses.tried(old="tag.one" in name or uses.snapshots[1] in name)
                except BaseException as error:
                    outcome = f"{type(error).__qualname__}: {error}"[:500]
                signal.setitimer(signal.ITIMER_REAL, 0)
                path.write_bytes(before)
                lines.write(json.dumps(outcome) + "\n")

    whole = {name: (root / name).read_bytes() for name, _ in cases}
    while (done := len(log.read_text(encoding="utf-8").splitlines())) < len(cases):
        status = in_child(lambda done=done: look(done))
        if status != 0:
            with log.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(f"the process has ended, with status {status}") + "\n")
            (root / cases[done][0]).write_bytes(whole[cases[done][0]])
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
