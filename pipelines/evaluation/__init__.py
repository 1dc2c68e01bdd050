"""Outcome measures per pipeline, by the names of the catalogue. The code of each is imported when it is asked for."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.evaluation.report import Report

#: (truth.json, result.json) of every case.
Cases = Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
Evaluate = Callable[[Cases], "Report"]
Plot = Callable[["Report", Path], list[Path]]


def _ct_lesion() -> tuple[Evaluate, Plot]:
    module = import_module("pipelines.evaluation.ct_lesion")
    return module.evaluate_ct_lesion, module.plot_ct_lesion


def _mre_qc() -> tuple[Evaluate, Plot]:
    module = import_module("pipelines.evaluation.mre_qc")
    return module.evaluate_mre_qc, module.plot_mre_qc


#: Pipeline name -> function that loads (evaluate, plot): plot writes PNGs into a folder and returns their paths.
EVALUATIONS: dict[str, Callable[[], tuple[Evaluate, Plot]]] = {"ct_lesion": _ct_lesion, "mre_qc": _mre_qc}
