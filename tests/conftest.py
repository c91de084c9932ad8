"""What holds for all tests."""

import os
import tempfile
from pathlib import Path

from hypothesis import settings

# A deadline would be an assertion about the machine.
settings.register_profile("quantum-memory", deadline=None)
settings.load_profile("quantum-memory")

MEMORY = Path("/dev/shm")
ENOUGH = 4 << 30


def _has_room(folder: Path) -> bool:
    try:
        facts = os.statvfs(folder)
    except OSError:
        return False
    return os.access(folder, os.W_OK) and facts.f_bavail * facts.f_frsize >= ENOUGH


# Tens of thousands of small files are written, and many synced: on a disk that is a third of the time, and shows
# nothing. What a disk may lose is tested on file systems of their own (`loop_disk`).
if "TMPDIR" not in os.environ and _has_room(MEMORY):
    tempfile.tempdir = os.environ["TMPDIR"] = str(MEMORY)
