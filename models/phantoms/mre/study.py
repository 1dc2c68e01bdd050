"""The common part of a phantom MRE study: patient, geometry, and one classic MR image per slice, offset and role."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage

from models.phantoms.dicom import phantom_uid, save
from models.phantoms.mre.exam import Exam

# Roles of the series of an MRE exam, as truth.json names them.
ROLES = ("magnitude", "phase", "wave", "unwrapped", "stiffness", "confidence", "overlay", "colour", "colour_wave")


@dataclass(frozen=True)
class Geometry:
    """Where the slices lie: a small turn of the image plane, and the shift from patient to scanner coordinates."""

    row_way: tuple[float, float, float]  # direction of increasing column, LPS
    column_way: tuple[float, float, float]  # direction of increasing row
    offset_mm: tuple[float, float, float]  # x, y, z

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit normal of the slices, to the head."""
        return np.cross(self.row_way, self.column_way)

    def origin(self, exam: Exam, index: int) -> NDArray[np.float64]:
        """Centre of the first pixel of a slice, LPS mm."""
        protocol, piece = exam.protocol, exam.slices[index]
        half = (protocol.matrix - 1) / 2 * protocol.pixel_mm
        y, x = (c - half for c in piece.state.centre_mm)
        in_plane = x * np.asarray(self.row_way) + y * np.asarray(self.column_way)
        return np.asarray(self.offset_mm) + in_plane + piece.z_mm * self.normal

    def position_mm(self, exam: Exam, index: int) -> float:
        """Distance of a slice's plane from the origin along its normal: z of an axial slice."""
        return float(self.origin(exam, index) @ self.normal)


@dataclass(frozen=True)
class Study:
    """What all series share, and where they go."""

    exam: Exam
    base: Dataset
    geometry: Geometry
    start: datetime
    folder: Path
    rng: np.random.Generator
    wanted: frozenset[str]  # roles to write
    series: dict[str, str] = field(default_factory=dict)  # role -> SeriesInstanceUID, filled as they are written

    def uid(self, *parts: object) -> str:
        return phantom_uid("mre", self.exam.seed, *parts)


@dataclass(frozen=True)
class Picture:
    """One image to be written."""

    index: int  # of the slice
    offset: int | None  # of the driver's phase; None: one image per slice
    stored: NDArray  # [row, column] integers, or uint8 [row, column, 3]
    extra: Callable[[Dataset], None] | None = None


@dataclass(frozen=True)
class Series:
    """One series: texts, and how its pixels are stored."""

    key: str  # names it in UIDs and file names
    number: int
    description: str
    image_type: tuple[str, ...]
    after_s: float  # since the study began
    bits: int = 16
    signed: bool = False
    window: tuple[float, float] | None = None
    extra: Callable[[Dataset], None] | None = None
    sop_class: str = MRImageStorage  # consoles file colour pictures as MR images or as secondary captures


def draw_geometry(rng: np.random.Generator) -> Geometry:
    """Mostly axial; one exam in six is turned by a few degrees."""
    offset = float(rng.uniform(-25, 25)), float(rng.uniform(-40, 40)), float(rng.uniform(-120, 120))
    if rng.random() > 0.16:
        return Geometry((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), offset)
    a, b = np.deg2rad(rng.uniform(-5, 5, 2))
    row = np.array([np.cos(a), 0.0, np.sin(a)])
    column = np.array([-np.sin(b) * np.sin(a), np.cos(b), np.sin(b) * np.cos(a)])
    return Geometry(tuple(np.round(row, 9)), tuple(np.round(column, 9)), offset)


