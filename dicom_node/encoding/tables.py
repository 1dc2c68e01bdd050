"""What an answer states, as the rows of a page: per finding, per image, of the whole exam."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dicom_node.encoding.concepts import concept
from dicom_node.encoding.segmentation import finding_colour
from dicom_node.encoding.sources import SourceImages
from dicom_node.encoding.wording import place_in_words, rounded
from pipelines.findings import Evaluation, Findings, Measurement

Colour = tuple[int, int, int]

#: UCUM units as people write them; annotations in braces and "1" are not written.
_UNITS = {
    "mm2": "mm²",
    "mm3": "mm³",
    "cm2": "cm²",
    "cm3": "cm³",
    "[hnsf'U]": "HU",
    "dB/(cm.MHz)": "dB/cm/MHz",
    "um2/s": "µm²/s",
    "mm2/s": "mm²/s",
    "um": "µm",
}
#: Names where the concept alone does not say of what, because in reports the finding site does.
#: Shorter ones where they would be cut.
_NAMES = {
    "liver_volume": "Liver volume",
    "diagnostic_probability": "P(diagnostic)",
    "readable_area": "Readable area",
    "area_of_region": "Measured area",
    "driver_frequency": "Driver frequency",
}


@dataclass(frozen=True)
class Cell:
    """One number."""

    concept: str  # key: what column it belongs to
    name: str
    value: str
    unit: str

    @property
    def text(self) -> str:
        """The number with its unit: "23.1 mm"."""
        return f"{self.value} {self.unit}".strip()


@dataclass(frozen=True)
class Entry:
    """One thing with what is said of it."""

    name: str
    place: str  # where to look: "image 17"; "" where the pictures show it
    colour: Colour | None  # of its outline
    statements: tuple[str, ...]
    cells: tuple[Cell, ...]


def entries_of(findings: Findings, images: SourceImages) -> tuple[Entry, ...]:
    """Findings, then findings on single images, then statements about images, in their order."""
    found = [
        Entry(
            item.tracking_id,
            "",
            finding_colour(item),
            statements(item.evaluations, item.concept),
            cells(item.measurements),
        )
        for item in findings.findings
    ]
    found += [
        Entry(
            item.tracking_id,
            place_in_words(images.slices[item.image]),
            finding_colour(item),
            statements(item.evaluations, item.concept),
            cells(item.measurements),
        )
        for item in findings.planar
    ]
    found += [
        Entry(
            item.label,
            place_in_words(images.slices[item.image]),
            None,
            statements(item.evaluations),
            cells(item.measurements),
        )
        for item in findings.images
    ]
    return tuple(found)


def exam_of(findings: Findings) -> Entry | None:
    """What is true of the whole exam; None if nothing is said of it."""
    if not findings.measurements and not findings.evaluations:
        return None
    return Entry("Whole exam", "", None, statements(findings.evaluations), cells(findings.measurements))


def cells(measurements: Iterable[Measurement]) -> tuple[Cell, ...]:
    """Numbers rounded and ordered as in every other object: the probability first."""
    return tuple(
        Cell(
            item.concept,
            _NAMES.get(item.concept, concept(item.concept).meaning),
            str(rounded(item)),
            unit_text(item.unit),
        )
        for item in sorted(measurements, key=lambda item: item.concept != "malignant_probability")
    )


def statements(evaluations: Iterable[Evaluation], finding: str | None = None) -> tuple[str, ...]:
    """Values of coded statements, such as "Malignant"; what is absent is said with its name."""
    found = []
    for item in evaluations:
        meaning = concept(item.value).meaning
        if item.concept == "presence" or item.value in ("present", "absent"):
            name = finding if item.concept == "presence" and finding else item.concept
            meaning = f"{concept(name).meaning}: {meaning.lower()}"
        found.append(meaning)
    return tuple(dict.fromkeys(found))


def columns_of(entries: Sequence[Entry]) -> tuple[Cell, ...]:
    """One cell of each kind that occurs, those that most entries have first."""
    samples: dict[str, Cell] = {}
    counts: dict[str, int] = {}
    for entry in entries:
        for cell in entry.cells:
            samples.setdefault(cell.concept, cell)
            counts[cell.concept] = counts.get(cell.concept, 0) + 1
    return tuple(samples[key] for key in sorted(samples, key=lambda key: -counts[key]))


def unit_text(ucum: str) -> str:
    """A UCUM unit as people write it; "" for a count or a ratio."""
    return "" if ucum == "1" or ucum.startswith("{") else _UNITS.get(ucum, ucum)
