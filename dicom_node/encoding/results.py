"""The whole answer of a pipeline as DICOM objects: built once, read back, checked, and handed on as bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from pydicom import Dataset

from dicom_node.encoding.capture import capture
from dicom_node.encoding.document import document
from dicom_node.encoding.header import TRANSFER_SYNTAX_UID, to_bytes
from dicom_node.encoding.key_objects import key_objects
from dicom_node.encoding.label_map import label_map_segmentation
from dicom_node.encoding.package import KINDS, USUAL, Package
from dicom_node.encoding.page import refusal_page, summary_page
from dicom_node.encoding.parametric_map import parametric_map
from dicom_node.encoding.provenance import Provenance
from dicom_node.encoding.read_back import read_back
from dicom_node.encoding.report import FORMS, refusal_reports, refused_images, reports
from dicom_node.encoding.reported import Reported
from dicom_node.encoding.segmentation import segmentation, segments_of
from dicom_node.encoding.sources import (
    InvalidResult,
    SourceImages,
    SourceStack,
    check_one_study,
    source_images,
    source_stack,
)
from dicom_node.encoding.text_report import refusal_text_report, text_report
from pipelines.findings import Findings


@dataclass(frozen=True)
class EncodedObject:
    """One result object as it is kept and sent."""

    kind: str  # a key of KINDS
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
    package: Package = USUAL,
    pixels: NDArray[Any] | None = None,
) -> tuple[EncodedObject, ...]:
    """Every object of `package.built` that this answer makes sense of, in the order of KINDS.

    sources : role -> headers of its images, pixel data not needed; those of `findings.role` in the order of the
        masks' slices, or in the order that planar findings and statements count them. An enhanced multi-frame Instance
        is given once, or once per frame.
    frame_numbers : the 1-based frame behind each slice of the masks, for a multi-frame source; not given: frames in
        order of position along the normal.
    package : kinds that a destination wants. Reports lead to all that is wanted, not to what is a fall-back only.
    pixels : of the images of `findings.role`, for the pictures of the page that sums up: values after rescale
        [image, row, column] or RGB uint8 [image, row, column, 3]; None: a page without pictures.
    The same arguments give the same bytes.
    Raises InvalidResult if masks and images do not fit or an object does not read back as what it should be,
    UnknownConcept if a concept has no code.
    """
    check_one_study(sources, provenance.study_instance_uid)
    images = _images(findings, sources, frame_numbers)
    stack = images if isinstance(images, SourceStack) else None
    segmented = stack is not None and (findings.findings or findings.regions)
    segments = segments_of(findings, stack.shape, provenance) if stack is not None and segmented else []
    reported = Reported(findings, segments, images, sources, provenance)
    results = [*_image_objects(reported, package), *_pages(reported, package, pixels)]
    if "kos" in package.built and (chosen := key_objects(reported)) is not None:
        results.append(("kos", chosen))
    wanted = [(kind, dataset) for kind, dataset in results if kind in package.kinds]
    forms = [kind for kind in package.built if kind in FORMS]
    results += reports(reported, wanted, forms).items() if forms else ()
    if "sr_text" in package.built:
        results.append(("sr_text", text_report(reported, wanted)))
    results.sort(key=lambda result: list(KINDS).index(result[0]))
    objects = tuple(_encoded(kind, dataset) for kind, dataset in results)
    read_back(objects, sources, segments, stack, findings.maps)
    return objects


def _image_objects(reported: Reported, package: Package) -> list[tuple[str, Dataset]]:
    """Segmentations and maps, as far as there is something to segment or to map."""
    stack, segments, provenance = reported.images, reported.segments, reported.provenance
    if not isinstance(stack, SourceStack):
        return []
    omit, results = package.omit_empty_frames, []
    if "seg" in package.built and segments:
        results.append(("seg", segmentation(segments, stack, provenance, omit_empty_frames=omit)))
    if "seg_labelmap" in package.built and segments:
        label_map = label_map_segmentation(segments, stack, provenance, omit_empty_frames=omit)
        if isinstance(label_map, Dataset):
            results.append(("seg_labelmap", label_map))
    if "pm" in package.built and _has_series_to_itself(stack, reported.sources):
        maps = [parametric_map(one, stack, provenance, number) for number, one in enumerate(reported.findings.maps, 1)]
        results += [("pm", one) for one in maps if one is not None]
    return results


def _has_series_to_itself(stack: SourceStack, sources: Mapping[str, Sequence[Dataset]]) -> bool:
    """Whether the source's Series holds nothing but the stack's images.

    OHIF 3.13 lays a Parametric Map's frames over all images of the Series one by one, whatever they refer to: where
    there are several per slice, such as phase offsets, it stops with an error and shows nothing.
    """
    series = stack.header.get("SeriesInstanceUID")
    images = {
        str(dataset.SOPInstanceUID): int(dataset.get("NumberOfFrames") or 1)
        for datasets in sources.values()
        for dataset in datasets
        if dataset.get("SeriesInstanceUID") == series
    }
    return sum(images.values()) == len(stack.slices)


def _pages(reported: Reported, package: Package, pixels: NDArray[Any] | None) -> list[tuple[str, Dataset]]:
    """The page that sums up, as a picture and as a document."""
    if not {"sc", "pdf"} & set(package.built):
        return []
    images, provenance = reported.images, reported.provenance
    page = summary_page(reported.findings, reported.segments, images, pixels, provenance)
    return [
        (kind, write(page, images.header, provenance, images=images))
        for kind, write in (("sc", capture), ("pdf", document))
        if kind in package.built
    ]


def encode_refusal(
    reason: str,
    sources: Mapping[str, Sequence[Dataset]],
    provenance: Provenance,
    *,
    package: Package = USUAL,
) -> tuple[EncodedObject, ...]:
    """Reports and pages that say that a study was not analysed, and why: every report of `package.built`, a page only
    where one is wanted.

    sources : role -> headers of what there is; at least one Dataset in all. They need no geometry.
    Raises InvalidResult if there is no image at all, from which patient and study could be taken.
    """
    sources = {role: datasets for role, datasets in sources.items() if datasets}
    if not sources:
        raise InvalidResult("A report of a refused study needs at least one of its images.")
    check_one_study(sources, provenance.study_instance_uid)
    forms = [kind for kind in package.built if kind in FORMS]
    images, _ = refused_images(sources)
    page = refusal_page(reason, provenance)
    results = {
        kind: write(page, images.header, provenance, role=f"refusal {kind}")
        for kind, write in (("sc", capture), ("pdf", document))
        if kind in package.kinds
    }
    results.update(refusal_reports(reason, sources, provenance, forms))
    if "sr_text" in package.built:
        results["sr_text"] = refusal_text_report(reason, sources, provenance)
    objects = tuple(_encoded(kind, dataset) for kind, dataset in results.items())
    read_back(objects, sources)
    return objects


def _images(
    findings: Findings, sources: Mapping[str, Sequence[Dataset]], frame_numbers: Sequence[int] | None
) -> SourceImages:
    """The images that the findings lie on: a stack if anything was segmented; of no role, any will do."""
    datasets = sources.get(findings.role)
    if findings.findings or findings.regions or findings.maps:
        if datasets:
            return source_stack(datasets, frame_numbers)
    elif datasets:
        return source_images(datasets, frame_numbers)
    elif not findings.planar and not findings.images and any(sources.values()):
        return source_images(max(sources.values(), key=len))
    raise InvalidResult(f"No images of the role {findings.role!r}, on which the findings lie.")


def _encoded(kind: str, dataset: Dataset) -> EncodedObject:
    return EncodedObject(
        kind=kind,
        sop_instance_uid=str(dataset.SOPInstanceUID),
        sop_class_uid=str(dataset.SOPClassUID),
        transfer_syntax_uid=TRANSFER_SYNTAX_UID,
        series_instance_uid=str(dataset.SeriesInstanceUID),
        data=to_bytes(dataset),
    )
