"""A SEG read back (PS3.3 A.51, C.8.20): its frames on their images, its Segments with their voxels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from dicom_node.encoding.read_back.elements import Item
from dicom_node.encoding.read_back.grid import frame_groups, frame_voxel_mm3, places_of_frames
from dicom_node.encoding.read_back.images import InputImages, Place
from dicom_node.encoding.read_back.opened import Opened


@dataclass(frozen=True)
class ReadSegmentation:
    """What a SEG says, from its bytes alone."""

    result: Opened
    places: Sequence[Place]  # of each frame
    numbers: Sequence[int] | None  # Segment Number of each frame; None for a label map
    segments: Mapping[int, Item]  # Segment Number -> item of Segment Sequence; without a label map's background
    voxel_mm3: float
    rows: int
    columns: int

    @cached_property
    def labels(self) -> NDArray[np.uint8 | np.uint16]:
        """Frames of a label map [frame, row, column]."""
        frames: NDArray[np.uint8 | np.uint16] = dcmread(BytesIO(self.result.encoded.data)).pixel_array
        return frames.reshape(len(self.places), self.rows, self.columns)

    @cached_property
    def packed(self) -> NDArray[np.uint8]:
        """Frames of a BINARY one [frame, byte], lowest bit first, each frame from a new byte on."""
        data = np.frombuffer(self.result.dataset.padded("PixelData"), dtype=np.uint8)
        size, count = self.rows * self.columns, len(self.places)
        if size % 8 == 0:
            return data[: count * size // 8].reshape(count, size // 8)
        bits = np.unpackbits(data, bitorder="little")[: count * size].reshape(count, size)
        return np.packbits(bits, axis=1, bitorder="little")

    @cached_property
    def voxels(self) -> Mapping[int, int]:
        """Segment Number -> voxels in all of its frames."""
        if self.numbers is None:
            values, counts = np.unique(self.labels, return_counts=True)
            return {int(value): int(count) for value, count in zip(values, counts, strict=True) if value}
        found = dict.fromkeys(self.segments, 0)
        for number, count in zip(self.numbers, _bits(self.packed), strict=True):
            found[number] = found.get(number, 0) + int(count)
        return found

    @cached_property
    def tracked(self) -> dict[str, int]:
        """Tracking UID (0062,0021) -> Segment Number."""
        return {item.text("TrackingUID"): number for number, item in self.segments.items() if item.has("TrackingUID")}

    def mask(self, number: int, place: Place) -> NDArray[np.bool_] | None:
        """Voxels [row, column] of a Segment on an image or frame; None where it has none there."""
        if place not in self.places and place[1] == 1:
            place = (place[0], None)  # the only frame of an image is the image
        for frame, where in enumerate(self.places):
            if where == place and self.numbers is None:
                found: NDArray[np.bool_] = self.labels[frame] == number
                return found if found.any() else None
            if where == place and self.numbers is not None and self.numbers[frame] == number:
                bits = np.unpackbits(self.packed[frame], count=self.rows * self.columns, bitorder="little")
                return bits.view(np.bool_).reshape(self.rows, self.columns) if bits.any() else None
        return None


def read_segmentation(result: Opened, images: InputImages) -> ReadSegmentation:
    """Check a SEG by itself and against its source images. Raises InvalidResult."""
    dataset = result.dataset
    kind = dataset.text("SegmentationType")
    places = places_of_frames(result, images)
    items = dataset.sequence("SegmentSequence")
    segments = {number: item for item in items if (number := item.integer("SegmentNumber")) is not None}
    if len(segments) != len(items):
        raise result.fault("two Segments share a Segment Number (0062,0004), or one has none.")
    known = {number: item for number, item in segments.items() if number or kind != "LABELMAP"}
    if kind != "LABELMAP" and sorted(known) != list(range(1, len(known) + 1)):
        raise result.fault(f"Segment Numbers are {sorted(known)}; they must count from 1 without a gap.")
    numbers = None if kind == "LABELMAP" else _numbers(result, known)
    columns, rows = dataset.integer("Columns") or 0, dataset.integer("Rows") or 0
    found = ReadSegmentation(result, places, numbers, known, frame_voxel_mm3(result), rows, columns)
    _check_pixels(found, kind)
    named = list(zip(numbers, places, strict=True)) if numbers is not None else list(places)
    if len(set(named)) < len(named):
        raise result.fault("two frames show the same Segment on the same image.")
    if unknown := found.voxels.keys() - known.keys():
        raise result.fault(f"has voxels of Segment {sorted(unknown)[0]}, which Segment Sequence does not have.")
    if empty := sorted(number for number in known if not found.voxels.get(number)):
        raise result.fault(f"Segments {empty} have no voxel.")
    for number, item in known.items():
        _check_segment(result, number, item)
    if len(found.tracked) < sum(item.has("TrackingUID") for item in known.values()):
        raise result.fault("two Segments share a Tracking UID (0062,0021).")
    return found


def _numbers(result: Opened, segments: Mapping[int, Item]) -> list[int]:
    """Segment Number of each frame."""
    shared, groups = frame_groups(result)
    numbers = []
    for index, frame in enumerate(groups, start=1):
        item = frame.first("SegmentIdentificationSequence") or shared.first("SegmentIdentificationSequence")
        number = item.integer("ReferencedSegmentNumber")
        if number is None or number not in segments:
            raise result.fault(f"frame {index} is of Segment {number}, which Segment Sequence does not have.")
        numbers.append(number)
    return numbers


def _check_pixels(found: ReadSegmentation, kind: str) -> None:
    """Pixel attributes and the length of the pixels (PS3.3 C.8.20.2, PS3.5 8.1.1)."""
    dataset, result = found.result.dataset, found.result
    bits = dataset.integer("BitsAllocated")
    if bits not in {"BINARY": (1,), "LABELMAP": (8, 16)}.get(kind, ()):
        raise result.fault(f"Segmentation Type (0062,0001) is {kind!r} with {bits} bits; viewers would not show it.")
    stored = dataset.integer("BitsStored"), dataset.integer("HighBit"), dataset.integer("PixelRepresentation")
    if stored != (bits, bits - 1, 0):
        raise result.fault(f"Bits Stored, High Bit and Pixel Representation are {stored}, with {bits} allocated.")
    is_encapsulated = result.meta.text("TransferSyntaxUID") != "1.2.840.10008.1.2.1"
    if is_encapsulated and kind != "LABELMAP":
        raise result.fault("only a label map may be compressed with RLE; single bits may not (PS3.5 8.2.2).")
    if is_encapsulated:
        return
    value = dataset.padded("PixelData")
    size = -(-len(found.places) * found.rows * found.columns * bits // 8)
    if len(value) != size + size % 2:
        raise result.fault(f"Pixel Data (7FE0,0010) has {len(value)} bytes; {size + size % 2} are needed.")


def _check_segment(result: Opened, number: int, item: Item) -> None:
    automatic = item.text("SegmentAlgorithmType")
    if automatic not in ("AUTOMATIC", "SEMIAUTOMATIC"):
        raise result.fault(f"Segment {number} has the Segment Algorithm Type {automatic!r}; no person drew it.")
    if not item.has("SegmentAlgorithmName"):
        raise result.fault(f"Segment {number} has no Segment Algorithm Name (0062,0009).")
    if item.has("TrackingUID") != item.has("TrackingID"):
        raise result.fault(f"Segment {number} has only one of Tracking UID and Tracking ID.")


def _bits(packed: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Bits set in each row."""
    wide = packed.view(np.uint64) if packed.shape[1] % 8 == 0 and packed.flags.c_contiguous else packed
    counts: NDArray[np.int64] = np.bitwise_count(wide).sum(axis=1, dtype=np.int64)
    return counts
