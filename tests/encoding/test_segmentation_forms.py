"""SEG with a frame for every slice, and Label Map Segmentation: the same voxels in the same place."""

import subprocess
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from encoded_studies import ball, ct_stack, lesion, liver_findings, provenance, through_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from programs import need
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from dicom_node.encoding.header import to_bytes
from dicom_node.encoding.label_map import NoLabelMap, label_map_segmentation
from dicom_node.encoding.segmentation import Segment, segmentation, segments_of
from dicom_node.encoding.sources import SourceStack, source_stack
from pipelines.findings import Findings

SHAPE, SPACING = (12, 64, 64), (2.5, 0.8, 0.8)
OBLIQUE = (0.984808, 0.173648, 0.0, -0.163176, 0.925417, 0.342020)
ORIENTATIONS = [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1), OBLIQUE]


def usual() -> tuple[list[Segment], SourceStack]:
    stack = source_stack([through_bytes(ds) for ds in ct_stack()])
    return segments_of(liver_findings(), stack.shape, provenance()), stack


def back(dataset: Dataset) -> Dataset:
    return dcmread(BytesIO(to_bytes(dataset)))


def label_map(segments: list[Segment], stack: SourceStack, **form: object) -> Dataset:
    made = label_map_segmentation(segments, stack, provenance(), **form)
    assert isinstance(made, Dataset)
    return back(made)


