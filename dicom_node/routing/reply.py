"""Reply to the sender: from "who brought the study" to an address. Pure.

A delivery names its destination by a text. For a destination of the type `sender` this is a route, such as
"back: CT1 at 10.1.2.3": the destination's name, the AE title that called, the address that it called from. So every
sender has its own queue, breaker and memory. The port is looked up when something is sent, because the administrator
may add it later.
"""

from dataclasses import replace

from dicom_node.errors import ConfigurationError
from dicom_node.routing.configuration import Configuration
from dicom_node.routing.destination import Destination, DestinationTls
from dicom_node.senders import is_from

_COLON, _AT = ": ", " at "


def route_to_sender(destination: str, calling_ae_title: str, peer_host: str) -> str:
    """The route to whoever called so from there."""
    return f"{destination}{_COLON}{calling_ae_title}{_AT}{peer_host}"


def destination_of(configuration: Configuration, route: str) -> Destination:
    """Where to send: the destination of this name, or for a route its sender's, of the type dimse.

    Raises ConfigurationError that says what the rules file lacks.
    """
    name, _, peer = route.partition(_COLON)
    destination = configuration.destinations.get(name)
    if destination is None:
        raise ConfigurationError(f"destination {name} is not in the rules")
    if destination.type != "sender":
        return destination
    ae_title, _, host = peer.rpartition(_AT)
    address = reporting_address(configuration, ae_title, host)
    if address is None:
        raise ConfigurationError(
            f"no port is known for {ae_title} ({host}): "
            "give its entry in `senders` a port, or a destination its AE title"
        )
    tls = _tls_of(configuration, ae_title, *address) or destination.tls
    return replace(destination, name=route, type="dimse", host=address[0], port=address[1], ae_title=ae_title, tls=tls)


def reporting_address(configuration: Configuration, calling_ae_title: str, peer_host: str) -> tuple[str, int] | None:
    """Host and port at which the one who called takes associations; None: nobody has said.

    Its entry in `senders` if that has a port (with the entry's host if it is a single one, else the address that it
    called from), or the destination of this AE title, one on the same host first.
    """
    for sender in configuration.senders:
        if sender.port is not None and is_from(sender, calling_ae_title, peer_host):
            host = sender.hosts[0]
            is_single = len(sender.hosts) == 1 and host != "*" and "/" not in host
            return (host if is_single else peer_host), sender.port
    fitting = [d for d in configuration.destinations.values() if d.ae_title == calling_ae_title and d.port]
    fitting.sort(key=lambda destination: destination.host != peer_host)
    return (fitting[0].host, fitting[0].port) if fitting else None


def _tls_of(configuration: Configuration, ae_title: str, host: str, port: int) -> DestinationTls | None:
    known = configuration.destinations.values()
    return next((d.tls for d in known if (d.ae_title, d.host, d.port) == (ae_title, host, port)), None)
