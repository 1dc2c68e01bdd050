"""What an evaluation answers: measures with intervals, tables, and what the plots need."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.evaluation.statistics import Estimate

#: Columns of tables that become rows, with their interval in the columns low and high.
_IN_ROWS = ("recall", "accuracy", "agreement")


@dataclass(frozen=True)
class Report:
    """The outcome measures of one pipeline over a set of cases."""

    pipeline: str
    cases: int
    measures: Mapping[str, Estimate]  # name -> value with 95 % interval
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)  # name -> rows of plain values
    reasons: tuple[str, ...] = ()  # of refused cases
    details: Mapping[str, Any] = field(default_factory=dict)  # for the plots; not part of the JSON

    def rows(self) -> list[tuple[str, str, str, str]]:
        """For a table: measure, value, 95 % interval, number of cases, lesions or slices; by size or vendor too."""
        rows = [(name, _text(e.value), _interval(e.low, e.high), str(e.count)) for name, e in self.measures.items()]
        for name, table in self.tables.items():
            rows += [
                (
                    f"{measure}, {row[name]}",
                    _text(row[measure]),
                    _interval(row["low"], row["high"]),
                    str(row.get("lesions", row.get("slices"))),
                )
                for row in table
                for measure in _IN_ROWS
                if measure in row
            ]
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON; NaN and infinity become null."""
        return {
            "pipeline": self.pipeline,
            "cases": self.cases,
            "measures": {
                name: {
                    "value": _plain(item.value),
                    "low": _plain(item.low),
                    "high": _plain(item.high),
                    "n": item.count,
                }
                for name, item in self.measures.items()
            },
            "tables": {
                name: [{key: _plain(value) for key, value in row.items()} for row in rows]
                for name, rows in self.tables.items()
            },
            "reasons": list(self.reasons),
        }


def _text(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


def _interval(low: float, high: float) -> str:
    return f"{_text(low)} to {_text(high)}"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
