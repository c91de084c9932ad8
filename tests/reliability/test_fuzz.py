"""Whatever any parser is given, nothing comes out but what it means or an error of ours.

Another seed gives other inputs: ``QMEM_SEED``. What fails is kept in ``corpus/``, to be tried each time.
"""

import hashlib
import os
from pathlib import Path

import pytest

from quantum_memory.errors import QuantumMemoryError
from quantum_memory.testing.fuzzing import Mutator, check

from .figures import TIMES, figure
from .targets import TARGETS

SEED = os.environ.get("QMEM_SEED", "0")
AT_ONCE = 400_000
CORPUS = Path(__file__).with_name("corpus")
PARTS = [(name, part) for name, target in TARGETS.items() for part in range(0, target.times, AT_ONCE)]


def kept(name: str, data: bytes) -> Path:
    """Keep an input that something went wrong with."""
    path = CORPUS / name.replace(" ", "-") / hashlib.sha256(data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.timeout(300 * TIMES)
@pytest.mark.parametrize(("name", "start"), PARTS)
def test_nothing_but_errors_of_ours_comes_out(name, start):
    target, mutator = TARGETS[name], Mutator(f"{SEED} {name} {start}")
    data = b""
    with figure("fuzzed") as made:
        try:
            for _ in range(TIMES * min(AT_ONCE, target.times - start)):
                data = target.make(mutator)
                check(target.read, data, of_file=target.of_file)
                made.count += 1
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # among them that of a test that takes too long, and those of foreign code
            error.add_note(f"{name}: {data[:2000]!r}, kept as {kept(name, data)}")
            raise


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}: {path.name}")
def test_what_was_found_once_is_never_found_again(path):
    target = TARGETS[path.parent.name.replace("-", " ")]
    check(target.read, path.read_bytes(), of_file=target.of_file)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_made_is_read_now_and_then(name):
    """Otherwise nothing might get past the door."""
    target, mutator = TARGETS[name], Mutator(name)
    for _ in range(2000):
        try:
            target.read(target.make(mutator))
        except QuantumMemoryError:
            continue
        return
    raise AssertionError("none of 2000 was read")
