"""Answers about the images of a short stack, laid out: images in a row, below each its map, verdict, numbers, reasons.

For who looks at it while the patient still lies there: what is wrong, where, and what to do about it.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from dicom_node.encoding.concepts import concept
from dicom_node.encoding.fonts import fitted, text_width, wrapped
from dicom_node.encoding.page_views import BAR, colour_bar, directions, height_per_width, scale_bar
from dicom_node.encoding.sheet import FAINT, INK, Box, Colour, Item, Line, Picture, Rect, Text
from dicom_node.encoding.slice_views import SliceViews
from dicom_node.encoding.tables import Cell, cells
from dicom_node.encoding.views import View
from pipelines.findings import Evaluation, ImageStatement

#: Value of a quality statement -> its colour, on dark ground; the words say the same.
QUALITY_COLOURS: dict[str, Colour] = {
    "diagnostic": (110, 215, 125),
    "limited": (255, 191, 0),
    "non_diagnostic": (255, 110, 100),
}

_GAP = 14  # between columns
_BAND_GAP = 16
_HEAD = 24  # name over the pictures
_BETWEEN = 4  # image and map
_LARGEST = 420.0  # width of a picture
_LEAST = 70.0
_READABLE = 190.0  # width of a column whose words are not cut
_NAME, _SMALL = 17, 15  # sizes of letters
_LINE = 19  # height of a small line


def quality_of(evaluations: Iterable[Evaluation]) -> str | None:
    """The quality that is stated, a key of QUALITY_COLOURS."""
    return next((item.value for item in evaluations if item.value in QUALITY_COLOURS), None)


def place_slices(statements: Sequence[ImageStatement], views: SliceViews, place: Rect) -> list[Item] | None:
    """All statements with their pictures in `place`; None if that has no room for them.

    views : of these statements, in their order.
    """
    bar = BAR if views.scale is not None else 0
    form = _form(statements, views, Rect(place.left, place.top, place.width, place.height - bar))
    if form is None:
        return None
    items: list[Item] = []
    for index, (statement, pictures) in enumerate(zip(statements, views.pictures, strict=True)):
        band, column = divmod(index, form.columns)
        left = place.left + column * (form.column_width + _GAP)
        top = place.top + band * (form.band_height + _BAND_GAP)
        items += _placed(statement, pictures, views.names if index == 0 else (), form, left, top)
    if views.scale is not None:
        bands = -(-len(statements) // form.columns)
        bottom = place.top + bands * (form.band_height + _BAND_GAP)
        items += colour_bar(views.scale, Rect(place.left, bottom, min(place.width, 520), BAR))
    return items


class _Form(NamedTuple):
    """How the statements are set: in bands, one below the other, of so many columns."""

    columns: int
    column_width: float
    is_beside: bool  # the map stands beside its image, not below
    picture_width: float
    picture_height: float
    band_height: float


def _form(statements: Sequence[ImageStatement], views: SliceViews, place: Rect) -> _Form | None:
    """The form with the largest pictures."""
    count = len(statements)
    rows = max(len(pictures) for pictures in views.pictures)
    aspect = max(height_per_width(view) for pictures in views.pictures for view in pictures)
    forms = []
    for columns in range(1, count + 1):
        bands = -(-count // columns)
        wide = (place.width - _GAP * (columns - 1)) / columns
        text = max(len(_lines(statement, wide)) for statement in statements) * _LINE + 8
        high = (place.height - _BAND_GAP * bands) / bands - _HEAD - text
        for across, down in {(1, rows), (rows, 1)}:
            width = min(
                _LARGEST, (wide - _BETWEEN * (across - 1)) / across, (high - _BETWEEN * (down - 1)) / down / aspect
            )
            height = _HEAD + down * width * aspect + _BETWEEN * (down - 1) + text
            forms.append(_Form(columns, wide, across > 1, width, width * aspect, height))
    best = max(
        forms,
        key=lambda form: (form.column_width >= _READABLE, form.picture_width, -form.columns, not form.is_beside),
    )
    return best if best.picture_width >= _LEAST else None


class _Said(NamedTuple):
    """One line below the pictures."""

    text: str
    colour: Colour
    value: str = ""  # on the right
    bold: bool = False


def _lines(statement: ImageStatement, width: float) -> list[_Said]:
    """The verdict, its reasons, what to do, the numbers."""
    quality = quality_of(statement.evaluations)
    said: list[_Said] = []
    if quality is not None:
        said.append(_Said(concept(quality).meaning, QUALITY_COLOURS[quality], bold=True))
    reasons = [concept(item.value).meaning for item in statement.evaluations if item.concept == "quality_finding"]
    said += [_Said(line, INK) for line in wrapped(", ".join(reasons), _SMALL, width)]
    said += [_Said(line, FAINT) for line in wrapped(f"> {statement.remark}", _SMALL, width) if statement.remark]
    return said + [_number(cell, width) for cell in cells(statement.measurements)]


def _number(cell: Cell, width: float) -> _Said:
    room = width - text_width(cell.text, _SMALL) - 10
    return _Said(fitted(cell.name, _SMALL, room), FAINT, cell.text)


def _placed(
    statement: ImageStatement, pictures: Sequence[View], names: Sequence[str], form: _Form, left: float, top: float
) -> list[Item]:
    name = fitted(statement.label, _NAME, form.column_width, bold=True)
    items: list[Item] = [Text(left, top + 17, name, _NAME, bold=True)]
    x = left + text_width(name, _NAME, bold=True) + 8
    where = fitted(pictures[0].caption, 14, left + form.column_width - x)
    items.append(Text(x, top + 17, where, 14, FAINT))
    y = top + _HEAD
    for number, view in enumerate(pictures):
        x = left + number * (form.picture_width + _BETWEEN) if form.is_beside else left
        place = Rect(x, y, form.picture_width, form.picture_width * height_per_width(view))
        items += _picture(view, place)
        if number == 0:
            items += [*(directions(view, place) if place.width >= _READABLE else ()), *scale_bar(view, place)]
        if number < len(names):
            items.append(Text(place.left + 5, place.top + 17, names[number], 14, INK, halo=True))
        y += 0 if form.is_beside else form.picture_height + _BETWEEN
    y += form.picture_height if form.is_beside else 0
    for line in _lines(statement, form.column_width):
        y += _LINE
        items.append(Text(left, y - 4, line.text, _SMALL, line.colour, bold=line.bold))
        if line.value:
            items.append(Text(left + form.column_width, y - 4, line.value, _SMALL, align="right"))
    return items


def _picture(view: View, place: Rect) -> list[Item]:
    rows, columns = view.pixels.shape[:2]
    to_page = np.asarray([place.width / columns, place.height / rows])
    items: list[Item] = [Picture(place, view.pixels)]
    for line in view.lines:
        points = line.points * to_page + np.asarray([place.left, place.top])
        items.append(Line(np.clip(points, (place.left, place.top), (place.right, place.bottom)), INK, 1.5))
    return items


def strip(entries: Sequence[Cell], left: float, top: float, width: float) -> tuple[list[Item], float]:
    """Numbers of the exam in a row, names over values; and where they end."""
    items: list[Item] = []
    x = left
    for cell in entries:
        wide = max(text_width(cell.name, 14), text_width(cell.text, 20, bold=True))
        if x + wide > left + width:
            break
        items.append(Text(x, top + 15, cell.name, 14, FAINT))
        items.append(Text(x, top + 38, cell.text, 20, INK, bold=True))
        x += wide + 36
    return items, top + (46 if items else 0)


def verdict_box(word: str, colour: Colour, left: float, baseline: float, size: int) -> tuple[list[Item], float]:
    """A word on a coloured ground; and where it ends."""
    width = text_width(word, size, bold=True) + 20
    box = Box(Rect(left, baseline - size + 2, width, size + 6), colour)
    return [box, Text(left + 10, baseline, word, size, (0, 0, 0), bold=True)], left + width
