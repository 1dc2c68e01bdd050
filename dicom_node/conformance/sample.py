"""A small made-up answer, encoded as any other: what the annexes say of our objects is read from it.

Two sources, a CT of two phases and a cine of ultrasound, and a study that was refused; so what is the same in all
objects of a kind is a fixed value, and what is not comes from the images or from the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, UltrasoundMultiFrameImageStorage

from dicom_node.encoding.package import KINDS, SOP_CLASSES, Package
from dicom_node.encoding.provenance import BundleUsed, Predecessor, Provenance
from dicom_node.encoding.results import EncodedObject, encode_refusal, encode_results
from pipelines.findings import Evaluation, Finding, Findings, ImageStatement, Map, Measurement, PlanarFinding, Region

_SIZES = (32, 40)  # rows and columns of the two
_SPACING = (5.0, 2.0, 2.0)  # slice, row, column, mm


@dataclass(frozen=True)
class SampleObject:
    """One encoded object, read back."""

    kind: str  # key of KINDS
    transfer_syntax_uid: str
    dataset: Dataset


Sample = Sequence[SampleObject]


def sample_objects() -> tuple[SampleObject, ...]:
    """Every kind of object that this version builds, of each source that it can be built for."""
    package = Package(tuple(KINDS), fall_backs=False)
    one, other = (
        {role: [_ct(study, role, at, size) for at in range(_slices(size))] for role in ("arterial", "portal_venous")}
        for study, size in zip(("2.25.101", "2.25.103"), _SIZES, strict=True)
    )
    for image in other["portal_venous"]:
        image.LossyImageCompression, image.LossyImageCompressionRatio = "01", 8
        image.LossyImageCompressionMethod = "ISO_15444_1"
    cine = {"bmode": [_cine()]}
    encoded = (
        *encode_results(_volumetric(32, (20, 21)), one, _provenance(one["portal_venous"], 0), package=package),
        *encode_results(_volumetric(40, (13, 13)), other, _provenance(other["portal_venous"], 1), package=package),
        *encode_results(_planar(), cine, _provenance(cine["bmode"], 2), package=package),
        *encode_refusal("No arterial phase", one, _provenance(one["portal_venous"], 0), package=package),
    )
    return tuple(_read(item) for item in encoded)


def _slices(size: int) -> int:
    return 6 if size == _SIZES[0] else 7


def _read(item: EncodedObject) -> SampleObject:
    return SampleObject(item.kind, item.transfer_syntax_uid, dcmread(BytesIO(item.data)))


def _provenance(images: Sequence[Dataset], slot: int) -> Provenance:
    """Of a run that has nothing in common with those of other slots."""
    study, pipeline = str(images[0].StudyInstanceUID), ("ct_lesion", "mpmri_stiffness", "us_rf")[slot]
    return Provenance(
        node_id=f"node-{slot}",
        study_instance_uid=study,
        pipeline=pipeline,
        version=f"1.{slot}",
        title=f"AI {pipeline}",
        bundles=(BundleUsed(f"{pipeline}_bundle", f"2.{slot}", f"{slot}0" * 32),),
        fingerprint=pipeline,
        trained_on="patients" if slot else "simulated images",
        created_at=datetime(2026, 1 + slot, 15 + slot, 10 + slot, 30 + slot),  # noqa: DTZ001 - as the clock shows it
        slot=slot,
        predecessor=Predecessor(study, f"{study}.8", f"{study}.9", SOP_CLASSES["sr"]),
    )


def _volumetric(size: int, second: tuple[int, int]) -> Findings:
    """A liver with two lesions, on `size` rows and columns; `second` : row and column of the second one."""
    z, y, x = np.indices((_slices(size), size, size))
    liver = ((y - 16) ** 2 + (x - 16) ** 2 <= 144) & (z >= 0)
    stiffness = np.where(liver, 2.0 + 0.01 * size, np.nan).astype(np.float32)
    voxel_mm3 = float(np.prod(_SPACING))
    found = []
    for number, (centre, percent, kind) in enumerate((((12, 12), 87.0, "HCC"), (second, 4.0, "CYST")), 1):
        mask = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= 9) & (z >= 2) & (z <= 3)
        numbers = (
            Measurement("long_axis", 14.0, "mm"),
            Measurement("volume", float(mask.sum()) * voxel_mm3, "mm3"),
            Measurement("malignant_probability", percent, "%"),
        )
        malignancy = Evaluation("malignancy", "malignant" if percent > 50 else "benign")
        statements = (malignancy, Evaluation("lesion_class", kind))
        found.append(Finding(f"Lesion {number}", "lesion", "liver", mask, numbers, statements))
    return Findings(
        "portal_venous",
        tuple(found),
        (Region("Liver", "liver", liver),),
        (Measurement("volume", float(liver.sum()) * voxel_mm3 / 1000, "mL"),),
        maps=(Map("Shear stiffness", "elasticity", "kPa", stiffness),),
        headline="2 lesions: 1 malignant, 1 benign",
        warnings=("the arterial phase is early",),
    )


def _planar() -> Findings:
    """A focus on one frame, and what is measured on another."""
    outline = np.asarray([(100.0, 80.0), (140.0, 80.0), (140.0, 110.0), (100.0, 110.0), (100.0, 80.0)])
    focus = PlanarFinding("Focus 1", "lesion", "liver", 4, outline, (Measurement("long_axis", 14.0, "mm"),))
    frame = ImageStatement(2, "Frame 3", (Measurement("elasticity", 8.1, "kPa"),), (Evaluation("quality", "limited"),))
    return Findings("bmode", (), planar=(focus,), images=(frame,), headline="1 focus")


def _header(study: str, modality: str) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192" if modality == "CT" else "ISO_IR 100"
    dataset.Modality = modality
    dataset.StudyInstanceUID = study
    dataset.PatientName, dataset.PatientID = f"Sample^{modality}", f"SAMPLE-{modality}"
    dataset.PatientBirthDate = "19600101" if modality == "CT" else "19710202"
    dataset.PatientSex = "F" if modality == "CT" else "M"
    dataset.StudyDate = dataset.SeriesDate = "20260115" if modality == "CT" else "20260216"
    dataset.StudyTime = dataset.SeriesTime = "0930" if modality == "CT" else "1040"
    dataset.StudyID, dataset.AccessionNumber = f"S-{modality}", f"A-{modality}"
    dataset.ReferringPhysicianName = f"Physician^{modality}"
    dataset.StudyDescription, dataset.Manufacturer = f"{modality} of the liver", f"Maker of {modality}"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    return dataset


def _ct(study: str, role: str, index: int, size: int) -> Dataset:
    dataset = _header(study, "CT")
    series = f"{study}.{3 if role == 'arterial' else 4}"
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"{series}.{index + 1}"
    dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = series, f"{study}.7"
    dataset.SeriesNumber, dataset.InstanceNumber = 3 if role == "arterial" else 4, index + 1
    dataset.Rows = dataset.Columns = size
    dataset.PositionReferenceIndicator = "XY" if size > 32 else ""
    dataset.InstitutionName = f"Hospital {study}"
    dataset.PixelSpacing, dataset.SliceThickness = list(_SPACING[1:]), _SPACING[0]
    dataset.ImagePositionPatient = [-32.0, -32.0, _SPACING[0] * index]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    return dataset


def _cine() -> Dataset:
    dataset = _header("2.25.102", "US")
    dataset.SOPClassUID, dataset.SOPInstanceUID = UltrasoundMultiFrameImageStorage, "2.25.102.3.1"
    dataset.SeriesInstanceUID, dataset.SeriesNumber, dataset.InstanceNumber = "2.25.102.3", 1, 1
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 240, 320, 8
    return dataset
