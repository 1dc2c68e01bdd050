"""Siemens: up to VE one series per kind of image, told by Image Type M, P, WV; from XA61 enhanced multi-frame images.

Phase 0..4095 for -pi..pi with Rescale 2 x - 4096; elastogram kPa x 1000, confidence x 1000. In XA the Image Type says
ELASTO and Complex Image Component tells magnitude from phase; attributes of the enhanced IOD that say nothing of the
image (coils, SAR, k-space) are left out.
"""

from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage, SecondaryCaptureImageStorage

from models.phantoms.dicom import save
from models.phantoms.mre import colour
from models.phantoms.mre.study import (
    Picture,
    Series,
    Study,
    largest_wave,
    magnitude_stored,
    per_offset,
    per_slice,
    put_pixels,
    sequence_attributes,
    wave_offsets,
    write_series,
)
from models.phantoms.mre.vendor_philips import code, real_world

MAKERS = (
    ("SIEMENS", "Skyra", "syngo MR E11"),
    ("SIEMENS", "Aera", "syngo MR E11"),
    ("SIEMENS", "Prisma_fit", "syngo MR E11"),
)
MAKERS_XA = (
    ("Siemens Healthineers", "MAGNETOM Vida", "syngo MR XA61"),
    ("Siemens Healthineers", "MAGNETOM Sola", "syngo MR XA61"),
)


def _turns(radians: NDArray[np.floating]) -> NDArray[np.float64]:
    """rad to 0..4095, 2048 = 0."""
    return 2048 + np.asarray(radians, np.float64) * 2048 / np.pi


def _text(study: Study) -> str:
    protocol = study.exam.protocol
    name = "greMRE" if protocol.sequence == "gre" else "epiMRE"
    text = str(study.rng.choice([f"{name}_tra_bh", f"elasto_{name}", f"{name} liver"]))
    return text if protocol.hz == 60 and study.rng.random() < 0.5 else f"{text}_{protocol.hz:g}Hz"


def write(study: Study) -> None:
    """Write classic images (up to VE)."""
    exam, rng = study.exam, study.rng
    protocol = exam.protocol
    names = ("*greMR2d1_60", "greMR") if protocol.sequence == "gre" else ("*epiMR2d1", "epseMRE")
    sequence = str(rng.choice(names))
    text, number = _text(study), int(rng.integers(4, 30))
    maps = [s.acquired.maps for s in exam.slices]

    def named(ds: Dataset) -> None:
        ds.SequenceName = sequence
        ds.private_block(0x0051, "SIEMENS MR HEADER", create=True).add_new(0x0F, "LO", "BO1,2;SP1,2")

    def phase_scale(ds: Dataset) -> None:
        named(ds)
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = "2", "-4096", "US"

    def style(key: str, step: int, words: str, kind: tuple[str, ...], *, phase: bool = False) -> Series:
        return Series(
            key, number + step, f"{text}{words}", kind, 300 + 5 * step, bits=12 if step < 3 else 16,
            extra=phase_scale if phase else named,
            sop_class=SecondaryCaptureImageStorage if step > 4 else MRImageStorage,
        )  # fmt: skip

    sizes = magnitude_stored(exam, 1800)
    kind: tuple[str, ...]
    if "magnitude" in study.wanted:
        kind = ("ORIGINAL", "PRIMARY", "M", "ND", "NORM")
        write_series(study, style("magnitude", 0, "", kind), per_offset(study, lambda i: sizes[i]), ["magnitude"])
    if "phase" in study.wanted:
        kind = ("ORIGINAL", "PRIMARY", "P", "ND")
        pictures = per_offset(study, lambda i: _turns(maps[i].phase))
        write_series(
            study, style("phase", 1, "_P" if rng.random() < 0.6 else "", kind, phase=True), pictures, ["phase"]
        )
    if "wave" in study.wanted:
        kind = ("DERIVED", "PRIMARY", "P", "WV", "ND")
        pictures = per_offset(study, lambda i: _turns(wave_offsets(exam, i)))
        write_series(study, style("wave", 2, "_Wave", kind, phase=True), pictures, ["wave"])
    if "stiffness" in study.wanted:
        pictures = per_slice(study, lambda i: maps[i].stiffness_kpa * 1000)
        kind = ("DERIVED", "PRIMARY", "ELASTOGRAM", "ND")
        write_series(study, style("stiffness", 3, "_Stiffness", kind), pictures, ["stiffness"])
    if "confidence" in study.wanted:
        pictures = per_slice(study, lambda i: maps[i].confidence * 1000)
        kind = ("DERIVED", "PRIMARY", "CONFIDENCE", "ND")
        write_series(study, style("confidence", 4, "_ConfMap", kind), pictures, ["confidence"])
    if "overlay" in study.wanted:
        pictures = per_slice(
            study, lambda i: colour.overlaid(colour.elastogram(maps[i].stiffness_kpa), maps[i].confidence)
        )
        kind = ("DERIVED", "SECONDARY", "ELASTOGRAM", "ND")
        write_series(study, style("overlay", 5, "_StiffC", kind), pictures, ["overlay"])
    if "colour_wave" in study.wanted and rng.random() < 0.5:
        waves = [colour.wave(wave_offsets(exam, i, 1)[0], largest_wave(exam, i)) for i in range(len(maps))]
        kind = ("DERIVED", "SECONDARY", "WV", "ND")
        write_series(
            study, style("colour_wave", 6, "_WaveC", kind), per_slice(study, lambda i: waves[i]), ["colour_wave"]
        )


