"""Findings -> a Comprehensive 3D SR, "Imaging Measurement Report" (PS3.16 TID 1500).

What a viewer needs, learnt from OHIF 3.13: each tracked thing must have a 2D graphic on a source image, or nothing of
the report is shown; groups with one Tracking UID are merged; of a group with a region the viewer prints the names,
values and units of its numbers and the finding site, of one without a region also its comments, a line each. So each
finding has a planar group (TID 1410) with its outline on its largest slice, and a volumetric group (TID 1411) that
refers to its Segment, under one Tracking UID. What concerns the whole exam comes last, as a group (TID 1501) whose
numbers are inferred from a point in the liver, on an image without an outline, for texts of two findings on one image
cover each other. A viewer prints five lines at most, so what must be read comes first.
"""

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import highdicom.sr as sr
import numpy as np
from pydicom import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    MRImageStorage,
)

from dicom_node.encoding.concepts import CUBIC_MILLIMETRES, concept, unit
from dicom_node.encoding.header import disclaimer, new_object, plain, series_description, shortened
from dicom_node.encoding.outline import inner_point, outline
from dicom_node.encoding.provenance import MANUFACTURER, MODEL_NAME, Provenance
from dicom_node.encoding.segmentation import Segment
from dicom_node.encoding.sources import InvalidResult, SourceSlice, SourceStack
from pipelines.findings import Evaluation, Finding, Findings, Measurement

#: A volume stated by the pipeline and that of its Segment's voxels may differ by this much.
VOLUME_TOLERANCE = 0.01

_EXAM = "Liver"  # tracking identifier of what is stated of the exam as a whole
_LINE_CHARACTERS = 54
_LIBRARY_CLASSES = (CTImageStorage, EnhancedCTImageStorage, MRImageStorage, EnhancedMRImageStorage)
_Group = (
    sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
    | sr.MeasurementsAndQualitativeEvaluations
)


@dataclass(frozen=True)
class _Mark:
    """A point on an image: where the viewer shows numbers of the whole exam."""

    source: SourceSlice
    point: tuple[float, float]  # (column, row), pixels

    def coordinates(self) -> list[sr.CoordinatesForMeasurement]:
        """The point as what a number is inferred from."""
        data = np.asarray([self.point])
        return [sr.CoordinatesForMeasurement(sr.GraphicTypeValues.POINT, data, _region_source(self.source))]


def report(
    findings: Findings,
    segments: Sequence[Segment],
    stack: SourceStack,
    sources: Mapping[str, Sequence[Dataset]],
    provenance: Provenance,
    segmentation: Dataset | None,
) -> Dataset:
    """The SR of a study that was analysed.

    segments : of `findings`, as `segments_of` makes them; their SEG is `segmentation`, None if there are none.
    sources : every input image of every role; all become evidence.
    Raises InvalidResult where a stated volume is not that of the voxels, UnknownConcept where a code is missing.
    """
    by_name = {segment.tracking_id: segment for segment in segments}
    groups: list[_Group] = []
    for finding in findings.findings:
        groups += _finding_groups(finding, by_name[finding.tracking_id], stack, provenance, segmentation)
    mark = _exam_mark(segments, stack)
    groups.append(_exam_group(findings, mark, stack, provenance))
    shown = [stack.slices[by_name[finding.tracking_id].largest_slice] for finding in findings.findings]
    return _document(
        groups,
        stack.header,
        _library([*shown, mark.source], stack),
        _evidence(sources, segmentation),
        provenance,
        role="sr",
        description=series_description(provenance),
    )


def refusal_report(reason: str, sources: Mapping[str, Sequence[Dataset]], provenance: Provenance) -> Dataset:
    """The SR of a study that could not be analysed, with the reason in the Series Description and in the text.

    sources : what there is of the inputs, at least one Dataset; they need no geometry.
    """
    images = [dataset for datasets in sources.values() for dataset in datasets]
    stack = max(sources.values(), key=len)
    header = stack[len(stack) // 2] if stack else images[0]
    mark = None
    if header.get("Rows") and header.get("Columns"):
        frames = int(header.get("NumberOfFrames") or 1)
        middle = (frames + 1) // 2 if frames > 1 else None
        image = SourceSlice(str(header.SOPClassUID), str(header.SOPInstanceUID), middle, None)
        mark = _Mark(image, (float(header.Columns) / 2, float(header.Rows) / 2))
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(provenance, "Study not analysed", header),
        algorithm_id=_algorithm(provenance),
        measurements=[_number(Measurement("images_not_analysed", len(images), "{images}"), mark)],
        qualitative_evaluations=[_statement("analysis", "not_analysed")],
    )
    _comment(group, [f"Study not analysed: {reason}", disclaimer(provenance)], header)
    return _document(
        [group],
        header,
        None,  # an image that could not be analysed may lack what an Image Library states
        _evidence(sources, None),
        provenance,
        role="refusal",
        description=f"NOT ANALYSED by {provenance.title}: {reason}",
    )


