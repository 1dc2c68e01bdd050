"""IHE Radiology, AI Results (AIR): what is claimed as Evidence Creator, with the content per result primitive.

A primitive is claimed only if it is found in the encoded sample.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset

from dicom_node.conformance.markdown import heading, paragraph, table
from dicom_node.conformance.sample import Sample
from dicom_node.encoding.concepts import concept
from dicom_node.encoding.package import SOP_CLASSES

_REPORT = "sr"
_IMAGES = "IMAGE"


@dataclass(frozen=True)
class Primitive:
    """One result primitive of the profile and how it is encoded here."""

    name: str
    content: str
    is_in: Callable[[str, Dataset], bool]  # of one object: its kind and Dataset


def _tree(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence") or ():
        yield child
        yield from _tree(child)


def _is_named(item: Dataset, key: str) -> bool:
    names = item.get("ConceptNameCodeSequence") or ()
    return any((str(n.CodingSchemeDesignator), str(n.CodeValue)) == _code(key) for n in names)


def _code(key: str) -> tuple[str, str]:
    found = concept(key)
    return found.scheme, found.value


def _has(kind: str, dataset: Dataset, value_type: str, *keys: str, graphic: str = "") -> bool:
    return kind == _REPORT and any(
        item.ValueType == value_type
        and (not keys or any(_is_named(item, key) for key in keys))
        and (not graphic or item.get("GraphicType") == graphic)
        for item in _tree(dataset)
    )


PRIMITIVES: tuple[Primitive, ...] = (
    Primitive(
        "Qualitative findings",
        "CODE content items of measurement groups (TID 1410, 1411, 1501)",
        lambda kind, dataset: _has(kind, dataset, "CODE", "malignancy", "lesion_class", "lesion", "quality"),
    ),
    Primitive(
        "Measurements",
        "NUM content items (TID 300) with UCUM units",
        lambda kind, dataset: _has(kind, dataset, "NUM"),
    ),
    Primitive(
        "Locations",
        "SCOORD of type POINT on an image, from which a number of the exam is inferred",
        lambda kind, dataset: _has(kind, dataset, "SCOORD", graphic="POINT"),
    ),
    Primitive(
        "Regions, planar",
        "SCOORD of type POLYLINE on an image or frame (TID 1410): the outline of a finding",
        lambda kind, dataset: _has(kind, dataset, "SCOORD", graphic="POLYLINE"),
    ),
    Primitive(
        "Regions, volumetric",
        "Segments of a Segmentation, to which the report refers (TID 1411) under the same Tracking UID",
        lambda kind, dataset: kind == "seg" and bool(dataset.get("SegmentSequence")),
    ),
    Primitive(
        "Parametric maps",
        "Parametric Map with Real World Value Mapping",
        lambda kind, dataset: kind == "pm" and "FloatPixelData" in dataset,
    ),
    Primitive(
        "Tracking identifiers",
        "Tracking Identifier and Tracking Unique Identifier (TID 4108) of each group and Segment, kept over runs",
        lambda kind, dataset: _has(kind, dataset, "UIDREF", "tracking_uid"),
    ),
    Primitive(
        "Image references",
        "IMAGE content items; every input image in Current Requested Procedure Evidence Sequence (0040,A375)",
        lambda kind, dataset: _has(kind, dataset, _IMAGES) and bool(dataset.CurrentRequestedProcedureEvidenceSequence),
    ),
    Primitive(
        "Key images",
        "Key Object Selection Document of the images on which the answer is seen",
        lambda kind, dataset: kind == "kos" and any(item.ValueType == _IMAGES for item in _tree(dataset)),
    ),
)


def data(sample: Sample) -> dict[str, Any]:
    """Actor, root of the results, and the primitives that are there."""
    claimed = [
        {
            "name": primitive.name,
            "content": primitive.content,
            "kinds": sorted({item.kind for item in sample if primitive.is_in(item.kind, item.dataset)}),
        }
        for primitive in PRIMITIVES
    ]
    root = next((item.dataset for item in sample if item.kind == _REPORT), None)
    return {
        "ihe": {
            "profile": "AI Results (AIR)",
            "actor": "Evidence Creator",
            "root": None
            if root is None
            else {
                "sop_class_uid": SOP_CLASSES[_REPORT],
                "template": str(root.ContentTemplateSequence[0].TemplateIdentifier),
                "title": str(root.ConceptNameCodeSequence[0].CodeMeaning),
            },
            "primitives": [item for item in claimed if item["kinds"]],
            "not_supported": [item["name"] for item in claimed if not item["kinds"]],
        }
    }


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The integration statement."""
    ihe, root = found["ihe"], found["ihe"]["root"]
    commits = any(
        item["service"].startswith("Storage Commitment") and item["role"] == "SCU" for item in found["services"]
    )
    yield from heading(2, "IHE integration statement")
    yield from paragraph(
        f"Profile {ihe['profile']} of IHE Radiology, actor {ihe['actor']}. Claimed by the maker; not tested at a "
        "Connectathon."
    )
    if root:
        yield from paragraph(
            f'Root of every result: a report of SOP Class {root["sop_class_uid"]}, "{root["title"]}", TID '
            f"{root['template']}, UNVERIFIED, observer type Device, algorithm by TID 4019. It refers to all other "
            "objects of the answer. Results are stored by C-STORE; the node "
            f"{'asks' if commits else 'does not ask'} for Storage Commitment of them."
        )
    rows = [(item["name"], item["content"], item["kinds"]) for item in ihe["primitives"]]
    yield from table(("Result primitive", "Content", "In objects of kind"), rows)
    if ihe["not_supported"]:
        yield from paragraph(f"Not created by this version: {', '.join(ihe['not_supported']).lower()}.")
