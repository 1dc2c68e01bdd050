"""Maps to Parametric Maps and back, read as strangers would."""

import subprocess
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from encoded_studies import ct_stack, provenance, through_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from programs import need
from pydicom import Dataset, dcmread

from dicom_node.encoding.concepts import UnknownConcept
from dicom_node.encoding.header import identity_bytes, to_bytes
from dicom_node.encoding.parametric_map import padding_value, parametric_map
from dicom_node.encoding.sources import InvalidResult, SourceStack, source_stack
from pipelines.findings import Map

SHAPE = (4, 16, 16)
OBLIQUE = (0.984808, 0.173648, 0.0, -0.163176, 0.925417, 0.342020)
# what dciodvfy of 2022 does not know yet
TOO_NEW = "Unrecognized defined term = <QUANTITY>"


def stiffness(seed: int = 0) -> Map:
    values = np.random.default_rng(seed).normal(3.2, 0.8, SHAPE).astype(np.float32)
    values[:, :5] = np.nan
    return Map("Shear stiffness", "elasticity", "kPa", values)


def stack(**extra: object) -> SourceStack:
    datasets = ct_stack(slices=SHAPE[0], size=SHAPE[1], Modality="MR", **extra)
    return source_stack([through_bytes(ds) for ds in datasets])


def made(map_: Map, source: SourceStack, number: int = 1) -> Dataset:
    dataset = parametric_map(map_, source, provenance(), number)
    assert dataset is not None
    return dcmread(BytesIO(to_bytes(dataset)))


def test_a_map_comes_back_with_unit_and_quantity() -> None:
    source, map_ = stack(), stiffness()
    dataset = made(map_, source)
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.30"
    assert dataset.Modality == "MR"
    assert dataset.SeriesDescription.startswith("Shear stiffness RESEARCH")
    assert dataset.FrameOfReferenceUID == source.frame_of_reference_uid
    assert identity_bytes(dataset) == identity_bytes(source.header)
    (series,) = dataset.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.header.SeriesInstanceUID
    assert len(series.ReferencedInstanceSequence) == 4
    (mapping,) = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "kPa"
    assert mapping.MeasurementUnitsCodeSequence[0].CodingSchemeDesignator == "UCUM"
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeMeaning == "Elasticity"
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    (voi,) = dataset.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence
    assert 1.0 < voi.WindowCenter - voi.WindowWidth / 2 < 2.0
    assert 4.5 < voi.WindowCenter + voi.WindowWidth / 2 < 6.0
    stored = np.frombuffer(dataset.FloatPixelData, "<f4").reshape(SHAPE)
    assert np.isfinite(stored).all()
    assert np.array_equal(
        np.where(stored == dataset.FloatPixelPaddingValue, np.nan, stored), map_.values, equal_nan=True
    )


@given(
    orientation=st.sampled_from([(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), OBLIQUE]),
    reverse=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=10, deadline=None)
def test_values_keep_their_place(orientation: tuple[float, ...], reverse: bool, seed: int) -> None:
    """highdicom finds every value where the source's geometry has it, and frames rise along the normal."""
    source, map_ = stack(orientation=orientation, reverse=reverse), stiffness(seed)
    data = to_bytes(parametric_map(map_, source, provenance()))
    volume = hd.imread(BytesIO(data)).get_volume(apply_real_world_transform=True)
    row, column = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    for index, item in enumerate(source.slices):
        points = np.asarray([item.point + column * 0.8 * y + row * 0.8 * x for y, x in ((7, 3), (15, 0), (5, 15))])
        places = volume.map_reference_to_indices(points, round_output=True, check_bounds=True)
        expected = [map_.values[index][place] for place in ((7, 3), (15, 0), (5, 15))]
        assert volume.array[tuple(places.T)] == pytest.approx(expected, rel=1e-6)
    dataset = dcmread(BytesIO(data))
    normal = np.cross(row, column)
    along = [
        float(np.dot(np.asarray(groups.PlanePositionSequence[0].ImagePositionPatient, float), normal))
        for groups in dataset.PerFrameFunctionalGroupsSequence
    ]
    assert along == sorted(along)
    by_uid = {item.sop_instance_uid: item.point for item in source.slices}
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        referenced = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert np.allclose(by_uid[referenced], np.asarray(groups.PlanePositionSequence[0].ImagePositionPatient, float))


@given(arrays(np.float32, 6, elements=st.floats(-1e6, 1e6, width=32)))
def test_the_padding_is_never_a_value(values: np.ndarray) -> None:
    padding = padding_value(float(values.min()), float(values.max()))
    assert np.float32(padding) == padding
    assert padding < values.min() or (padding == 0 and values.min() > 0)


def test_several_maps_are_several_series_and_the_same_map_the_same_bytes() -> None:
    source = stack()
    first, second = made(stiffness(), source), made(stiffness(), source, 2)
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert first.SeriesNumber != second.SeriesNumber
    again = [to_bytes(parametric_map(stiffness(), source, provenance())) for _ in range(2)]
    assert again[0] == again[1]


def test_maps_that_cannot_be() -> None:
    source, map_ = stack(), stiffness()
    assert parametric_map(replace(map_, values=np.full(SHAPE, np.nan, np.float32)), source, provenance()) is None
    with pytest.raises(InvalidResult, match=r"Shear stiffness: the map has \(3, 16, 16\)"):
        parametric_map(replace(map_, values=map_.values[:3]), source, provenance())
    with pytest.raises(InvalidResult, match="infinite"):
        parametric_map(replace(map_, values=np.full(SHAPE, np.inf, np.float32)), source, provenance())
    with pytest.raises(UnknownConcept):
        parametric_map(replace(map_, unit="furlong"), source, provenance())
    constant = replace(map_, values=np.zeros(SHAPE, np.float32))
    assert made(constant, source).FloatPixelPaddingValue < 0


def test_dciodvfy_finds_only_what_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "pm.dcm").write_bytes(to_bytes(parametric_map(stiffness(), stack(), provenance())))
    output = subprocess.run([need("dciodvfy"), "-new", str(tmp_path / "pm.dcm")], capture_output=True, text=True).stderr
    faults = [line for line in output.splitlines() if line.startswith(("Error", "Warning"))]
    assert [line for line in faults if TOO_NEW not in line] == []
