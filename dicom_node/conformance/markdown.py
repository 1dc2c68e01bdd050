"""Headings and tables in Markdown."""

from collections.abc import Iterable, Iterator, Sequence


def heading(level: int, text: str) -> Iterator[str]:
    """A heading; level 1 is a part of the document."""
    yield from ("", f"{'#' * (level + 1)} {text}", "")


def paragraph(text: str) -> Iterator[str]:
    """Text with a blank line behind."""
    yield from (text, "")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """A table with a blank line behind; without rows it says so."""
    listed = [[_cell(cell) for cell in row] for row in rows]
    if not listed:
        yield from ("None.", "")
        return
    yield f"| {' | '.join(columns)} |"
    yield f"|{'|'.join('---' for _ in columns)}|"
    for row in listed:
        yield f"| {' | '.join(row)} |"
    yield ""


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ", ".join(str(item) for item in value) if isinstance(value, list | tuple) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def hexadecimal(status: int) -> str:
    """A status as the standard writes it: "A700"."""
    return f"{status:04X}"
