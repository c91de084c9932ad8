"""Kills at random instants: an acknowledged save is there, and what is there is whole."""

import os
import random
import signal
import struct
import time

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.durability.atomic import remove_leftovers

pytestmark = pytest.mark.soak

KILLS = int(os.environ.get("QMEM_SOAK_KILLS", "5000"))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("suffix", ["qms", "json", "json.zlib"])
def test_kills_at_random_instants(tmp_path, suffix):
    rng = random.Random(suffix)
    path, acknowledged, total, removed = tmp_path / f"state.{suffix}", 0, 0, 0
    qm.save(qm.MemoryState(classical={"generation": 0, "payload": np.zeros(2000, int)}), path)  # imports what it needs
    for _ in range(KILLS):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            generation = acknowledged
            while True:
                generation += 1
                content = {"generation": generation, "payload": np.full(2000, generation)}
                qm.save(qm.MemoryState(classical=content), path, durable=False)
                os.write(writing, struct.pack("<I", generation))
        os.close(writing)
        time.sleep(rng.uniform(0, 0.015))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as pipe:
            acks = [number for (number,) in struct.iter_unpack("<I", pipe.read())]
        total += len(acks)
        if acks or acknowledged:
            memory = qm.load(path)
            found = memory.classical["generation"]
            assert (memory.classical["payload"] == found).all()
            assert found >= max(acks, default=acknowledged)
            acknowledged = found
        removed += len(remove_leftovers(tmp_path))
        assert {entry.name for entry in tmp_path.iterdir()} <= {path.name}
    assert total > 0
    print(f"\n.{suffix}: {KILLS} kills, {total} acknowledged saves, 0 lost, 0 torn, {removed} leftovers removed")