def labels_on_slices(dataset: Dataset, stack: SourceStack) -> NDArray[np.integer]:
    """Segment Number per voxel of the source's grid, placed by the frames' positions alone; 0 where there is none."""
    found = np.zeros(stack.shape, dtype=np.int64)
    points = np.asarray([item.point for item in stack.slices])
    frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    for plane, groups in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.asarray(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        (index,) = np.flatnonzero(np.abs(points - position).max(axis=1) < 1e-3)
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID == stack.slices[index].sop_instance_uid
        assert source.get("ReferencedFrameNumber") == stack.slices[index].frame_number
        if "SegmentIdentificationSequence" in groups:
            plane = plane * int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        found[index] += plane
    return found


def truth(segments: list[Segment], shape: tuple[int, int, int]) -> NDArray[np.integer]:
    found = np.zeros(shape, dtype=np.int64)
    for segment in segments:
        found[segment.mask] = segment.number
    return found


def test_every_segment_has_a_frame_on_every_slice_if_wanted() -> None:
    segments, stack = usual()
    some = back(segmentation(segments, stack, provenance()))
    whole = back(segmentation(segments, stack, provenance(), omit_empty_frames=False))
    assert whole.NumberOfFrames == len(segments) * len(stack.slices) > some.NumberOfFrames
    indices = [groups.FrameContentSequence[0].DimensionIndexValues for groups in whole.PerFrameFunctionalGroupsSequence]
    assert indices == [[segment, place] for segment in (1, 2, 3) for place in range(1, 13)]
    assert np.array_equal(labels_on_slices(whole, stack), truth(segments, stack.shape))
    assert np.array_equal(labels_on_slices(some, stack), truth(segments, stack.shape))
    # other bytes, so another object in another Series; what is tracked stays the same
    assert whole.SOPInstanceUID != some.SOPInstanceUID
    assert whole.SeriesInstanceUID != some.SeriesInstanceUID
    assert [item.TrackingUID for item in whole.SegmentSequence] == [item.TrackingUID for item in some.SegmentSequence]


@pytest.mark.parametrize("transfer_syntax_uid", [ExplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize("omit_empty_frames", [True, False])
def test_a_label_map_holds_the_voxels_of_its_segments(transfer_syntax_uid: str, omit_empty_frames: bool) -> None:
    segments, stack = usual()
    made = label_map(segments, stack, transfer_syntax_uid=transfer_syntax_uid, omit_empty_frames=omit_empty_frames)
    assert made.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"
    assert made.file_meta.TransferSyntaxUID == transfer_syntax_uid
    assert (made.SegmentationType, made.SegmentsOverlap, made.PixelPaddingValue) == ("LABELMAP", "NO", 0)
    assert np.array_equal(labels_on_slices(made, stack), truth(segments, stack.shape))
    if not omit_empty_frames:
        assert made.NumberOfFrames == 12
    # every value is described, the background last: viewers take the place in the sequence for the number
    assert [item.SegmentNumber for item in made.SegmentSequence] == [1, 2, 3, 0]
    assert made.SegmentSequence[0].SegmentLabel == "Lesion 1 malignant 87 %"


def test_forms_of_a_label_map_share_no_uid() -> None:
    segments, stack = usual()
    forms = [
        label_map(segments, stack, transfer_syntax_uid=syntax, omit_empty_frames=omit)
        for syntax in (ExplicitVRLittleEndian, RLELossless)
        for omit in (True, False)
    ]
    forms.append(back(segmentation(segments, stack, provenance())))
    assert len({made.SOPInstanceUID for made in forms}) == len({made.SeriesInstanceUID for made in forms}) == 5
    again = label_map_segmentation(segments, stack, provenance())
    assert isinstance(again, Dataset)
    assert to_bytes(again) == to_bytes(label_map_segmentation(segments, stack, provenance()))


def test_highdicom_reads_a_label_map() -> None:
    segments, stack = usual()
    made = label_map_segmentation(segments, stack, provenance(), transfer_syntax_uid=RLELossless)
    read = hd.seg.segread(BytesIO(to_bytes(made)))
    assert read.segment_numbers == [1, 2, 3]
    volume = read.get_volume(combine_segments=True)
    assert [int((volume.array == segment.number).sum()) for segment in segments] == [item.voxels for item in segments]
    assert read.get_segment_description(2).tracking_uid == segments[1].tracking_uid


def test_overlapping_segments_are_no_label_map() -> None:
    first, second = ball(SHAPE, (6, 30, 30), 5, SPACING), ball(SHAPE, (6, 33, 33), 5, SPACING)
    findings = Findings("portal_venous", (lesion("Lesion 1", first, 1.6, 60, "HCC"),
                                          lesion("Lesion 2", second, 1.6, 60, "HCC")))  # fmt: skip
    stack = source_stack(ct_stack())
    made = label_map_segmentation(segments_of(findings, SHAPE, provenance()), stack, provenance())
    assert isinstance(made, NoLabelMap)
    assert "overlap" in made.reason


def test_more_than_255_segments_take_16_bits() -> None:
    shape, found = (2, 16, 16), []
    for index in range(258):
        mask = np.zeros(shape, dtype=bool)
        mask.flat[index] = True
        found.append(lesion(f"Lesion {index + 1}", mask, 1.6, 60, "HCC"))
    stack = source_stack(ct_stack(slices=2, size=16))
    segments = segments_of(Findings("portal_venous", tuple(found)), shape, provenance())
    made = label_map(segments, stack, transfer_syntax_uid=RLELossless)
    assert made.BitsAllocated == 16
    assert np.array_equal(labels_on_slices(made, stack), truth(segments, stack.shape))


@given(
    orientation=st.sampled_from(ORIENTATIONS),
    reverse=st.booleans(),
    size=st.integers(9, 24),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=8, deadline=None)
def test_both_forms_keep_voxels_in_place(orientation: tuple[float, ...], reverse: bool, size: int, seed: int) -> None:
    """Oblique, mirrored, falling and rising stacks; frames with an odd number of bits and bytes."""
    rng = np.random.default_rng(seed)
    shape = (5, size, size)
    labels = rng.integers(0, 4, shape) * (rng.random(shape) < rng.choice([0.02, 0.7]))
    labels.flat[rng.choice(labels.size, 3, replace=False)] = [1, 2, 3]
    found = tuple(lesion(f"Lesion {number}", labels == number, 1.0, 60, "HCC") for number in (1, 2, 3))
    datasets = ct_stack(slices=5, size=size, orientation=orientation, reverse=reverse)
    stack = source_stack([through_bytes(ds) for ds in datasets])
    segments = segments_of(Findings("portal_venous", found), shape, provenance())
    for omit in (True, False):
        made = back(segmentation(segments, stack, provenance(), omit_empty_frames=omit))
        assert np.array_equal(labels_on_slices(made, stack), labels)
    assert np.array_equal(labels_on_slices(label_map(segments, stack), stack), labels)


def test_dciodvfy_finds_no_fault_in_either_form_of_seg(tmp_path: Path) -> None:
    tool = need("dciodvfy")
    segments, stack = usual()
    for omit in (True, False):
        path = tmp_path / f"{omit}.dcm"
        path.write_bytes(to_bytes(segmentation(segments, stack, provenance(), omit_empty_frames=omit)))
        output = subprocess.run([tool, "-new", str(path)], capture_output=True, text=True).stderr
        assert not [line for line in output.splitlines() if line.startswith(("Error", "Warning"))]
