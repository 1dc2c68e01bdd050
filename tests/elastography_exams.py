"""Small exams of MR elastography as the headers of each vendor tell them, with known values in every image.

Image values say where they belong: magnitude is 100 x (slice + 1) + offset, phase (in thousandths of a radian)
-1500 + 1000 x offset + 100 x slice, wrapped, stiffness 2.0 + 0.5 x slice kPa, confidence 0.9 + 0.01 x slice.
"""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.recognition.headers import read_instance
from storage.records import Instance

MR, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
STUDY, FRAME = "1.2.826.0.1.3680043.9.1", "1.2.826.0.1.3680043.9.2"
SLICES, OFFSETS, SPACING_MM, FIRST_MM = 4, 4, 10.0, -30.0
ROWS, COLUMNS = 8, 6
VENDORS = ("GE", "Siemens", "Siemens XA", "Philips", "Canon")

Pixels = NDArray[Any]


def magnitude_value(place: int, offset: int) -> int:
    return 100 * (place + 1) + offset


def phase_radians(place: int, offset: int) -> float:
    return (-1.5 + offset + 0.1 * place + math.pi) % (2 * math.pi) - math.pi


def stiffness_kpa(place: int) -> float:
    return 2.0 + 0.5 * place


def confidence(place: int) -> float:
    return 0.9 + 0.01 * place


def image(series: int, number: int, place: int, pixels: float, **values: Any) -> Dataset:
    """One axial image with the same value in every pixel but its first, which is zero."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = MR, STUDY, FRAME
    ds.SeriesInstanceUID, ds.SOPInstanceUID = f"{STUDY}.{series}", f"{STUDY}.{series}.{number}"
    ds.PatientName, ds.PatientID, ds.Modality = "A^B", "1", "MR"
    ds.SeriesNumber, ds.InstanceNumber = series, number
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [-200.0, -180.0, FIRST_MM + SPACING_MM * place]
    ds.PixelSpacing, ds.SliceThickness = [1.5, 1.6], 10
    ds.EchoTime, ds.RepetitionTime, ds.MagneticFieldStrength = 20.2, 50, 1.5
    ds.StudyDate = ds.AcquisitionDate = "20250102"
    ds.AcquisitionTime = "101500"
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    _fill(ds, pixels)
    return ds


def _fill(ds: Dataset, value: float, rows: int = ROWS, columns: int = COLUMNS) -> None:
    ds.Rows, ds.Columns = rows, columns
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, ds.get("BitsStored", 16), ds.get("BitsStored", 16) - 1
    ds.PixelRepresentation = int(value < 0)
    array = np.full((rows, columns), round(value), dtype=np.int16 if value < 0 else np.uint16)
    array[0, 0] = 0 if "P" not in ds.get("ImageType", ()) else array[0, 0]
    ds.PixelData = array.tobytes()


def _coloured(ds: Dataset, colour: tuple[int, int, int]) -> Dataset:
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.PixelData = np.full((ROWS, COLUMNS, 3), colour, dtype=np.uint8).tobytes()
    return ds


def ge_private(ds: Dataset, name: str = "MR-Touch", kind: int | None = None, block: int = 0x10) -> Dataset:
    """GE's private blocks; the acquisition block at (0019,00`block`)."""
    ds.add_new((0x0019, block), "LO", "GEMS_ACQU_01")
    ds.add_new((0x0019, block << 8 | 0x9C), "LO", name)
    if kind is not None:
        ds.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", kind)
    return ds


