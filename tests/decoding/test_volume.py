"""Real DICOM files on disk -> volumes: order, geometry, rescale, padding, syntaxes, and refusals by name."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_node.decoding import load_ct_volume, load_mr_volume, slice_positions
from dicom_node.decoding.ct import ct_lesion_input
from dicom_node.errors import UnreadableSeries

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
Change = Callable[[int, Dataset], object]


def write_stack(
    folder: Path,
    values: np.ndarray,
    *,
    step_mm: tuple[float, float, float] = (0.0, 0.0, 2.5),
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    syntax: str = ExplicitVRLittleEndian,
    change: Change | None = None,
) -> list[Path]:
    """values [slice, row, column] stored values, one file each; slice k lies at k * step_mm."""
    paths = []
    for k, plane in enumerate(values):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = f"2.25.1000{k}"
        ds.PatientName, ds.PatientID = "SECRET^NAME", "SECRET-ID"
        ds.Modality, ds.FrameOfReferenceUID, ds.InstanceNumber = "CT", "2.25.77", k + 1
        ds.ImagePositionPatient = [-50 + k * step_mm[0], -60 + k * step_mm[1], 10 + k * step_mm[2]]
        ds.ImageOrientationPatient = list(orientation)
        ds.PixelSpacing, ds.SliceThickness = [0.8, 0.7], abs(step_mm[2]) or 1.0
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
        ds.Rows, ds.Columns = plane.shape
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.PixelData = plane.astype("<i2").tobytes()
        if change is not None:
            change(k, ds)
        if syntax == DeflatedExplicitVRLittleEndian:
            ds.file_meta.TransferSyntaxUID = syntax
        elif syntax != ExplicitVRLittleEndian:
            ds.compress(syntax, generate_instance_uid=False)
        path = folder / f"{k:03}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(5).integers(24, 2000, (6, 20, 24)).astype(np.int16)


def test_stack_becomes_hounsfield_units_with_geometry(tmp_path: Path, values: np.ndarray) -> None:
    paths = write_stack(tmp_path, values)
    stack = load_ct_volume(paths)
    assert stack.volume.array.dtype == np.int16
    assert np.array_equal(stack.volume.array, values - 1024)
    assert stack.volume.spacing == pytest.approx((2.5, 0.8, 0.7))
    assert stack.volume.frame_of_reference_uid == "2.25.77"
    assert slice_positions(stack.volume)[:, 2] == pytest.approx(10 + 2.5 * np.arange(6))
    assert np.asarray(stack.volume.map_indices_to_reference(np.array([[2, 3, 4]]))) == pytest.approx(
        np.array([[-50 + 4 * 0.7, -60 + 3 * 0.8, 15.0]])
    )
    assert stack.sop_instance_uids == tuple(f"2.25.1000{k}" for k in range(6))
    assert stack.paths == tuple(paths)
    assert stack.frame_numbers == (1,) * 6
    assert "PixelData" not in stack.headers[0]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_order_of_the_files_does_not_matter(tmp_path: Path, values: np.ndarray, seed: int) -> None:
    paths = write_stack(tmp_path, values)
    expected = load_ct_volume(paths)
    shuffled = paths.copy()
    random.Random(seed).shuffle(shuffled)
    stack = load_ct_volume(shuffled)
    assert np.array_equal(stack.volume.array, expected.volume.array)
    assert np.array_equal(stack.volume.affine, expected.volume.affine)
    assert stack.sop_instance_uids == expected.sop_instance_uids


def test_feet_first_numbering_is_placed_by_position(tmp_path: Path, values: np.ndarray) -> None:
    """Instance 1 at the top: the volume still rises along the normal, and every slice knows its Instance."""
    stack = load_ct_volume(write_stack(tmp_path, values, step_mm=(0, 0, -2.5)))
    assert np.array_equal(stack.volume.array, values[::-1] - 1024)
    assert stack.sop_instance_uids[0] == "2.25.10005"
    assert slice_positions(stack.volume)[0] == pytest.approx([-50, -60, -2.5])


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(angle=st.floats(-0.6, 0.6), axis=st.sampled_from(["x", "y", "z"]))
def test_oblique_stacks_map_voxels_to_the_patient(tmp_path: Path, values: np.ndarray, angle: float, axis: str) -> None:
    c, s = np.cos(angle), np.sin(angle)
    turn = {
        "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]
    row, column, normal = turn.T
    x, y, z = 2.5 * normal
    stack = load_ct_volume(write_stack(tmp_path, values, step_mm=(x, y, z), orientation=(*row, *column)))
    assert np.array_equal(stack.volume.array, values - 1024)
    found = np.asarray(stack.volume.map_indices_to_reference(np.array([[3, 5, 7]])))[0]
    assert found == pytest.approx(
        np.array([-50, -60, 10]) + 3 * 2.5 * normal + 5 * 0.8 * column + 7 * 0.7 * row, abs=1e-3
    )


def test_rescale_is_per_instance(tmp_path: Path, values: np.ndarray) -> None:
    def change(k: int, ds: Dataset) -> None:
        ds.RescaleSlope, ds.RescaleIntercept = 1 + 0.5 * (k == 2), -1000 - k

    stack = load_ct_volume(write_stack(tmp_path, values, change=change))
    assert stack.volume.array.dtype == np.float32
    assert stack.volume.array[2] == pytest.approx(np.maximum(1.5 * values[2] - 1002, -1024))
    assert stack.volume.array[4] == pytest.approx(np.maximum(values[4] - 1004.0, -1024))


@pytest.mark.parametrize(("padding", "limit"), [(-2000, None), (63536, None), (1500, 1600), (1600, 1500)])
def test_padding_is_air(tmp_path: Path, values: np.ndarray, padding: int, limit: int | None) -> None:
    values[:, :3] = -2000

    def change(k: int, ds: Dataset) -> None:
        ds.add_new(0x00280120, "US" if padding > 32767 else "SS", padding)
        if limit is not None:
            ds.add_new(0x00280121, "SS", limit)

    array = load_ct_volume(write_stack(tmp_path, values, change=change)).volume.array
    assert np.all(array[:, :3] == -1024)
    expected = np.maximum(values[:, 3:] - 1024, -1024)
    if limit is not None:
        expected[(values[:, 3:] >= 1500) & (values[:, 3:] <= 1600)] = -1024
    assert np.array_equal(array[:, 3:], expected)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless, DeflatedExplicitVRLittleEndian])
def test_compressed_files_give_the_same_volume(tmp_path: Path, syntax: str) -> None:
    values = np.random.default_rng(6).integers(24, 2000, (4, 64, 72)).astype(np.int16)
    stack = load_ct_volume(write_stack(tmp_path, values, syntax=syntax))
    assert np.array_equal(stack.volume.array, values - 1024)


def test_unsigned_full_range_does_not_wrap(tmp_path: Path) -> None:
    values = np.full((3, 8, 8), 0, np.int16)
    values[1] = -1  # 65535 as unsigned

    def change(k: int, ds: Dataset) -> None:
        ds.PixelRepresentation = 0

    array = load_ct_volume(write_stack(tmp_path, values, change=change)).volume.array
    assert array[1].min() == 32767  # the largest int16; -1025 would be a wrap
    assert array[0].max() == -1024


def _set(**elements: object) -> Change:
    def change(k: int, ds: Dataset) -> None:
        if k == 2:
            for keyword, value in elements.items():
                if value is None:
                    delattr(ds, keyword)
                else:
                    setattr(ds, keyword, value)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set(ImagePositionPatient=[-50, -60, 12.5]), "2.25.10001 and 2.25.10002.*one image per position"),
        (_set(ImagePositionPatient=None), r"2\.25\.10002: ImagePositionPatient \(0020,0032\) is missing"),
        (_set(ImageOrientationPatient=[1, 0, 0, 0, 0, 1]), r"2\.25\.10002: Image Orientation .*\(0020,0037\) differs"),
        (_set(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), r"\(0020,0037\) is 1.0.0.1.0.0; two perpendicular"),
        (_set(PixelSpacing=[0.9, 0.7]), r"2\.25\.10002: Pixel Spacing \(0028,0030\)"),
        (_set(PixelSpacing=[0.0, 0.7]), r"2\.25\.10002: Pixel Spacing \(0028,0030\)"),
        (_set(Rows=10), r"Rows \(0028,0010\) is 10, but 20"),
        (_set(Rows=60000), r"2\.25\.10002: Rows \(0028,0010\) is 60000; 2 to 4096"),
        (_set(SamplesPerPixel=3), r"Samples per Pixel \(0028,0002\) is 3"),
        (_set(RescaleSlope=None), r"2\.25\.10002: Rescale Slope \(0028,1053\)"),
        (_set(RescaleSlope=0), r"Rescale Slope \(0028,1053\) 0"),
        (_set(RescaleType="MGML"), r"Rescale Type \(0028,1054\) is MGML; HU is needed"),
        (_set(PixelData=None), r"2\.25\.10002: no Pixel Data \(7FE0,0010\)"),
        (_set(PixelData=b"\0\0"), r"2\.25\.10002: Pixel Data \(7FE0,0010\) frame 1 cannot be decoded"),
        (_set(FrameOfReferenceUID="2.25.78"), r"FrameOfReferenceUID \(0020,0052\)"),
        (_set(NumberOfFrames=4), r"Number of Frames \(0028,0008\) is 4 without"),
    ],
)
def test_what_cannot_be_a_volume_is_named(tmp_path: Path, values: np.ndarray, change: Change, words: str) -> None:
    with pytest.raises(UnreadableSeries, match=words) as caught:
        load_ct_volume(write_stack(tmp_path, values, change=change))
    assert "SECRET" not in str(caught.value)


def test_missing_slice_is_named_with_its_neighbours(tmp_path: Path, values: np.ndarray) -> None:
    paths = write_stack(tmp_path, values)
    with pytest.raises(UnreadableSeries, match=r"5\.00 mm between Instances 2\.25\.10002 .* 2\.25\.10004 .*missing"):
        load_ct_volume(paths[:3] + paths[4:])


def test_gantry_tilt_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    with pytest.raises(UnreadableSeries, match=r"drifts 2\.5 mm sideways.*\(0018,1120\) not stated"):
        load_ct_volume(write_stack(tmp_path, values, step_mm=(0.0, 0.5, 2.5)))


def test_uneven_spacing_is_refused(tmp_path: Path) -> None:
    values = np.zeros((30, 8, 8), np.int16)

    def change(k: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [0, 0, 2.0 * k if k < 15 else 30 + 2.5 * (k - 15)]

    with pytest.raises(UnreadableSeries, match="off the regular grid"):
        load_ct_volume(write_stack(tmp_path, values, change=change))


def test_a_file_that_is_no_dicom_is_refused_without_its_name(tmp_path: Path, values: np.ndarray) -> None:
    paths = write_stack(tmp_path, values)
    bad = tmp_path / "ZHANG_SAN.dcm"
    bad.write_bytes(b"not dicom" * 100)
    with pytest.raises(UnreadableSeries, match="cannot be read as DICOM") as caught:
        load_ct_volume([*paths, bad])
    assert "ZHANG" not in str(caught.value)


def test_truncated_file_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    paths = write_stack(tmp_path, values)
    paths[3].write_bytes(paths[3].read_bytes()[:-100])
    with pytest.raises(UnreadableSeries, match=r"2\.25\.10003"):
        load_ct_volume(paths)


def test_absurd_volume_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    def change(k: int, ds: Dataset) -> None:
        ds.Rows, ds.Columns = 4096, 4096

    paths = write_stack(tmp_path, np.zeros((32, 4, 4), np.int16), change=change)
    with pytest.raises(UnreadableSeries, match=r"voxels; .* is the limit"):
        load_ct_volume(paths)


def test_no_files_is_an_error() -> None:
    with pytest.raises(UnreadableSeries, match="no images"):
        load_ct_volume([])


def _enhanced(folder: Path, values: np.ndarray) -> Path:
    """The same stack as one enhanced CT Instance, frames in a shuffled order."""
    order = [3, 0, 5, 1, 4, 2]
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = EnhancedCTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = "2.25.99"
    ds.FrameOfReferenceUID, ds.NumberOfFrames = "2.25.77", len(order)
    ds.Rows, ds.Columns = values.shape[1:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.7], 2.5
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Sequence([orientation]), Sequence([measures])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    items = []
    for k in order:
        groups, position, rescale = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [-50, -60, 10 + 2.5 * k]
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, -1024 + k, "HU"
        groups.PlanePositionSequence = Sequence([position])
        groups.PixelValueTransformationSequence = Sequence([rescale])
        items.append(groups)
    ds.PerFrameFunctionalGroupsSequence = Sequence(items)
    ds.PixelData = values[order].astype("<i2").tobytes()
    path = folder / "enhanced.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


def test_enhanced_multi_frame_is_the_same_volume(tmp_path: Path, values: np.ndarray) -> None:
    stack = load_ct_volume([_enhanced(tmp_path, values)])
    assert np.array_equal(stack.volume.array, np.maximum(values - 1024 + np.arange(6)[:, None, None], -1024))
    assert stack.frame_numbers == (2, 4, 6, 1, 5, 3)
    assert set(stack.sop_instance_uids) == {"2.25.99"}
    assert slice_positions(stack.volume)[:, 2] == pytest.approx(10 + 2.5 * np.arange(6))


def test_input_of_ct_lesion_holds_age_and_descriptions(tmp_path: Path, values: np.ndarray) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "p").mkdir()

    def arterial(k: int, ds: Dataset) -> None:
        ds.StudyDescription, ds.SeriesDescription, ds.PatientAge = "CT liver", "ART 动脉期", "054Y"
        ds.SpecificCharacterSet = "ISO_IR 192"

    def portal(k: int, ds: Dataset) -> None:
        ds.StudyDescription, ds.ProtocolName = "CT liver", "Liver 3P"
        ds.PatientBirthDate, ds.StudyDate = "19700101", "20240101"

    stacks = {
        "arterial": load_ct_volume(write_stack(tmp_path / "a", values, change=arterial)),
        "portal_venous": load_ct_volume(write_stack(tmp_path / "p", values, change=portal)),
    }
    study = ct_lesion_input(stacks)
    assert study.descriptions == ("CT liver", "Liver 3P", "ART 动脉期")
    assert study.patient_age_years == pytest.approx(54.0, abs=0.01)
    assert study.arterial is stacks["arterial"].volume
    assert study.portal_venous is stacks["portal_venous"].volume


def test_importing_the_decoders_brings_no_torch() -> None:
    code = "import sys, dicom_node.decoding; print([m for m in ('torch', 'monai', 'SimpleITK') if m in sys.modules])"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.stdout.strip() == "[]"


needs_codecs = pytest.mark.skipif(not (SHARED / "codecs").is_dir(), reason=f"no test data at {SHARED / 'codecs'}")


@needs_codecs
@pytest.mark.parametrize("name", ["J2KR", "JLSL", "JPLL", "RLE"])
def test_foreign_compressed_ct_equals_its_reference(name: str) -> None:
    folder = SHARED / "codecs" / "wg04"
    reference = load_ct_volume([folder / "REF" / "CT1_UNC"]).volume.array
    assert np.array_equal(load_ct_volume([folder / name / f"CT1_{name}"]).volume.array, reference)


@needs_codecs
@pytest.mark.parametrize("number", range(2, 10))
def test_nine_encodings_of_one_mr_are_equal(number: int) -> None:
    folder = SHARED / "codecs" / "mr_nine_encodings" / "In"
    reference = load_mr_volume([folder / "1.dcm"]).volume.array
    assert np.array_equal(load_mr_volume([folder / f"{number}.dcm"]).volume.array, reference)


@needs_codecs
@pytest.mark.parametrize(
    "name",
    [
        "BigEndianExplicitTransferSyntax_1.2.840.10008.1.2.2",
        "DeflatedExplicitVRLittleEndianTransferSyntax_1.2.840.10008.1.2.1.99",
        "JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90",
        "JPEGLSLosslessTransferSyntax_1.2.840.10008.1.2.4.80",
        "JPEGProcess14SV1TransferSyntax_1.2.840.10008.1.2.4.70",
        "JPEGProcess14TransferSyntax_1.2.840.10008.1.2.4.57",
        "LittleEndianImplicitTransferSyntax_1.2.840.10008.1.2",
        "RLELosslessTransferSyntax_1.2.840.10008.1.2.5",
    ],
)
def test_lossless_syntaxes_of_one_ct_are_equal(name: str) -> None:
    folder = SHARED / "codecs" / "ct_sixteen_syntaxes"
    reference = load_ct_volume([folder / "CTImage.dcm"]).volume.array
    assert np.array_equal(load_ct_volume([folder / f"CTImage.dcm_{name}.dcm"]).volume.array, reference)


@pytest.mark.skipif(not (SHARED / "ct" / "dcmqi_liver").is_dir(), reason=f"no test data at {SHARED / 'ct'}")
def test_a_real_scanner_stack_is_read() -> None:
    paths = sorted((SHARED / "ct" / "dcmqi_liver").glob("*.dcm"))
    stack = load_ct_volume(paths)
    assert stack.volume.spatial_shape == (3, 512, 512)
    assert stack.volume.spacing == pytest.approx((1.0, 0.810547, 0.810547))
    assert slice_positions(stack.volume)[:, 2] == pytest.approx([-128.69, -127.69, -126.69])
    assert stack.volume.array.min() == -1024
    for path, uid in zip(stack.paths, stack.sop_instance_uids, strict=True):
        assert pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID == uid
