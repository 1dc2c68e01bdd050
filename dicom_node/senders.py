"""Who may associate, what they may send, and how much at a time: the acceptor's questions, answered for all receivers.

The answers come from `senders.json` in the data directory, which the scheduler writes when the configuration changes.
"""

import ipaddress
import json
import socket
import threading
import time
from pathlib import Path

import structlog

from dicom_node.dimse.admission import NotAdmittedError, Reject
from dicom_node.pacing import Pace
from dicom_node.routing.sender import Sender
from dicom_node.slots import Slot, Slots

log = structlog.get_logger()

NAMES_KEPT_S = 60.0


class SenderAdmission:
    """One admitted association (dimse.admission.Admission)."""

    __slots__ = ("_pace", "_slot", "sender", "takes_only")

    def __init__(self, sender: Sender | None, slot: Slot | None, pace: Pace | None) -> None:
        self.sender = sender  # None: no senders are configured
        self.takes_only = frozenset(sender.sop_classes) if sender is not None and sender.sop_classes else None
        self._slot = slot
        self._pace = pace

    def takes(self, sop_class_uid: str) -> bool:
        """Whether objects of this storage SOP Class are taken from this sender."""
        if self.sender is not None and self.sender.is_archive:
            return False
        return self.takes_only is None or sop_class_uid in self.takes_only

    def pause_s(self, n_bytes: int) -> float:
        """Count one stored object; how long to leave the socket unread now, s. 0.0 for a sender without a rate."""
        return 0.0 if self._pace is None else self._pace.spend(n_bytes)

    def release(self) -> None:
        """The association is over; a second call does nothing."""
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.give_back()


class Senders:
    """The list of senders in force. Thread-safe.

    It is read again when its file changed, so that an import needs no restart, and it is there while the database is
    away. Without senders loopback is let in, with a warning. Archives that are asked for storage commitment stand at
    the end of the list: they may come to report.
    """

    def __init__(self, path: Path, ae_title: str, run_dir: Path) -> None:
        """path : senders.json. ae_title : the node's own. run_dir : for the files in which receivers count together."""
        self._path = path
        self._ae_title = ae_title
        self._run_dir = run_dir
        self._read_stamp: tuple[int, int, int] | None = None
        self._senders: tuple[Sender, ...] = ()
        self._lock = threading.Lock()

    def admit(self, calling_ae_title: str, called_ae_title: str, peer_host: str) -> SenderAdmission:
        """Let an association in: the first sender of the list that is meant decides.

        peer_host : address. May ask the name service, for a sender that is given by name and was not asked for in
        the last minute. Release the admission when the association is over.
        Raises NotAdmittedError.
        """
        calling, called = calling_ae_title.strip(), called_ae_title.strip()
        with self._lock:
            self._read_again_if_changed()
            senders = self._senders
        known = [sender for sender in senders if is_from(sender, calling, peer_host)]
        if not known and all(sender.is_archive for sender in senders):
            return self._admit_loopback(calling, called, peer_host)
        if not known:
            raise NotAdmittedError("sender not known", Reject.CALLING_AE_TITLE)
        for sender in known:
            if called in (sender.called_ae_titles or (self._ae_title,)):
                return self._admit_sender(sender)
        raise NotAdmittedError("called AE title is not ours", Reject.CALLED_AE_TITLE)

    def _admit_loopback(self, calling: str, called: str, peer_host: str) -> SenderAdmission:
        if called != self._ae_title:
            raise NotAdmittedError("called AE title is not ours", Reject.CALLED_AE_TITLE)
        address = _address(peer_host)
        if address is None or not address.is_loopback:
            raise NotAdmittedError("sender not known: no senders are configured", Reject.CALLING_AE_TITLE)
        log.warning("no senders are configured: loopback let in", calling_ae_title=calling)
        return SenderAdmission(None, None, None)

    def _admit_sender(self, sender: Sender) -> SenderAdmission:
        pace = slot = None
        try:
            if sender.max_objects_per_second or sender.max_megabytes_per_second:
                megabytes = sender.max_megabytes_per_second
                bytes_per_s = megabytes * 1e6 if megabytes else None
                pace = Pace(self._run_dir / f"{sender.key}.rate", sender.max_objects_per_second, bytes_per_s)
            if sender.max_associations is not None:
                slot = Slots(self._run_dir / f"{sender.key}.slots", sender.max_associations).take()
        except OSError as error:
            raise NotAdmittedError(f"limits cannot be kept: {error.strerror}", Reject.CONGESTION) from error
        if sender.max_associations is not None and slot is None:
            raise NotAdmittedError(
                f"{sender.max_associations} associations of this sender are open", Reject.LOCAL_LIMIT
            )
        return SenderAdmission(sender, slot, pace)

    def _read_again_if_changed(self) -> None:
        try:
            found = self._path.stat()
        except OSError:
            return  # never written, or out of reach: what was known last stays true
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if stamp == self._read_stamp:
            return
        try:
            self._senders = tuple(Sender.from_json(entry) for entry in json.loads(self._path.read_text("utf-8")))
            self._read_stamp = stamp
        except (OSError, ValueError, AttributeError, TypeError) as error:
            log.error("list of senders cannot be read; the last one stays in force", error=repr(error))


def is_from(sender: Sender, calling_ae_title: str, peer_host: str) -> bool:
    """Whether an entry of the list means the peer with this AE title and address. May ask the name service."""
    return sender.ae_title in ("*", calling_ae_title) and any(is_at(peer_host, host) for host in sender.hosts)


def is_at(peer_host: str, host: str) -> bool:
    """Whether an address is this address, in this network, or one of this name's. "*": any."""
    if host in ("*", peer_host):
        return True
    address = _address(peer_host)
    if address is None:
        return False
    try:
        network = ipaddress.ip_network(host, strict=False)
    except ValueError:
        return str(address) in _names.addresses(host)
    return address.version == network.version and address in network


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """IPv4 in its IPv6 form (a socket for both) is IPv4, and the zone of a link-local address is left out."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


class _Names:
    """Addresses of host names, kept for a minute.

    An old answer is given while a new one is asked for in the background, and stays when the name service is away:
    a sender that was known must not be refused for that.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, frozenset[str]]] = {}
        self._asking: set[str] = set()
        self._lock = threading.Lock()

    def addresses(self, name: str) -> frozenset[str]:
        """Addresses of a name; none while the name service has never known it."""
        with self._lock:
            known = self._known.get(name)
            if known is not None:
                if time.monotonic() - known[0] > NAMES_KEPT_S and name not in self._asking:
                    self._asking.add(name)
                    threading.Thread(target=self._ask, args=(name,), name="host-names", daemon=True).start()
                return known[1]
        return self._ask(name)

    def _ask(self, name: str) -> frozenset[str]:
        try:
            found = {str(entry[4][0]) for entry in socket.getaddrinfo(name, None)}
            addresses = frozenset(str(address) for text in found if (address := _address(text)) is not None)
        except OSError:
            with self._lock:
                addresses = self._known.get(name, (0.0, frozenset[str]()))[1]
        with self._lock:
            self._known[name] = (time.monotonic(), addresses)
            self._asking.discard(name)
        return addresses


_names = _Names()
