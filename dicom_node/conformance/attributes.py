"""Which attributes of received objects are looked at (PS3.2: annex on attributes evaluated)."""

from collections.abc import Iterator, Mapping
from typing import Any

from dicom_node.conformance.markdown import heading, paragraph
from dicom_node.conformance.sample import Sample
from dicom_node.recognition.headers import INSTANCE_KEYWORDS
from dicom_node.recognition.json_header import KEPT_PATIENT_KEYWORDS


def data(_sample: Sample) -> dict[str, Any]:
    """Keywords that are read of every object."""
    return {
        "attributes_evaluated": {"recognition": sorted(INSTANCE_KEYWORDS), "patient": sorted(KEPT_PATIENT_KEYWORDS)}
    }


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The annex."""
    evaluated = found["attributes_evaluated"]
    recognition, patient = (", ".join(evaluated[key]) for key in ("recognition", "patient"))
    yield from heading(2, "Attributes evaluated")
    yield from paragraph(
        f"To recognise images: {recognition}; with functional groups, those of each frame. Rules may name any "
        f"attribute that does not identify a person (of the patient: {patient}), and private ones by their Private "
        "Creator. Pipelines read pixel data and geometry besides; none reads private attributes."
    )
