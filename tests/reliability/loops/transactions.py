"""A file that is changed in place, in transactions."""

import struct
from pathlib import Path

from quantum_memory.durability.transaction import TransactionFile
from quantum_memory.testing.loops import Acknowledge

NUMBER = struct.Struct("<Q")


def _stated(head: bytes) -> int:
    return NUMBER.unpack_from(head)[0]


def opened(path: Path, *, write: bool, durable: bool = False, timeout: float = 60.0) -> TransactionFile:
    """Open a file that begins with its length."""
    return TransactionFile(path, write=write, create=write, committed_length=_stated, durable=durable, timeout=timeout)


class Transactions:
    """A file of numbers, all the same, which is overwritten, cut off and appended to."""

    def __init__(self, place: Path) -> None:
        self.folder, self.path = place, place / "file"
        self._write(0, durable=True)

    def _write(self, version: int, *, durable: bool) -> None:
        body = NUMBER.pack(version) * (1 + version * 37 % 2000)
        length = NUMBER.size + len(body)
        with opened(self.path, write=True, durable=durable) as file:
            file.set_length(max(NUMBER.size, length // 2))
            file.write_at(body, NUMBER.size)
            file.set_length(length)
            file.write_at(NUMBER.pack(length), 0)
            file.commit()
            file.write_at(NUMBER.pack(version) * 200, length)  # the second transaction of the block
            file.write_at(NUMBER.pack(file.size), 0)

    def run(self, version: int, acknowledge: Acknowledge, *, durable: bool) -> None:
        while True:
            version += 1
            self._write(version, durable=durable)
            acknowledge(version)

    def check(self, acknowledged: int) -> int:
        with opened(self.path, write=False) as file:
            data = file.read(NUMBER.size, file.size - NUMBER.size)
        (version,) = set(NUMBER.iter_unpack(data))
        assert len(data) // NUMBER.size - (1 + version[0] * 37 % 2000) in {0, 200}
        return int(version[0])

    def end(self, version: int) -> None:
        self._write(version + 1, durable=False)
        assert self.check(version + 1) == version + 1
        assert [one.name for one in self.folder.iterdir()] == [self.path.name]