# ------------------------------------------------------------------ groups


def _finding_groups(
    finding: Finding, segment: Segment, stack: SourceStack, provenance: Provenance, segmentation: Dataset | None
) -> list[_Group]:
    """TID 1410 with the outline and what a reader looks for first; TID 1411 with the volume and the Segment."""
    _check_volumes(finding.tracking_id, finding.measurements, segment.voxels, stack)
    source = stack.slices[segment.largest_slice]
    line = outline(segment.mask[segment.largest_slice])
    common: dict[str, Any] = {
        "finding_type": concept(finding.concept).code,
        "finding_sites": [sr.FindingSite(concept(finding.site).code)],
        "algorithm_id": _algorithm(provenance),
    }
    ordered = sorted(finding.measurements, key=lambda item: item.concept != "malignant_probability")
    planar = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(provenance, finding.tracking_id, stack.header),
        referenced_region=sr.ImageRegion(sr.GraphicTypeValues.POLYLINE, line, _region_source(source)),
        measurements=[_number(item) for item in ordered if item.unit not in CUBIC_MILLIMETRES] or None,
        qualitative_evaluations=_statements(finding.evaluations, finding.concept) or None,
        **common,
    )
    volumetric = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(provenance, finding.tracking_id, stack.header),
        referenced_segment=_referenced_segment(segment, stack, segmentation),
        measurements=[_number(item) for item in ordered if item.unit in CUBIC_MILLIMETRES] or None,
        **common,
    )
    return [planar, volumetric]


def _exam_group(findings: Findings, mark: _Mark, stack: SourceStack, provenance: Provenance) -> _Group:
    """What is true of the exam as a whole: how many findings, the liver's volume, what the reader should know."""
    organ = next((region for region in findings.regions if region.concept == "liver"), None)
    if organ is not None:
        voxels = int(np.count_nonzero(organ.mask))  # with the lesions in it, which have Segments of their own
        _check_volumes(organ.label, findings.measurements, voxels, stack)
    numbers = list(findings.measurements)
    if findings.findings or not numbers:  # viewers print a zero as nothing; that there is none is said in words
        numbers.insert(0, Measurement("lesion_count", len(findings.findings), "{lesions}"))
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(provenance, _EXAM, stack.header),
        finding_type=concept("lesion").code,
        finding_sites=[sr.FindingSite(concept("liver").code)],
        algorithm_id=_algorithm(provenance),
        measurements=[_number(item, mark) for item in numbers],
        qualitative_evaluations=[_statement("lesion", "present" if findings.findings else "absent")],
    )
    warnings = [f"Note: {warning}" for warning in findings.warnings]
    _comment(group, [_summary(findings), disclaimer(provenance), *warnings], stack.header)
    return group


def _summary(findings: Findings) -> str:
    """The answer in one line: "3 lesions: 2 malignant, 1 benign"."""
    if not findings.findings:
        return "No lesion found"
    count = len(findings.findings)
    statements = Counter(
        item.value for finding in findings.findings for item in finding.evaluations if item.concept == "malignancy"
    )
    parts = [f"{number} {concept(key).meaning.lower()}" for key, number in sorted(statements.items(), reverse=True)]
    return f"{count} lesion{'s' if count > 1 else ''}" + (f": {', '.join(parts)}" if parts else "")


