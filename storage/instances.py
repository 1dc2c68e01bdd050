"""Instances and their series: what was received."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from storage.database import Connection, every, jsonb, load_queries, text
from storage.records import Instance, Series

QUERIES = load_queries("instances")


@dataclass(frozen=True)
class Added:
    """What became of an Instance."""

    #: new: the first with this SOP Instance UID; same: these very bytes are indexed already; conflict: other bytes
    #: came first under this SOP Instance UID, both are kept
    outcome: Literal["new", "same", "conflict"]


def add(
    connection: Connection,
    instance: Instance,
    series_header: Mapping[str, Any] | None = None,
    study_description: str = "",
) -> Added:
    """Index one Instance with its study and series, and decide whether it is new, the same again or a conflict.

    series_header : DICOM JSON model (PS3.18 Annex F) without bulk data; kept from the first Instance that brings one.
    A new Instance that is not ours makes its study due; "same" changes nothing but that the association took part.
    `instance.is_conflict` is not read, the database decides; `received_at` None stands for its clock.
    Commit after each Instance (or keep a transaction to one study): it holds the study's row.
    Raises psycopg.errors.ForeignKeyViolation when the association was not told by `associations.opened`.
    """
    modality = str(instance.attributes.get("Modality") or "") or _modality(series_header or {})
    values = {
        "sop_instance_uid": instance.sop_instance_uid,
        "sop_class_uid": instance.sop_class_uid,
        "series_instance_uid": instance.series_instance_uid,
        "study_instance_uid": instance.study_instance_uid,
        "transfer_syntax_uid": instance.transfer_syntax_uid,
        "path": instance.path,
        "sha256": instance.sha256,
        "size_bytes": instance.size_bytes,
        "attributes": jsonb(instance.attributes),
        "association_id": instance.association_id,
        "received_at": instance.received_at,
        "is_ours": instance.is_ours,
        "modality": text(modality),
        "header": jsonb(series_header or {}),
        "study_description": text(study_description),
    }
    connection.execute(QUERIES["add_parents"], values)
    row = connection.execute(QUERIES["add_instance"], values).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM
    if row[0] == "new":
        connection.execute(QUERIES["arrived"], values)
    return Added(row[0])


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
