"""Sending results to destinations: one table from a destination's type to what sends there."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dicom_node.errors import ConfigurationError
from storage.records import Delivery


class Destination(Protocol):
    """What a sender needs to know of a destination of the configuration."""

    @property
    def name(self) -> str:
        """Name in the configuration."""

    @property
    def type(self) -> str:
        """Key of SENDERS."""


@dataclass(frozen=True)
class Outcome:
    """What became of one delivery."""

    delivered: bool
    status: int | None  #: DIMSE status, if the destination gave one
    reason: str  #: empty when delivered without a warning
    retry_soon: bool  #: the destination was away or busy: the usual back-off; else it said no to this object

    @classmethod
    def done(cls, status: int, reason: str = "") -> "Outcome":
        """The destination has it (Success, or a warning that `reason` describes)."""
        return cls(True, status, reason, False)

    @classmethod
    def refused(cls, status: int | None, reason: str, retry_soon: bool = False) -> "Outcome":
        """The destination said no."""
        return cls(False, status, reason, retry_soon)

    @classmethod
    def unreachable(cls, reason: str) -> "Outcome":
        """No answer: it may have the object or not."""
        return cls(False, None, reason, True)


Report = Callable[[Delivery, Outcome], None]
ReadPath = Callable[[str], Path]
#: (destination, deliveries, read_path, calling AE title, report)
Send = Callable[[Destination, Sequence[Delivery], ReadPath, str, Report], None]


def _dimse(
    destination: Destination, deliveries: Sequence[Delivery], read_path: ReadPath, calling: str, report: Report
) -> None:
    from dicom_node.delivery import dimse  # only a process that sends loads the network library

    dimse.send(destination, deliveries, read_path, calling, report)


#: destination type -> sender
SENDERS: dict[str, Send] = {"dimse": _dimse}


def send(
    destination: Destination,
    deliveries: Sequence[Delivery],
    *,
    read_path: ReadPath,
    calling_ae_title: str,
    report: Report,
) -> None:
    """Send a batch to one destination.

    read_path : path in the file store -> file.
    report : called after EACH object, so that what arrived stays delivered whatever happens to the rest; at the
        end every delivery has been reported once.
    Raises ConfigurationError for a destination type that is not known; network and peer never raise.
    """
    try:
        sender = SENDERS[destination.type]
    except KeyError:
        known = ", ".join(sorted(SENDERS))
        raise ConfigurationError(
            f"destination {destination.name}: type {destination.type} is not known (known: {known})"
        ) from None
    sender(destination, deliveries, read_path, calling_ae_title, report)


def pause_s(attempts: int, max_s: float, delivery_id: int = 0) -> float:
    """Seconds to wait after the `attempts`-th attempt (1 is the first): 1, 2, 4, 8 … up to `max_s`.

    Up to 10 % shorter, by a fixed amount per delivery and attempt, so that many do not come back at one moment.
    """
    longest = min(max_s, 2.0 ** min(max(attempts - 1, 0), 30))
    spread = zlib.crc32(f"{delivery_id}:{attempts}".encode()) / 2**32
    return longest * (1.0 - 0.1 * spread)
