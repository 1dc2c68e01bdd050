"""Instances and their series: what was received."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from storage.database import Connection, every, json_text, load_queries, text
from storage.records import Instance, Series

QUERIES = load_queries("instances")


@dataclass(frozen=True)
class Added:
    """What became of an Instance."""

    #: new: the first with this SOP Instance UID; same: these very bytes are indexed already; conflict: other bytes
    #: came first under this SOP Instance UID, both are kept
    outcome: Literal["new", "same", "conflict"]


@dataclass(frozen=True)
class Arrival:
    """One Instance to be indexed.

    series_header : DICOM JSON model (PS3.18 Annex F) without bulk data; kept from the first Instance that brings one.
    """

    instance: Instance
    series_header: Mapping[str, Any] = field(default_factory=dict)
    study_description: str = ""


def add(
    connection: Connection,
    instance: Instance,
    series_header: Mapping[str, Any] | None = None,
    study_description: str = "",
) -> Added:
    """Index one Instance; see `add_all`."""
    return add_all(connection, [Arrival(instance, series_header or {}, study_description)])[0]


def add_all(connection: Connection, arrivals: Sequence[Arrival]) -> list[Added]:
    """Index Instances with their studies and series, and decide whether each is new, the same again or a conflict.

    Three statements for all of them. They count as given one after the other: of two with one SOP Instance UID the
    first is the new one.
    A new Instance that is not ours makes its study due; "same" changes nothing but that the association took part.
    `Instance.is_conflict` is not read, the database decides; `received_at` None stands for its clock.
    Commit afterwards (and keep a transaction to one study): it holds the study's row.
    Raises psycopg.errors.ForeignKeyViolation when an association was not told by `associations.opened`.
    """
    outcomes: list[Added] = [Added("same")] * len(arrivals)
    left = list(enumerate(arrivals))
    while left:
        now: dict[str, tuple[int, Arrival]] = {}  # by SOP Instance UID, each once
        later = []
        for number, arrival in left:
            if arrival.instance.sop_instance_uid in now:
                later.append((number, arrival))
            else:
                now[arrival.instance.sop_instance_uid] = number, arrival
        for sop_instance_uid, outcome in _add_distinct(connection, [arrival for _, arrival in now.values()]).items():
            outcomes[now[sop_instance_uid][0]] = Added(outcome)
        left = later
    return outcomes


def _add_distinct(connection: Connection, arrivals: Sequence[Arrival]) -> dict[str, Literal["new", "same", "conflict"]]:
    """SOP Instance UID -> outcome, but for those that are the same."""
    connection.execute(QUERIES["add_parents"], _of_parents(arrivals))
    instances = [arrival.instance for arrival in arrivals]
    values = {
        "sop_instance_uids": [i.sop_instance_uid for i in instances],
        "sha256s": [i.sha256 for i in instances],
        "sop_class_uids": [i.sop_class_uid for i in instances],
        "series_instance_uids": [i.series_instance_uid for i in instances],
        "study_instance_uids": [i.study_instance_uid for i in instances],
        "transfer_syntax_uids": [i.transfer_syntax_uid for i in instances],
        "paths": [i.path for i in instances],
        "sizes_bytes": [i.size_bytes for i in instances],
        "attributes": [json_text(i.attributes) for i in instances],
        "association_ids": [i.association_id for i in instances],
        "received_ats": [i.received_at for i in instances],
        "are_ours": [i.is_ours for i in instances],
    }
    outcomes = dict(connection.execute(QUERIES["add_instances"], values).fetchall())
    news = [arrival for arrival in arrivals if outcomes.get(arrival.instance.sop_instance_uid) == "new"]
    if news:
        connection.execute(QUERIES["arrived"], _of_parents(news))
    return outcomes


def _of_parents(arrivals: Sequence[Arrival]) -> dict[str, list[Any]]:
    """What study and series are made of."""
    return {
        "study_instance_uids": [a.instance.study_instance_uid for a in arrivals],
        "series_instance_uids": [a.instance.series_instance_uid for a in arrivals],
        "association_ids": [a.instance.association_id for a in arrivals],
        "received_ats": [a.instance.received_at for a in arrivals],
        "are_ours": [a.instance.is_ours for a in arrivals],
        "modalities": [
            text(str(a.instance.attributes.get("Modality") or "") or _modality(a.series_header)) for a in arrivals
        ],
        "headers": [json_text(a.series_header) if a.series_header else "{}" for a in arrivals],
        "study_descriptions": [text(a.study_description) for a in arrivals],
    }


def _modality(header: Mapping[str, Any]) -> str:
    """Modality (0008,0060) in the DICOM JSON model, empty when absent."""
    values = header.get("00080060", {}).get("Value") or [""]
    return str(values[0] or "")


def for_study(connection: Connection, study_instance_uid: str) -> list[Instance]:
    """Every Instance of a study in order of arrival; conflicts and our own results are included and marked."""
    return every(connection, Instance, QUERIES["for_study"], {"study_instance_uid": study_instance_uid})


def by_sop_uid(connection: Connection, sop_instance_uid: str) -> list[Instance]:
    """What is stored under one SOP Instance UID: the first one received, then those in conflict with it."""
    return every(connection, Instance, QUERIES["by_sop_uid"], {"sop_instance_uid": sop_instance_uid})


def series_for_study(connection: Connection, study_instance_uid: str) -> list[Series]:
    """The series of a study, ordered by UID."""
    return every(connection, Series, QUERIES["series_for_study"], {"study_instance_uid": study_instance_uid})


def set_series_kind(
    connection: Connection, study_instance_uid: str, series_instance_uid: str, kind: str, reason: str
) -> None:
    """Keep what recognition said about a series."""
    values = {
        "study_instance_uid": study_instance_uid,
        "series_instance_uid": series_instance_uid,
        "kind": text(kind),
        "reason": text(reason),
    }
    connection.execute(QUERIES["set_series_kind"], values)


def needs_header(connection: Connection, study_instance_uid: str, series_instance_uid: str) -> bool:
    """Whether the next Instance of this series should bring a sample header (an optimisation, never a must)."""
    values = {"study_instance_uid": study_instance_uid, "series_instance_uid": series_instance_uid}
    row = connection.execute(QUERIES["has_header"], values).fetchone()
    return not (row and row[0])


def count(connection: Connection) -> int:
    """How many Instances are indexed, conflicts included."""
    row = connection.execute(QUERIES["count"]).fetchone()
    return int(row[0]) if row else 0


def sop_uids(connection: Connection, study_instance_uid: str) -> set[str]:
    """The SOP Instance UIDs stored of a study."""
    rows = connection.execute(QUERIES["sop_uids"], {"study_instance_uid": study_instance_uid}).fetchall()
    return {row[0] for row in rows}
