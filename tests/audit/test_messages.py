"""Every audit message is one of PS3.15 A.5, whatever a peer calls itself."""

import base64
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from schema import checked

from dicom_node.audit import events
from dicom_node.audit.message import as_xml

CT = "1.2.840.10008.5.1.4.1.1.2"
ANY_TEXT = st.text(max_size=40)
AT = datetime(2026, 2, 3, 4, 5, 6, 789000, UTC)


def test_instances_transferred_has_all_that_the_standard_wants() -> None:
    event = events.instances_transferred(
        "CT1", "LIVERNODE", "10.1.2.3", "2.25.1", "P-1", {CT: 300, "2.25.9": 1}, AT, "released"
    )
    message = checked(as_xml(event, "LIVERNODE", "Hospital"))
    identification = message[0]
    assert identification.attrib == {
        "EventActionCode": "C",
        "EventDateTime": "2026-02-03T04:05:06.789Z",
        "EventOutcomeIndicator": "0",
    }
    assert identification[0].attrib == {
        "csd-code": "110104",
        "codeSystemName": "DCM",
        "originalText": "DICOM Instances Transferred",
    }
    source, destination = message.findall("ActiveParticipant")
    assert (source.get("UserID"), source.get("AlternativeUserID")) == ("CT1", "AETITLES=CT1")
    assert (source.get("NetworkAccessPointID"), source.get("NetworkAccessPointTypeCode")) == ("10.1.2.3", "2")
    assert [p[0].get("csd-code") for p in (source, destination)] == ["110153", "110152"]
    assert destination.get("AlternativeUserID") == "AETITLES=LIVERNODE"
    study, patient = message.findall("ParticipantObjectIdentification")
    assert (study.get("ParticipantObjectID"), study[0].get("csd-code")) == ("2.25.1", "110180")
    assert [(c.get("UID"), c.get("NumberOfInstances")) for c in study.iter("SOPClass")] == [
        (CT, "300"),
        ("2.25.9", "1"),
    ]
    assert (patient.get("ParticipantObjectID"), patient[0].get("originalText")) == ("P-1", "Patient Number")
    again = events.instances_transferred("CT1", "LIVERNODE", "10.1.2.3", "2.25.1", "", {}, AT, "aborted")
    assert checked(as_xml(again, "LIVERNODE"))[0].get("EventActionCode") == "R"


def test_a_refusal_is_a_security_alert_with_its_reason() -> None:
    event = events.association_refused("LIVERNODE", "SPY", "LIVERNODE", "10.6.6.6", "sender not known", 7)
    message = checked(as_xml(event, "LIVERNODE"))
    assert [c.get("csd-code") for c in message[0][:2]] == ["110113", "110126"]
    assert message[0].get("EventOutcomeIndicator") == "4"
    (subject,) = message.findall("ParticipantObjectIdentification")
    details = {
        d.get("type"): base64.b64decode(d.attrib["value"]).decode() for d in subject.iter("ParticipantObjectDetail")
    }
    assert details == {"Alert Description": "sender not known", "Called AE title": "LIVERNODE", "Repeated": "7"}


@given(
    ANY_TEXT,
    ANY_TEXT,
    ANY_TEXT,
    ANY_TEXT,
    ANY_TEXT,
    st.dictionaries(st.text(min_size=1, max_size=40), st.integers(1, 10), min_size=1, max_size=3),
)
def test_whatever_a_peer_says_the_message_is_one(
    calling: str, called: str, host: str, uid: str, text: str, counts: dict[str, int]
) -> None:
    for event in (
        events.started("NODE", text),
        events.stopped("NODE", text),
        events.association_refused("NODE", calling, called, host or "10.1.1.1", text or "reason"),
        events.instances_transferred(calling, called, host or "10.1.1.1", uid or "1.2", text, counts, AT, "lost"),
        events.objects_refused(calling, called, host or "10.1.1.1", uid, counts),
        events.configuration_imported("NODE", text, 3),
        events.records_lost("NODE", 5),
    ):
        xml = as_xml(event, "NODE", text)
        assert "\n" not in xml
        checked(xml)
