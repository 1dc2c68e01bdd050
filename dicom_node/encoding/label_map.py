"""Masks -> a Label Map Segmentation (PS3.3 A.51 with Segmentation Type LABELMAP; Supplement 243).

One frame per slice, its pixel values are Segment Numbers: small and quick to read. Only where Segments do not overlap,
and only for destinations that ask for it, for most PACS do not know the SOP Class.

Every pixel value must be described (PS3.3 C.8.20.2.3), so the background is a Segment, number 0, and Pixel Padding
Value says that it is not to be shown. It comes last in the Segment Sequence: viewers have taken the place in the
sequence for the number, and gave every Segment its neighbour's name and colour when the background came first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

from dicom_node.encoding.concepts import concept, is_own
from dicom_node.encoding.frames import POSITION_INDEX, Frame, add_dimensions, add_frames
from dicom_node.encoding.header import add_code, new_object, series_description
from dicom_node.encoding.provenance import Provenance
from dicom_node.encoding.segmentation import Segment, add_segmentation_image, overlap
from dicom_node.encoding.sources import SourceStack

#: "Label Map Segmentation Storage" (PS3.4 B.5); not in every release of pydicom's dictionary.
LABEL_MAP_SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
BACKGROUND = 0


@dataclass(frozen=True)
class NoLabelMap:
    """Why Segments cannot be one label map."""

    reason: str


def label_map_segmentation(
    segments: Sequence[Segment],
    stack: SourceStack,
    provenance: Provenance,
    *,
    omit_empty_frames: bool = True,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
) -> Dataset | NoLabelMap:
    """The Label Map Segmentation of these Segments, or why there can be none.

    segments : at least one, each with voxels; masks [slice, row, column] on the grid of `stack`.
    omit_empty_frames : frames only on slices with a Segment.
    transfer_syntax_uid : Explicit VR Little Endian, which every acceptor takes, or RLE Lossless, which is some
        fifty times smaller. Each form has UIDs of its own.
    """
    if transfer_syntax_uid not in (ExplicitVRLittleEndian, RLELossless):
        raise ValueError(f"Transfer Syntax {transfer_syntax_uid}; Explicit VR Little Endian or RLE Lossless is needed")
    if overlap(segments, stack.shape):
        return NoLabelMap("segments overlap, and a pixel of a label map belongs to one segment only")
    compressed = transfer_syntax_uid == RLELossless
    role = "seg_labelmap" + ("" if omit_empty_frames else " all frames") + (" rle" if compressed else "")
    dataset = new_object(
        LABEL_MAP_SEGMENTATION_STORAGE,
        "SEG",
        stack.header,
        provenance,
        role=role,
        series_number=provenance.series_number("seg_labelmap"),
        series_description=series_description(provenance),
        own_codes=any(is_own(key) for segment in segments for key in (segment.concept, segment.site)),
    )
    add_segmentation_image(dataset, segments, stack, provenance)
    dataset.SegmentSequence.append(_background())
    bits = 8 if max(segment.number for segment in segments) < 2**8 else 16
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.SegmentationType, dataset.SegmentsOverlap = "LABELMAP", "NO"
    dataset.add_new("PixelPaddingValue", "US", BACKGROUND)
    add_dimensions(dataset, provenance, role, (POSITION_INDEX,))
    touched = np.logical_or.reduce([segment.slice_voxels > 0 for segment in segments])
    slices = [index for index in range(len(stack.slices)) if touched[index] or not omit_empty_frames]
    add_frames(dataset, [Frame(index, ()) for index in slices], stack, "segmentation")
    planes = [_labels(segments, index, (stack.rows, stack.columns), f"<u{bits // 8}") for index in slices]
    if compressed:
        dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
        dataset.PixelData = encapsulate([_run_length(plane) for plane in planes])
        dataset["PixelData"].is_undefined_length = True
    else:
        data = b"".join(plane.tobytes() for plane in planes)
        dataset.PixelData = data if len(data) % 2 == 0 else data + b"\0"
    dataset["PixelData"].VR = "OB" if bits == 8 or compressed else "OW"
    return dataset


def _labels(segments: Sequence[Segment], index: int, shape: tuple[int, int], dtype: str) -> NDArray[np.unsignedinteger]:
    """Segment Numbers of one slice: [row, column]."""
    plane = np.full(shape, BACKGROUND, dtype=dtype)
    for segment in segments:
        if segment.slice_voxels[index]:
            plane[segment.mask[index]] = segment.number
    return plane


def _run_length(plane: NDArray[np.unsignedinteger]) -> bytes:
    rows, columns = plane.shape
    data: bytes = get_encoder(RLELossless).encode(
        plane,
        encoding_plugin="pylibjpeg",
        rows=rows,
        columns=columns,
        samples_per_pixel=1,
        bits_allocated=plane.itemsize * 8,
        bits_stored=plane.itemsize * 8,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
        number_of_frames=1,
    )
    return data


def _background() -> Dataset:
    """Segment 0. Made by no algorithm, so it names none but the type that is required."""
    item = Dataset()
    item.SegmentNumber = BACKGROUND
    item.SegmentLabel = concept("background").meaning
    item.SegmentAlgorithmType = "AUTOMATIC"
    item.SegmentAlgorithmName = "background"
    add_code(item, "SegmentedPropertyCategoryCodeSequence", "background")
    add_code(item, "SegmentedPropertyTypeCodeSequence", "background")
    item.RecommendedDisplayCIELabValue = [0, 32896, 32896]  # black: L* 0, a* 0, b* 0 (PS3.3 C.10.7.1.1)
    return item
