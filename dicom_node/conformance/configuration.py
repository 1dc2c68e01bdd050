"""What an administrator can set of the network, time-outs, media and character sets."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydicom.charset import python_encoding

from dicom_node.conformance.markdown import heading, paragraph, table
from dicom_node.conformance.sample import Sample
from dicom_node.dimse.lobby import ARTIM_S
from dicom_node.dimse.scu import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S
from dicom_node.settings import Settings

#: Settings that other equipment notices.
_SETTINGS = (
    "ae_title",
    "dicom_host",
    "dicom_port",
    "dicom_port_enabled",
    "tls_port",
    "tls_certificate",
    "tls_key",
    "tls_ca",
    "max_associations",
    "network_timeout_s",
    "durable_ack",
    "disk_reserve_mb",
    "commitment_wait_s",
    "archive_wait_s",
    "archive_timeout_s",
    "late_images",
    "delivery_attempts",
    "delivery_backoff_max_s",
)


def data(_sample: Sample) -> dict[str, Any]:
    """Settings with their defaults, fixed time-outs, character sets."""
    fields = Settings.model_fields
    return {
        "settings": [
            {
                "name": f"DICOM_NODE_{name.upper()}",
                "default": None if fields[name].default is None else str(fields[name].default),
                "description": fields[name].description,
            }
            for name in _SETTINGS
        ],
        "timeouts": [
            {"name": "ARTIM: from the connection to the association request, as acceptor", "seconds": ARTIM_S},
            {"name": "connection, as requestor", "seconds": CONNECT_TIMEOUT_S},
            {"name": "answer to an association request or to an operation, as requestor", "seconds": ANSWER_TIMEOUT_S},
        ],
        "character_sets": [name for name in python_encoding if name and not name.startswith("iso8859")],
    }


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Configuration, media and character sets."""
    yield from heading(1, "Configuration")
    yield from paragraph(
        "Rules, destinations and senders are one YAML file (`dicom-node rules import`), in force without a restart. "
        "Other application entities are known by AE title, address or name, and port. The rest is set by the "
        "environment:"
    )
    rows = [
        (f"`{i['name']}`", "-" if i["default"] is None else i["default"], i["description"]) for i in found["settings"]
    ]
    yield from table(("Setting", "Default", "Meaning"), rows)
    yield from table(("Fixed time-out", "Seconds"), [(item["name"], item["seconds"]) for item in found["timeouts"]])
    yield from heading(1, "Media interchange")
    yield from paragraph("No media storage application profile is supported; no DICOMDIR is read or written.")
    yield from heading(1, "Character sets")
    yield from paragraph(
        "Objects received keep their Specific Character Set (0008,0005) and their bytes. Objects created have that of "
        "the images, and patient and study as those write them, byte for byte. Words of this node are written in it "
        "where it is one single-byte set or one of Unicode or GB18030 and can hold them, else in ASCII. Decoded for "
        f"rules and recognition: {', '.join(found['character_sets'])}."
    )
