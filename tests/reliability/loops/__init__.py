"""What writes until it is ended, by name, and how its ends are tried: in a process of their own.

The fork of a process takes as long as the process is large, and one that runs tests is large: here one imports what
one loop needs, and nothing else.
"""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from quantum_memory.testing.loops import Ends, Loop

ROOT = Path(__file__).parents[3]
LOOPS = {
    "save .qms": ("saves", "Saves", {"suffix": "qms"}),
    "save .qms, long": ("saves", "Saves", {"suffix": "qms", "length": 32_768}),
    "save .json": ("saves", "Saves", {"suffix": "json"}),
    "save .json.zlib": ("saves", "Saves", {"suffix": "json.zlib"}),
    "save .npz": ("saves", "Saves", {"suffix": "npz"}),
    "save .msgpack": ("saves", "Saves", {"suffix": "msgpack"}),
    "save .h5": ("saves", "Saves", {"suffix": "h5"}),
    "save and compress in the background": ("saves", "Background", {}),
    "transactions": ("transactions", "Transactions", {}),
    "store": ("stores", "Stores", {}),
    "samples": ("stores", "Samples", {}),
    "checkpoints": ("checkpoints", "Checkpoints", {}),
    "checkpoints in the background": ("checkpoints", "InBackground", {}),
    "backups": ("backups", "Backups", {}),
    "migrations": ("migrations", "Migrations", {}),
    "versions": ("versions", "Versions", {}),
    "versions with tags": ("versions", "Versions", {"tags": True}),
    "versions of parts": ("versions", "Versions", {"way": "transaction", "qubits": 17}),
    "versions of a server": ("versions", "OfServer", {}),
    "checkpoints at an address": ("versions", "AtAddress", {}),
    "checkpoints of a server": ("versions", "AtServer", {}),
    "versions of parts, of a server": ("versions", "OfServer", {"way": "transaction", "qubits": 17}),
}


def made(name: str, place: Path) -> Loop:
    """Make a loop in an empty folder."""
    module, kind, options = LOOPS[name]
    return getattr(import_module(f"{__name__}.{module}"), kind)(place, **options)


def tried(how: str, name: str, times: int, place: Path) -> Ends:
    """End a loop at so many random instants: see `__main__`."""
    command = [sys.executable, "-m", __name__, how, name, str(times), str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, acknowledged = json.loads(done.stdout)
    assert count == times
    assert acknowledged > count / 20, f"{acknowledged} were acknowledged before {count} ends, which shows nothing"
    return Ends(count, acknowledged)
