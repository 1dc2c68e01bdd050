"""A page as a Secondary Capture image, which every PACS takes and every viewer shows (PS3.3 A.8).

Of the Secondary Capture classes the old single-frame one, uncompressed RGB: the multi-frame classes are newer than many
archives.
"""

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import Dataset, dcmread
from pydicom.uid import SecondaryCaptureImageStorage

from dicom_node.encoding.fonts import font
from dicom_node.encoding.frames import add_lossy_flags, reference_item
from dicom_node.encoding.header import add_code, local_time, new_object, series_description
from dicom_node.encoding.provenance import Provenance
from dicom_node.encoding.sheet import BACKGROUND, Box, Line, Page, Picture, Text
from dicom_node.encoding.sources import SourceImages, SourceSlice

_SUPERSAMPLE = 2  # of lines: Pillow draws them without smooth edges
_ANCHORS = {"left": "ls", "middle": "ms", "right": "rs"}


def capture(
    page: Page, header: Dataset, provenance: Provenance, *, images: SourceImages | None = None, role: str = "sc"
) -> Dataset:
    """The page as an SC Image Storage object, ready to be written.

    header : an image of the study, whose identity is copied.
    images : those that the page's `shown` counts, to refer to them.
    role : part of its UIDs; another one for the page of a refusal.
    """
    dataset = new_object(
        str(SecondaryCaptureImageStorage),
        "OT",
        header,
        provenance,
        role=role,
        series_number=provenance.series_number("sc"),
        series_description=series_description(provenance, page.verdict),
        own_codes=False,
    )
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BodyPartExamined = "LIVER"
    dataset.PatientOrientation = None  # the page has pictures of several
    dataset.BurnedInAnnotation = "YES" if page.may_identify else "NO"
    dataset.RecognizableVisualFeatures = "NO"
    add_lossy_flags(dataset, header)
    created = local_time(header, provenance)
    dataset.DateOfSecondaryCapture, dataset.TimeOfSecondaryCapture = (
        created.strftime("%Y%m%d"),
        created.strftime("%H%M%S"),
    )
    if images is not None and page.shown:
        dataset.SourceImageSequence = [_source(images.slices[index]) for index in page.shown]
    pixels = drawn(page)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OB"
    return dataset


def write_png(data: bytes, target: Path) -> None:
    """The picture of a Secondary Capture of ours, for those without a viewer. data : the Part 10 file."""
    Image.fromarray(dcmread(BytesIO(data)).pixel_array).save(target, format="PNG")


def drawn(page: Page) -> NDArray[np.uint8]:
    """The page as RGB [row, column, 3]."""
    image = Image.new("RGB", (page.width, page.height), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for item in page.items:
        match item:
            case Picture(place, pixels):
                size = (max(1, round(place.width)), max(1, round(place.height)))
                scaled = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BICUBIC)
                image.paste(scaled, (round(place.left), round(place.top)))
            case Box(place, colour):
                draw.rectangle((place.left, place.top, place.right - 1, place.bottom - 1), fill=colour)
            case Line(points, colour, width):
                _smooth_line(image, points, colour, width)
            case Text():
                draw.text(
                    (round(item.x), round(item.baseline)),
                    item.text,
                    item.colour,
                    font(item.size, item.bold),
                    anchor=_ANCHORS[item.align],
                    stroke_width=2 if item.halo else 0,
                    stroke_fill=(0, 0, 0),
                )
    return np.asarray(image)


def _smooth_line(image: Image.Image, points: NDArray[np.float64], colour: tuple[int, int, int], width: float) -> None:
    """A line with smooth edges: drawn larger on a mask of its surroundings, which is then made smaller."""
    left, top = (max(0, int(part) - 3) for part in np.floor(points.min(axis=0)))
    right, bottom = (int(part) + 3 for part in np.ceil(points.max(axis=0)))
    columns, rows = min(right, image.width) - left, min(bottom, image.height) - top
    if columns <= 0 or rows <= 0:
        return
    mask = Image.new("L", (columns * _SUPERSAMPLE, rows * _SUPERSAMPLE), 0)
    places = [tuple(point) for point in ((points - [left, top]) * _SUPERSAMPLE).tolist()]
    ImageDraw.Draw(mask).line(places, fill=255, width=round(width * _SUPERSAMPLE), joint="curve")
    image.paste(colour, (left, top), mask.reduce(_SUPERSAMPLE))


def _source(source: SourceSlice) -> Dataset:
    item = reference_item(source)
    add_code(item, "PurposeOfReferenceCodeSequence", "source_image")
    return item