def ge(slices: int = SLICES, offsets: int = OFFSETS, *, series: int = 4, time: str = "101500") -> list[Dataset]:
    """Phase first half, magnitude second half of one series; maps computed on the scanner, Pa, and pictures."""
    common = {"Manufacturer": "GE MEDICAL SYSTEMS", "ScanningSequence": "GR", "AcquisitionTime": time}
    text = "Ax MRE 60Hz"
    raw = {"ImageType": ["ORIGINAL", "PRIMARY", "OTHER"], "SeriesDescription": text, "PixelRepresentation": 1} | common
    made = []
    number = 0
    for component in ("phase", "magnitude"):
        for place in range(slices):
            for offset in range(offsets):
                number += 1
                if component == "phase":
                    value = 1000 * phase_radians(place, offset)
                    made.append(image(series, number, place, value, **raw))
                else:
                    made.append(image(series, number, place, magnitude_value(place, offset), **raw))
    derived = {"ImageType": ["DERIVED", "SECONDARY", "OTHER"]} | common
    for place in range(slices):
        for n, (name, value) in enumerate(
            (
                ("Wave", 50 + place),
                ("Elastogram", 1000 * stiffness_kpa(place)),
                ("Confidence", 1000 * confidence(place)),
            )
        ):
            description = f"{text} {name}"
            made.append(image(10 * series + n, place + 1, place, value, **derived, SeriesDescription=description))
        picture = image(10 * series + 3, place + 1, place, 1, **derived, SeriesDescription=f"{text} CMOE")
        made.append(_coloured(picture, (10, 20 + place, 30)))
    return [ge_private(ds) for ds in made]


def siemens(
    slices: int = SLICES, offsets: int = OFFSETS, *, series: int = 4, time: str = "101500", xa: bool = False
) -> list[Dataset]:
    """A series per component; 12 bit phase, stiffness x 1000. With `xa` the words of software XA."""
    common: dict[str, Any] = {"Manufacturer": "Siemens Healthineers", "AcquisitionTime": time}
    common |= {"ProtocolName": "liver stiffness mre", "NumberOfTemporalPositions": offsets}
    if not xa:
        common |= {"SequenceName": "epseMRE2d", "ScanningSequence": "EP"}
    made = []

    def of(token: str, component: str) -> dict[str, Any]:
        if xa:
            return {"ImageType": ["ORIGINAL", "PRIMARY", "ELASTO", "NONE"], "ComplexImageComponent": component}
        return {"ImageType": ["ORIGINAL", "PRIMARY", token, "ND"]}

    for offset in range(offsets):
        for place in range(slices):
            number = offset * slices + place + 1
            values = common | {"TemporalPositionIdentifier": offset + 1}
            description = "liver stiffness mre_Mag"
            magnitude = values | of("M", "MAGNITUDE") | {"SeriesDescription": description, "BitsStored": 12}
            made.append(image(series, number, place, magnitude_value(place, offset), **magnitude))
            stored = 2048 + phase_radians(place, offset) * 2048 / math.pi
            phase = values | of("P", "PHASE") | {"SeriesDescription": "liver stiffness mre_P", "BitsStored": 12}
            phase |= {"RescaleSlope": 2, "RescaleIntercept": -4096, "RescaleType": "US"}
            made.append(image(series + 1, number, place, stored, **phase))
    for place in range(slices):
        kinds = (
            ("Wave", ["DERIVED", "PRIMARY", "P", "WV"], 50 + place),
            ("Stiffness", ["DERIVED", "PRIMARY", "M", "ND"], 1000 * stiffness_kpa(place)),
            ("ConfMap", ["DERIVED", "PRIMARY", "M", "ND"], 1000 * confidence(place)),
        )
        for n, (name, image_type, value) in enumerate(kinds):
            shown = image_type if not xa else ["DERIVED", "PRIMARY", "ELASTO", "NONE"]
            derived = common | {"ImageType": shown, "SeriesDescription": f"liver stiffness mre_{name}"}
            made.append(image(series + 2 + n, place + 1, place, value, **derived))
        derived = common | {"ImageType": shown, "SeriesDescription": "liver stiffness mre_Stiffness_conf_color"}
        made.append(_coloured(image(series + 5, place + 1, place, 1, **derived), (10, 20 + place, 30)))
    return made


