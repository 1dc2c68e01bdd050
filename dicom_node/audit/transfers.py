"""From the index to the audit trail: what every association brought, once it has ended and is indexed."""

from collections.abc import Callable
from pathlib import Path

import pydicom
import structlog
from psycopg_pool import ConnectionPool

import storage.associations
from dicom_node.audit import events
from dicom_node.audit.trail import Trail
from storage.database import Connection
from storage.records import Association

log = structlog.get_logger()

_AT_A_TIME = 50


def note_transfers(trail: Trail, pool: "ConnectionPool[Connection]", read_path: Callable[[str], Path]) -> int:
    """Write the associations that have ended since the last call into the trail; returns how many there were.

    read_path : path in the file store -> file. Each is told once, or again when the process is killed in between.
    Raises what psycopg raises while the database is away.
    """
    with pool.connection() as connection:
        ended = storage.associations.not_audited(connection, _AT_A_TIME)
        for association in ended:
            _note_one(trail, connection, association, read_path)
        if ended:
            storage.associations.set_audited(connection, [association.association_id for association in ended])
    return len(ended)


def _note_one(trail: Trail, connection: Connection, association: Association, read_path: Callable[[str], Path]) -> None:
    studies: dict[str, dict[str, int]] = {}
    paths: dict[str, str] = {}
    for part in storage.associations.transferred(connection, association.association_id):
        counts = studies.setdefault(part.study_instance_uid, {})
        if part.sop_class_uid:
            counts[part.sop_class_uid] = part.instances
        if part.path:
            paths.setdefault(part.study_instance_uid, part.path)
    for study_instance_uid, counts in studies.items():
        path = paths.get(study_instance_uid)
        trail.note(
            events.instances_transferred(
                association.calling_ae_title,
                association.called_ae_title,
                association.peer_host,
                study_instance_uid,
                _patient_id(read_path(path)) if path else "",
                counts,
                association.closed_at or association.opened_at,
                association.state,
            )
        )


def _patient_id(path: Path) -> str:
    """Patient ID (0010,0020) of one file; the index does not hold it. Empty when it is not there."""
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
        return str(dataset.get("PatientID") or "")
    except Exception as error:  # noqa: BLE001 - foreign bytes; the record is made without
        log.warning("no Patient ID for the audit record", file=path.name, error=type(error).__name__)
        return ""
