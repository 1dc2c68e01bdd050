"""The limits that a site may edit: when a slice and an exam are diagnostic, and the bins of stiffness."""

import hashlib
import os
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

SHIPPED = Path(__file__).with_name("thresholds.yaml")
#: Environment variable with the path of a site's own table.
VARIABLE = "DICOM_NODE_MRE_QC_THRESHOLDS"


@dataclass(frozen=True)
class SliceLimits:
    """When a pixel can be read and a slice is diagnostic; see thresholds.yaml."""

    capsule_mm: float
    least_snr: float
    wave_over_error: float
    wrap_rad: float
    least_confidence: float
    diagnostic_mm2: float
    diagnostic_share: float
    refused_mm2: float
    refused_share: float
    diagnostic_from: float
    limited_below: float
    frequency_ratio: float


@dataclass(frozen=True)
class VerdictWeights:
    """How the logits of the networks and of the physical measures are joined; from calibration."""

    network: float
    physics: float
    offset: float


@dataclass(frozen=True)
class ExamLimits:
    """When an exam is diagnostic."""

    diagnostic_slices: float
    diagnostic_mm2: float


@dataclass(frozen=True)
class StiffnessLimits:
    """When a stiffness is stated, and at which frequencies it may be binned."""

    least_mm2: float
    least_slice_mm2: float
    least_slice_share: float
    largest_difference: float
    usual_hz: float
    bins_hz: tuple[float, float]


@dataclass(frozen=True)
class Bin:
    """Shear stiffness from the bin before up to `below_kpa` (not included); None: no upper edge."""

    below_kpa: float | None
    meaning: str


@dataclass(frozen=True)
class Thresholds:
    """The whole table."""

    slice: SliceLimits
    verdict: VerdictWeights
    exam: ExamLimits
    stiffness: StiffnessLimits
    bins: tuple[Bin, ...]
    bins_source: str

    def bin_of(self, kpa: float, hz: float) -> Bin | None:
        """The bin of a shear stiffness (kPa) measured at `hz`; None at a frequency for which the bins do not hold."""
        low, high = self.stiffness.bins_hz
        if not low <= hz <= high:
            return None
        return next((row for row in self.bins if row.below_kpa is None or kpa < row.below_kpa), None)


def in_force() -> Thresholds:
    """The site's table if VARIABLE names one, else the shipped one. Raises ValueError, OSError if it cannot be used."""
    return read(_path_in_force())


def edition() -> str:
    """Which table is in force, for the provenance of an answer: whose, and its digest. Raises as `in_force` does."""
    path = _path_in_force()
    read(path)
    return f"{'shipped' if path == SHIPPED else 'own'} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def read(path: Path) -> Thresholds:
    """Read a table. Raises OSError, and ValueError that names the key for anything missing, unknown or not a number."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no text in UTF-8") from error
    return _parsed(path, text)


def _path_in_force() -> Path:
    return Path(os.environ.get(VARIABLE) or SHIPPED)


@lru_cache(maxsize=4)  # by its text, so that an edited file counts at once
def _parsed(path: Path, text: str) -> Thresholds:
    try:
        table = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(table, dict):
        raise ValueError(f"{path}: no table of thresholds")
    bins = _section(path, table, "bins")
    rows = bins.get("rows")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: bins.rows must be a list of below and meaning")
    found = tuple(
        Bin(None if row.get("below") is None else _number(path, "bins.rows.below", row["below"]), str(row["meaning"]))
        for row in rows
    )
    edges = [row.below_kpa for row in found[:-1]]
    if None in edges or edges != sorted(set(edges), key=lambda edge: edge or 0.0) or found[-1].below_kpa is not None:
        raise ValueError(f"{path}: bins.rows must rise, and only the last has below: null")
    return Thresholds(
        slice=_limits(path, table, "slice", SliceLimits),
        verdict=_limits(path, table, "verdict", VerdictWeights),
        exam=_limits(path, table, "exam", ExamLimits),
        stiffness=_limits(path, table, "stiffness", StiffnessLimits),
        bins=found,
        bins_source=str(bins.get("source") or ""),
    )


def _section(path: Path, table: dict[str, Any], name: str) -> dict[str, Any]:
    section = table.get(name)
    if not isinstance(section, dict):
        raise ValueError(f"{path}: {name} is missing")
    return section


def _limits(path: Path, table: dict[str, Any], name: str, kind: type[Any]) -> Any:
    section = _section(path, table, name)
    wanted = {field.name for field in fields(kind)}
    if wrong := sorted(wanted ^ set(section)):
        raise ValueError(f"{path}: {name} lacks or does not know {', '.join(wrong)}")
    values: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, list):
            values[key] = tuple(_number(path, f"{name}.{key}", one) for one in value)
        else:
            values[key] = _number(path, f"{name}.{key}", value)
    return kind(**values)


def _number(path: Path, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{path}: {key} is not a number")
    return value
