"""A process that saves one version after another until it is ended: ``python -m tests.cloud.writer URL``.

It prints ``["try", number]`` before each, and ``["done", number]`` or ``["failed", number, error]`` after it. What has
failed is not tried again: the next version is another one.
"""

from __future__ import annotations

import itertools
import json
import os
import sys

import quantum_memory as qm
from quantum_memory.errors import QuantumMemoryError

from .numbered import numbered


def main() -> None:
    for number in itertools.count():
        _say("try", number)
        try:
            qm.save(numbered(os.getpid(), number), sys.argv[1])
        except QuantumMemoryError as error:
            _say("failed", number, f"{type(error).__name__}: {error}")
        else:
            _say("done", number)


def _say(*what: object) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
