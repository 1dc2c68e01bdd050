"""Whose object it is: patient, study and character set byte for byte, UIDs, Series of its own."""

import re
from collections.abc import Collection, Sequence
from functools import cache

from pydicom.datadict import dictionary_VR

from dicom_node.encoding.header import IDENTITY_KEYWORDS, identity_bytes
from dicom_node.encoding.read_back.elements import name_of, tag_of
from dicom_node.encoding.read_back.images import InputImages
from dicom_node.encoding.read_back.opened import Opened
from dicom_node.encoding.sources import InvalidResult

#: What no viewer or archive forgives, even of an object that is not ours.
_NEVER_DIFFERENT = (
    "StudyInstanceUID",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
_UID = re.compile(rb"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")


def check_one_patient(images: InputImages) -> None:
    """Images of two patients in one study give no answer. Raises InvalidResult."""
    by_id: dict[str, str] = {}
    for image in images.by_uid.values():
        patient = str(image.header.get("PatientID") or "").strip()
        if patient:
            by_id.setdefault(patient, image.uid)
    if len(by_id) > 1:
        raise InvalidResult(
            f"The source images name {len(by_id)} patients: Patient ID (0010,0020) differs, for example between the "
            f"Instances {' and '.join(sorted(by_id.values())[:2])}. Correct the study and send it again."
        )


def check_identity(result: Opened, images: InputImages, *, complete: bool) -> None:
    """Patient and study are those of a source image, byte for byte. Raises InvalidResult.

    complete : also everything else of the Patient and Study modules, nothing more and nothing less.
    """
    ours = {keyword: value for keyword in _keywords() if (value := result.dataset.raw(keyword))}
    differing: set[str] = set()
    for source in [*images.first, *images.by_uid.values()]:
        theirs = identity_bytes(source.header)
        differing = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
        if not complete:
            differing &= {*_NEVER_DIFFERENT, *ours}
        if not differing:
            return
    raise result.fault(f"{', '.join(sorted(differing))} differ from those of the source images, byte for byte.")


def check_uids(results: Sequence[Opened], images: InputImages) -> None:
    """UIDs are valid and new; every SR and SEG has a Series to itself. Raises InvalidResult."""
    instances: dict[str, Opened] = {}
    series: dict[str, Opened] = {}
    for result in results:
        for item in [result.own, *(item for _, item in result.items)]:
            for tag, (vr, value) in item.items():
                if vr == b"UI" and isinstance(value, bytes):
                    _check_uid(result, tag, value, images.uids)
        if result.uid in images.by_uid or result.uid in instances:
            raise result.fault("SOP Instance UID is that of another object.")
        instances[result.uid] = result
        if result.series_uid in images.series:
            raise result.fault(f"Series Instance UID is that of source images: {result.series_uid}.")
        other = series.setdefault(result.series_uid, result)
        if other is not result:
            raise result.fault(f"shares its Series with {other.uid}; viewers open only the newest object of a Series.")


def _check_uid(result: Opened, tag: int, value: bytes, given: Collection[str]) -> None:
    """PS3.5 section 9.1: at most 64 characters, components of digits without leading zeros.

    given : UIDs of the source images, which are named as they are, right or wrong.
    """
    for part in value.rstrip(b"\0 ").split(b"\\"):
        if part and (len(part) > 64 or not _UID.fullmatch(part)) and part.decode("ascii", "replace") not in given:
            raise result.fault(f"{name_of(tag)} is no valid UID: {part[:80].decode('ascii', 'replace')!r}.")


@cache
def _keywords() -> list[str]:
    return [
        keyword
        for keyword in ("SpecificCharacterSet", *IDENTITY_KEYWORDS)
        if dictionary_VR(tag_of(keyword)) not in ("SQ", "US", "AT")
    ]
