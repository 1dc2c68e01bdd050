"""Is this text an audit message by the schema of PS3.15 A.5.1? Written from its grammar; raises AssertionError."""

import base64
import re
from datetime import datetime
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

_CODED = {"csd-code", "codeSystemName", "originalText"}


def checked(text: str) -> Element:
    """The message, if it is one."""
    message = ElementTree.fromstring(text)
    assert message.tag == "AuditMessage"
    order = "".join(
        {"EventIdentification": "e", "ActiveParticipant": "a", "AuditSourceIdentification": "s"}.get(child.tag, "o")
        for child in message
    )
    assert re.fullmatch("ea+so*", order), order
    _event(message[0])
    for participant in message.findall("ActiveParticipant"):
        _participant(participant)
    _source(message.find("AuditSourceIdentification"))  # type: ignore[arg-type]
    for thing in message.findall("ParticipantObjectIdentification"):
        _object(thing)
    assert set(child.tag for child in message) <= {
        "EventIdentification", "ActiveParticipant", "AuditSourceIdentification", "ParticipantObjectIdentification",
    }  # fmt: skip
    return message


def _event(event: Element) -> None:
    assert set(event.attrib) == {"EventActionCode", "EventDateTime", "EventOutcomeIndicator"}
    assert event.get("EventActionCode") in set("CRUDE")
    assert event.get("EventOutcomeIndicator") in {"0", "4", "8", "12"}
    at = datetime.fromisoformat(str(event.get("EventDateTime")))
    assert at.utcoffset() is not None
    assert re.fullmatch("i(t)*d?", "".join({"EventID": "i", "EventTypeCode": "t"}.get(c.tag, "d") for c in event))
    for child in event:
        if child.tag == "EventOutcomeDescription":
            assert child.text
        else:
            _coded(child)


def _participant(participant: Element) -> None:
    assert {"UserID", "UserIsRequestor"} <= set(participant.attrib)
    assert participant.get("UserIsRequestor") in {"true", "false"}
    assert participant.get("UserID")
    assert set(participant.attrib) <= {
        "UserID", "UserIsRequestor", "AlternativeUserID", "UserName", "NetworkAccessPointID",
        "NetworkAccessPointTypeCode",
    }  # fmt: skip
    assert ("NetworkAccessPointID" in participant.attrib) == ("NetworkAccessPointTypeCode" in participant.attrib)
    assert participant.get("NetworkAccessPointTypeCode") in {None, "1", "2", "3", "4", "5"}
    for child in participant:
        assert child.tag == "RoleIDCode"
        _coded(child)


def _source(source: Element) -> None:
    assert source.get("AuditSourceID")
    assert set(source.attrib) <= {"AuditSourceID", "AuditEnterpriseSiteID"}
    for child in source:
        assert child.tag == "AuditSourceTypeCode"
        assert child.get("csd-code") in set("123456789")


def _object(thing: Element) -> None:
    assert thing.get("ParticipantObjectID")
    assert thing.get("ParticipantObjectTypeCode") in set("1234")
    assert thing.get("ParticipantObjectTypeCodeRole") in {str(number) for number in range(1, 27)}
    letters = {"IDTypeCode": "i", "Name": "n", "Query": "q", "Detail": "d", "Description": "s"}
    assert re.fullmatch("i(n|q)d*s*", "".join(letters[child.tag.removeprefix("ParticipantObject")] for child in thing))
    _coded(thing[0])
    assert thing[1].text
    for detail in thing.findall("ParticipantObjectDetail"):
        assert set(detail.attrib) == {"type", "value"}
        base64.b64decode(detail.attrib["value"], validate=True).decode()
    for description in thing.findall("ParticipantObjectDescription"):
        for sop_class in description:
            assert sop_class.tag == "SOPClass"
            assert int(sop_class.attrib["NumberOfInstances"]) > 0
            assert sop_class.get("UID")


def _coded(element: Element) -> None:
    assert set(element.attrib) == _CODED
    assert all(element.attrib.values())
