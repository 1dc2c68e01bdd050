"""What this node audits, as PS3.15 A.5.3 wants each event to be told; pure.

An association that is accepted has no message of its own in A.5.3: what it brought is told when it has ended and is
indexed (DICOM Instances Transferred), and one that brought nothing, such as a C-ECHO, leaves no record.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from dicom_node.audit.message import Code, Event, Outcome, Participant, Subject

_APPLICATION_ACTIVITY = Code("110100", "Application Activity")
_INSTANCES_TRANSFERRED = Code("110104", "DICOM Instances Transferred")
_SECURITY_ALERT = Code("110113", "Security Alert")
_START, _STOP = Code("110120", "Application Start"), Code("110121", "Application Stop")
_NODE_AUTHENTICATION = Code("110126", "Node Authentication")
_SECURITY_CONFIGURATION = Code("110129", "Security Configuration")
_APPLICATION = Code("110150", "Application")
_DESTINATION_ROLE, _SOURCE_ROLE = Code("110152", "Destination Role ID"), Code("110153", "Source Role ID")
_STUDY_INSTANCE_UID, _SOP_CLASS_UID = Code("110180", "Study Instance UID"), Code("110181", "SOP Class UID")
_NODE_ID = Code("110182", "Node ID")
_PATIENT_NUMBER = Code("2", "Patient Number", "RFC-3881")
_URI = Code("12", "URI", "RFC-3881")
_UNKNOWN = "(none)"


@dataclass(frozen=True)
class Told:
    """One kind of audit message that this node writes."""

    event: Code
    event_type: Code | None
    section: str  # of PS3.15
    when: str


#: Every kind of message, for the conformance statement.
TOLD: tuple[Told, ...] = (
    Told(_APPLICATION_ACTIVITY, _START, "A.5.3.1", "a receiver or the scheduler begins to work"),
    Told(_APPLICATION_ACTIVITY, _STOP, "A.5.3.1", "it ends"),
    Told(_INSTANCES_TRANSFERRED, None, "A.5.3.7", "an association has ended and what it brought is indexed, per study"),
    Told(_INSTANCES_TRANSFERRED, None, "A.5.3.7", "objects were answered with a failure, per SOP Class"),
    Told(_SECURITY_ALERT, _NODE_AUTHENTICATION, "A.5.3.11", "an association or a TLS handshake was turned away"),
    Told(_SECURITY_ALERT, _SECURITY_CONFIGURATION, "A.5.3.11", "rules, destinations and senders were put in force"),
    Told(_SECURITY_ALERT, None, "A.5.3.11", "audit records were lost"),
)


def started(ae_title: str, component: str) -> Event:
    """A part of the node began to work (A.5.3.1)."""
    return _activity(_START, ae_title, component)


def stopped(ae_title: str, component: str) -> Event:
    """It ended by itself or was told to (A.5.3.1)."""
    return _activity(_STOP, ae_title, component)


def _activity(kind: Code, ae_title: str, component: str) -> Event:
    process = Participant(str(os.getpid()), False, ae_title=ae_title, user_name=component, role=_APPLICATION)
    return Event(_APPLICATION_ACTIVITY, "E", Outcome.SUCCESS, (process,), type_code=kind)


def association_refused(
    ae_title: str, calling_ae_title: str, called_ae_title: str, peer_host: str, reason: str, repeated: int = 0
) -> Event:
    """An association request or a TLS handshake was turned away (A.5.3.11, Node Authentication).

    repeated : how many the same were turned away since the record before this one.
    """
    details = {"Alert Description": reason}
    if called_ae_title:
        details["Called AE title"] = called_ae_title
    if repeated:
        details["Repeated"] = str(repeated)
    return Event(
        _SECURITY_ALERT,
        "E",
        Outcome.MINOR_FAILURE,
        (
            Participant(str(os.getpid()), True, ae_title=ae_title),
            Participant(calling_ae_title or peer_host, False, peer_host, calling_ae_title),
        ),
        (Subject(calling_ae_title or peer_host, _NODE_ID, "2", "13", details=details),),
        type_code=_NODE_AUTHENTICATION,
        description=reason,
    )


def instances_transferred(
    calling_ae_title: str,
    called_ae_title: str,
    peer_host: str,
    study_instance_uid: str,
    patient_id: str,
    sop_classes: Mapping[str, int],
    at: datetime,
    state: str,
) -> Event:
    """One association brought images of one study, which are indexed now (A.5.3.7).

    sop_classes : SOP Class UID -> Instances that it was the first to bring; empty: all were here before.
    at : when it ended. state : how: "released", "aborted" or "lost".
    """
    details = {"Association": state}
    return Event(
        _INSTANCES_TRANSFERRED,
        "C" if sop_classes else "R",  # R: held already, no change needed
        Outcome.SUCCESS,
        (_sender(calling_ae_title, peer_host), _receiver(called_ae_title)),
        (
            Subject(study_instance_uid, _STUDY_INSTANCE_UID, "2", "3", details=details, sop_classes=sop_classes),
            Subject(patient_id or _UNKNOWN, _PATIENT_NUMBER, "1", "1"),
        ),
        at=at,
    )


def objects_refused(
    calling_ae_title: str, called_ae_title: str, peer_host: str, sop_class_uid: str, reasons: Mapping[str, int]
) -> Event:
    """Objects of one SOP Class were answered with a failure in one association (A.5.3.7, failed).

    Their study is not known: a refused Dataset is not read. reasons : status in words -> objects.
    """
    count = sum(reasons.values())
    details = {status: str(number) for status, number in reasons.items()}
    return Event(
        _INSTANCES_TRANSFERRED,
        "C",
        Outcome.MINOR_FAILURE,
        (_sender(calling_ae_title, peer_host), _receiver(called_ae_title)),
        (
            Subject(
                sop_class_uid or _UNKNOWN,
                _SOP_CLASS_UID,
                "2",
                "3",
                details=details,
                sop_classes={sop_class_uid or _UNKNOWN: count},
            ),
        ),
        description=f"{count} objects refused: {', '.join(reasons)}",
    )


def configuration_imported(ae_title: str, author: str, version: int) -> Event:
    """Rules, destinations and senders were put in force (A.5.3.11, Security Configuration)."""
    text = f"configuration version {version} imported"
    return Event(
        _SECURITY_ALERT,
        "E",
        Outcome.SUCCESS,
        (
            Participant(str(os.getpid()), False, ae_title=ae_title),
            Participant(author or _UNKNOWN, True),
        ),
        (Subject(f"configuration:{version}", _URI, "2", "13", details={"Alert Description": text}),),
        type_code=_SECURITY_CONFIGURATION,
    )


def records_lost(ae_title: str, count: int) -> Event:
    """Records could not be kept: the trail itself says so (A.5.3.11)."""
    text = f"{count} audit records were dropped"
    return Event(
        _SECURITY_ALERT,
        "E",
        Outcome.SERIOUS_FAILURE,
        (Participant(str(os.getpid()), True, ae_title=ae_title),),
        (Subject("audit", _NODE_ID, "2", "13", details={"Alert Description": text}),),
        description=text,
    )


def _sender(ae_title: str, host: str) -> Participant:
    return Participant(ae_title or host, True, host, ae_title, role=_SOURCE_ROLE)


def _receiver(ae_title: str) -> Participant:
    return Participant(str(os.getpid()), False, ae_title=ae_title, role=_DESTINATION_ROLE)