def siemens_enhanced(slices: int = SLICES, offsets: int = OFFSETS, *, series: int = 4) -> Dataset:
    """Magnitude and phase of all slices and offsets as frames of one Enhanced MR object, in no helpful order."""
    ds = image(series, 1, 0, 0, Manufacturer="Siemens Healthineers", SeriesDescription="mre 60 Hz")
    for keyword in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SliceThickness", "EchoTime"):
        delattr(ds, keyword)
    ds.SOPClassUID, ds.ImageType = ENHANCED_MR, ["ORIGINAL", "PRIMARY", "ELASTO", "NONE"]
    ds.ComplexImageComponent, ds.BitsStored, ds.HighBit = "MIXED", 12, 11
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [1.5, 1.6], 10
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    ds.SharedFunctionalGroupsSequence = [shared]
    groups, arrays = [], []
    for offset in reversed(range(offsets)):
        for place in range(slices):
            for component in ("PHASE", "MAGNITUDE"):
                group, kind, position, content = Dataset(), Dataset(), Dataset(), Dataset()
                kind.FrameType, kind.ComplexImageComponent = ["ORIGINAL", "PRIMARY", "ELASTO", "NONE"], component
                position.ImagePositionPatient = [-200.0, -180.0, FIRST_MM + SPACING_MM * place]
                content.TemporalPositionIndex = offset + 1
                group.MRImageFrameTypeSequence, group.PlanePositionSequence = [kind], [position]
                group.FrameContentSequence = [content]
                groups.append(group)
                stored = 2048 + phase_radians(place, offset) * 2048 / math.pi
                value = magnitude_value(place, offset) if component == "MAGNITUDE" else stored
                arrays.append(np.full((ROWS, COLUMNS), round(value), dtype=np.uint16))
    ds.PerFrameFunctionalGroupsSequence, ds.NumberOfFrames = groups, len(groups)
    ds.PixelData = np.stack(arrays).tobytes()
    return ds


def philips(
    slices: int = SLICES, offsets: int = OFFSETS, *, series: int = 4, time: str = "101500", epi: bool = True
) -> list[Dataset]:
    """Magnitude and phase in one series, as Philips sends complex images; a map with its unit, finer than these."""
    common = {"Manufacturer": "Philips Medical Systems", "AcquisitionTime": time, "SeriesDescription": "WIP liver 60Hz"}
    tokens = ["M_SE", "M", "SE"] if epi else ["M_FFE", "M", "FFE"]
    made = []
    number = 0
    for place in range(slices):
        for offset in range(offsets):
            for component in ("M", "P"):
                number += 1
                values = common | {"TriggerTime": 4.17 * offset, "BitsStored": 12}
                if component == "M":
                    values |= {"ImageType": ["ORIGINAL", "PRIMARY", *tokens]}
                    made.append(image(series, number, place, magnitude_value(place, offset), **values))
                else:
                    values |= {"ImageType": ["ORIGINAL", "PRIMARY", "MRE", "P", "MRE"]}
                    values |= {"RescaleSlope": 1.534, "RescaleIntercept": -3142, "RescaleType": "normalized"}
                    stored = 2048 + phase_radians(place, offset) * 2048 / math.pi
                    made.append(image(series, number, place, stored, **values))
                block = made[-1].private_block(0x2001, "Philips Imaging DD 001", create=True)
                block.add_new(0x18, "SL", slices)
                block.add_new(0x81, "IS", str(offsets))
    for place in range(slices):
        values = common | {"ImageType": ["DERIVED", "SECONDARY", "MRE", "STIFFNESS"], "SeriesDescription": "Stiffness"}
        ds = image(series + 1, place + 1, place, 1, **values)
        _fill(ds, round(stiffness_kpa(place) * 500), 2 * ROWS, 2 * COLUMNS)
        ds.PixelSpacing, ds.ImagePositionPatient[0] = [0.75, 0.8], -200.4
        mapping, unit = Dataset(), Dataset()
        unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "kPa", "UCUM", "kilopascal"
        mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 0.002, 0.0
        mapping.MeasurementUnitsCodeSequence = [unit]
        ds.RealWorldValueMappingSequence = [mapping]
        made.append(ds)
    return made


