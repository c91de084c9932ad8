"""Open hostile files in a process of its own, which is watched: ``python child.py VERBS PATH VERBS PATH ...``.

One line of JSON for each path and verb: what was raised, how long it took, by how much the peak memory grew, and what
the interpreter was asked to do meanwhile that a reader has no business doing.
"""

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes  # those who have these types have loaded it before
import numpy as np
import torch

import quantum_memory as qm
from quantum_memory.errors import QuantumMemoryError
from quantum_memory.lifecycle.backup_manager import BackupManager
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.migration.plan import Plan

FORBIDDEN = (
    "exec", "compile", "import", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.",
    "socket.", "ctypes.dlopen", "ctypes.dlsym", "pickle.find_class", "os.remove", "os.rename", "os.mkdir", "os.link",
    "os.symlink", "os.truncate", "os.chmod", "shutil.", "urllib.", "code.__new__", "marshal.",
)  # fmt: skip
watched: list[str] = []
watching: list[str] = []  # the file that may be opened, while one is; of a folder, what is in it may be written to
KEY = qm.Key.from_file(Path(__file__).parents[1] / "golden" / "backups" / "key")


IN_FOLDERS = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "shutil.rmtree",
)


def is_inside(path: object) -> bool:
    return os.path.normpath(str(path)).startswith(f"{watching[0]}/")


def watch(event: str, arguments: tuple) -> None:
    if not watching:
        return
    if event == "open":
        path, _, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if not is_inside(path) and (str(path) != watching[0] or writes):
            watched.append(f"open {path!r} {flags:#o}")
    elif event.startswith(FORBIDDEN):
        paths = [one for one in arguments[event == "os.symlink" : 2] if isinstance(one, str | os.PathLike)]
        changes = event.startswith(IN_FOLDERS) and paths and all(map(is_inside, paths))
        if not changes and not (event == "os.chmod" and type(arguments[0]) is int):  # of a file that is open
            watched.append(f"{event} {arguments!r:.200}")


def memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def open_and_touch(path: str, **options: Any) -> None:
    with qm.open(path, **options) as file:
        repr(file)
        file.info()
        for lazy in file.arrays.values():
            lazy[..., :1] if lazy.shape else lazy[()]
        for touch in (lambda: file.amplitude([0]), file.quantum_sites, lambda: file.amplitudes[0]):
            with suppress(qm.InvalidStateError, qm.MissingError, IndexError):  # as a file of another kind of state says
                touch()
        file.load()


def with_options(**options: Any) -> dict[str, Callable[[str], object]]:
    bytes_alone = partial(qm.verify, depth="bytes")
    verbs = {
        "load": qm.load,
        "verify": qm.verify,
        "verify its bytes": bytes_alone,
        "info": qm.info,
        "open": open_and_touch,
    }
    return {name: partial(verb, **options) for name, verb in verbs.items()}


def of_checkpoints(work: Callable[[CheckpointManager], object]) -> Callable[[str], None]:
    def verb(path: str) -> None:
        with CheckpointManager(path, signals=False, durable=False) as manager:
            work(manager)

    return verb


def of_backups(work: Callable[[BackupManager], object]) -> Callable[[str], None]:
    def verb(path: str) -> None:
        with BackupManager(f"{path}/kept", durable=False) as manager:
            work(manager)

    return verb


def import_into_nothing(path: str) -> None:
    """Import backups into a folder that is not there, which hostile ones do not make."""
    with BackupManager(f"{path}.imported", durable=False) as manager:
        manager.import_backup(path)


def entries_of_a_plan(path: str) -> None:
    for _ in Plan.open(path).entries():
        pass


