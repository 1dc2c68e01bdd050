"""The numbers of an answer, laid out beside the pictures: in words where there is room, else as a table."""

from collections.abc import Sequence
from typing import NamedTuple

from dicom_node.encoding.fonts import fitted, text_width, wrapped
from dicom_node.encoding.sheet import FAINT, INK, Box, Item, Rect, Text
from dicom_node.encoding.tables import Cell, Entry, columns_of

_GAP = 10
_SWATCH = 12
_INDENT = 22
_COLUMN_GAP = 28
_TABLE_SIZES = (17, 16, 15, 14)  # of letters
_ROW = 4  # room between rows
_MOST_IN_WORDS = 30


def place_tables(exam: Entry | None, entries: Sequence[Entry], place: Rect) -> list[Item]:
    """The exam's values, then the entries, in `place`; what does not fit is left out, and that is said."""
    items: list[Item] = []
    top = place.top
    if exam is not None:
        block, height = _in_words(exam, Rect(place.left, top, place.width, 0))
        items += block
        top += height + _GAP
    rest = Rect(place.left, top, place.width, place.bottom - top)
    blocks = [] if needs_table(entries) else [_in_words(entry, rest) for entry in entries]
    if len(blocks) == len(entries) and sum(height + _GAP for _, height in blocks) <= rest.height:
        for entry in entries:
            block, height = _in_words(entry, Rect(place.left, top, place.width, 0))
            items += block
            top += height + _GAP
        return items
    return items + _as_table(entries, rest)


def needs_table(entries: Sequence[Entry]) -> bool:
    """Whether there are too many for words, so that the table should get more room."""
    return len(entries) > _MOST_IN_WORDS


def _in_words(entry: Entry, place: Rect) -> tuple[list[Item], float]:
    """Name, statements, numbers; and the height that they take."""
    indent = 0 if entry.colour is None else _INDENT
    y = place.top + 18
    items: list[Item] = []
    if entry.colour is not None:
        items.append(Box(Rect(place.left, y - _SWATCH - 1, _SWATCH, _SWATCH), entry.colour))
    name = fitted(entry.name, 18, place.width - indent, bold=True)
    items.append(Text(place.left + indent, y, name, 18, bold=True))
    if entry.place:
        x = place.left + indent + text_width(name, 18, bold=True) + 10
        if x + text_width(entry.place, 15) <= place.right:
            items.append(Text(x, y, entry.place, 15, FAINT))
    for line in wrapped(" · ".join(entry.statements), 16, place.width - indent):
        y += 21
        items.append(Text(place.left + indent, y, line, 16))
    for cell in entry.cells:
        y += 20
        width = text_width(cell.text, 16)
        items.append(Text(place.left + indent, y, fitted(cell.name, 16, place.width - indent - width - 12), 16, FAINT))
        items.append(Text(place.right, y, cell.text, 16, align="right"))
    return items, y - place.top + 6


def _as_table(entries: Sequence[Entry], place: Rect) -> list[Item]:
    """One row for each entry; two columns of rows where there is room."""
    form = _form(entries, place)
    size, halves, width, columns, widths, name_width, heads, head_height, rows = form
    row = size + _ROW
    shown = entries[: rows * halves]
    per_half = -(-len(shown) // halves)
    items: list[Item] = []
    for half in range(halves):
        left = place.left + half * (width + _COLUMN_GAP)
        items += _head(columns, widths, heads, left + name_width, place.top + head_height - 6, size)
        y = place.top + head_height
        for entry in shown[half * per_half : (half + 1) * per_half]:
            y += row
            if entry.colour is not None:
                items.append(Box(Rect(left, y - 11, 11, 11), entry.colour))
            items.append(Text(left + 18, y, fitted(_row_name(entry), size, name_width - 24), size))
            x = left + name_width
            for column, wide in zip(columns, widths, strict=True):
                x += wide
                value = next((cell.value for cell in entry.cells if cell.concept == column.concept), "")
                items.append(Text(x - 4, y, value, size, align="right"))
    notes = [f"{len(entries) - len(shown)} more"] if len(shown) < len(entries) else []
    if len(columns) < len(columns_of(entries)) or any(len(entry.statements) > 1 for entry in entries):
        notes.append("further values")
    if notes:
        text = f"{' and '.join(notes)} in the report"
        items.append(Text(place.left, y + row + 4, text[0].upper() + text[1:], size, FAINT))
    return items


def _row_name(entry: Entry) -> str:
    return " ".join((entry.name, *entry.statements[:1]))


class _Form(NamedTuple):
    """How a table is set."""

    size: int  # of its letters
    halves: int  # columns of rows beside each other
    width: float  # of one of them
    columns: list[Cell]  # kinds of numbers, a column each
    widths: list[float]
    name_width: float
    heads: list[list[str]]  # lines over each column
    head_height: float
    rows: int  # that fit


def _form(entries: Sequence[Entry], place: Rect) -> _Form:
    """The form with the largest letters that has room for all rows and numbers; else for all rows; else the densest."""
    forms = []
    for size in _TABLE_SIZES:
        for halves in (1, 2) if place.width >= 560 else (1,):
            width = (place.width - (halves - 1) * _COLUMN_GAP) / halves
            columns, widths, name_width = _fitting_columns(entries, width, size)
            heads = [wrapped(column.name, size - 1, wide) for column, wide in zip(columns, widths, strict=True)]
            head_height = (max((len(lines) for lines in heads), default=0) + 1) * (size + 2) + 6
            rows = max(1, int((place.height - head_height) // (size + _ROW)) - 2)
            forms.append(_Form(size, halves, width, columns, widths, name_width, heads, head_height, rows))
    return max(forms, key=lambda form: (form.rows * form.halves >= len(entries), len(form.columns), form.size))


def _fitting_columns(entries: Sequence[Entry], width: float, size: int) -> tuple[list[Cell], list[float], float]:
    """Columns of numbers that fit beside the names, their widths, and the width of the names."""
    name_width = min(max(text_width(_row_name(entry), size) for entry in entries) + 30, 0.6 * width)
    columns: list[Cell] = []
    widths: list[float] = []
    for column in columns_of(entries):
        values = [cell.value for entry in entries for cell in entry.cells if cell.concept == column.concept]
        words = [*column.name.split(), column.unit]
        needed = max(
            max(text_width(value, size) for value in values), max(text_width(word, size - 1) for word in words)
        )
        if name_width + sum(widths) + needed + 12 > width:
            break
        columns.append(column)
        widths.append(needed + 12)
    return columns, widths, name_width


def _head(
    columns: Sequence[Cell],
    widths: Sequence[float],
    lines: Sequence[Sequence[str]],
    left: float,
    bottom: float,
    size: int,
) -> list[Item]:
    """Names of the columns over their units, flush with the numbers and standing on `bottom`."""
    items: list[Item] = []
    x = left
    for column, width, names in zip(columns, widths, lines, strict=True):
        x += width
        for place, line in enumerate(reversed([*names, column.unit])):
            items.append(
                Text(x - 4, bottom - place * (size + 2), line, size - 1, FAINT if place else INK, align="right")
            )
    return items
