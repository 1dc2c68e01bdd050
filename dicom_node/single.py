"""`dicom-node run` and `evaluate`: a pipeline on folders, without node, database or broker."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dicom_node.analysis import Answer, analyse, refuse
from dicom_node.decoding import load_ct_volume
from dicom_node.decoding.ct import ct_lesion_input
from dicom_node.encoding.capture import write_png
from dicom_node.encoding.package import WITHOUT_FALL_BACKS, Package
from dicom_node.encoding.provenance import Provenance
from dicom_node.errors import NodeError, UnreadableSeries
from dicom_node.folder import FolderInputs, inputs_from_folder
from dicom_node.inference import open_bundles
from dicom_node.settings import Settings
from pipelines.catalogue import PIPELINES
from pipelines.evaluation import EVALUATIONS
from pipelines.inputs import CtLesionInput
from pipelines.pipeline import Pipeline, Predictor

#: `run` has no database and so no node identity; results of a node and of `run` must never share UIDs
NO_NODE = "dicom-node run"


def run_on_folder(pipeline: Pipeline, folder: Path, out_dir: Path, settings: Settings) -> Answer:
    """Run the pipeline on a folder and write result.json and the DICOM objects to `out_dir`."""
    if not folder.is_dir():
        raise NodeError(f"{folder}: no such folder")
    answer = _answer(pipeline, inputs_from_folder(folder, pipeline), open_bundles(pipeline.bundles, settings))
    out_dir.mkdir(parents=True, exist_ok=True)
    for item in answer.objects:
        (out_dir / f"{item.kind}.dcm").write_bytes(item.data)
        if item.kind == "sc":
            write_png(item.data, out_dir / "summary.png")
    (out_dir / "result.json").write_text(json.dumps(answer.result, indent=1))
    return answer


def evaluate_cases(
    pipeline: Pipeline,
    folder: Path,
    plots: Path,
    settings: Settings,
    track: Callable[..., Iterable[Any]],
    only: Sequence[str] = (),
) -> Any:
    """Run the pipeline over the case folders below `folder` and measure it against their truth.

    only : roles that are used, as if the others had not been sent; empty: all.
    Returns the pipeline's report (`rows()`, `as_dict()`); refused cases count in it.
    Raises NodeError when there is no case, or no such role.
    """
    if unknown := sorted(set(only) - {role.name for role in pipeline.roles}):
        raise NodeError(
            f"{pipeline.name} has no role {unknown[0]!r}; its roles: {', '.join(r.name for r in pipeline.roles)}"
        )
    cases = sorted(truth.parent for truth in folder.glob("*/truth.json"))
    if not cases:
        raise NodeError(f"{folder}: no case folder (<case>/truth.json with <case>/dicom/*.dcm)")
    bundles = open_bundles(pipeline.bundles, settings)
    pairs = []
    for case in track(cases, description=f"evaluate {pipeline.name}"):
        truth = json.loads((case / "truth.json").read_text())
        inputs = inputs_from_folder(case / "dicom", pipeline)
        if only:
            inputs = replace(inputs, paths={role: paths for role, paths in inputs.paths.items() if role in only})
        pairs.append((truth, dict(_answer(pipeline, inputs, bundles, packages=()).result)))
    evaluate, plot = EVALUATIONS[pipeline.name]()
    report = evaluate(pairs)
    plots.mkdir(parents=True, exist_ok=True)
    plot(report, plots)
    return report


def read_ct_phases(folder: Path) -> CtLesionInput:
    """Both phases of the study in a folder, for the training of bundles from a site's cases.

    Raises UnreadableSeries when one is not there.
    """
    pipeline = PIPELINES["ct_lesion"]
    inputs = inputs_from_folder(folder, pipeline)
    if inputs.missing:
        raise UnreadableSeries(f"{folder}: {inputs.missing}")
    return ct_lesion_input({role: load_ct_volume(paths) for role, paths in inputs.paths.items()})


def _answer(
    pipeline: Pipeline,
    inputs: FolderInputs,
    bundles: dict[str, Predictor] | Any,
    packages: Sequence[Package] | None = None,
) -> Answer:
    """packages: None: what `run` writes; empty: nothing is encoded."""
    if packages is None:
        packages = (WITHOUT_FALL_BACKS.with_kinds(pipeline.objects),)
    provenance = Provenance.of(
        node_id=NO_NODE,
        study_instance_uid=inputs.study_instance_uid,
        pipeline=pipeline,
        bundles=bundles,
        fingerprint=inputs.fingerprint,
        configuration=pipeline.configuration(),
        created_at=datetime.now(UTC),
    )
    if inputs.missing:
        needed = "; ".join(role.meaning for role in pipeline.roles if role.required and role.name not in inputs.paths)
        if not needed:  # then none of the sets of optional roles is whole
            named = {name for names in pipeline.any_of for name in names}
            needed = "any of: " + "; ".join(role.meaning for role in pipeline.roles if role.name in named)
        reason = f"The study lacks what {pipeline.name} needs: {needed}. Found: {inputs.missing}"
        return refuse(pipeline, {"": inputs.any_paths}, bundles, provenance, reason, packages=packages)
    return analyse(pipeline, inputs.paths, bundles, provenance, packages=packages)
