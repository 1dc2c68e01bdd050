"""TLS, who may associate, audit trail (PS3.2: security)."""

from collections.abc import Iterator, Mapping
from typing import Any

from dicom_node.audit.events import TOLD
from dicom_node.conformance.markdown import heading, paragraph, table
from dicom_node.conformance.sample import Sample
from dicom_node.dimse.tls import profile_suites


def data(_sample: Sample) -> dict[str, Any]:
    """Cipher suites and audit messages."""
    return {
        "tls": {
            "profile": "BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile (PS3.15 B.12)",
            "roles": ["acceptor", "requestor"],
            "suites": profile_suites(),
        },
        "audit": [
            {
                "event": {"code": told.event.value, "meaning": told.event.meaning},
                "type": told.event_type and {"code": told.event_type.value, "meaning": told.event_type.meaning},
                "section": told.section,
                "when": told.when,
            }
            for told in TOLD
        ],
    }


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Security."""
    tls = found["tls"]
    yield from heading(1, "Security")
    yield from heading(2, "Secure transport")
    yield from paragraph(
        f"{tls['profile']}, as acceptor on a port of its own and as requestor per destination. With a CA file a peer "
        "must show a certificate that leads to it (mutual TLS). No renegotiation, no compression, no session tickets. "
        "The unencrypted port can be closed."
    )
    yield from table(("Protocol", "Cipher suites, preferred first"), tls["suites"].items())
    yield from heading(2, "Association level")
    yield from paragraph(
        "Associations are let in by calling and called AE title and address; SOP Classes, associations at one time "
        "and rates may be limited for each sender. User Identity negotiation is not used."
    )
    yield from heading(2, "Audit trail")
    yield from paragraph(
        "Audit Trail Message Format Profile (PS3.15 A.5), in files and, where set, to a syslog server over UDP "
        "(PS3.15 A.7), TCP or TLS (PS3.15 A.6)."
    )
    rows = [
        (
            f"{item['event']['meaning']} ({item['event']['code']})",
            f"{item['type']['meaning']} ({item['type']['code']})" if item["type"] else "-",
            item["section"],
            item["when"],
        )
        for item in found["audit"]
    ]
    yield from table(("Event", "Type", "PS3.15", "When"), rows)