def canon(slices: int = SLICES, offsets: int = OFFSETS, *, series: int = 4) -> list[Dataset]:
    """Image Comments say what an image is; magnitude is of all offsets, one image per slice."""
    common = {"Manufacturer": "CANON_MEC", "SeriesDescription": "SEEPI MRE 60 Hz", "ImageType": ["ORIGINAL", "PRIMARY"]}
    made = []
    for place in range(slices):
        comment = common | {"ImageComments": "Magnitude"}
        made.append(image(series, place + 1, place, magnitude_value(place, 0), **comment))
        for offset in range(offsets):
            number = place * offsets + offset + 1
            values = common | {"ImageComments": "PhaseDiff", "BitsStored": 12}
            stored = 2048 + phase_radians(place, offset) * 2048 / math.pi
            made.append(image(series + 1, number, place, stored, **values))
        values = common | {"ImageComments": "Stiffness"}
        made.append(image(series + 2, place + 1, place, 1000 * stiffness_kpa(place), **values))
    return made


EXAMS: dict[str, Callable[[], list[Dataset]]] = {
    "GE": ge,
    "Siemens": siemens,
    "Siemens XA": lambda: siemens(xa=True),
    "Siemens enhanced": lambda: [siemens_enhanced()],
    "Philips": philips,
    "Philips GRE": lambda: philips(epi=False),
    "Canon": canon,
}


def ordinary_mr(series: int = 90) -> list[Dataset]:
    """What else lies in a study of the liver, made to look like elastography where it can."""
    made = []
    kinds: tuple[dict[str, Any], ...] = (
        {"Manufacturer": "Philips", "ImageType": ["ORIGINAL", "PRIMARY", "M_SE", "M", "SE"]},
        {"Manufacturer": "Philips", "ImageType": ["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"], "EchoTime": 2.3},
        {"Manufacturer": "Philips", "ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"], "EchoTime": 5.0},
        {"Manufacturer": "SIEMENS", "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"], "SequenceName": "*fl3d2"},
        {"Manufacturer": "SIEMENS", "ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"], "SequenceName": "fl2d1"},
        {"Manufacturer": "GE MEDICAL SYSTEMS", "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"]},
        {"Manufacturer": "CANON_MEC", "ImageType": ["ORIGINAL", "PRIMARY"], "ImageComments": "Magnitude"},
        {"Manufacturer": "SIEMENS", "ImageType": ["ORIGINAL", "PRIMARY", "M"], "SeriesDescription": "MRE HASTE cor"},
        {"Manufacturer": "SIEMENS", "ImageType": ["DERIVED", "SECONDARY"], "SeriesDescription": "MRE art phase SUB"},
        {"Manufacturer": "SIEMENS", "ImageType": ["DERIVED", "SECONDARY"], "SeriesDescription": "aortic stiffness PWV"},
        {"Manufacturer": "UIH", "ImageType": ["DERIVED", "SECONDARY"], "SeriesDescription": "wave corrected T1"},
    )  # fmt: skip
    for n, values in enumerate(kinds):
        for place in range(SLICES):
            made.append(image(series + n, place + 1, place, 100, **values))
            if values["Manufacturer"].startswith("GE"):
                ge_private(made[-1], name="epi2")
    return made


def written(datasets: Iterable[Dataset], folder: Path, *, implicit: bool = False) -> list[Path]:
    """The datasets as files."""
    paths = []
    for ds in datasets:
        path = folder / f"{ds.SOPInstanceUID}.dcm"
        if implicit:
            ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = (
            ds.SOPClassUID,
            ds.SOPInstanceUID,
        )
        pydicom.dcmwrite(path, ds, enforce_file_format=True)
        paths.append(path)
    return paths


def indexed(datasets: Iterable[Dataset], folder: Path, *, implicit: bool = False) -> list[Instance]:
    """The datasets as the index knows them: written to files and read by recognition."""
    from dataclasses import replace

    paths = written(datasets, folder, implicit=implicit)
    found = [replace(read_instance(path), path=str(path)) for path in paths]
    return [replace(instance, sha256=instance.sop_instance_uid) for instance in found]
