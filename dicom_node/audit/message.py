"""Audit messages in the XML of PS3.15 A.5.1 (DICOM Audit Message Schema); pure."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from xml.etree.ElementTree import Element, SubElement, tostring

#: what XML 1.0 cannot carry; a peer may put it into an AE title
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Outcome(Enum):
    """EventOutcomeIndicator."""

    SUCCESS = "0"
    MINOR_FAILURE = "4"  # the security of the node held
    SERIOUS_FAILURE = "8"


@dataclass(frozen=True)
class Code:
    """A coded value, PS3.16 Annex D unless `system` says otherwise."""

    value: str
    meaning: str
    system: str = "DCM"


@dataclass(frozen=True)
class Participant:
    """ActiveParticipant: a person or process that took part."""

    user_id: str
    is_requestor: bool
    host: str = ""  # address
    ae_title: str = ""
    user_name: str = ""
    role: Code | None = None


@dataclass(frozen=True)
class Subject:
    """ParticipantObjectIdentification: what it was about."""

    object_id: str
    id_type: Code
    type_code: str  # 1 person, 2 system object
    role: str  # A.5.1.2.2: 1 patient, 3 report (a study), 13 security resource
    name: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    sop_classes: Mapping[str, int] = field(default_factory=dict)  # SOP Class UID -> instances


@dataclass(frozen=True)
class Event:
    """One audit message, without the source that reports it."""

    code: Code
    action: str  # C create, R read, U update, D delete, E execute
    outcome: Outcome
    participants: tuple[Participant, ...]  # one at least
    subjects: tuple[Subject, ...] = ()
    type_code: Code | None = None
    description: str = ""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


def as_xml(event: Event, source_id: str, site: str = "") -> str:
    """The AuditMessage element, on one line.

    source_id : AuditSourceID, the node. site : AuditEnterpriseSiteID, the hospital or part of it; empty: left out.
    """
    message = Element("AuditMessage")
    identification = SubElement(
        message,
        "EventIdentification",
        EventActionCode=event.action,
        EventDateTime=event.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        EventOutcomeIndicator=event.outcome.value,
    )
    _coded(identification, "EventID", event.code)
    if event.type_code is not None:
        _coded(identification, "EventTypeCode", event.type_code)
    if event.description:
        SubElement(identification, "EventOutcomeDescription").text = _clean(event.description)
    for participant in event.participants:
        _add_participant(message, participant)
    source = SubElement(message, "AuditSourceIdentification", AuditSourceID=_clean(source_id))
    if site:
        source.set("AuditEnterpriseSiteID", _clean(site))
    SubElement(source, "AuditSourceTypeCode", {"csd-code": "4"})  # application server process
    for subject in event.subjects:
        _add_subject(message, subject)
    return tostring(message, encoding="unicode")


def _add_participant(message: Element, participant: Participant) -> None:
    element = SubElement(
        message,
        "ActiveParticipant",
        UserID=_clean(participant.user_id),
        UserIsRequestor="true" if participant.is_requestor else "false",
    )
    if participant.ae_title:
        element.set("AlternativeUserID", f"AETITLES={_clean(participant.ae_title)}")  # A.5.2.2
    if participant.user_name:
        element.set("UserName", _clean(participant.user_name))
    if participant.host:
        element.set("NetworkAccessPointID", _clean(participant.host))
        element.set("NetworkAccessPointTypeCode", "2")  # IP address
    if participant.role is not None:
        _coded(element, "RoleIDCode", participant.role)


def _add_subject(message: Element, subject: Subject) -> None:
    element = SubElement(
        message,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_clean(subject.object_id),
        ParticipantObjectTypeCode=subject.type_code,
        ParticipantObjectTypeCodeRole=subject.role,
    )
    _coded(element, "ParticipantObjectIDTypeCode", subject.id_type)
    # the schema wants a name or a query; the identifier stands in, as an empty name would be no token
    SubElement(element, "ParticipantObjectName").text = _clean(subject.name or subject.object_id)
    for name, value in subject.details.items():
        encoded = base64.b64encode(value.encode("utf-8", "replace")).decode("ascii")
        SubElement(element, "ParticipantObjectDetail", type=_clean(name), value=encoded)
    if subject.sop_classes:
        description = SubElement(element, "ParticipantObjectDescription")
        for uid, count in subject.sop_classes.items():
            SubElement(description, "SOPClass", UID=_clean(uid), NumberOfInstances=str(count))


def _coded(parent: Element, name: str, code: Code) -> None:
    attributes = {"csd-code": code.value, "codeSystemName": code.system, "originalText": code.meaning}
    SubElement(parent, name, attributes)


def _clean(text: str) -> str:
    return " ".join(_NOT_XML.sub("\ufffd", text).split("\n")).replace("\r", " ")
