"""What a liver study with MRE also holds and no MRE pipeline must take: localizer, T1w, T2w, diffusion, ADC."""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage
from scipy import ndimage

from models.phantoms.dicom import save
from models.phantoms.mre.anatomy import PITCH_MM
from models.phantoms.mre.study import Study, place_image, put_pixels
from models.phantoms.mre.tissue import FLUID, GAS, LIVER, LUNG, MATERIALS, SPLEEN, TISSUES

PIXELS = 160


@dataclass(frozen=True)
class _Kind:
    key: str
    number: int
    texts: tuple[str, ...]
    image_type: tuple[str, ...]
    te_ms: float
    tr_ms: float
    sequence: tuple[str, str]  # Scanning Sequence, Sequence Variant
    b_value: float | None = None
    adc: bool = False


_PLAIN, _DIFFUSION = ("ORIGINAL", "PRIMARY", "M", "ND"), ("ORIGINAL", "PRIMARY", "DIFFUSION", "NONE")
_ADC = ("DERIVED", "PRIMARY", "DIFFUSION", "ADC")
_KINDS = (
    _Kind("t2", 3, ("T2 HASTE tra", "Ax T2 SSFSE", "T2W_SSh"), _PLAIN, 90, 1000, ("SE", "SK")),
    _Kind("t1", 4, ("T1 VIBE in", "Ax LAVA Flex InPhase", "mDIXON_BH IP"), _PLAIN, 2.3, 6, ("GR", "SP")),
    _Kind("dwi50", 5, ("DWI b50", "ep2d_diff_b50"), _DIFFUSION, 60, 5000, ("EP", "SK"), 50),
    _Kind("dwi800", 6, ("DWI b800", "ep2d_diff_b800"), _DIFFUSION, 60, 5000, ("EP", "SK"), 800),
    _Kind("adc", 7, ("ADC (10^-6 mm2/s)", "ep2d_diff_ADC"), _ADC, 60, 5000, ("EP", "SK"), None, True),
)


def _image(shares: NDArray[np.floating], kind: _Kind, tesla: float) -> NDArray[np.float64]:
    """A plain signal of each tissue on the section's grid."""
    high = int(tesla > 2)
    diffusion = np.full(TISSUES, 1.4e-3)
    diffusion[FLUID], diffusion[LIVER], diffusion[SPLEEN] = 2.8e-3, 1.2e-3, 0.9e-3
    table = np.zeros(TISSUES)
    for number, tissue in enumerate(MATERIALS):
        decay = np.exp(-kind.te_ms / tissue.t2_ms[high]) * (0.1 if number in (GAS, LUNG) else 1.0)
        table[number] = (
            tissue.density
            * (1 - np.exp(-kind.tr_ms / (tissue.t1_ms[high] * (0.03 if kind.key == "t1" else 1))))
            * decay
        )
        if kind.b_value is not None:
            table[number] *= np.exp(-kind.b_value * diffusion[number])
        if kind.adc:
            table[number] = diffusion[number] * 1e6 if tissue.density else 0.0
    return np.tensordot(table, shares, axes=(0, 0))


def write(study: Study, *, all_kinds: bool) -> None:
    """Write a localizer, T2w and one diffusion series; with all_kinds also T1w, a second b-value and ADC."""
    _localizer(study)
    for kind in _KINDS:
        if all_kinds or kind.key in ("t2", "dwi800"):
            for index in range(len(study.exam.slices)):
                _axial(study, kind, index)


def _common(study: Study, key: str, number: int, instance: int, after_s: float) -> Dataset:
    ds = Dataset()
    ds.update(study.base)
    moment = study.start + timedelta(seconds=after_s)
    ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, study.uid("instance", key, instance)
    ds.SeriesInstanceUID, ds.SeriesNumber = study.uid("series", key), number
    ds.InstanceNumber, ds.AcquisitionNumber = instance, 1
    ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = moment.strftime("%Y%m%d")
    ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = moment.strftime("%H%M%S.%f")
    ds.ScanOptions, ds.MRAcquisitionType, ds.EchoNumbers, ds.NumberOfAverages = "", "2D", "1", "1"
    ds.EchoTrainLength = 1
    return ds


