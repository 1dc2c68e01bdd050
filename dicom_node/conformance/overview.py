"""What this node is, which services it has, and how they work together (PS3.2: overview, introduction, model)."""

from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from dicom_node.conformance.markdown import heading, paragraph, table
from dicom_node.conformance.sample import Sample
from dicom_node.encoding.package import FALL_BACKS, KINDS, SOP_CLASSES
from dicom_node.encoding.provenance import MANUFACTURER, MODEL_NAME
from dicom_node.routing.destination import KEYS
from pipelines.catalogue import PIPELINES

#: destination type -> what it is, for those that a rules file may name
DESTINATIONS: Mapping[str, str] = {
    "dimse": "C-STORE to an application entity",
    "sender": "C-STORE back to the application entity that sent the study",
    "stow": "STOW-RS, Store Transaction of the Studies Service (PS3.18 section 10.5), to a DICOMweb origin server",
    "folder": "DICOM files in a folder, without a DICOMDIR",
}


def data(_sample: Sample) -> dict[str, Any]:
    """Product, destinations, kinds of objects, pipelines."""
    return {
        "product": {
            "name": MANUFACTURER,
            "model": MODEL_NAME,
            "version": _version(),
            "use": "research; not a medical device",
        },
        "destinations": [{"type": kind, "meaning": DESTINATIONS.get(kind, kind)} for kind in KEYS],
        "objects": [
            {
                "kind": kind,
                "description": KINDS[kind],
                "sop_class_uid": SOP_CLASSES[kind],
                "instead": list(FALL_BACKS.get(kind, ())),
            }
            for kind in KINDS
        ],
        "pipelines": [
            {
                "name": pipeline.name,
                "version": pipeline.version,
                "title": pipeline.title,
                "modality": pipeline.modality,
                "roles": [
                    {"name": role.name, "meaning": role.meaning, "required": role.required} for role in pipeline.roles
                ],
            }
            for pipeline in PIPELINES.values()
        ],
    }


def _role(role: Mapping[str, Any]) -> str:
    return f"{role['name']}: {role['meaning']}" + ("" if role["required"] else " (optional)")


def _version() -> str:
    try:
        return metadata.version("dicom-node")
    except metadata.PackageNotFoundError:  # run from its sources
        return "(not installed)"


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Overview, introduction and implementation model."""
    product = found["product"]
    yield from heading(1, "Overview")
    yield from paragraph(
        f"{product['name']} {product['version']} ({product['model']}) receives images of the liver from a PACS or a "
        "modality, recognises them, runs image analysis on them and sends the answer back as DICOM objects. For "
        f"{product['use']}."
    )
    yield from heading(2, "Network services")
    rows = [(item["service"], item["role"], item["initiates"], item["purpose"]) for item in found["services"]]
    yield from table(("Service", "Role", "Opens the association", "What for"), rows)
    yield from heading(2, "Objects created")
    rows = [
        (item["kind"], item["description"], item["sop_class_uid"], item["instead"] or "-") for item in found["objects"]
    ]
    yield from table(("Kind", "Object", "SOP Class UID", "Sent instead where it is not taken"), rows)
    yield from heading(2, "Where results go")
    yield from table(
        ("Destination type", "Meaning"), [(item["type"], item["meaning"]) for item in found["destinations"]]
    )
    yield from heading(1, "Introduction")
    yield from paragraph(
        "For those who connect this node with other equipment. It is read together with the DICOM Standard (PS3.1 to "
        "PS3.22); it does not replace a test of the equipment with each other. The program prints it from the tables "
        "that it works by, so it is true of the version that printed it."
    )
    yield from heading(1, "Implementation model")
    yield from heading(2, "Application data flow")
    yield from paragraph(
        "One application entity. A remote application entity sends images by C-STORE; each is answered when it is safe "
        "(`DICOM_NODE_DURABLE_ACK`). It may ask by Storage Commitment whether they are. When the images that a "
        "pipeline needs are complete and a rule of the administrator gives it the study, the pipeline runs; its "
        "objects are sent to the destinations that the rule names. Objects made by this node that come back are kept "
        "and start nothing. Late images, or a new version on request, give new objects that name the earlier report "
        "in Predecessor Documents Sequence (0040,A360); findings keep their Tracking UIDs by place."
    )
    yield from heading(2, "Pipelines")
    pipelines = [
        (item["name"], item["version"], item["title"], item["modality"], [_role(role) for role in item["roles"]])
        for item in found["pipelines"]
    ]
    yield from table(("Pipeline", "Version", "Title", "Modality", "Input by role"), pipelines)