def write_enhanced(study: Study) -> None:
    """Write enhanced multi-frame images (XA61)."""
    exam, rng = study.exam, study.rng
    text, number = _text(study), int(rng.integers(4, 30))
    maps = [s.acquired.maps for s in exam.slices]
    sizes = magnitude_stored(exam, 1800)
    whole = (
        ("magnitude", 0, "", "ORIGINAL", "MAGNITUDE", per_offset(study, lambda i: sizes[i]), None),
        ("phase", 1, "_P", "ORIGINAL", "PHASE", per_offset(study, lambda i: _turns(maps[i].phase)),
         real_world("phase", "rad", float(np.pi / 2048), float(-np.pi), 4095)),
        ("wave", 2, "_Wave", "DERIVED", "PHASE", per_offset(study, lambda i: _turns(wave_offsets(exam, i))),
         real_world("wave", "rad", float(np.pi / 2048), float(-np.pi), 4095)),
        ("stiffness", 3, "_Stiffness", "DERIVED", "MAGNITUDE", per_slice(study, lambda i: maps[i].stiffness_kpa * 1000),
         real_world("stiffness", "kPa", 0.001, 0.0, 65535)),
        ("confidence", 4, "_ConfMap", "DERIVED", "MAGNITUDE", per_slice(study, lambda i: maps[i].confidence * 1000),
         real_world("confidence", "1", 0.001, 0.0, 1000)),
    )  # fmt: skip
    kinds = {"wave": "WV", "stiffness": "STIFFNESS", "confidence": "CONFIDENCE"}
    for role, step, words, source, component, pictures, mapping in whole:
        if role in study.wanted:
            kind = (source, "PRIMARY", "ELASTO", kinds.get(role, "NONE"))
            style = Series(role, number + step, text + words, kind, 300 + 5 * step, bits=12 if step < 3 else 16)
            _write_frames(study, style, pictures, component, mapping)
            study.series[role] = study.uid("series", role)


def _write_frames(
    study: Study, style: Series, pictures: list[Picture], component: str, mapping: Dataset | None
) -> None:
    """One Enhanced MR Image (PS3.3 A.36.2) with a frame per picture."""
    exam = study.exam
    protocol = exam.protocol
    ds = Dataset()
    ds.update(study.base)
    plain = Dataset()
    sequence_attributes(plain, exam)
    moment = study.start + timedelta(seconds=style.after_s)
    ds.SOPClassUID, ds.SOPInstanceUID = EnhancedMRImageStorage, study.uid("instance", style.key)
    ds.SeriesInstanceUID, ds.SeriesNumber, ds.InstanceNumber = study.uid("series", style.key), style.number, 1
    ds.SeriesDescription = ds.ProtocolName = style.description
    ds.ImageType, ds.ComplexImageComponent = list(style.image_type), component
    ds.AcquisitionContrast, ds.PixelPresentation, ds.VolumetricProperties = "UNKNOWN", "MONOCHROME", "VOLUME"
    ds.VolumeBasedCalculationTechnique = "NONE"
    ds.SeriesDate = ds.ContentDate = moment.strftime("%Y%m%d")
    ds.SeriesTime = ds.ContentTime = moment.strftime("%H%M%S.%f")
    ds.AcquisitionDateTime = moment.strftime("%Y%m%d%H%M%S.%f")
    ds.AcquisitionNumber, ds.AcquisitionDuration = 1, 14.0
    if style.image_type[0] == "ORIGINAL":
        ds.PulseSequenceName = "*greMR2d1" if protocol.sequence == "gre" else "*epseMRE2d1"
        ds.EchoPulseSequence = "GRADIENT" if protocol.sequence == "gre" else "SPIN"
        ds.MRAcquisitionType, ds.ResonantNucleus, ds.ContentQualification = "2D", "1H", "PRODUCT"
    ds.DeviceSerialNumber = "000000"
    if style.image_type[0] == "DERIVED":
        ds.ContentQualification = "PRODUCT"
    ds.AcquisitionContextSequence = Sequence([])
    ds.BurnedInAnnotation, ds.LossyImageCompression, ds.PresentationLUTShape = "NO", "00", "IDENTITY"
    stack = study.uid("dimensions", style.key)
    organization = Dataset()
    organization.DimensionOrganizationUID = stack
    ds.DimensionOrganizationSequence = Sequence([organization])
    pointers = ((0x0020, 0x9056), (0x0020, 0x9057), (0x0020, 0x9128))  # stack, in-stack position, temporal position
    ds.DimensionIndexSequence = Sequence([_index(stack, pointer) for pointer in pointers])
    put_pixels(ds, np.stack([p.stored for p in pictures]).reshape(-1, pictures[0].stored.shape[1]), bits=style.bits)
    ds.Rows, ds.Columns, ds.NumberOfFrames = *pictures[0].stored.shape, len(pictures)
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([_measures(protocol.pixel_mm, plain)])
    shared.PlaneOrientationSequence = Sequence([Dataset()])
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [*study.geometry.row_way, *study.geometry.column_way]
    timing, echo = Dataset(), Dataset()
    timing.RepetitionTime, timing.FlipAngle, timing.EchoTrainLength = float(protocol.tr_ms), float(protocol.flip_deg), 1
    echo.EffectiveEchoTime = float(protocol.te_ms)
    shared.MRTimingAndRelatedParametersSequence, shared.MREchoSequence = Sequence([timing]), Sequence([echo])
    _modifiers(shared)
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    ds.PerFrameFunctionalGroupsSequence = Sequence(
        [_frame(study, style, p, component, mapping, moment) for p in pictures]
    )
    save(ds, study.folder / f"{style.number:05d}-{style.key}.dcm")


