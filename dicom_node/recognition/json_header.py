"""The header that rules are tried on: DICOM JSON model, without bulk data and without the patient's identity."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag

from dicom_node.recognition.parsing import UnreadableHeader, parse_elements
from dicom_node.recognition.values import decoded, plain_text

MAX_HEADER_VALUES = 256  # of one element
MAX_HEADER_ITEMS = 16  # of one sequence
MAX_HEADER_DEPTH = 5
MAX_HEADER_ELEMENTS = 3000  # nested ones included
MAX_BINARY_BYTES = 1024
MAX_SEQUENCE_BYTES = 16 * 1024  # longer values of any kind are left out unread

#: Elements of the patient group (0010) that rules may use; everything else there identifies the patient.
KEPT_PATIENT_KEYWORDS = frozenset({"PatientSex", "PatientAge", "PatientSize", "PatientWeight"})
#: Elements elsewhere that identify a patient or where they live or lie.
_DROPPED_KEYWORDS = frozenset(
    {
        "AdmissionID",
        "CurrentPatientLocation",
        "PatientInstitutionResidence",
        "PersonName",
        "PersonAddress",
        "PersonTelephoneNumbers",
        "PersonTelecomInformation",
        "OriginalAttributesSequence",
        "EncryptedAttributesSequence",
        "ContentSequence",
        "ReferencedSeriesSequence",
        "DigitalSignaturesSequence",
    }
)
_BULK = {"OB", "OW", "OF", "OD", "OL", "OV", "UN"}


def is_kept(tag: int, vr: str | None = None) -> bool:
    """Whether a public element may be in a rules header: false for what identifies the patient, and for names."""
    keyword = keyword_for_tag(tag)
    if tag >> 16 == 0x0010:
        return keyword in KEPT_PATIENT_KEYWORDS
    return vr != "PN" and keyword not in _DROPPED_KEYWORDS


def series_header(path: Path) -> dict[str, Any]:
    """Header of one Instance as DICOM JSON model (PS3.18 Annex F), for the rules.

    Left out: pixel data, binary values over 1 kB, everything that names the patient or another person (the
    patient group but for sex, age, size and weight; every PN), the tree of structured reports. Sequences are
    cut at 16 items and 5 levels. Private elements stay, with their Private Creators.
    Raises UnreadableHeader.
    """
    path = Path(path)
    dataset = parse_elements(path, 0x7FDFFFFF, skip_over_bytes=MAX_SEQUENCE_BYTES)
    budget = [MAX_HEADER_ELEMENTS]
    try:
        return _json_dataset(dataset, MAX_HEADER_DEPTH, budget)
    except RecursionError as error:
        raise UnreadableHeader(f"{path.name}: sequences are nested too deeply to be read") from error


def _json_dataset(dataset: Dataset, depth: int, budget: list[int]) -> dict[str, Any]:
    header: dict[str, Any] = {}
    as_read = {element.tag: element for element in dataset.values()}  # before any of them is converted
    for tag in sorted(as_read):
        if budget[0] <= 0:
            break
        if tag.element == 0 or not is_kept(int(tag)):
            continue
        entry = _json_element(dataset, tag, as_read[tag], depth, budget)
        if entry is not None:
            budget[0] -= 1
            header[f"{int(tag):08X}"] = entry
    return header


def _json_element(dataset: Dataset, tag: BaseTag, raw: object, depth: int, budget: list[int]) -> dict[str, Any] | None:
    """One element as {"vr": …, "Value": […]}; None where it is left out or cannot be read."""
    if isinstance(raw, RawDataElement) and not isinstance(raw.value, bytes):
        return None if raw.length else {"vr": raw.VR or "UN"}  # skipped for its length; or empty
    if isinstance(raw, RawDataElement) and raw.VR in _BULK and len(raw.value or b"") > MAX_BINARY_BYTES:
        return None
    try:
        element = dataset[tag]
        if element.VR == "PN":
            return None
        if element.VR == "SQ":
            if depth <= 0 or not isinstance(element.value, DicomSequence):
                return None
            items = [_json_dataset(item, depth - 1, budget) for item in element.value[:MAX_HEADER_ITEMS]]
            return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
        if element.VR in _BULK and len(element.value or b"") > MAX_BINARY_BYTES:
            return None
        entry: Mapping[str, Any] = element.to_json_dict(None, MAX_BINARY_BYTES)
    except Exception:  # noqa: BLE001 - one broken value must not cost the header; pydicom raises many kinds
        return _as_written(raw)
    clean: dict[str, Any] = {"vr": str(entry.get("vr", "UN"))}
    if "Value" in entry:
        kept = [_json_value(v) for v in list(entry["Value"])[:MAX_HEADER_VALUES]]
        if any(v is not None for v in kept):
            clean["Value"] = kept
    if "InlineBinary" in entry:
        clean["InlineBinary"] = entry["InlineBinary"]
    return clean


def _as_written(raw: object) -> dict[str, Any] | None:
    """A value that does not fit its VR, such as DS "thin": kept as the text that was written."""
    if not isinstance(raw, RawDataElement) or not isinstance(raw.value, bytes) or len(raw.value) > MAX_BINARY_BYTES:
        return None
    if raw.VR in ("PN", "SQ") or raw.VR in _BULK:
        return None
    text = plain_text(decoded(raw.value, []))
    return {"vr": raw.VR or "LO", "Value": text.split("\\")} if text else None


def _json_value(value: Any) -> Any:
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bool | int) or value is None:
        return value
    return plain_text(str(value))
