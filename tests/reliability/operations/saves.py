"""Saves of one file, in each format that is written; conversions; compression in the background."""

import stat

import numpy as np

import quantum_memory as qm
from quantum_memory.durability import atomic
from quantum_memory.errors import ConflictError
from quantum_memory.formats.background import BackgroundCompressor
from quantum_memory.testing.invariants import check_store

from .alike import Alike

KEY = qm.Key(bytes(range(32)), "hkdf-sha256")
WAYS = ("new", "over another", "only new")


def product(qubits: int) -> qm.StateVector:
    """Return a product of one-qubit states, which a form with a certificate makes smaller."""
    amplitudes = np.ones(1, complex)
    for qubit in np.random.default_rng(2).normal(size=(qubits, 4)):
        amplitudes = np.kron(amplitudes, qubit.view(complex) / np.linalg.norm(qubit))
    return qm.StateVector(amplitudes, qubit_order="little")


def ghz(qubits: int) -> qm.StateVector:
    """Return a state that a form makes smaller, and that is found soon."""
    amplitudes = np.zeros(1 << qubits, complex)
    amplitudes[[0, -1]] = 1 / np.sqrt(2)
    return qm.StateVector(amplitudes, qubit_order="little")


def noise(seed: int, which: str, numbers: int = 50) -> qm.MemoryState:
    """Return a memory that no form makes smaller."""
    rng = np.random.default_rng(seed)
    state = qm.StateVector(rng.normal(size=64).view(np.complex128), qubit_order="little")
    return qm.MemoryState(state, {"weights": rng.normal(size=numbers)}, metadata={"which": which})


OLD, NEW = noise(0, "old"), noise(1, "new")
GHZ = qm.MemoryState(ghz(8))
PRODUCT = qm.MemoryState(product(7))


class Save(Alike):
    """A save of a file.

    Parameters
    ----------
    way
        One of `WAYS`.
    options
        Of `quantum_memory.save`.
    """

    def __init__(self, place, suffix, way, state=NEW, **options):
        super().__init__(place)
        self.path, self.way, self.state, self.options = self.folder / f"state.{suffix}", way, state, options
        self.key, name = options.get("encrypt"), "state" if suffix == "h5" else ""
        self.old = {}
        if way == "over another":
            self.old = {name: qm.save(OLD, self.path, durable=False, encrypt=self.key).content_id}
        self.new = {name: state.content_id}
        self.keep()

    def act(self):
        qm.save(self.state, self.path, overwrite=self.way != "only new", **self.options)

    def check(self, *, done):
        pending = {name: [content] for name, content in self.new.items()}
        check_store(self.path, self.new if done else self.old, pending=pending, key=self.key)
        if self.key:  # nobody else may read what is encrypted, nor what is left over of it
            assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 for one in self.folder.iterdir())

    def do_again(self):
        try:
            self.act()
        except ConflictError:
            assert self.way == "only new"
        atomic.remove_leftovers(self.folder)  # where nothing was saved nobody looks for them


class SaveWithLoss(Save):
    """A save of a form with a certificate, whose content is another one in the file."""

    def __init__(self, place, way):
        super().__init__(place, "qms", way, PRODUCT, fidelity=0.99)
        self.new = {"": qm.save(PRODUCT, place / "known.qms", fidelity=0.99).content_id}


class Convert(Save):
    """A file is written anew in another format."""

    def __init__(self, place, way):
        super().__init__(place, "json", way)
        self._source = place / "source.qms"
        qm.save(NEW, self._source, durable=False)

    def act(self):
        qm.convert(self._source, self.path, overwrite=self.way != "only new")


class Background(Save):
    """A save whose file is made smaller in another thread, which writes through the same files."""

    def __init__(self, place, way):
        super().__init__(place, "qms", way, GHZ)

    def act(self):
        with BackgroundCompressor() as background:
            background.save(GHZ, self.path)


class Recompress(Save):
    """A file is packed anew, in place."""

    def __init__(self, place):
        super().__init__(place, "qms", "over another")
        qm.save(GHZ, self.path, compression="none", durable=False)
        self.old = self.new = {"": GHZ.content_id}
        self.keep()

    def act(self):
        qm.recompress(self.path, effort="fast")
