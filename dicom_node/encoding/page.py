"""One page that sums up an answer: headline, key images with outlines, numbers, where it comes from.

A page is a list of texts, lines and pictures with their places, so that a picture (`capture`) and a document
(`document`) show the very same. It names neither patient nor hospital and takes no text from the source. Pictures of
ultrasound are cut to the regions that the device declares, for around them it writes the patient's name.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from dicom_node.encoding.fonts import fitted, text_width, wrapped
from dicom_node.encoding.header import disclaimer
from dicom_node.encoding.page_slices import QUALITY_COLOURS, place_slices, quality_of, strip, verdict_box
from dicom_node.encoding.page_table import needs_table, place_tables
from dicom_node.encoding.page_views import place_views
from dicom_node.encoding.provenance import MANUFACTURER, Provenance
from dicom_node.encoding.segmentation import Segment
from dicom_node.encoding.sheet import FAINT, INK, WARNING, Box, Colour, Item, Page, Rect, Text
from dicom_node.encoding.slice_views import SliceViews, slice_views
from dicom_node.encoding.sources import SourceImages
from dicom_node.encoding.tables import cells, entries_of, exam_of
from dicom_node.encoding.views import Views, views_of
from pipelines.findings import Findings

WIDTH, HEIGHT = 1280, 1024
_MARGIN = 24
_BANNER = 42
_FOOTER = 52
_MAX_WARNING_LINES = 4
_MAX_REMARK_LINES = 2


def summary_page(
    findings: Findings,
    segments: Sequence[Segment],
    images: SourceImages,
    pixels: NDArray[Any] | None,
    provenance: Provenance,
) -> Page:
    """The page of a study that was analysed.

    segments : of `findings`, as `segments_of` makes them.
    images : those of `findings.role`; a SourceStack if anything was segmented.
    pixels : one value after rescale [image, row, column], or RGB uint8 [image, row, column, 3], for each of `images`;
        None where they cannot be had: then the page has no pictures.
    """
    items, top = _head(provenance, headline(findings), findings.verdict, quality_of(findings.evaluations))
    slices = slice_views(findings, segments, images, pixels)
    if slices is not None and (page := _slices_page(findings, slices, items, top, provenance)) is not None:
        return page
    items, top = _with_notes(items, top, _noted(findings.warnings), WARNING)
    views = views_of(findings, segments, images, pixels)
    entries, exam = entries_of(findings, images), exam_of(findings)
    room = Rect(_MARGIN, top + 8, WIDTH - 2 * _MARGIN, HEIGHT - _FOOTER - top - 8)
    if not entries and exam is None:
        items += place_views(views, room)
    elif not views.views:
        items += place_tables(exam, entries, room)
    else:
        table_width = 730 if needs_table(entries) else 400
        items += place_views(views, Rect(room.left, room.top, room.width - table_width - _MARGIN, room.height))
        items += place_tables(exam, entries, Rect(room.right - table_width, room.top, table_width, room.height))
    items += _foot(provenance, _choice(views))
    return Page(
        WIDTH,
        HEIGHT,
        provenance.title,
        tuple(items),
        shown=tuple(sorted({view.index for view in views.views})),
        verdict=findings.verdict,
        may_identify=views.may_identify,
    )


def _slices_page(
    findings: Findings, views: SliceViews, head: Sequence[Item], top: float, provenance: Provenance
) -> Page | None:
    """The page of an answer about a few images: the exam in a line, then the images in a row; None: no room."""
    numbers, top = strip(cells(findings.measurements), _MARGIN, top + 6, WIDTH - 2 * _MARGIN)
    items, top = _with_notes([*head, *numbers], top, _noted(findings.warnings), WARNING)
    items, top = _with_notes(items, top, findings.remarks, FAINT)
    room = Rect(_MARGIN, top + 10, WIDTH - 2 * _MARGIN, HEIGHT - _FOOTER - top - 10)
    placed = place_slices(findings.images, views, room)
    if placed is None:
        return None
    return Page(
        WIDTH,
        HEIGHT,
        provenance.title,
        (*items, *placed, *_foot(provenance, "")),
        shown=tuple(sorted({item.image for item in findings.images})),
        verdict=findings.verdict,
        may_identify=views.may_identify,
    )


def refusal_page(reason: str, provenance: Provenance) -> Page:
    """The page of a study that could not be analysed, with the reason."""
    items, top = _head(provenance, "Study not analysed")
    for line in wrapped(reason, 22, WIDTH - 2 * _MARGIN):
        top += 32
        items.append(Text(_MARGIN, top, line, 22))
    return Page(WIDTH, HEIGHT, f"NOT ANALYSED by {provenance.title}", tuple([*items, *_foot(provenance, "")]))


def headline(findings: Findings) -> str:
    """The answer in one line: the pipeline's own, else how many findings there are."""
    if findings.headline:
        return findings.headline
    count = len(findings.findings) + len(findings.planar)
    if count:
        return f"{count} finding{'s' if count > 1 else ''}"
    return "" if findings.maps or findings.images or findings.measurements else "No finding"


