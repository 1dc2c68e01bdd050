"""A page as an Encapsulated PDF (PS3.3 A.45.1), its text as text that can be searched and copied."""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.uid import EncapsulatedPDFStorage
from reportlab import rl_config
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from dicom_node.encoding.fonts import FILES, font_file, text_width
from dicom_node.encoding.frames import reference_item
from dicom_node.encoding.header import add_code, new_object, plain, series_description, shortened
from dicom_node.encoding.provenance import MANUFACTURER, Provenance
from dicom_node.encoding.sheet import BACKGROUND, Box, Line, Page, Picture, Text
from dicom_node.encoding.sources import SourceImages

_POINTS = 0.6  # per pixel: the page is 768 points wide, readable on A4 across
_PREFIX = "dicom-node-"
rl_config.useA85 = 0  # images as bytes, not as text, which takes seconds and a quarter more room


def document(
    page: Page, header: Dataset, provenance: Provenance, *, images: SourceImages | None = None, role: str = "pdf"
) -> Dataset:
    """The page as an Encapsulated PDF Storage object, ready to be written.

    header : an image of the study, whose identity is copied.
    images : those that the page's `shown` counts, to refer to them.
    role : part of its UIDs; another one for the page of a refusal.
    """
    dataset = new_object(
        str(EncapsulatedPDFStorage),
        "DOC",
        header,
        provenance,
        role=role,
        series_number=provenance.series_number("pdf"),
        series_description=series_description(provenance, page.verdict),
        own_codes=False,
    )
    dataset.ConversionType = "WSD"
    dataset.AcquisitionDateTime = None
    dataset.BurnedInAnnotation = "YES" if page.may_identify else "NO"
    dataset.RecognizableVisualFeatures = "NO"
    dataset.DocumentTitle = shortened(plain(page.title, header), 1024)
    add_code(dataset, "ConceptNameCodeSequence", "imaging_measurement_report")
    dataset.VerificationFlag = "UNVERIFIED"
    if images is not None and page.shown:
        unique = {images.slices[index].sop_instance_uid: images.slices[index] for index in page.shown}
        dataset.SourceInstanceSequence = [reference_item(item, frames=False) for item in unique.values()]
    data = pdf(page)
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocumentLength = len(data)
    dataset.EncapsulatedDocument = data + b"\0" * (len(data) % 2)
    dataset["EncapsulatedDocument"].VR = "OB"
    return dataset


def pdf(page: Page) -> bytes:
    """The page as a PDF file: the same page, the same bytes; without date and with an ID made from its content."""
    _register_fonts()
    buffer = BytesIO()
    canvas = Canvas(buffer, pagesize=(page.width * _POINTS, page.height * _POINTS), invariant=True, pageCompression=1)
    canvas.setTitle(page.title)
    canvas.setAuthor(MANUFACTURER)
    canvas.setCreator(MANUFACTURER)
    canvas.scale(_POINTS, _POINTS)
    canvas.setFillColorRGB(*_colour(BACKGROUND))
    canvas.rect(0, 0, page.width, page.height, stroke=0, fill=1)
    canvas.setLineJoin(1)
    canvas.setLineCap(1)
    for item in page.items:
        match item:
            case Picture(place, pixels):
                canvas.drawImage(_image(pixels), place.left, page.height - place.bottom, place.width, place.height)
            case Box(place, colour):
                canvas.setFillColorRGB(*_colour(colour))
                canvas.rect(place.left, page.height - place.bottom, place.width, place.height, stroke=0, fill=1)
            case Line(points, colour, width):
                canvas.setStrokeColorRGB(*_colour(colour))
                canvas.setLineWidth(width)
                path = canvas.beginPath()
                places = [(x, page.height - y) for x, y in points.tolist()]
                path.moveTo(*places[0])
                for place_ in places[1:]:
                    path.lineTo(*place_)
                canvas.drawPath(path, stroke=1, fill=0)
            case Text():
                _write(canvas, item, page.height)
    canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def _image(pixels: NDArray[np.uint8]) -> ImageReader:
    """Grey images take a third of the room of coloured ones."""
    grey = pixels[:, :, 0]
    is_grey = bool((pixels == grey[:, :, None]).all())
    return ImageReader(Image.fromarray(np.ascontiguousarray(grey if is_grey else pixels)))


def _write(canvas: Canvas, item: Text, height: int) -> None:
    if item.halo:  # a dark ground; a rim would be the same text a second time for whoever copies it
        width = text_width(item.text, item.size, item.bold)
        left = item.x - {"left": 0.0, "middle": width / 2, "right": width}[item.align]
        canvas.setFillColorRGB(0, 0, 0, alpha=0.6)
        canvas.rect(left - 2, height - item.baseline - 4, width + 4, item.size + 4, stroke=0, fill=1)
    canvas.setFont(f"{_PREFIX}{item.bold}", item.size)
    canvas.setFillColorRGB(*_colour(item.colour), alpha=1)
    draw = {"left": canvas.drawString, "middle": canvas.drawCentredString, "right": canvas.drawRightString}[item.align]
    draw(item.x, height - item.baseline, item.text)


def _register_fonts() -> None:
    known = pdfmetrics.getRegisteredFontNames()
    for bold in FILES:
        if f"{_PREFIX}{bold}" not in known:
            pdfmetrics.registerFont(TTFont(f"{_PREFIX}{bold}", str(font_file(bold))))


def _colour(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255