def _modifiers(shared: Dataset) -> None:
    """The MR macros that PS3.3 A.36.2.4 requires and that say nothing of elastography."""
    anatomy, averages, imaging, modifier = Dataset(), Dataset(), Dataset(), Dataset()
    anatomy.FrameLaterality = "U"
    anatomy.AnatomicRegionSequence = Sequence([code("10200004", "SCT", "Liver")])
    averages.NumberOfAverages = 1.0
    imaging.MagnetizationTransfer, imaging.BloodSignalNulling, imaging.Tagging = "NONE", "NO", "NONE"
    imaging.TransmitterFrequency, imaging.PixelBandwidth = 123.2, 1500.0
    modifier.InversionRecovery, modifier.FlowCompensation, modifier.Spoiling = "NO", "NONE", "RF"
    modifier.T2Preparation, modifier.SpectrallySelectedExcitation = "NO", "NONE"
    modifier.SpatialPresaturation, modifier.PartialFourier, modifier.ParallelAcquisition = "NONE", "NO", "NO"
    shared.FrameAnatomySequence, shared.MRAveragesSequence = Sequence([anatomy]), Sequence([averages])
    shared.MRImagingModifierSequence, shared.MRModifierSequence = Sequence([imaging]), Sequence([modifier])


def _index(organization: str, pointer: tuple[int, int]) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID, item.DimensionIndexPointer = organization, pointer
    item.FunctionalGroupPointer = (0x0020, 0x9111)
    return item


def _measures(pixel_mm: float, plain: Dataset) -> Dataset:
    item = Dataset()
    item.PixelSpacing = [f"{pixel_mm:.6f}"] * 2
    item.SliceThickness, item.SpacingBetweenSlices = plain.SliceThickness, plain.SpacingBetweenSlices
    return item


def _frame(
    study: Study, style: Series, p: Picture, component: str, mapping: Dataset | None, moment: datetime
) -> Dataset:
    groups = Dataset()
    content, position, frame_type, values = Dataset(), Dataset(), Dataset(), Dataset()
    temporal = 1 if p.offset is None else p.offset + 1
    content.StackID, content.InStackPositionNumber, content.TemporalPositionIndex = "1", p.index + 1, temporal
    content.DimensionIndexValues = [1, p.index + 1, temporal]
    content.FrameAcquisitionNumber = 1
    when = moment + timedelta(seconds=3.0 * p.index)
    content.FrameAcquisitionDateTime = content.FrameReferenceDateTime = when.strftime("%Y%m%d%H%M%S.%f")
    content.FrameAcquisitionDuration = 3000.0
    position.ImagePositionPatient = [f"{v:.5f}" for v in study.geometry.origin(study.exam, p.index)]
    frame_type.FrameType, frame_type.ComplexImageComponent = list(style.image_type), component
    frame_type.AcquisitionContrast, frame_type.PixelPresentation = "UNKNOWN", "MONOCHROME"
    frame_type.VolumetricProperties, frame_type.VolumeBasedCalculationTechnique = "VOLUME", "NONE"
    phase = component == "PHASE"
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = (
        "2" if phase else "1",
        "-4096" if phase else "0",
        "US",
    )
    groups.FrameContentSequence, groups.PlanePositionSequence = Sequence([content]), Sequence([position])
    groups.MRImageFrameTypeSequence, groups.PixelValueTransformationSequence = (
        Sequence([frame_type]),
        Sequence([values]),
    )
    if mapping is not None:
        groups.RealWorldValueMappingSequence = Sequence([mapping])
    return groups