def _exam_mark(segments: Sequence[Segment], stack: SourceStack) -> _Mark:
    """Deep inside the liver, outside of its lesions, on the largest slice that shows no outline.

    Without a liver, in the first finding; without that, in the middle of the stack.
    """
    if not segments:
        return _Mark(stack.slices[len(stack.slices) // 2], (stack.columns / 2, stack.rows / 2))
    segment = next((item for item in segments if item.site is None), segments[0])
    taken = {item.largest_slice for item in segments if item.site is not None}
    free = [index for index in segment.slices if index not in taken] or segment.slices
    index = max(free, key=lambda item: (int(segment.slice_voxels[item]), -item))
    return _Mark(stack.slices[index], inner_point(segment.mask[index]))


def _check_volumes(name: str, measurements: Iterable[Measurement], voxels: int, stack: SourceStack) -> None:
    """What the pipeline states and what the voxels of the SEG add up to must be one number."""
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


# ------------------------------------------------------------------ content items


def _number(measurement: Measurement, mark: _Mark | None = None) -> sr.Measurement:
    name = concept(measurement.concept)
    value = float(measurement.value)
    if not np.isfinite(value):
        raise InvalidResult(f"{measurement.concept} is {value}; a finite number is needed.")
    small = measurement.unit in ("cm3", "mL") and abs(value) < 100
    decimals = max(name.decimals, 1 if small or (name.decimals == 0 and 0 < abs(value) < 10) else 0)
    rounded = round(value, decimals)
    return sr.Measurement(
        name=name.code,
        value=int(rounded) if rounded == int(rounded) else rounded,
        unit=unit(measurement.unit),
        referenced_coordinates=mark.coordinates() if mark else None,
    )


def _statements(evaluations: Iterable[Evaluation], finding: str) -> list[sr.QualitativeEvaluation]:
    """Coded statements; beside a code of our own also the nearest public one."""
    items = []
    for evaluation in evaluations:
        name = finding if evaluation.concept == "presence" else evaluation.concept
        items.append(_statement(name, evaluation.value))
        generic = concept(evaluation.value).generic
        if generic:
            items.append(_statement(name, generic))
    return items


def _statement(name: str, value: str) -> sr.QualitativeEvaluation:
    return sr.QualitativeEvaluation(concept(name).code, concept(value).code)


def _comment(group: Any, texts: Iterable[str], header: Dataset) -> None:
    """Text items at the end of a group: highdicom's templates have no place for them, TID 1501 is extensible.

    Broken into lines, as a viewer prints each item on one and cuts it at the edge of the window.
    """
    for text in texts:
        for line in textwrap.wrap(plain(text, header), _LINE_CHARACTERS, subsequent_indent="  "):
            group[0].ContentSequence.append(
                sr.TextContentItem(
                    name=concept("comment").code,
                    value=line,
                    relationship_type=sr.RelationshipTypeValues.CONTAINS,
                )
            )


def _tracking(provenance: Provenance, name: str, header: Dataset) -> sr.TrackingIdentifier:
    return sr.TrackingIdentifier(uid=provenance.tracking_uid(name), identifier=shortened(plain(name, header), 64))


def _algorithm(provenance: Provenance) -> sr.AlgorithmIdentification:
    return sr.AlgorithmIdentification(
        name=provenance.pipeline,
        version=provenance.version,
        parameters=provenance.algorithm_parameters() or None,
    )


def _region_source(source: SourceSlice) -> sr.SourceImageForRegion:
    frames = None if source.frame_number is None else [source.frame_number]
    return sr.SourceImageForRegion(source.sop_class_uid, source.sop_instance_uid, frames)


def _referenced_segment(segment: Segment, stack: SourceStack, segmentation: Dataset | None) -> sr.ReferencedSegment:
    """The Segment, with the images that it was drawn on."""
    if segmentation is None:
        raise InvalidResult(f"{segment.tracking_id}: there is no SEG to refer to.")
    return sr.ReferencedSegment(
        segmentation.SOPClassUID,
        segmentation.SOPInstanceUID,
        segment_number=segment.number,
        source_images=_source_images([stack.slices[index] for index in segment.slices]),
    )


def _source_images(slices: Iterable[SourceSlice]) -> list[sr.SourceImageForSegmentation]:
    """One item per Instance, with its frames if it has several."""
    frames: dict[tuple[str, str], list[int]] = {}
    for item in slices:
        numbers = frames.setdefault((item.sop_class_uid, item.sop_instance_uid), [])
        if item.frame_number is not None:
            numbers.append(item.frame_number)
    return [sr.SourceImageForSegmentation(*uids, sorted(numbers) or None) for uids, numbers in frames.items()]


# ------------------------------------------------------------------ the document


def _document(
    groups: Sequence[_Group],
    header: Dataset,
    library: Sequence[Dataset] | None,
    evidence: Sequence[Dataset],
    provenance: Provenance,
    *,
    role: str,
    description: str,
) -> Dataset:
    """SR Document General and Content modules (PS3.3 C.17.2, C.17.3) around the groups."""
    modality = str(header.get("Modality") or "")
    procedure = concept(modality if modality in ("CT", "MR") else "imaging_procedure")
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=provenance.device_uid,
        name=provenance.node_id,
        manufacturer_name=MANUFACTURER,
        model_name=MODEL_NAME,
        serial_number=provenance.node_id,
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(sr.CodedConcept.from_code(concept("device").code), device)
        ),
        procedure_reported=procedure.code,
        imaging_measurements=groups,
        title=concept("imaging_measurement_report").code,
        referenced_images=library,
    )
    dataset = new_object(
        str(Comprehensive3DSRStorage),
        "SR",
        header,
        provenance,
        role=role,
        series_number=provenance.report_series_number,
        series_description=description,
    )
    dataset.CompletionFlag = "COMPLETE"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.PreliminaryFlag = "PRELIMINARY"
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.PerformedProcedureCodeSequence = []
    ours = [item for item in evidence if item.StudyInstanceUID == provenance.study_instance_uid]
    dataset.CurrentRequestedProcedureEvidenceSequence = ours
    if provenance.predecessor is not None:
        dataset.PredecessorDocumentsSequence = _grouped([provenance.predecessor])
    for element in content[0]:
        dataset.add(element)
    return dataset


