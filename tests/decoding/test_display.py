"""Frames as pictures: colours as pydicom's own reading has them, greys after rescale."""

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from dicom_node.decoding.display import displayed_frame
from dicom_node.errors import UnreadableSeries


def sample(name: str) -> pydicom.Dataset:
    path = get_testdata_file(name)
    assert path, name
    return pydicom.dcmread(path)


@pytest.mark.parametrize(
    "name", ["examples_jpeg2k.dcm", "examples_rgb_color.dcm", "examples_ybr_color.dcm", "SC_rgb_rle.dcm"]
)
def test_colours_are_those_of_pydicom(name: str) -> None:
    """Ultrasound as RGB, YBR_RCT in JPEG 2000, YBR_FULL_422 in JPEG; a capture in RLE."""
    dataset = sample(name)
    last = int(dataset.get("NumberOfFrames", 1)) - 1
    picture = displayed_frame(dataset, last)
    expected = pydicom.pixels.pixel_array(dataset, index=last)
    assert picture.dtype == np.uint8
    assert picture.shape == (dataset.Rows, dataset.Columns, 3)
    assert np.abs(picture.astype(int) - expected.astype(int)).max() <= 2


def test_a_palette_becomes_colours() -> None:
    dataset = sample("examples_palette.dcm")
    picture = displayed_frame(dataset, 0)
    assert picture.shape == (dataset.Rows, dataset.Columns, 3)
    red = np.frombuffer(dataset.RedPaletteColorLookupTableData, "<u2")
    stored = dataset.pixel_array
    assert np.abs(picture[..., 0].astype(int) - (red[stored] >> 8)).max() <= 1


def test_grey_images_come_after_rescale() -> None:
    dataset = sample("CT_small.dcm")
    picture = displayed_frame(dataset, 0)
    assert picture.dtype == np.float32
    assert np.array_equal(picture, dataset.pixel_array + float(dataset.RescaleIntercept))


def test_what_is_no_picture_is_refused_by_name() -> None:
    dataset = sample("CT_small.dcm")
    dataset.PhotometricInterpretation = "HSV"
    with pytest.raises(UnreadableSeries, match="HSV"):
        displayed_frame(dataset, 0)
    del dataset.PixelData
    with pytest.raises(UnreadableSeries, match=str(dataset.SOPInstanceUID)):
        displayed_frame(dataset, 0)
    huge = sample("CT_small.dcm")
    huge.Rows = 60000
    with pytest.raises(UnreadableSeries, match="Rows"):
        displayed_frame(huge, 0)
