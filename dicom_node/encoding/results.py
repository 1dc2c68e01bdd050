"""The whole answer of a pipeline as DICOM objects: built once, read back, checked, and handed on as bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydicom import Dataset

from dicom_node.encoding.checks import check_report, check_segmentation
from dicom_node.encoding.header import TRANSFER_SYNTAX_UID, to_bytes
from dicom_node.encoding.package import Package
from dicom_node.encoding.provenance import Provenance
from dicom_node.encoding.report import refusal_report, report
from dicom_node.encoding.segmentation import segmentation, segments_of
from dicom_node.encoding.sources import InvalidResult, check_one_study, source_stack
from pipelines.findings import Findings


@dataclass(frozen=True)
class EncodedObject:
    """One result object as it is kept and sent."""

    kind: str  # "sr" | "seg"
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    series_instance_uid: str
    data: bytes  # a Part 10 file


def encode_results(
    findings: Findings,
    sources: Mapping[str, Sequence[Dataset]],
    provenance: Provenance,
    *,
    frame_numbers: Sequence[int] | None = None,
    package: Package = Package(),  # noqa: B008 - frozen
) -> tuple[EncodedObject, ...]:
    """SEG (if anything was segmented) and SR of an analysed study, in the order in which to send them.

    sources : role -> headers of its images, pixel data not needed; those of `findings.role` in the order of the
        masks' slices. An enhanced multi-frame Instance is given once, or once per frame.
    frame_numbers : the 1-based frame behind each slice of the masks, for a multi-frame source; not given: frames in
        order of position along the normal.
    The same arguments give the same bytes.
    Raises InvalidResult if masks and images do not fit or an object does not read back as what it should be,
    UnknownConcept if a concept has no code.
    """
    if not sources.get(findings.role):
        raise InvalidResult(f"No images of the role {findings.role!r}, on which the findings lie.")
    check_one_study(sources, provenance.study_instance_uid)
    stack = source_stack(sources[findings.role], frame_numbers)
    segments = segments_of(findings, stack.shape, provenance)
    objects = []
    seg = segmentation(segments, stack, provenance) if segments else None
    if seg is not None:
        data = to_bytes(seg)
        check_segmentation(data, segments, stack)
        objects.append(_encoded("seg", seg, data))
    sr = report(findings, segments, stack, sources, provenance, seg)
    data = to_bytes(sr)
    check_report(data, sources, stack.header, segments, stack)
    return tuple(item for item in (*objects, _encoded("sr", sr, data)) if item.kind in package.built)


def encode_refusal(
    reason: str,
    sources: Mapping[str, Sequence[Dataset]],
    provenance: Provenance,
    *,
    package: Package = Package(),  # noqa: B008 - frozen
) -> tuple[EncodedObject, ...]:
    """The SR that says that a study was not analysed, and why.

    sources : role -> headers of what there is; at least one Dataset in all. They need no geometry.
    Raises InvalidResult if there is no image at all, from which patient and study could be taken.
    """
    sources = {role: datasets for role, datasets in sources.items() if datasets}
    if not sources:
        raise InvalidResult("A report of a refused study needs at least one of its images.")
    check_one_study(sources, provenance.study_instance_uid)
    sr = refusal_report(reason, sources, provenance)
    data = to_bytes(sr)
    check_report(data, sources, next(iter(sources.values()))[0], (), None)
    return (_encoded("sr", sr, data),) if "sr" in package.built else ()


def _encoded(kind: str, dataset: Dataset, data: bytes) -> EncodedObject:
    return EncodedObject(
        kind=kind,
        sop_instance_uid=str(dataset.SOPInstanceUID),
        sop_class_uid=str(dataset.SOPClassUID),
        transfer_syntax_uid=TRANSFER_SYNTAX_UID,
        series_instance_uid=str(dataset.SeriesInstanceUID),
        data=data,
    )
