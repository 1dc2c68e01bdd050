"""Source images by kind, character set and orientation."""

from collections.abc import Sequence

import numpy as np
from encoded_studies import STUDY, ct_stack
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    MRImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

#: Specific Character Set -> a name that needs it.
CHARACTER_SETS: dict[str, tuple[str | list[str] | None, str]] = {
    "none": (None, "Mueller^Zoe"),
    "latin1": ("ISO_IR 100", "Müller^Zoë^^Dr."),
    "utf8": ("ISO_IR 192", "Wang^XiaoDong=王^小東"),
    "gb18030": ("GB18030", "Wang^XiaoDong=王^小东"),
    "japanese": (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
}
#: Image Orientation (Patient), and whether the slices come against the normal.
ORIENTATIONS: dict[str, tuple[tuple[float, ...], bool]] = {
    "axial": ((1, 0, 0, 0, 1, 0), False),
    "reversed": ((1, 0, 0, 0, 1, 0), True),
    "sagittal": ((0, 1, 0, 0, 0, -1), False),
    "coronal": ((1, 0, 0, 0, 0, -1), False),
    "oblique": ((0.984808, 0.173648, 0.0, -0.163176, 0.925417, 0.342020), False),
}
SPACING_MM = (2.5, 0.8, 0.9)


def identity(number: int, character_set: str) -> dict[str, object]:
    """Elements that say whose study it is."""
    names, person = CHARACTER_SETS[character_set]
    return {
        "SpecificCharacterSet": names,
        "PatientName": person,
        "PatientID": f"SYN-{number:04}",
        "AccessionNumber": f"ACC{number}",
        "StudyInstanceUID": study_uid(number),
        "FrameOfReferenceUID": f"{study_uid(number)}.9",
    }


def study_uid(number: int) -> str:
    """Study Instance UID of a case."""
    return f"{STUDY}.{number}"


def stack(
    kind: str, number: int, character_set: str, orientation: str, values: NDArray[np.int16], *, place: int = 1
) -> list[Dataset]:
    """CT or MR, single-frame or enhanced, of values [slice, row, column].

    kind : "ct", "ct_enhanced", "mr", "mr_enhanced". place : of the Series in its study.
    """
    cosines, reverse = ORIENTATIONS[orientation]
    slices, rows, _ = values.shape
    modality = kind[:2].upper()
    series = f"{study_uid(number)}.{place}"
    extra: dict[str, object] = {
        **identity(number, character_set),
        "SeriesInstanceUID": series,
        "SeriesNumber": place,
        "Modality": modality,
        "SpacingBetweenSlices": SPACING_MM[0],
    }
    if modality == "MR":
        extra |= {"SOPClassUID": MRImageStorage, "KVP": None, "RescaleType": "US", "ScanningSequence": "GR",
                  "SequenceVariant": "NONE", "ScanOptions": "", "MRAcquisitionType": "3D", "EchoTime": 2.1,
                  "RepetitionTime": 5, "EchoTrainLength": 1}  # fmt: skip
    images = ct_stack(
        "portal_venous", slices, rows, spacing=SPACING_MM, orientation=cosines, reverse=reverse, values=values, **extra
    )
    for index, image in enumerate(images, start=1):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{series}.{index}"
        image.Columns = values.shape[2]
    return [_enhanced(images, modality)] if kind.endswith("enhanced") else images


def ultrasound(
    kind: str, number: int, character_set: str, frames: int, size: int, *, place: int = 2
) -> tuple[list[Dataset], NDArray[np.uint8]]:
    """Single images ("us") or one clip ("us_cine") of so many frames; and their values [frame, row, column]."""
    rows, columns = size, size * 5 // 4
    y, x = np.mgrid[0:rows, 0:columns]
    values = np.random.default_rng(3).rayleigh(40, (frames, rows, columns))
    for index in range(frames):
        values[index][(x - columns / 2) ** 2 + (y - rows / 2) ** 2 < (size / 6 + index % 5) ** 2] *= 0.3
    pixels = np.clip(values, 0, 255).astype(np.uint8)
    series = f"{study_uid(number)}.{place}"
    gone = "ImagePositionPatient ImageOrientationPatient PositionReferenceIndicator PixelSpacing SliceThickness KVP"
    gone += " RescaleIntercept RescaleSlope RescaleType WindowCenter WindowWidth"
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = columns - 1, rows - 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = 0.05
    made = []
    for index, plane in enumerate([pixels] if kind == "us_cine" else list(pixels), start=1):
        is_clip = kind == "us_cine"
        (image,) = ct_stack("bmode", 1, **{
            **dict.fromkeys(gone.split()),
            **identity(number, character_set),
            "FrameOfReferenceUID": None,
            "SeriesInstanceUID": series,
            "SeriesNumber": place,
            "SOPInstanceUID": f"{series}.{index}",
            "SOPClassUID": UltrasoundMultiFrameImageStorage if is_clip else UltrasoundImageStorage,
            "InstanceNumber": index,
            "Modality": "US",
            "ImageType": ["ORIGINAL", "PRIMARY", "ABDOMINAL", "0001"],
            "Rows": rows,
            "Columns": columns,
            "SequenceOfUltrasoundRegions": [region],
            "BitsAllocated": 8,
            "BitsStored": 8,
            "HighBit": 7,
            "PixelRepresentation": 0,
        })  # fmt: skip
        if is_clip:
            image.NumberOfFrames, image.FrameTime, image.FrameIncrementPointer = frames, "40", 0x00181063
        image.PixelData = plane.tobytes()
        image["PixelData"].VR = "OB"
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        made.append(image)
    return made, pixels


def _enhanced(images: Sequence[Dataset], modality: str) -> Dataset:
    """One enhanced Instance of the images, its frames not in order of position (PS3.3 C.7.6.16)."""
    order = [int(index) for index in np.random.default_rng(5).permutation(len(images))]
    first = images[0]
    dataset = Dataset()
    moved = {"ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "PixelData"}
    moved |= {"SpacingBetweenSlices", "RescaleIntercept", "RescaleSlope", "RescaleType", "WindowCenter", "WindowWidth"}
    for element in first:
        if element.keyword not in moved:
            dataset.add(element)
    dataset.SOPClassUID = EnhancedCTImageStorage if modality == "CT" else EnhancedMRImageStorage
    dataset.SOPInstanceUID = f"{first.SeriesInstanceUID}.99"
    dataset.NumberOfFrames = len(images)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    shared = Dataset()
    for macro, keywords in {
        "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
        "PlaneOrientationSequence": ("ImageOrientationPatient",),
        "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope", "RescaleType"),
        "FrameVOILUTSequence": ("WindowCenter", "WindowWidth"),
    }.items():
        item = Dataset()
        for keyword in keywords:
            setattr(item, keyword, first.get(keyword))
        setattr(shared, macro, [item])
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = []
    for place, index in enumerate(order, start=1):
        content, position, groups = Dataset(), Dataset(), Dataset()
        content.StackID, content.InStackPositionNumber = "1", index + 1
        content.DimensionIndexValues = [1, index + 1]
        content.FrameAcquisitionNumber = place
        position.ImagePositionPatient = images[index].ImagePositionPatient
        groups.FrameContentSequence, groups.PlanePositionSequence = [content], [position]
        dataset.PerFrameFunctionalGroupsSequence.append(groups)
    dataset.PixelData = b"".join(images[index].PixelData for index in order)
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = first.file_meta
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset
