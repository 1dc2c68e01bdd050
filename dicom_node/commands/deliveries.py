"""`dicom-node deliveries` and `dicom-node destinations`: what is on its way, what is stuck and why, and once more."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_node.commands.running_node import DataDir, database_of, settings_of
from dicom_node.errors import ConfigurationError, NodeError

if TYPE_CHECKING:  # the command line starts quickly: what a command needs is imported when it runs
    from dicom_node.routing.configuration import Configuration
    from dicom_node.routing.destination import Destination
    from storage.database import Connection
    from storage.destinations import DestinationState

deliveries_app = typer.Typer(help="Results on their way to destinations; without a command: those not arrived.")
destinations_app = typer.Typer(help="Destinations and how they are; without a command: all of them.")


@deliveries_app.callback(invoke_without_command=True)
def deliveries(
    context: typer.Context,
    parked: Annotated[bool, typer.Option("--parked", help="Only those that are not tried any more.")] = False,
    limit: Annotated[int, typer.Option(help="The newest so many.")] = 200,
    data_dir: DataDir = None,
) -> None:
    """What has not arrived, and why."""
    import storage.deliveries
    import storage.destinations
    from dicom_node.story import standing

    if context.invoked_subcommand is not None:
        return
    wanted = ["parked"] if parked else ["waiting", "sending", "parked"]
    with database_of(data_dir) as connection:
        found = storage.deliveries.listed(connection, wanted, limit)
        states = {state.name: state for state in storage.destinations.states(connection)}
    for delivery in reversed(found):
        status = "" if delivery.status is None else f", status 0x{delivery.status:04X}"
        why = [delivery.reason] if delivery.reason else []
        if delivery.state == "waiting":
            why += [text for text in [standing(states.get(delivery.destination))] if text and text not in why]
        print(
            f"{delivery.created_at:%Y-%m-%d %H:%M:%S}  {delivery.state:8}{delivery.destination}  {delivery.kind}  "
            f"study {delivery.study_instance_uid}  attempts {delivery.attempts}{status}"
            f"{': ' if why else ''}{'; '.join(why)}"
        )
    if not found:
        print("nothing is parked" if parked else "everything has arrived")


@deliveries_app.command("retry")
def retry(
    destination: Annotated[str | None, typer.Argument(help="Name in the rules.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Of every destination.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Try what is parked again, and what waits at once; ask archives again for what they did not commit."""
    import storage.commitment_requests
    import storage.deliveries
    import storage.destinations
    import storage.events

    if (destination is None) != everything:
        raise NodeError("name a destination, or give --all")
    with database_of(data_dir) as connection:
        if destination is not None:
            known = {name for name, _ in storage.deliveries.counts_by_destination(connection)}
            known |= _rules(connection).destinations.keys()
            if destination.partition(":")[0] not in known:
                raise NodeError(f"no destination {destination}; there is: {', '.join(sorted(known)) or 'none'}")
        count = storage.deliveries.unpark(connection, destination)
        storage.destinations.try_now(connection, destination)
        asked = storage.commitment_requests.ask_again(connection, destination)
        whose = destination or "all destinations"
        storage.events.add(connection, None, "destination", f"{whose}: {count} parked deliveries are tried again", {})
    print(f"{count} parked deliveries to {whose} are tried again; what waits is tried now")
    if asked:
        print(f"{asked} results are asked about again that were not committed")


