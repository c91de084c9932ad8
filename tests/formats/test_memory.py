"""Saving and loading need the state and little more: measured in children that save and load 256 MiB."""

import json
import subprocess
import sys
import textwrap

import pytest

MIB = 1 << 20
STATE = 256 * MIB
ALLOWED = STATE + 64 * MIB


def peak_of(work: str, folder, codec: str = "auto") -> int:
    """Return by how many bytes the peak resident memory of a child grew while it did `work`."""
    code = """
    import json, resource, sys
    import numpy as np, quantum_memory as qm
    from quantum_memory import load, save, verify, StateVector
    path, codec = sys.argv[1:]
    save(np.ones(4), path + ".warm.qms", compression="zstd"); load(path + ".warm.qms"); verify(path + ".warm.qms")
    status = lambda: dict(line.split()[:2] for line in open("/proc/self/status") if line[:2] == "Vm")
    before = int(status()["VmRSS:"])
    def random_state():
        state = np.empty(1 << 24, np.complex128)
        rng = np.random.default_rng(0)
        for i in range(0, len(state), 1 << 16):
            state[i : i + (1 << 16)].view(np.float64)[:] = rng.standard_normal(1 << 17)
        return state
    """
    end = """
    print(json.dumps(1024 * (int(status()["VmHWM:"]) - before)))
    """
    program = textwrap.dedent(code) + textwrap.dedent(work) + textwrap.dedent(end)
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder / "big.qms"), codec], capture_output=True, check=True, text=True
    )
    return int(json.loads(done.stdout))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("big")
    assert peak_of("save(StateVector(random_state(), qubit_order='big'), path, compression=codec)", folder) < ALLOWED
    yield folder
    (folder / "big.qms").unlink()


def test_loading_and_saving_again_need_the_state_and_little_more(folder):
    work = "memory = load(path); save(memory, path + '.again.qms', compression='lz4')"
    assert peak_of(work, folder) < ALLOWED
    (folder / "big.qms.again.qms").unlink()


def test_verifying_opening_and_looking_need_next_to_nothing(folder):
    assert peak_of("verify(path)", folder) < 64 * MIB
    assert peak_of("with qm.open(path) as f: f.amplitudes[::100_000]; f.amplitudes[5]", folder) < STATE + 16 * MIB
    assert peak_of("with qm.open(path) as f: f.amplitudes[7_000_000:7_100_000]", folder) < 16 * MIB
    assert peak_of("with qm.open(path) as f: whole = f.amplitudes[:]", folder) < ALLOWED


@pytest.mark.parametrize("codec", ["zlib", "lz4", "zstd"])
def test_compressible_states_are_no_different(tmp_path, codec):
    work = "state = np.zeros(1 << 24, np.complex128); state[::3] = 1; save(state, path, compression=codec)"
    work += "; del state; load(path)"
    assert peak_of(work, tmp_path, codec) < ALLOWED


def test_arrays_that_are_not_contiguous_are_not_copied_whole(tmp_path):
    work = "state = np.ones((4096, 4096), np.complex128)"
    work += "; save(qm.MemoryState(classical=state.T), path, compression='none')"
    assert peak_of(work, tmp_path) < ALLOWED
