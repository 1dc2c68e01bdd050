"""Errands on threads of their own."""

import threading
from collections.abc import Callable

from dicom_node.couriers import TO_ONE_PEER, Couriers


def test_who_hangs_holds_up_nobody_else(eventually: Callable[..., None]) -> None:
    couriers, go, done = Couriers(), threading.Event(), []
    hanging = threading.Semaphore(0)

    def hang() -> None:
        hanging.release()
        go.wait(20)

    for _ in range(3 * TO_ONE_PEER):
        couriers.send("slow", hang)
    for number in range(20):
        couriers.send(f"quick {number}", lambda number=number: done.append(number))  # type: ignore[misc]
    eventually(lambda: len(done) == 20, "everybody else was served")
    assert all(hanging.acquire(timeout=5) for _ in range(TO_ONE_PEER))
    assert not hanging.acquire(blocking=False)  # those beyond are not kept for later: the scheduler rings again
    go.set()
    eventually(lambda: not couriers._active, "all came back")
    couriers.send("slow", lambda: done.append(-1))
    eventually(lambda: -1 in done, "a new one")


def test_an_errand_that_breaks_is_over(eventually: Callable[..., None]) -> None:
    couriers, done = Couriers(), []

    def broken() -> None:
        raise ZeroDivisionError

    for _ in range(2 * TO_ONE_PEER):
        couriers.send("peer", broken)
    eventually(lambda: not couriers._active, "all came back")
    couriers.send("peer", lambda: done.append(1))
    eventually(lambda: done == [1], "the next one")
