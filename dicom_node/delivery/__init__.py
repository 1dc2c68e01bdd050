"""Sending results to destinations: one table from a destination's type to what sends there."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from dicom_node.errors import ConfigurationError
from storage.records import Delivery


class Destination(Protocol):
    """What `send` needs to know of a destination of the configuration (routing.destination has the rest)."""

    @property
    def name(self) -> str:
        """Name in the configuration."""

    @property
    def type(self) -> str:
        """Key of SENDERS."""


class Fate(Enum):
    """What became of one delivery in one attempt, by what must happen next."""

    DELIVERED = "delivered"  # the destination has it
    REFUSED = "refused"  # it said no to this object, and would again: parked
    NOT_TAKEN = "not taken"  # it does not take objects of this kind: remembered, and what may go instead goes
    BUSY = "busy"  # it said: not now (out of resources): again, after a pause of this object's own
    UNANSWERED = "unanswered"  # the connection broke over it; it may have the object or not: again
    AWAY = "away"  # could not be asked, nothing of the object was sent: again, the attempt is not counted
    REJECTED = "rejected"  # wants nothing of us (our AE title is not known there): the same, after a long pause
    HELD = "held"  # not tried, since something before it did not arrive: the attempt is not counted


#: the destination gave an answer, so it is there
ANSWERS = frozenset({Fate.DELIVERED, Fate.REFUSED, Fate.NOT_TAKEN})
#: later objects of the same study may follow within the batch
_LETS_PASS = frozenset({Fate.DELIVERED, Fate.REFUSED})


@dataclass(frozen=True)
class Outcome:
    """What became of one delivery."""

    fate: Fate
    status: int | None = None  #: DICOM status (of C-STORE, or a reason of STOW-RS), if the destination gave one
    reason: str = ""  #: empty when delivered without a warning
    wait_s: float = 0.0  #: the destination asks for so long a pause before the next attempt

    @property
    def delivered(self) -> bool:
        """The destination has it."""
        return self.fate is Fate.DELIVERED


Report = Callable[[Delivery, Outcome], None]
ReadPath = Callable[[str], Path]


class Batch:
    """Deliveries for one destination. Iterating gives those that may be sent now, each when those before it have ended.

    The order within a study is kept: once one of its objects did not arrive, the later ones are not given any more.
    What was given must be reported before the next one is asked for.
    """

    def __init__(
        self, deliveries: Sequence[Delivery], report: Report, gives_way: Callable[[], bool] = lambda: False
    ) -> None:
        """`report` is called once for each delivery, at once.

        gives_way : asked after each; once it is true nothing more is given, for something else is to go first.
        """
        self.deliveries = tuple(deliveries)
        self._report = report
        self._left = {delivery.id: delivery for delivery in deliveries}
        self._held: dict[str, str] = {}  # study -> why
        self._gives_way = gives_way
        self._has_ended = False

    def __iter__(self) -> Iterator[Delivery]:
        for delivery in self.deliveries:
            if self.may_send(delivery):
                yield delivery

    def may_send(self, delivery: Delivery) -> bool:
        """Whether one may be sent now; for senders that send several at a time."""
        return not self._has_ended and delivery.id in self._left and delivery.study_instance_uid not in self._held

    def report(self, delivery: Delivery, outcome: Outcome) -> None:
        """Tell what became of one."""
        del self._left[delivery.id]
        if outcome.fate not in _LETS_PASS:
            self._held.setdefault(delivery.study_instance_uid, outcome.reason)
        self._report(delivery, outcome)
        self._has_ended = self._has_ended or (outcome.fate is Fate.DELIVERED and self._gives_way())

    def end(self, outcome: Outcome | None = None) -> None:
        """Report this of all that are left; None: they were held up."""
        for delivery in list(self._left.values()):
            self.report(delivery, outcome or Outcome(Fate.HELD))


#: (destination, batch, read_path, calling AE title): sends and reports what it can; what it leaves is held up
Send = Callable[[Destination, Batch, ReadPath, str], None]


def _dimse(destination: Destination, batch: Batch, read_path: ReadPath, calling: str) -> None:
    from dicom_node.delivery import dimse  # only a process that sends loads the network library

    dimse.send(destination, batch, read_path, calling)


def _stow(destination: Destination, batch: Batch, read_path: ReadPath, calling: str) -> None:
    from dicom_node.delivery import stow

    stow.send(destination, batch, read_path, calling)


def _folder(destination: Destination, batch: Batch, read_path: ReadPath, calling: str) -> None:
    from dicom_node.delivery import folder

    folder.send(destination, batch, read_path, calling)


#: destination type -> sender; a reply to the sender is a dimse destination once its address is known
SENDERS: dict[str, Send] = {"dimse": _dimse, "stow": _stow, "folder": _folder}


def send(
    destination: Destination,
    deliveries: Sequence[Delivery],
    *,
    read_path: ReadPath,
    calling_ae_title: str,
    report: Report,
    gives_way: Callable[[], bool] = lambda: False,
) -> None:
    """Send a batch to one destination.

    deliveries : in the order in which they may arrive. read_path : path in the file store -> file.
    report : called after EACH object, so that what arrived stays delivered whatever happens to the rest; at the
        end every delivery has been reported once.
    gives_way : asked after each object; true: the rest is not tried now, something else is to go first.
    Raises ConfigurationError for a destination type that is not known; network and peer never raise.
    """
    try:
        sender = SENDERS[destination.type]
    except KeyError:
        known = ", ".join(sorted(SENDERS))
        raise ConfigurationError(
            f"destination {destination.name}: type {destination.type} is not known (known: {known})"
        ) from None
    batch = Batch(deliveries, report, gives_way)
    sender(destination, batch, read_path, calling_ae_title)
    batch.end()


def pause_s(attempts: int, max_s: float, delivery_id: int = 0) -> float:
    """Seconds to wait after the `attempts`-th attempt (1 is the first): 1, 2, 4, 8 … up to `max_s`.

    Up to 10 % shorter, by a fixed amount per delivery and attempt, so that many do not come back at one moment.
    """
    longest = min(max_s, 2.0 ** min(max(attempts - 1, 0), 30))
    spread = zlib.crc32(f"{delivery_id}:{attempts}".encode()) / 2**32
    return longest * (1.0 - 0.1 * spread)
