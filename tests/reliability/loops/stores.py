"""An HDF5 store that is appended to."""

from pathlib import Path

import numpy as np

import quantum_memory as qm
from quantum_memory.testing.loops import Acknowledge

from .saves import strangers

KEPT = 2
EACH = 10


class Stores:
    """States are appended, and old ones deleted."""

    def __init__(self, place: Path) -> None:
        self.folder, self.path = place, place / "store.h5"
        self._append(0, durable=True)

    def _storage(self, *, durable: bool = False) -> qm.HDF5QuantumStorage:
        return qm.HDF5QuantumStorage(self.path, durable=durable, lock_timeout=20.0)

    def _append(self, version: int, *, durable: bool) -> None:
        content = {"version": version, "payload": np.full(300, version)}
        self._storage(durable=durable).save_quantum_state(qm.MemoryState(classical=content), f"s{version}")

    def _delete(self, version: int, *, durable: bool) -> None:
        storage = self._storage(durable=durable)
        for number in self._numbers():
            if number <= version - KEPT:
                storage.delete_state(f"s{number}")

    def _numbers(self) -> list[int]:
        return sorted(int(one["id"][1:]) for one in self._storage().list_states())

    def run(self, version: int, acknowledge: Acknowledge, *, durable: bool) -> None:
        while True:
            version += 1
            self._append(version, durable=durable)
            acknowledge(version)
            self._delete(version, durable=durable)

    def check(self, acknowledged: int) -> int:
        assert strangers(self.folder, self.path.name) == []
        numbers = self._numbers()
        last = numbers[-1]
        assert numbers == list(range(numbers[0], last + 1))
        assert numbers[0] <= max(0, last - KEPT + 1)
        storage = self._storage()
        for number in numbers:
            content = storage.load_quantum_state(f"s{number}").classical
            assert content["version"] == number
            assert (content["payload"] == number).all()
        return last

    def end(self, version: int) -> None:
        self._append(version + 1, durable=False)
        self._delete(version + 1, durable=False)
        assert self.check(version + 1) == version + 1
        assert [one.name for one in self.folder.iterdir()] == [self.path.name]


class Samples:
    """A series is appended to, so many samples a time."""

    def __init__(self, place: Path) -> None:
        self.folder, self.path = place, place / "store.h5"
        self._append(0, durable=True)

    def _append(self, version: int, *, durable: bool) -> None:
        with qm.HDF5QuantumStorage(self.path, durable=durable).time_series("x") as series:
            for number in range(EACH * version, EACH * (version + 1)):
                series.append(float(number))

    def run(self, version: int, acknowledge: Acknowledge, *, durable: bool) -> None:
        while True:
            version += 1
            self._append(version, durable=durable)
            acknowledge(version)

    def check(self, acknowledged: int) -> int:
        assert strangers(self.folder, self.path.name) == []
        values = qm.HDF5QuantumStorage(self.path).read_series("x").values
        assert np.array_equal(values, np.arange(len(values)))
        assert len(values) % EACH == 0
        return len(values) // EACH - 1

    def end(self, version: int) -> None:
        self._append(version + 1, durable=False)
        assert self.check(version + 1) == version + 1
        assert [one.name for one in self.folder.iterdir()] == [self.path.name]
