"""Open hostile files in a process of its own, which is watched: ``python child.py FILE...``.

One line of JSON for each file and verb: what was raised, how long it took, by how much the peak memory grew, and what
the interpreter was asked to do meanwhile that a reader has no business doing.
"""

import json
import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

import ml_dtypes  # those who have these types have loaded it before
import numpy as np
import torch

import quantum_memory as qm
from quantum_memory.errors import QuantumMemoryError

FORBIDDEN = (
    "exec", "compile", "import", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.",
    "socket.", "ctypes.dlopen", "ctypes.dlsym", "pickle.find_class", "os.remove", "os.rename", "os.mkdir", "os.link",
    "os.symlink", "os.truncate", "os.chmod", "shutil.", "urllib.", "code.__new__", "marshal.",
)  # fmt: skip
watched: list[str] = []
watching: list[str] = []  # the file that may be opened, while one is


def watch(event: str, arguments: tuple) -> None:
    if not watching:
        return
    if event.startswith(FORBIDDEN):
        watched.append(f"{event} {arguments!r:.200}")
    elif event == "open":
        path, _, flags = arguments
        if str(path) != watching[0] or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            watched.append(f"open {path!r} {flags:#o}")


def memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def open_and_touch(path: str) -> None:
    with qm.open(path) as file:
        repr(file)
        file.info()
        for lazy in file.arrays.values():
            lazy[..., :1] if lazy.shape else lazy[()]
        for touch in (lambda: file.amplitude([0]), file.quantum_sites, lambda: file.amplitudes[0]):
            with suppress(qm.InvalidStateError, qm.MissingError, IndexError):  # as a file of another kind of state says
                touch()
        file.load()


VERBS = {"load": qm.load, "verify": qm.verify, "info": qm.info, "open": open_and_touch}


def attempt(verb: str, path: str) -> dict:
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    before = memory("VmRSS")
    watched.clear()
    result: dict = {"file": path, "verb": verb, "error": None}
    start = time.monotonic()
    watching.append(path)
    try:
        VERBS[verb](path)
    except QuantumMemoryError as error:
        watching.clear()
        result |= {
            "error": type(error).__name__,
            "names": error.path,
            "next": error.next_step,
            "message": str(error)[:300],
        }
        result["exit_code"] = error.exit_code
    except BaseException as error:
        result |= {"error": f"foreign {type(error).__name__}", "message": str(error)[:300]}
    finally:
        watching.clear()
    result |= {"seconds": time.monotonic() - start, "grown": memory("VmHWM") - before, "watched": watched.copy()}
    return result


def main() -> None:
    honest = Path(sys.argv[1]).parent / "honest"
    tree = {"a": np.ones(1 << 18), "z": np.zeros(1 << 18), "t": torch.ones(2), "b": np.ones(2, ml_dtypes.bfloat16)}
    for suffix, codec in (("qms", "lz4"), ("qms", "zlib"), ("qms", "zstd"), ("json", "auto"), ("json.zlib", "auto")):
        qm.save(
            {"classical_data": tree, "quantum_data": {"state_vector": np.ones(2)}},
            f"{honest}.{suffix}",
            compression=codec,
        )
        for verb in VERBS.values():
            with suppress(qm.InvalidStateError):  # JSON is not read in part
                verb(f"{honest}.{suffix}")
        Path(f"{honest}.{suffix}").unlink()
    limit = memory("VmSize") + (2 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.addaudithook(watch)
    for path in sys.argv[1:]:
        for verb in VERBS:
            sys.stdout.write(json.dumps(attempt(verb, path)) + "\n")
            sys.stdout.flush()


main()
