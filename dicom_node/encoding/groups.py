"""Findings -> measurement groups of a report (PS3.16 TID 1410, 1411, 1501).

What a viewer needs, learnt from OHIF 3.13: each tracked thing must have a 2D graphic on a source image, or nothing of
the report is shown; groups with one Tracking UID are merged; of a group with a region the viewer prints the names,
values and units of its numbers and the finding site, of one without a region also its comments, a line each. So each
finding has a planar group (TID 1410) with its outline on its largest slice, and a volumetric group (TID 1411) that
refers to its Segment, under one Tracking UID. What concerns an image or the exam as a whole is a group (TID 1501)
whose numbers are inferred from a point. That of the exam lies on an image without an outline where there is one, for
texts of two groups on one image cover each other. It comes last, but first where there is no finding: then it is the
answer. A viewer prints five lines at most, so what must be read comes first.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_node.encoding import content
from dicom_node.encoding.concepts import CUBIC_MILLIMETRES, concept
from dicom_node.encoding.header import disclaimer, shortened
from dicom_node.encoding.outline import outline
from dicom_node.encoding.provenance import Provenance
from dicom_node.encoding.reported import Mark, Reported, image_of
from dicom_node.encoding.segmentation import Segment
from dicom_node.encoding.sources import InvalidResult, SourceStack
from dicom_node.encoding.wording import lines, rounded, values_in_words
from pipelines.findings import Evaluation, Finding, ImageStatement, Measurement, PlanarFinding

#: A volume stated by the pipeline and that of its Segment's voxels may differ by this much.
VOLUME_TOLERANCE = 0.01

EXAM = "Liver"  # tracking identifier of what is stated of the exam as a whole
_METHOD = "method"  # modifies a group's numbers rather than being a statement (PS3.16 TID 1410, 1411, 1501)
_LINE_CHARACTERS = 54  # a viewer prints each comment on one line and cuts it at the edge of the window


def measurement_groups(reported: Reported, segmentation: Dataset | None) -> list[Dataset]:
    """Every group of a report, in the order in which to read them.

    segmentation : the SEG that the report refers to; None: it refers to none, and volumes stand in the planar groups.
    Raises InvalidResult where a stated volume is not that of the voxels, UnknownConcept where a code is missing.
    """
    algorithm = algorithm_items(reported.provenance)
    groups: list[Dataset] = []
    for finding in reported.findings.findings:
        groups += _finding_groups(reported, finding, segmentation, algorithm)
    groups += [_planar_group(reported, finding, algorithm) for finding in reported.findings.planar]
    exam = _exam_group(reported, algorithm)
    if not groups:  # then the exam is what the answer is about: who reads the document as text reads that first
        return [exam, *_image_groups(reported, algorithm)]
    return [*groups, *_image_groups(reported, algorithm), exam]


def algorithm_items(provenance: Provenance) -> list[Dataset]:
    """Algorithm Identification (PS3.16 TID 4019)."""
    named = [("algorithm_name", provenance.pipeline), ("algorithm_version", provenance.version)]
    named += [("algorithm_parameters", text) for text in provenance.algorithm_parameters()]
    return [content.text(name, text, "HAS CONCEPT MOD") for name, text in named]


def tracking_items(
    reported_name: str, name: str, provenance: Provenance, lasting_name: str | None = None
) -> list[Dataset]:
    """Tracking Identifier and UID (PS3.16 TID 4108).

    reported_name : `name` as the document's character set can hold it.
    lasting_name : what the UID is made from instead, where the name is a number that may shift.
    """
    return [
        content.text("tracking_identifier", shortened(reported_name, 64), "HAS OBS CONTEXT"),
        content.uid_reference("tracking_uid", provenance.tracking_uid(lasting_name or name), "HAS OBS CONTEXT"),
    ]


def comments(texts: Iterable[str]) -> list[Dataset]:
    """Texts as comments, broken into lines. TID 1501 has no row for them but is extensible."""
    return [content.text("comment", line) for text in texts for line in lines(text, _LINE_CHARACTERS)]


def numbers(measurements: Iterable[Measurement], mark: Mark | None = None) -> list[Dataset]:
    """NUM items (PS3.16 TID 300), inferred from a point where they belong to no outline."""
    return [
        content.number(item.concept, rounded(item), item.unit, inferred_from=[mark.item()] if mark else ())
        for item in measurements
    ]


def statements(evaluations: Iterable[Evaluation], finding: str | None = None) -> list[Dataset]:
    """Coded statements; beside a value of our own code also the nearest public one.

    finding : key of the finding that "presence" is about.
    """
    items = []
    for evaluation in evaluations:
        if evaluation.concept == _METHOD:
            continue
        name = finding if evaluation.concept == "presence" and finding else evaluation.concept
        items.append(content.code(name, evaluation.value))
        generic = concept(evaluation.value).generic
        if generic:
            items.append(content.code(name, generic))
    return items


def _group(
    reported: Reported,
    name: str,
    algorithm: Sequence[Dataset],
    kind: str | None,
    site: str | None,
    evaluations: Iterable[Evaluation],
    lasting_name: str | None = None,
) -> list[Dataset]:
    """First items of a group: what is tracked, what and where it is, how it was measured, who says so."""
    items = tracking_items(reported.words(name), name, reported.provenance, lasting_name)
    if kind is not None:
        items.append(content.code("finding", kind))
    if site is not None:
        items.append(content.code("finding_site", site, "HAS CONCEPT MOD"))
    methods = [item.value for item in evaluations if item.concept == _METHOD]
    return [*items, *(content.code(_METHOD, value, "HAS CONCEPT MOD") for value in methods), *algorithm]


def _finding_groups(
    reported: Reported, finding: Finding, segmentation: Dataset | None, algorithm: Sequence[Dataset]
) -> list[Dataset]:
    """TID 1410 with the outline and what a reader looks for first; TID 1411 with the volume and the Segment."""
    segment = reported.by_name[finding.tracking_id]
    _check_volumes(finding.tracking_id, finding.measurements, segment.voxels, reported)
    index = segment.largest_slice
    line = outline(segment.mask[index])
    ordered = _probability_first(finding.measurements)
    volumes = [item for item in ordered if item.unit in CUBIC_MILLIMETRES]
    first = _group(reported, finding.tracking_id, algorithm, finding.concept, finding.site, finding.evaluations)
    planar = [
        *first,
        *numbers([item for item in ordered if segmentation is None or item not in volumes]),
        *statements(finding.evaluations, finding.concept),
        content.graphic("image_region", "POLYLINE", line, image_of(reported.images.slices[index])),
    ]
    groups = [content.container("measurement_group", planar, template="1410")]
    if segmentation is not None:
        volumetric = [*first, *numbers(volumes), *_segment_items(reported, segment, segmentation)]
        groups.append(content.container("measurement_group", volumetric, template="1411"))
    return groups


def _segment_items(reported: Reported, segment: Segment, segmentation: Dataset) -> list[Dataset]:
    """The Segment, and the images that it was drawn on, each once with its frames."""
    frames: dict[tuple[str, str], list[int]] = {}
    for index in segment.slices:
        source = reported.images.slices[index]
        found = frames.setdefault((source.sop_class_uid, source.sop_instance_uid), [])
        if source.frame_number is not None:
            found.append(source.frame_number)
    return [
        content.image(
            "referenced_segment", segmentation.SOPClassUID, segmentation.SOPInstanceUID, segment=segment.number
        ),
        *(
            content.image("source_image_for_segmentation", *uids, frames=sorted(found))
            for uids, found in frames.items()
        ),
    ]


def _planar_group(reported: Reported, finding: PlanarFinding, algorithm: Sequence[Dataset]) -> Dataset:
    """TID 1410 of a finding on one image or frame."""
    source = reported.images.slices[finding.image]
    points = _closed(finding, source.rows, source.columns)
    items = [
        *_group(reported, finding.tracking_id, algorithm, finding.concept, finding.site, finding.evaluations),
        *numbers(_probability_first(finding.measurements)),
        *statements(finding.evaluations, finding.concept),
        content.graphic("image_region", "POLYLINE", points, image_of(source)),
    ]
    return content.container("measurement_group", items, template="1410")


def _image_groups(reported: Reported, algorithm: Sequence[Dataset]) -> list[Dataset]:
    return [_image_group(reported, statement, algorithm) for statement in reported.findings.images]


def _image_group(reported: Reported, statement: ImageStatement, algorithm: Sequence[Dataset]) -> Dataset:
    """TID 1501 of what is true of one image. Viewers print no coded statements, so those are said in a comment too."""
    source = reported.images.slices[statement.image]
    shown = statement.measurements or (
        Measurement("image_number", source.frame_number or source.instance_number or statement.image + 1, "1"),
    )
    said = values_in_words(item for item in statement.evaluations if item.concept != _METHOD)
    said = "; ".join(part for part in (said, statement.remark) if part)
    # by the image: while slices of an exam are still on their way, "Slice 2" is not always the same one
    lasting_name = f"image {source.sop_instance_uid} {source.frame_number or ''}"
    items = [
        *_group(reported, statement.label, algorithm, None, "liver", statement.evaluations, lasting_name),
        *numbers(shown, reported.image_mark(statement.image)),
        *statements(statement.evaluations),
        *comments([reported.words(f"{statement.label}: {said}" if said else statement.label)]),
    ]
    return content.container("measurement_group", items, template="1501")


def _exam_group(reported: Reported, algorithm: Sequence[Dataset]) -> Dataset:
    """TID 1501 of what is true of the exam as a whole, and what the reader should know."""
    findings = reported.findings
    organ = next((region for region in findings.regions if region.concept == "liver"), None)
    if organ is not None:
        voxels = int(np.count_nonzero(organ.mask))  # with the lesions in it, which have Segments of their own
        of_liver = [item for item in findings.measurements if item.concept in ("volume", "liver_volume")]
        _check_volumes(organ.label, of_liver, voxels, reported)
    shown = findings.measurements or (Measurement("images_analysed", len(reported.images.slices), "{images}"),)
    texts = [disclaimer(reported.provenance), *(f"Note: {text}" for text in findings.warnings)]
    texts += findings.remarks
    items = [
        *_group(reported, EXAM, algorithm, None, "liver", findings.evaluations),
        *comments([reported.words(findings.headline)] if findings.headline else []),  # before all numbers
        *numbers(shown, reported.exam_mark),
        *statements(findings.evaluations),
        *comments(reported.words(text) for text in texts),
    ]
    return content.container("measurement_group", items, template="1501")


def _probability_first(measurements: Iterable[Measurement]) -> list[Measurement]:
    return sorted(measurements, key=lambda item: item.concept != "malignant_probability")


def _closed(finding: PlanarFinding, rows: int, columns: int) -> NDArray[np.float64]:
    """The outline with its first point at the end. Raises InvalidResult if it is none or leaves the image."""
    points = np.asarray(finding.outline, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3 or not np.isfinite(points).all():
        raise InvalidResult(f"{finding.tracking_id}: an outline needs at least three points (column, row).")
    if (points < 0).any() or (points > (columns, rows)).any():
        raise InvalidResult(
            f"{finding.tracking_id}: the outline leaves its image of {columns} columns and {rows} rows."
        )
    return points if np.array_equal(points[0], points[-1]) else np.vstack([points, points[:1]])


def _check_volumes(name: str, measurements: Iterable[Measurement], voxels: int, reported: Reported) -> None:
    """What the pipeline states and what the voxels of the SEG add up to must be one number."""
    stack = reported.images
    if not isinstance(stack, SourceStack):
        raise InvalidResult(f"{name}: a segmentation needs images with geometry.")
    voxels_mm3 = voxels * stack.voxel_mm3
    for item in measurements:
        if item.unit not in CUBIC_MILLIMETRES:
            continue
        stated_mm3 = item.value * CUBIC_MILLIMETRES[item.unit]
        if abs(stated_mm3 - voxels_mm3) > max(VOLUME_TOLERANCE * voxels_mm3, 0.5 * stack.voxel_mm3):
            raise InvalidResult(
                f"{name}: {item.concept} is {stated_mm3:.1f} mm3, but the mask's {voxels} voxels of "
                f"{stack.voxel_mm3:.4f} mm3 are {voxels_mm3:.1f} mm3."
            )
