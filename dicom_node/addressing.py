"""Which results go where, in which order, and what goes instead of what a destination does not take."""

from collections.abc import Collection, Iterable, Sequence

import storage.associations
import storage.deliveries
import storage.destinations
import storage.results
from dicom_node.analysis import Answer
from dicom_node.encoding.package import FALL_BACKS, KINDS, Package
from dicom_node.routing.configuration import Configuration
from dicom_node.routing.reply import route_to_sender
from pipelines.catalogue import PIPELINES
from storage.database import Connection
from storage.deliveries import Order
from storage.records import Delivery, Job, Result

#: a destination that refused a SOP Class is not asked again for so long; then it may have been taught better
REFUSALS_KEPT_S = 86400.0
UNKNOWN_SENDER = "it is not known who sent the study, so nobody can be replied to"

_PLACES = {kind: place for place, kind in enumerate(KINDS)}


def place_of(kind: str) -> int:
    """Its place in the order in which the objects of one job are sent."""
    return _PLACES.get(kind, len(_PLACES))


def packages_for(configuration: Configuration, job: Job) -> dict[str, Package]:
    """What each destination of a job is to get; one that is not in the rules any more gets the usual.

    Of a part of an exam reports alone: the archive is not to keep regions and pictures of it.
    """
    known = configuration.destinations
    besides = PIPELINES[job.pipeline].objects if job.pipeline in PIPELINES else ()
    packages = {
        name: known[name].package(besides) if name in known else Package().with_kinds(besides) for name in job.send_to
    }
    return {name: package.reports_alone if job.partial else package for name, package in packages.items()}


def order(
    connection: Connection, configuration: Configuration, job: Job, answer: Answer, results: Sequence[Result]
) -> None:
    """Have a job's results delivered; to each destination the kinds that it wants, others kept as spares.

    What a destination was seen to refuse lately is replaced at once.
    """
    orders: dict[str, list[Order]] = {}
    for name, package in packages_for(configuration, job).items():
        route = _route(connection, configuration, job, name)
        state, reason = ("waiting", "") if route is not None else ("parked", UNKNOWN_SENDER)
        orders[route or name] = [
            Order(result.id, route or name, *((state, reason) if result.kind in package.kinds else ("spare", "")))
            for result in _for_package(results, answer, package)
        ]
    storage.deliveries.create(connection, [order for listed in orders.values() for order in listed], "cpu")
    for route in orders:
        refused = refusals(connection, route)
        for delivery in storage.deliveries.of_job(connection, job.id, route) if refused else ():
            if delivery.state == "waiting" and delivery.sop_class_uid in refused:
                reason = f"{refused[delivery.sop_class_uid]} (seen with an earlier object)"
                fall_back(connection, delivery, refused, None, reason)


def _for_package(results: Sequence[Result], answer: Answer, package: Package) -> Iterable[Result]:
    made_for = answer.packages.get(package)
    for result in sorted(results, key=lambda result: (result.place, result.id)):
        if result.kind in package.built and (made_for is None or result.sop_instance_uid in made_for):
            yield result


def _route(connection: Connection, configuration: Configuration, job: Job, name: str) -> str | None:
    """The destination as deliveries name it; None: a reply to nobody knows whom."""
    destination = configuration.destinations.get(name)
    if destination is None or destination.type != "sender":
        return name
    inputs = [uid for bound in job.inputs.values() for uid in bound["sop_instance_uids"]]
    brought_by = storage.associations.that_brought_last(connection, job.study_instance_uid, inputs)
    if brought_by is None:
        return None
    return route_to_sender(name, brought_by.calling_ae_title, brought_by.peer_host)


def refusals(connection: Connection, route: str) -> dict[str, str]:
    """SOP Classes that it was seen to refuse lately, and why."""
    seen = storage.destinations.refusals(connection, route, REFUSALS_KEPT_S)
    return {refusal.sop_class_uid: refusal.reason for refusal in seen}


def fall_back(
    connection: Connection, delivery: Delivery, refused: Collection[str], status: int | None, reason: str
) -> str:
    """Let something else of the same answer go instead, or park it if there is nothing. Says what was done.

    refused : SOP Classes that the destination does not take. What goes instead was built with the rest, so that every
    attempt sends the same bytes.
    """
    others = storage.deliveries.of_job(connection, delivery.job_id, delivery.destination)
    for kind in FALL_BACKS.get(delivery.kind, ()):
        instead = [
            other
            for other in others
            if other.kind == kind and other.state not in ("parked", "replaced") and other.sop_class_uid not in refused
        ]
        if instead:
            spares = [other.id for other in instead if other.state == "spare"]
            storage.deliveries.replace(connection, delivery.id, spares, status, f"{reason}; {kind} goes instead")
            return f"{kind} goes instead"
    storage.deliveries.park(connection, delivery.id, status, reason)
    return "nothing is there to go instead: parked"
