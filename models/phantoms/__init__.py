"""Simulated cases per pipeline: `PHANTOMS[pipeline](seed, out_dir)` writes one case folder and returns it."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

WriteCase = Callable[..., Path]


def _lazy(module: str) -> WriteCase:
    def write_case(seed: int, out_dir: Path | str, **options: Any) -> Path:
        written: Path = import_module(module).write_case(seed, out_dir, **options)
        return written

    return write_case


# Importable without SimpleITK and pydicom; a generator is loaded when it is called.
PHANTOMS: dict[str, WriteCase] = {
    "ct_lesion": _lazy("models.phantoms.dicom"),
    "mre_qc": _lazy("models.phantoms.mre.cases"),
}
