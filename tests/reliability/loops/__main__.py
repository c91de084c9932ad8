"""End a loop at random instants: ``python -m tests.reliability.loops kill "save .qms" 1000 FOLDER``."""

import argparse
import json
import os
import random
import signal
from pathlib import Path

from quantum_memory.testing import loop_disk
from quantum_memory.testing.loop_disk import LoopDisk
from quantum_memory.testing.loops import Ends, cut_at_random, interrupt_and_go_on, interrupt_at_random, kill_at_random

from . import LOOPS, made

HOW = ["kill", "terminate", "interrupt", "go on", "exit", "EXT4", "EXT4_LEAST", "XFS"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("how", choices=HOW)
    parser.add_argument("name", choices=LOOPS)
    parser.add_argument("times", type=int)
    parser.add_argument("place", type=Path, help="an empty folder")
    options = parser.parse_args()
    ends = tried(options.how, options.name, options.times, options.place)
    print(json.dumps([ends.count, ends.acknowledged]))  # noqa: T201 - for who started it


def tried(how: str, name: str, times: int, place: Path) -> Ends:
    rng = random.Random(f"{os.environ.get('QMEM_SEED', '0')} {how} {name}")
    match how:
        case "kill":
            return kill_at_random(made(name, place), times, rng)
        case "terminate":
            return kill_at_random(made(name, place), times, rng, by=signal.SIGTERM)
        case "interrupt":
            return interrupt_at_random(made(name, place), times, rng)
        case "go on":
            return interrupt_and_go_on(made(name, place), times, rng)
        case "exit":
            return interrupt_at_random(made(name, place), times, rng, by=signal.SIGTERM)
    with LoopDisk(place, getattr(loop_disk, how)) as disk:
        on_it = disk.mount / "place"
        on_it.mkdir()
        return cut_at_random(made(name, on_it), disk, times, rng)


if __name__ == "__main__":
    main()
