"""Processes that commit to one repository at once: ``python -m tests.cloud.committers save URL --each 25``.

They are forks of one that has imported what they need, and has done nothing with it. It prints how many versions there
are in the end, having looked at each.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import sys
import time
import traceback
import warnings
from typing import TYPE_CHECKING

import quantum_memory as qm
from quantum_memory.errors import ConflictError

from .numbered import QUBITS, SAVES, check_all, numbered

if TYPE_CHECKING:
    from collections.abc import Callable

    from .numbered import Number

PROCESSES = 4
PATIENCE = 250.0
"""Seconds that all of them may take."""

LONG = PROCESSES
"""Who holds a transaction all the while."""


class Child:
    """A fork that does some work, and says something as long as it does it.

    Parameters
    ----------
    work
        Given what is to be called with a line that is to be said.
    """

    def __init__(self, work: Callable[[Callable[[object], None]], None]) -> None:
        self._reading, writing = os.pipe()
        self._pid = os.fork()
        if self._pid:
            os.close(writing)
            return
        status = 1
        try:
            warnings.simplefilter("error")
            work(lambda what: (os.write(writing, json.dumps(what).encode() + b"\n"), None)[1])
            status = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)

    def said(self, end: float) -> list[object]:
        """Wait for its end, and return what it has said."""
        text = b""
        while select.select([self._reading], [], [], max(0.0, end - time.monotonic()))[0]:
            if not (more := os.read(self._reading, 1 << 16)):
                break
            text += more
        else:
            os.kill(self._pid, signal.SIGKILL)
        status = self._ended()
        assert status == 0, f"a process has ended with status {status}; before, it had said {text[-200:]!r}"
        return [json.loads(line) for line in text.splitlines()]

    def kill(self) -> None:
        """End it, if nobody has waited for its end."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self._ended()

    def _ended(self) -> int:
        os.close(self._reading)
        pid, self._pid = self._pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=SAVES)
    parser.add_argument("url")
    parser.add_argument("--each", type=int, default=25, help="how often each of them commits")
    parser.add_argument("--tags", action="store_true", help="each version has a name")
    parser.add_argument("--long", action="store_true", help="somebody else holds a transaction from before to after")
    options = parser.parse_args()
    print(race(options.way, options.url, options.each, tags=options.tags, long=options.long))  # noqa: T201


def race(way: str, url: str, each: int, *, tags: bool, long: bool) -> int:
    """Let all of them commit, and return how many versions there are, having looked at each."""
    end = time.monotonic() + PATIENCE
    going, done = os.pipe(), os.pipe()

    def commit(who: int, say: Callable[[object], None]) -> None:
        if long:
            os.read(going[0], 1)  # the other one has begun
        for number in range(each):
            at = f"{url}@w{who}-{number}" if tags else url
            SAVES[way](numbered(who, number), at)
            say([who, number])

    def hold(say: Callable[[object], None]) -> None:
        """Hold a transaction while the others commit; it comes too late, and its second try does not."""
        state = numbered(LONG, 0)
        for late in (True, False):
            try:
                with qm.transaction(url, n_qubits=QUBITS, qubit_order="little", classical=state.classical) as tx:
                    part = tx.fork()
                    part.write(0, state.quantum.amplitudes)
                    if late:
                        os.write(going[1], bytes(PROCESSES))
                        os.close(done[1])
                        os.read(done[0], 1)  # the others have ended
                    tx.merge(part)
            except ConflictError:
                assert late
            else:
                assert not late, "it has put a version in the place of those of others"
        say([LONG, 0])

    children: list[Child] = []
    try:
        if long:
            children.append(Child(hold))
        children += [Child(lambda say, who=who: commit(who, say)) for who in range(PROCESSES)]
        os.close(done[1])  # each of them holds it as long as it lives
        said = [number for child in reversed(children) for number in child.said(end)]
    finally:
        for child in children:
            child.kill()
    acknowledged: set[Number] = {(who, number) for who, number in said}
    assert len(acknowledged) == PROCESSES * each + long
    found = check_all(url, acknowledged)
    if tags:
        check_tags(url, acknowledged)
    return len(found)


def check_tags(url: str, acknowledged: set[Number]) -> None:
    """See that each version has the name that was given to it, and no other one."""
    content = {version.id: version.metadata["content_id"] for version in qm.repository(url).history()}
    tags = qm.repository(url).tags()
    expected = {f"w{who}-{number}": numbered(who, number).content_id for who, number in acknowledged if who != LONG}
    assert {name: content[snapshot] for name, snapshot in tags.items()} == expected
    assert set(qm.load(f"{url}@w0-0").classical) == {"who", "number", "payload"}


if __name__ == "__main__":
    main()