def _axial(study: Study, kind: _Kind, index: int) -> None:
    protocol, piece = study.exam.protocol, study.exam.slices[index]
    ds = _common(study, kind.key, kind.number, index + 1, 60.0 * kind.number)
    ds.SeriesDescription = ds.ProtocolName = str(
        np.random.default_rng([study.exam.seed, kind.number]).choice(kind.texts)
    )
    ds.ImageType = list(kind.image_type)
    ds.ScanningSequence, ds.SequenceVariant = kind.sequence
    ds.RepetitionTime, ds.EchoTime, ds.FlipAngle = f"{kind.tr_ms:g}", f"{kind.te_ms:g}", "90"
    if kind.b_value is not None:
        ds.DiffusionBValue = float(kind.b_value)
    ds.SliceThickness = f"{protocol.thickness_mm:g}"
    pixel = protocol.fov_mm / PIXELS
    lines = [
        (piece.state.centre_mm[a] + (np.arange(PIXELS) - (PIXELS - 1) / 2) * pixel - float(grid[0])) / PITCH_MM
        for a, grid in ((0, piece.section.y_mm), (1, piece.section.x_mm))
    ]
    whole = _image(piece.section.shares, kind, protocol.tesla)
    image = ndimage.map_coordinates(whole, np.meshgrid(*lines, indexing="ij"), order=1)
    if not kind.adc:
        noise = np.random.default_rng([study.exam.seed, kind.number, index]).normal(
            0, 0.02 * float(image.max()), (2, *image.shape)
        )
        image = np.hypot(image + noise[0], noise[1]) * 1500 / max(float(image.max()), 1e-9)
    place_image(ds, study, index, pixel)
    # The first pixel's centre moves with the pixel's size; the field of view stays.
    half = (protocol.pixel_mm - pixel) / 2
    way = np.asarray(study.geometry.row_way) + np.asarray(study.geometry.column_way)
    ds.ImagePositionPatient = [f"{v:.5f}" for v in study.geometry.origin(study.exam, index) - half * way]
    put_pixels(ds, image, bits=12)
    save(ds, study.folder / f"{kind.number:05d}-{kind.key}-{index + 1:04d}.dcm")


def _localizer(study: Study) -> None:
    """Three orthogonal images; only the axial one shows the patient's section, the others a plain body."""
    piece = study.exam.slices[len(study.exam.slices) // 2]
    section = _image(piece.section.shares, _KINDS[0], study.exam.protocol.tesla)
    rows = np.interp(
        np.linspace(0, section.shape[0] - 1, PIXELS), np.arange(section.shape[0]), np.arange(section.shape[0])
    )
    columns = np.linspace(0, section.shape[1] - 1, PIXELS)
    axial = ndimage.map_coordinates(section, np.meshgrid(rows, columns, indexing="ij"), order=1)
    profile = axial.mean(0)
    pictures = (
        (axial, (1, 0, 0, 0, 1, 0), (-200.0, -200.0, 0.0)),
        (np.tile(profile, (PIXELS, 1)), (1, 0, 0, 0, 0, -1), (-200.0, 0.0, 200.0)),
        (np.tile(axial.mean(1), (PIXELS, 1)), (0, 1, 0, 0, 0, -1), (0.0, -200.0, 200.0)),
    )
    for number, (image, orientation, position) in enumerate(pictures, 1):
        ds = _common(study, "localizer", 1, number, 0.0)
        ds.SeriesDescription = ds.ProtocolName = "3-plane localizer"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        ds.ScanningSequence, ds.SequenceVariant = "GR", "SP"
        ds.RepetitionTime, ds.EchoTime, ds.FlipAngle, ds.SliceThickness = "5", "2", "30", "8"
        ds.ImageOrientationPatient, ds.ImagePositionPatient = list(orientation), [f"{v:g}" for v in position]
        ds.PixelSpacing = ["2.5", "2.5"]
        put_pixels(ds, image * 1000 / max(float(image.max()), 1e-9), bits=12)
        save(ds, study.folder / f"00001-localizer-{number:04d}.dcm")