def _head(provenance: Provenance, line: str, verdict: str = "", quality: str | None = None) -> tuple[list[Item], float]:
    """Banner, title, headline; and where they end. The headline's verdict stands in the colour of the quality."""
    banner = fitted(disclaimer(provenance).upper(), 21, WIDTH - 2 * _MARGIN, bold=True)
    title = f"{provenance.title} {provenance.version}"
    items: list[Item] = [
        Box(Rect(0, 0, WIDTH, _BANNER), WARNING),
        Text(WIDTH / 2, 29, banner, 21, (0, 0, 0), bold=True, align="middle"),
        Text(_MARGIN, _BANNER + 28, fitted(title, 20, WIDTH - 2 * _MARGIN), 20, FAINT),
    ]
    top: float = _BANNER + 32
    left: float = _MARGIN
    if verdict and quality is not None and line.startswith(verdict):
        box, left = verdict_box(verdict, QUALITY_COLOURS[quality], _MARGIN, top + 40, 30)
        items, left, line = [*items, *box], left + 14, line.removeprefix(verdict).lstrip(": ")
    room = WIDTH - left - _MARGIN
    size = next((size for size in (34, 30) if text_width(line, size, bold=True) <= room), 26)
    for part in wrapped(line, size, room, bold=True)[:3]:
        top += size + 8
        items.append(Text(left, top, part, size, INK, bold=True))
    return items, top + 10


def _noted(warnings: Sequence[str]) -> list[str]:
    return [f"Note: {text}" for text in warnings]


def _with_notes(items: list[Item], top: float, notes: Sequence[str], colour: Colour) -> tuple[list[Item], float]:
    """Warnings, a line each; what is faint is set on, and gets fewer lines."""
    is_warning = colour == WARNING
    size, most = (17, _MAX_WARNING_LINES) if is_warning else (15, _MAX_REMARK_LINES)
    lines = [line for text in (notes if is_warning else [" ".join(notes)])
             for line in wrapped(text, size, WIDTH - 2 * _MARGIN)]  # fmt: skip
    if len(lines) > most and is_warning:
        lines = [*lines[: most - 1], "Further notes are in the report."]
    elif len(lines) > most:
        lines = [*lines[: most - 1], fitted(f"{lines[most - 1]} …", size, WIDTH - 2 * _MARGIN)]
    for line in lines:
        top += size + 6
        items.append(Text(_MARGIN, top, line, size, colour))
    return items, top + (6 if lines else 0)


def _choice(views: Views) -> str:
    """Whether some findings have no picture."""
    if not views.missing:
        return ""
    return f"{views.missing} finding{'s have' if views.missing > 1 else ' has'} no picture here."


def _foot(provenance: Provenance, choice: str) -> list[Item]:
    """What made the page, from what; and that no person did."""
    made = provenance.created_at.strftime("%Y-%m-%d %H:%M")
    bundles = ", ".join(f"{bundle.name} {bundle.version}" for bundle in provenance.bundles)
    parts = [f"{MANUFACTURER}, {provenance.pipeline} {provenance.version}", f"models: {bundles}" if bundles else ""]
    parts += [f"trained on: {provenance.trained_on}" if provenance.trained_on else "", made]
    line = " · ".join(part for part in parts if part)
    say = f"Made by software, checked by no person; the full result is in the report. {choice}".strip()
    size = 15
    return [
        Text(_MARGIN, HEIGHT - 32, fitted(say, size, WIDTH - 2 * _MARGIN), size, FAINT),
        Text(_MARGIN, HEIGHT - 12, fitted(textwrap.shorten(line, 400), size, WIDTH - 2 * _MARGIN), size, FAINT),
    ]
