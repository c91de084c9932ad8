"""Ctrl-C where it would do harm: what a process that lives on has then."""

import signal
import threading

import pytest

from quantum_memory.durability.files import RealFiles, current, using
from quantum_memory.durability.interrupts import holding, uninterrupted


@pytest.fixture
def ctrl_c():
    """Have Ctrl-C do here what it does in any program."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_waits_for_the_end_of_the_block(ctrl_c):
    done = []

    def work():
        with uninterrupted() as has_come:
            assert not has_come()
            ctrl_c()
            assert has_come()
            ctrl_c()
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done
    with pytest.raises(KeyboardInterrupt):  # as it was before
        ctrl_c()


def test_what_goes_wrong_in_the_block_is_known_from_the_interrupt(ctrl_c):
    def work():
        with uninterrupted():
            ctrl_c()
            raise ValueError("of the block")

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert isinstance(caught.value.__context__, ValueError)


def test_a_handler_of_the_programs_own_is_called_at_the_end_and_ends_nothing_early(ctrl_c):
    came = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    with uninterrupted() as has_come:
        ctrl_c()
        assert not has_come()  # it may mean anything
        assert came == []
    assert came == [signal.SIGINT]


def test_nothing_is_changed_in_another_thread_or_where_ctrl_c_is_ignored(ctrl_c):
    seen = []

    def look():
        with uninterrupted() as has_come:
            seen.append((signal.getsignal(signal.SIGINT), has_come()))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [(signal.default_int_handler, False)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with uninterrupted() as has_come:
        ctrl_c()
        assert not has_come()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_a_lock_that_nobody_knows_of_any_more_is_free():
    lock = threading.Lock()
    held = holding(lock)
    held.__enter__()
    assert lock.locked()
    del held  # as the frame is that was interrupted before it could note it
    assert not lock.locked()


def test_files_that_were_left_out_of_their_turn_do_not_come_back():
    before = current()
    outer = using(RealFiles())
    outer.__enter__()
    inner = using(RealFiles())
    inner.__enter__()
    outer.__exit__(None, None, None)  # the inner one was interrupted as it was to be left
    assert current() is before
    del inner
    assert current() is before


def test_files_that_were_never_left_go_with_who_had_them():
    before = current()
    block = using(RealFiles())
    block.__enter__()
    assert current() is not before
    del block
    assert current() is before
