"""How long it takes until anything happens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.harness import Row, medians, rounds


def run(quick: bool) -> list[Row]:
    """Time the import and the command line's help in fresh processes, beside an empty one."""
    qmem = Path(sys.executable).with_name("qmem")

    def started(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)

    found = medians(
        rounds(
            {
                "python": lambda: started(sys.executable, "-c", "pass"),
                "numpy": lambda: started(sys.executable, "-c", "import numpy"),
                "import": lambda: started(sys.executable, "-c", "import quantum_memory"),
                "save": lambda: started(sys.executable, "-c", "from quantum_memory import save"),
                "help": lambda: started(str(qmem), "--help"),
            },
            5 if quick else 15,
        )
    )
    return [
        Row("python -c pass", f"{found['python']:.3f} s", "", True),
        Row("import numpy", f"{found['numpy']:.3f} s", "", True),
        Row("import quantum_memory", f"{found['import']:.3f} s", "<= 0.25 s", found["import"] <= 0.25),
        Row("from quantum_memory import save", f"{found['save']:.3f} s", "<= 0.25 s", found["save"] <= 0.25),
        Row("qmem --help", f"{found['help']:.3f} s", "<= 0.3 s", found["help"] <= 0.3),
    ]
