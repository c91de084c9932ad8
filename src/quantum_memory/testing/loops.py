"""A loop in a child that is killed at a random moment, and what it has acknowledged by then."""

import contextlib
import os
import signal
import struct
import time
import warnings

from quantum_memory.durability import files


def killed_loop(loop, rng, longest, before_kill=lambda child: None):
    """Run a loop in a child, end it at a random moment, and return the numbers that it has acknowledged.

    `loop` is given the descriptor of a pipe: it writes 4 bytes when it has begun, and then each number with 4 bytes.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of others are no concern of the child
        child = os.fork()
    if child == 0:
        with files.using(files.RealFiles()):
            loop(writing)
    os.close(writing)
    os.read(reading, 4)  # it has begun
    time.sleep(rng.uniform(0, longest))
    before_kill(child)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    return struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4])
