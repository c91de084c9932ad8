"""An operation that is done in the same way each time, down to the names that are made up and the time of the day.

What two accidents leave is then the same where it was not the accident that made it another, and is looked at once.
"""

import contextlib
import datetime
import itertools
import os
import random
import secrets
import threading
import time
from types import SimpleNamespace
from unittest import mock

from quantum_memory.formats import hdf5_storage
from quantum_memory.lifecycle.repository import folder
from quantum_memory.testing.operations import FromCopy

from ..figures import TIMES


class Alike(FromCopy):
    """What a room has to do is done in `act`.

    Attributes
    ----------
    going_on
        Of so many folders that accidents leave, one is gone on from, where each accident leaves another one, since
        files have numbers and times of their own. In the soak all are.
    """

    going_on, _accidents = 1, 0

    def keep(self):
        super().keep()
        self._kept_at = time.time_ns()

    def do(self):
        with alike(self._kept_at):
            self.act()

    def go_on(self):
        self._accidents += 1
        if TIMES > 1 or self._accidents % self.going_on == 0:
            super().go_on()

    def do_again(self):
        self.act()


@contextlib.contextmanager
def alike(begin):
    """Have random bytes, and the times that are written down, be the same each time, for a block."""
    rng, guard = random.Random(1), threading.Lock()
    times = itertools.count(begin, 1_000_000)

    def random_bytes(count):
        with guard:
            return rng.randbytes(count)

    def now(zone):
        return datetime.datetime.fromtimestamp(next(times) / 1e9, zone)

    with (
        mock.patch.object(secrets, "token_hex", lambda count: random_bytes(count).hex()),
        mock.patch.object(secrets, "token_bytes", random_bytes),
        mock.patch.object(os, "urandom", random_bytes),
        mock.patch.object(hdf5_storage, "time", SimpleNamespace(time_ns=lambda: next(times))),
        mock.patch.object(folder, "datetime", SimpleNamespace(datetime=SimpleNamespace(now=now), UTC=datetime.UTC)),
    ):
        yield
