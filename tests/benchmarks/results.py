"""Runs of the reception benchmark, and their summary as medians and ratios."""

import statistics
from dataclasses import dataclass

from objects import KINDS

REFERENCES = ("DCMTK", "Orthanc", "pynetdicom")


@dataclass(frozen=True)
class Cell:
    """What is sent: so many objects of a kind over so many associations."""

    kind: str
    count: int
    associations: int
    nodelay: bool

    def reference(self, peer: str) -> str:
        """The receiver that stands for a peer in the ratios: with TCP_NODELAY on both sides, or on neither."""
        if peer == "pynetdicom":
            return peer
        return peer.lower() if self.nodelay else f"{peer.lower()}-as-it-comes"

    @property
    def title(self) -> str:
        """As printed."""
        sender = "" if self.nodelay else ", Nagle"
        return f"{KINDS[self.kind].name.upper()} × {self.count}, {self.associations} assoc.{sender}"


@dataclass(frozen=True)
class Run:
    """One measured run; rates over the seconds of sending."""

    cell: Cell
    receiver: str
    round: int
    seconds: float
    objects_per_s: float
    mb_per_s: float  # 10^6 bytes of Datasets
    cpu_ms_per_object: float  # of the receiver's processes
    peak_mb: float  # 2^20 bytes, resident, sum over the receiver's processes
    missing: int
    altered: int
    compared: str
    trouble: str


@dataclass(frozen=True)
class Row:
    """A receiver in a cell: medians over the rounds; ratios as (median, least, greatest) of ratios within a round."""

    cell: Cell
    receiver: str
    rounds: int
    objects_per_s: float
    mb_per_s: float
    cpu_ms_per_object: float
    peak_mb: float
    ratios: dict[str, tuple[float, float, float]]
    compared: str
    lost_or_altered: int


def summarise(runs: list[Run]) -> list[Row]:
    """Rows in the order of cells and receivers."""
    rate = {(run.cell, run.receiver, run.round): run.objects_per_s for run in runs}
    rows = []
    for cell in dict.fromkeys(run.cell for run in runs):
        for receiver in dict.fromkeys(run.receiver for run in runs):
            mine = [run for run in runs if (run.cell, run.receiver) == (cell, receiver)]
            if not mine:
                continue
            ratios = {}
            for peer in REFERENCES:
                reference = cell.reference(peer)
                found = [
                    run.objects_per_s / rate[cell, reference, run.round]
                    for run in mine
                    if (cell, reference, run.round) in rate and reference != receiver
                ]
                if found:
                    ratios[peer] = (statistics.median(found), min(found), max(found))
            rows.append(
                Row(
                    cell,
                    receiver,
                    len(mine),
                    statistics.median(run.objects_per_s for run in mine),
                    statistics.median(run.mb_per_s for run in mine),
                    statistics.median(run.cpu_ms_per_object for run in mine),
                    max(run.peak_mb for run in mine),
                    ratios,
                    "values" if any(run.compared == "values" for run in mine) else "bytes",
                    sum(run.missing + run.altered + bool(run.trouble) for run in mine),
                )
            )
    return rows


def markdown(rows: list[Row]) -> str:
    """The rows as a table for the README."""
    titles = ["sent", "receiver", "objects/s", "MB/s", *(f"× {peer}" for peer in REFERENCES)]
    titles += ["CPU ms/object", "peak MB", "compared"]
    lines = ["| " + " | ".join(titles) + " |", "|---|---" + "|---:" * (len(titles) - 3) + "|---|"]
    cell = None
    for row in rows:
        ratios = [_ratio(row.ratios.get(reference)) for reference in REFERENCES]
        wrong = f", {row.lost_or_altered} WRONG" if row.lost_or_altered else ""
        fields = [row.cell.title if row.cell != cell else "", row.receiver, _rate(row.objects_per_s)]
        fields += [f"{row.mb_per_s:.0f}", *ratios, f"{row.cpu_ms_per_object:.2f}", f"{row.peak_mb:.0f}"]
        fields.append(row.compared + wrong)
        lines.append("| " + " | ".join(fields) + " |")
        cell = row.cell
    return "\n".join(lines)


def _rate(objects_per_s: float) -> str:
    return f"{objects_per_s:.0f}" if objects_per_s >= 20 else f"{objects_per_s:.1f}"


def _ratio(ratio: tuple[float, float, float] | None) -> str:
    if ratio is None:
        return ""
    median, least, greatest = ratio
    return f"**{median:.2f}** ({least:.2f}–{greatest:.2f})"
