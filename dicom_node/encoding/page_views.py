"""The key images of an answer, laid out in a grid with outlines, names, directions, scale bars and captions."""

from collections.abc import Sequence

import numpy as np

from dicom_node.encoding.colours import Scale
from dicom_node.encoding.fonts import fitted, text_width
from dicom_node.encoding.sheet import FAINT, INK, Item, Line, Picture, Rect, Text
from dicom_node.encoding.views import View, Views

_GAP = 10
_CAPTION = 24
BAR = 60  # height of a colour bar with its words
_LABEL = 15
_MOST_NAMES = 4  # on one picture; more are cut to their last word, which is the number
_SCALE_BARS_MM = (100, 50, 20, 10, 5)


def place_views(views: Views, place: Rect) -> list[Item]:
    """All pictures as large as they get side by side, colour bars below."""
    if not views.views:
        return []
    height = place.height - BAR * len(views.scales)
    cells = _grid(views.views, Rect(place.left, place.top, place.width, height))
    items: list[Item] = []
    for view, cell in zip(views.views, cells, strict=True):
        items += _placed(view, cell)
    top = max(cell.bottom for cell in cells) + 6
    for number, scale in enumerate(views.scales):
        items += colour_bar(scale, Rect(place.left, top + number * BAR, min(place.width, 520), BAR))
    return items


def _grid(views: Sequence[View], place: Rect) -> list[Rect]:
    """One cell per picture, in the number of columns that makes the pictures largest."""
    count = len(views)
    aspect = max(height_per_width(view) for view in views)

    def picture_width(columns: int) -> float:
        rows = -(-count // columns)
        wide = (place.width - _GAP * (columns - 1)) / columns
        high = (place.height - _GAP * (rows - 1)) / rows - _CAPTION
        return min(wide, high / aspect)

    columns = max(range(1, count + 1), key=lambda number: (picture_width(number), -number))
    width = picture_width(columns)
    height = width * aspect + _CAPTION
    return [
        Rect(
            place.left + (index % columns) * (width + _GAP),
            place.top + (index // columns) * (height + _GAP),
            width,
            height,
        )
        for index in range(count)
    ]


def height_per_width(view: View) -> float:
    rows, columns = view.pixels.shape[:2]
    return rows * view.row_height / columns


def _placed(view: View, cell: Rect) -> list[Item]:
    """One picture with everything on it, and its caption."""
    rows, columns = view.pixels.shape[:2]
    width = min(cell.width, (cell.height - _CAPTION) / height_per_width(view))
    place = Rect(cell.left, cell.top, width, width * height_per_width(view))
    items: list[Item] = [Picture(place, view.pixels)]
    to_page = np.asarray([place.width / columns, place.height / rows])
    taken: list[Rect] = []
    names: list[Item] = []
    short = sum(bool(line.label) for line in view.lines) > _MOST_NAMES
    for line in view.lines:
        points = line.points * to_page + np.asarray([place.left, place.top])
        points = np.clip(points, (place.left, place.top), (place.right, place.bottom))
        items.append(Line(points, line.colour, 2 if line.label else 1.5))
        if line.label:
            text = line.label.split()[-1] if short else line.label
            name = _name_beside(text, points, place, taken)
            taken.append(name)
            names.append(Text(name.left, name.bottom - 4, text, _LABEL, line.colour, bold=True, halo=True))
    items += names
    items += directions(view, place)
    items += scale_bar(view, place)
    caption = fitted(view.caption, _LABEL, cell.width)
    items.append(Text(place.left, place.bottom + 17, caption, _LABEL, FAINT))
    return items


def _name_beside(label: str, points: np.ndarray, place: Rect, taken: Sequence[Rect]) -> Rect:
    """Room for a name at a corner of what it names, inside of the picture and off other names if possible."""
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    width, height = text_width(label, _LABEL, bold=True) + 2, _LABEL + 4
    corners = [
        (right + 3, top - height),
        (left - width - 3, top - height),
        (right + 3, bottom),
        (left - width - 3, bottom),
        (right + 3, (top + bottom - height) / 2),
        (left - width - 3, (top + bottom - height) / 2),
    ]
    rooms = [
        Rect(
            float(min(max(x, place.left + 2), place.right - width - 2)),
            float(min(max(y, place.top + 2), place.bottom - height - 2)),
            width,
            height,
        )
        for x, y in corners
    ]
    return min(rooms, key=lambda room: sum(room.overlaps(other) for other in taken))  # of equals the first


def directions(view: View, place: Rect) -> list[Item]:
    if view.letters is None:
        return []
    left, right, top, bottom = view.letters
    middle_x, middle_y = place.left + place.width / 2, place.top + place.height / 2
    return [
        Text(place.left + 5, middle_y + 5, left, _LABEL, INK, halo=True),
        Text(place.right - 5, middle_y + 5, right, _LABEL, INK, align="right", halo=True),
        Text(middle_x, place.top + 17, top, _LABEL, INK, align="middle", halo=True),
        Text(middle_x, place.bottom - 6, bottom, _LABEL, INK, align="middle", halo=True),
    ]


def scale_bar(view: View, place: Rect) -> list[Item]:
    """A bar of a round length, at most a third of the picture's width."""
    if view.pixel_mm is None:
        return []
    mm_width = view.pixels.shape[1] * view.pixel_mm
    length_mm = next((mm for mm in _SCALE_BARS_MM if mm <= mm_width / 3), None)
    if length_mm is None:
        return []
    length = place.width * length_mm / mm_width
    x, y = place.left + 10, place.bottom - 10
    return [
        Line(np.asarray([(x, y), (x + length, y)]), INK, 3),
        Text(x, y - 6, f"{length_mm} mm", 13, INK, halo=True),
    ]


def colour_bar(scale: Scale, place: Rect) -> list[Item]:
    """Name and unit over the colours, values under them."""
    title = f"{scale.label}, {scale.unit}" if scale.unit else scale.label
    bar = Rect(place.left, place.top + 20, place.width, 14)
    items: list[Item] = [
        Text(place.left, place.top + 15, fitted(title, _LABEL, place.width), _LABEL),
        Picture(bar, scale.table[None, :, :]),
    ]
    for tick in scale.ticks:
        x = bar.left + bar.width * (tick - scale.low) / (scale.high - scale.low)
        align = "left" if x < bar.left + 12 else "right" if x > bar.right - 12 else "middle"
        items.append(Text(x, bar.bottom + 15, f"{tick:g}", 14, FAINT, align=align))  # type: ignore[arg-type]
    return items