def _evidence(sources: Mapping[str, Sequence[Dataset]], segmentation: Dataset | None) -> list[Dataset]:
    """Every input Instance of every role, and the SEG, by study and Series."""
    datasets = [dataset for items in sources.values() for dataset in items]
    if segmentation is not None:
        datasets.append(segmentation)
    return _grouped(
        (
            str(dataset.StudyInstanceUID),
            str(dataset.SeriesInstanceUID),
            str(dataset.SOPInstanceUID),
            str(dataset.SOPClassUID),
        )
        for dataset in datasets
    )


def _grouped(references: Iterable[tuple[str, str, str, str]]) -> list[Dataset]:
    """Hierarchical SOP Instance Reference macro (PS3.3 C.17.2.1); each Instance once, in the order given."""
    tree: dict[str, dict[str, dict[str, str]]] = {}
    for study_uid, series_uid, instance_uid, class_uid in references:
        tree.setdefault(study_uid, {}).setdefault(series_uid, {})[instance_uid] = class_uid
    studies = []
    for study_uid, by_series in tree.items():
        study = Dataset()
        study.ReferencedSeriesSequence = []
        for series_uid, instances in by_series.items():
            series = Dataset()
            series.ReferencedSOPSequence = []
            for instance_uid, class_uid in instances.items():
                item = Dataset()
                item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = class_uid, instance_uid
                series.ReferencedSOPSequence.append(item)
            series.SeriesInstanceUID = series_uid
            study.ReferencedSeriesSequence.append(series)
        study.StudyInstanceUID = study_uid
        studies.append(study)
    return studies


def _library(slices: Iterable[SourceSlice], stack: SourceStack) -> list[Dataset] | None:
    """What the Image Library says of the images shown (TID 1602): their geometry. None where it has no template.

    Only images that the report points at: highdicom's time grows faster than the number of entries.
    """
    if str(stack.header.SOPClassUID) not in _LIBRARY_CLASSES:
        return None
    entries = {}
    for item in slices:
        entry = Dataset()
        entry.SOPClassUID, entry.SOPInstanceUID = item.sop_class_uid, item.sop_instance_uid
        entry.Modality, entry.FrameOfReferenceUID = stack.header.Modality, stack.frame_of_reference_uid
        entry.Rows, entry.Columns = stack.rows, stack.columns
        entry.PixelSpacing, entry.SliceThickness = stack.pixel_spacing, stack.slice_thickness or stack.slice_spacing_mm
        entry.SpacingBetweenSlices = stack.slice_spacing_mm
        entry.ImageOrientationPatient, entry.ImagePositionPatient = stack.orientation, item.position
        entries[item.sop_instance_uid] = entry
    return list(entries.values())