@destinations_app.callback(invoke_without_command=True)
def destinations(
    context: typer.Context,
    echo: Annotated[bool, typer.Option("--echo", help="Also ask each DICOM destination by C-ECHO.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Where results go, and how it stands there."""
    import storage.commitment_requests
    import storage.deliveries
    import storage.destinations
    from dicom_node.addressing import REFUSALS_KEPT_S

    if context.invoked_subcommand is not None:
        return
    with database_of(data_dir) as connection:
        configuration = _rules(connection)
        counts = storage.deliveries.counts_by_destination(connection)
        commitments = storage.commitment_requests.counts(connection)
        states = {state.name: state for state in storage.destinations.states(connection)}
        refusals = storage.destinations.refusals(connection, None, REFUSALS_KEPT_S)
    names = list(dict.fromkeys([*configuration.destinations, *states, *(name for name, _ in counts)]))
    calling = settings_of(data_dir).ae_title if echo else ""
    for name in names:
        print("\n  ".join(_told(name, configuration, states.get(name), counts)))
        if committed := _committed(name, commitments):
            print(f"  {committed}")
        for refusal in refusals:
            if refusal.destination == name:
                print(f"  refuses {refusal.sop_class_uid}, seen {refusal.noticed_at:%m-%d %H:%M}: {refusal.reason}")
        if echo and (found := _asked(configuration, name, calling)):
            print(f"  {found}")
    if not names:
        print("no destinations are configured")


@destinations_app.command("forget")
def forget(
    name: Annotated[str, typer.Argument(help="Name in the rules.")],
    data_dir: DataDir = None,
) -> None:
    """Forget what a destination was seen to refuse: the next results are offered as they are again."""
    import storage.destinations

    with database_of(data_dir) as connection:
        count = storage.destinations.forget(connection, name)
    print(f"{name}: {count} refused SOP Classes forgotten")


def _rules(connection: "Connection") -> "Configuration":
    import storage.configurations
    from dicom_node.routing.configuration import Configuration, load_configuration

    current = storage.configurations.current(connection)
    return load_configuration(current.document) if current is not None else Configuration()


def _told(
    name: str,
    configuration: "Configuration",
    state: "DestinationState | None",
    counts: Mapping[tuple[str, str], int],
) -> Iterator[str]:
    from dicom_node.story import standing

    destination = configuration.destinations.get(name.partition(":")[0])
    yield f"{name}: {_address(destination) if destination is not None else 'not in the rules any more'}"
    if state is not None:
        yield standing(state) or "in order"
        answered = f"{state.answered_at.astimezone():%Y-%m-%d %H:%M:%S}" if state.answered_at else "never"
        yield f"last answer: {answered}"
    found = {state: count for (whose, state), count in counts.items() if whose == name}
    waiting = found.get("waiting", 0) + found.get("sending", 0)
    if found:
        yield f"waiting {waiting}, parked {found.get('parked', 0)}, arrived {found.get('done', 0)}"


def _committed(name: str, commitments: Mapping[tuple[str, str], int]) -> str:
    """What the archive said; empty for one that nothing was asked of."""
    found = {state: count for (whose, state), count in commitments.items() if whose == name}
    asked = sum(found.get(state, 0) for state in ("wanted", "asked", "sent_again"))
    words = f"committed {found.get('committed', 0)}, to be answered {asked}, NOT committed {found.get('failed', 0)}"
    return words if found else ""


def _address(destination: "Destination") -> str:
    if destination.type == "dimse":
        tls = " over TLS" if destination.tls is not None else ""
        return f"dimse {destination.ae_title} at {destination.host}:{destination.port}{tls}"
    return " ".join(text for text in (destination.type, destination.url, destination.path) if text)


def _asked(configuration: "Configuration", name: str, calling: str) -> str:
    """Answer to C-ECHO; empty for what is no DICOM application."""
    from dicom_node.delivery.dimse import tls_of
    from dicom_node.dimse.scu import echo
    from dicom_node.routing.reply import destination_of

    try:
        there = destination_of(configuration, name)
        if there.type != "dimse":
            return ""
        answer = echo(there.host, there.port, there.ae_title, calling, tls=tls_of(there))
    except ConfigurationError as error:
        return f"C-ECHO: {error}"
    return f"C-ECHO: {answer.reason}" if answer.seconds is None else f"C-ECHO: {answer.seconds * 1000:.0f} ms"