SECOND = "20260131_123015_250000_000002"
VERBS: dict[str, dict[str, Callable[[str], object]]] = {
    "state": with_options(),
    "state, verified": {"verify": qm.verify},
    "state with pickles": with_options(allow_pickle=True),
    "state with a key": with_options(key=KEY),
    "state with a passphrase": with_options(key="somebody's"),
    "checkpoints": {
        "restore": of_checkpoints(lambda manager: manager.restore(SECOND)),
        "list": of_checkpoints(lambda manager: (manager.list_checkpoints(), manager.get_statistics())),
        "verify": of_checkpoints(lambda manager: manager.verify()),
        "resume": of_checkpoints(lambda manager: manager.resume()),
    },
    "backups": {
        "restore": of_backups(
            lambda manager: manager.restore_backup(SECOND, f"{Path(manager.folder.path).parent}/restored")
        ),
        "list": of_backups(lambda manager: (manager.list_backups(), manager.get_backup_statistics())),
        "verify": of_backups(lambda manager: manager.verify()),
    },
    "export": {"import": import_into_nothing},
    "plan": {"read": entries_of_a_plan},
    "key": {"read": qm.Key.from_file},
}


def attempt(verbs: str, verb: str, path: str, *, first: bool) -> dict:
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    before = memory("VmRSS")
    watched.clear()
    result: dict = {"file": path, "verb": verb, "first": first, "error": None}
    start = time.process_time()  # of waiting without end, the parent takes note
    watching.append(path)
    try:
        VERBS[verbs][verb](path)
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
    result |= {"seconds": time.process_time() - start, "grown": memory("VmHWM") - before, "watched": watched.copy()}
    return result


def main() -> None:
    honest = Path(sys.argv[2]).parent / "honest"
    tree = {"a": np.ones(1 << 18), "z": np.zeros(1 << 18), "t": torch.ones(2), "b": np.ones(2, ml_dtypes.bfloat16)}
    for suffix, codec in (("qms", "lz4"), ("qms", "zlib"), ("qms", "zstd"), ("json", "auto"), ("json.zlib", "auto")):
        qm.save(
            {"classical_data": tree, "quantum_data": {"state_vector": np.ones(2)}},
            f"{honest}.{suffix}",
            compression=codec,
        )
        for verb in VERBS["state"].values():
            with suppress(qm.InvalidStateError):  # JSON is not read in part
                verb(f"{honest}.{suffix}")
        Path(f"{honest}.{suffix}").unlink()
    warm_up(honest, set(sys.argv[1::2]), {Path(path).suffix for path in sys.argv[2::2]})
    limit = memory("VmSize") + (2 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.addaudithook(watch)
    for verbs, path in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        for number, verb in enumerate(VERBS[verbs]):
            sys.stdout.write(json.dumps(attempt(verbs, verb, path, first=number == 0)) + "\n")
            sys.stdout.flush()


def warm_up(honest: Path, kinds: set[str], suffixes: set[str]) -> None:
    """Read whole files of every other kind that comes, so that what is imported for them is imported."""
    golden = Path(__file__).parents[1] / "golden"
    for suffix in suffixes & {".h5", ".npz", ".pkl", ".msgpack", ".b64"}:
        qm.save({"classical_data": np.ones(3)}, f"{honest}{suffix}")
        for verb in VERBS["state with pickles"].values():
            verb(f"{honest}{suffix}")
        Path(f"{honest}{suffix}").unlink()
    if kinds & {"state with a key", "state with a passphrase"}:
        qm.save(np.ones(2), f"{honest}.qms", encrypt=KEY)
        for verb in VERBS["state with a key"].values():
            verb(f"{honest}.qms")
        Path(f"{honest}.qms").unlink()
    for kind in kinds & {"checkpoints", "backups"}:
        shutil.copytree(golden / kind / "v1", honest / "kept" if kind == "backups" else honest)
        for verb in VERBS[kind].values():
            verb(str(honest))
        shutil.rmtree(honest)
    if "export" in kinds:
        import_into_nothing(str(shutil.copy(golden / "backups" / "v1.qmb", honest)))
        shutil.rmtree(f"{honest}.imported")
        honest.unlink()
    for data in (b"\x80\x04]q\0.", b"{}", b""):  # what the first implementation wrote is read by other code
        honest.write_bytes(data)
        for verb in VERBS["state with pickles"].values():
            with suppress(QuantumMemoryError):
                verb(str(honest))
    honest.unlink()


main()