def base_dataset(exam: Exam, rng: np.random.Generator, start: datetime, maker: tuple[str, str, str]) -> Dataset:
    """Patient, study, frame of reference and equipment; maker: Manufacturer, model, software."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientName = f"PHANTOM^MR{exam.seed:06d}"
    ds.PatientID = f"PHANTOM-MR-{exam.seed:06d}"
    age = int(rng.integers(22, 82))
    ds.PatientSex, ds.PatientAge = str(rng.choice(["M", "F"])), f"{age:03d}Y"
    ds.PatientBirthDate = f"{start.year - age:04d}0101"
    ds.StudyInstanceUID = phantom_uid("mre", exam.seed, "study")
    ds.StudyID, ds.AccessionNumber = str(exam.seed % 100000), f"PM{exam.seed:08d}"
    ds.StudyDate, ds.StudyTime = start.strftime("%Y%m%d"), start.strftime("%H%M%S.000000")
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = str(
        rng.choice(["MR LIVER ELASTOGRAPHY", "MRI ABDOMEN W MRE", "Leber^Elasto", "LIVER MRE FAT IRON"])
    )
    ds.Manufacturer, ds.ManufacturerModelName, ds.SoftwareVersions = maker
    ds.StationName, ds.InstitutionName = "MR1", "Phantom Hospital"
    ds.Modality = "MR"
    ds.BodyPartExamined = str(rng.choice(["ABDOMEN", "LIVER"]))
    ds.PatientPosition = "HFS"
    ds.FrameOfReferenceUID = phantom_uid("mre", exam.seed, "frame")
    ds.PositionReferenceIndicator = ""
    ds.MagneticFieldStrength = f"{exam.protocol.tesla:g}"
    return ds


def sequence_attributes(ds: Dataset, exam: Exam) -> None:
    """MR Image module of the MRE sequence (PS3.3 C.8.3.1)."""
    p = exam.protocol
    ds.ScanningSequence = "GR" if p.sequence == "gre" else ["SE", "EP"]
    ds.SequenceVariant = "SP" if p.sequence == "gre" else "SK"
    ds.ScanOptions, ds.MRAcquisitionType = "", "2D"
    ds.RepetitionTime, ds.EchoTime = f"{p.tr_ms:g}", f"{p.te_ms:g}"
    ds.FlipAngle = f"{p.flip_deg:g}"
    ds.EchoTrainLength = 1 if p.sequence == "gre" else p.lines
    ds.NumberOfAverages, ds.ImagingFrequency = "1", f"{42.577 * p.tesla:.4f}"
    ds.ImagedNucleus, ds.EchoNumbers = "1H", "1"
    ds.NumberOfPhaseEncodingSteps = p.lines
    ds.AcquisitionMatrix = [0, p.samples, p.lines, 0] if p.phase_axis == 0 else [p.samples, 0, 0, p.lines]
    ds.InPlanePhaseEncodingDirection = "COL" if p.phase_axis == 0 else "ROW"
    ds.SliceThickness, ds.SpacingBetweenSlices = f"{p.thickness_mm:g}", f"{p.thickness_mm + p.gap_mm:g}"


def put_pixels(ds: Dataset, stored: NDArray, *, bits: int = 16, signed: bool = False) -> None:
    """Image Pixel module: grey integers, clipped to `bits`, or RGB bytes."""
    ds.Rows, ds.Columns = stored.shape[:2]
    if stored.ndim == 3:
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
        ds.PixelData = np.ascontiguousarray(stored, np.uint8).tobytes()
        return
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, bits, bits - 1, int(signed)
    ds.PixelData = np.clip(np.rint(stored), low, high).astype("<i2" if signed else "<u2").tobytes()


def place_image(ds: Dataset, study: Study, index: int, pixel_mm: float | None = None) -> None:
    """Image Plane module of a slice."""
    geometry, exam = study.geometry, study.exam
    ds.ImageOrientationPatient = [*geometry.row_way, *geometry.column_way]
    ds.ImagePositionPatient = [f"{v:.5f}" for v in geometry.origin(exam, index)]
    ds.SliceLocation = f"{geometry.position_mm(exam, index):.4f}"
    size = f"{exam.protocol.pixel_mm if pixel_mm is None else pixel_mm:.6f}"
    ds.PixelSpacing = [size, size]


def write_series(study: Study, style: Series, pictures: Sequence[Picture], roles: Sequence[str]) -> None:
    """Write classic MR images, InstanceNumber in the order given; `roles` are filed under this series."""
    uid = study.uid("series", style.key)
    moment = study.start + timedelta(seconds=style.after_s)
    for number, picture in enumerate(pictures, 1):
        ds = Dataset()
        ds.update(study.base)
        sequence_attributes(ds, study.exam)
        ds.SOPClassUID, ds.SOPInstanceUID = style.sop_class, study.uid("instance", style.key, number)
        if style.sop_class == SecondaryCaptureImageStorage:
            ds.ConversionType, ds.PatientOrientation = "WSD", ["L", "P"]
        ds.SeriesInstanceUID, ds.SeriesNumber = uid, style.number
        ds.InstanceNumber, ds.AcquisitionNumber = number, 1
        ds.SeriesDescription = ds.ProtocolName = style.description
        ds.ImageType = list(style.image_type)
        acquired = moment + timedelta(seconds=3.0 * picture.index)
        ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = moment.strftime("%Y%m%d")
        ds.SeriesTime = moment.strftime("%H%M%S.%f")
        ds.AcquisitionTime = ds.ContentTime = acquired.strftime("%H%M%S.%f")
        place_image(ds, study, picture.index)
        put_pixels(ds, picture.stored, bits=style.bits, signed=style.signed)
        if style.window is not None and picture.stored.ndim == 2:
            ds.WindowCenter, ds.WindowWidth = (f"{v:g}" for v in style.window)
        for extra in (style.extra, picture.extra):
            if extra is not None:
                extra(ds)
        save(ds, study.folder / f"{style.number:05d}-{style.key}-{number:04d}.dcm")
    for role in roles:
        study.series[role] = uid


def per_offset(study: Study, values: Callable[[int], NDArray]) -> list[Picture]:
    """Images [offset, row, column] of every slice, slice by slice from feet to head."""
    return [
        Picture(index, offset, image)
        for index in range(len(study.exam.slices))
        for offset, image in enumerate(values(index))
    ]


def per_slice(study: Study, values: Callable[[int], NDArray]) -> list[Picture]:
    """One image of every slice, from feet to head."""
    return [Picture(index, None, values(index)) for index in range(len(study.exam.slices))]


def magnitude_stored(exam: Exam, largest: float) -> list[NDArray[np.float64]]:
    """Magnitudes [offset, row, column] of every slice with one scale for the exam."""
    sizes = [np.abs(s.acquired.images.noisy) for s in exam.slices]
    scale = largest / max(float(np.percentile(np.stack([s[0] for s in sizes]), 99.7)), 1e-12)
    return [np.asarray(s * scale, np.float64) for s in sizes]


def largest_wave(exam: Exam, index: int) -> float:
    """Display range of a wave image, rad."""
    return max(float(np.percentile(np.abs(exam.slices[index].acquired.maps.harmonic), 97)), 0.05)


def wave_offsets(exam: Exam, index: int, count: int | None = None) -> NDArray[np.float64]:
    """Filtered displacement [offset, row, column] (rad) of a slice at `count` phases of the period."""
    n = count if count is not None else exam.protocol.offsets
    turns = np.exp(2j * np.pi * np.arange(n) / n)[:, None, None]
    return (exam.slices[index].acquired.maps.harmonic[None] * turns).real
