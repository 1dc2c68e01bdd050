"""The gate in front of the outbox: result objects read back from their bytes and held against the source images.

An answer in the wrong place or under the wrong name is worse than none, and most faults of that kind pass every
validator and are shown by viewers as something plausible. So each object is parsed again, as a stranger would, by a
reader that shares nothing with what wrote it, and nothing is taken from the builder's word; where the builder's masks
are given, their voxels must be those of the SEG too.

    elements   bytes -> nested elements                 opened     one object and how its faults are told
    images     the sources: places and planes           identity   whose it is, UIDs, Series
    required   attributes by IOD, codes, values         references where it points, evidence
    grid       frames on source slices                  segmentation, tree + report, documents   by kind of object
    agreement  report against segmentation              masks      against what the pipeline found
    ours       rules about us alone
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.uid import EncapsulatedPDFStorage, KeyObjectSelectionDocumentStorage, ParametricMapStorage

from dicom_node.encoding.read_back.agreement import (
    LOOSE_PIXELS,
    LOOSE_VOLUME,
    OWN_PIXELS,
    OWN_VOLUME,
    check_agreement,
)
from dicom_node.encoding.read_back.documents import (
    ReadMap,
    check_capture,
    check_key_objects,
    check_pdf,
    read_parametric_map,
)
from dicom_node.encoding.read_back.identity import check_identity, check_one_patient, check_uids
from dicom_node.encoding.read_back.images import InputImages
from dicom_node.encoding.read_back.masks import check_masks, check_values
from dicom_node.encoding.read_back.opened import Encoded, Opened, opened, told
from dicom_node.encoding.read_back.ours import check_our_object, check_our_report, check_our_segments, check_our_set
from dicom_node.encoding.read_back.references import check_evidence, check_references
from dicom_node.encoding.read_back.report import check_report
from dicom_node.encoding.read_back.required import check_required
from dicom_node.encoding.read_back.segmentation import ReadSegmentation, read_segmentation
from dicom_node.encoding.read_back.tree import Group
from dicom_node.encoding.segmentation import Segment
from dicom_node.encoding.sources import SourceStack
from pipelines.findings import Map


def read_back(
    objects: Sequence[Encoded],
    sources: Mapping[str, Sequence[Dataset]],
    segments: Sequence[Segment] = (),
    stack: SourceStack | None = None,
    maps: Sequence[Map] = (),
) -> None:
    """Let the objects of one answer pass, or raise InvalidResult: which object, what was found, what was needed.

    objects : everything of one answer, as it would be kept and sent; references among them must resolve.
    sources : role -> headers of the source images, every one that the answer was made from.
    segments, stack, maps : what the builder meant, if voxels and values are to be compared with it.
    """
    answer = _read(objects, sources)
    set_ = {result.uid: result for result in answer.results}
    for result in answer.results:
        with told(result):
            check_our_object(result, set_, answer.images)
            check_our_report(result, answer.groups.get(result.uid, ()))
            _agree(answer, result, OWN_VOLUME, OWN_PIXELS)
            found = answer.segmentations.get(result.uid)
            if found is not None:
                check_our_segments(found)
                if stack is not None:
                    check_masks(found, segments, stack)
            if stack is not None and result.uid in answer.maps:
                check_values(answer.maps[result.uid], maps, stack)
    check_our_set(answer.results, list(answer.segmentations.values()))


def read_back_any(objects: Sequence[Encoded], sources: Mapping[str, Sequence[Dataset]]) -> None:
    """The same without the rules that are about this node alone: any maker's good objects pass."""
    answer = _read(objects, sources)
    for result in answer.results:
        with told(result):
            _agree(answer, result, LOOSE_VOLUME, LOOSE_PIXELS)


@dataclass(frozen=True)
class _Answer:
    """Objects read back, each checked by itself and against the sources; the mappings are by SOP Instance UID."""

    results: Sequence[Opened]
    images: InputImages
    segmentations: Mapping[str, ReadSegmentation]
    groups: Mapping[str, Sequence[Group]]  # of each report
    maps: Mapping[str, ReadMap]


def _read(objects: Sequence[Encoded], sources: Mapping[str, Sequence[Dataset]]) -> _Answer:
    images = InputImages.of(sources)
    check_one_patient(images)
    results = [opened(item) for item in objects]
    set_ = {result.uid: result for result in results}
    check_uids(results, images)
    segmentations: dict[str, ReadSegmentation] = {}
    groups: dict[str, list[Group]] = {}
    maps: dict[str, ReadMap] = {}
    for result in results:
        with told(result):
            check_identity(result, images, complete=False)
            check_required(result)
            check_references(result, set_, images)
            if result.is_segmentation:
                segmentations[result.uid] = read_segmentation(result, images)
            elif result.is_report:
                check_evidence(result, set_, images, complete=False)
                groups[result.uid] = check_report(result, images)
            elif result.sop_class_uid == ParametricMapStorage:
                maps[result.uid] = read_parametric_map(result, images)
            else:
                _check_other(result, set_, images)
    return _Answer(results, images, segmentations, groups, maps)


def _check_other(result: Opened, set_: Mapping[str, Opened], images: InputImages) -> None:
    """Objects that lie on no grid and hold no findings, by kind."""
    if result.sop_class_uid == KeyObjectSelectionDocumentStorage:
        check_evidence(result, set_, images, complete=False)
        check_key_objects(result)
    elif result.sop_class_uid == EncapsulatedPDFStorage:
        check_pdf(result)
    else:
        check_capture(result)


def _agree(answer: _Answer, report: Opened, volume_tolerance: float, pixel_tolerance: int) -> None:
    check_agreement(
        report,
        answer.groups.get(report.uid, ()),
        answer.segmentations,
        volume_tolerance=volume_tolerance,
        pixel_tolerance=pixel_tolerance,
    )
