"""One study through one pipeline: load, infer, encode. No database, no broker, no network."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pydicom

from dicom_node.decoding import DECODERS, load_ct_volume
from dicom_node.encoding.package import WITHOUT_FALL_BACKS, Package
from dicom_node.encoding.provenance import Provenance
from dicom_node.encoding.results import EncodedObject, encode_refusal, encode_results
from dicom_node.errors import UnreadableSeries
from pipelines.findings import Findings, UnsuitableInput
from pipelines.pipeline import Pipeline, Predictor


@dataclass(frozen=True)
class Answer:
    """What came of one study: result objects and the content of result.json."""

    status: Literal["done", "refused"]
    reason: str | None
    objects: tuple[EncodedObject, ...]
    result: Mapping[str, Any]


def analyse(
    pipeline: Pipeline,
    inputs: Mapping[str, Sequence[Path]],
    bundles: Mapping[str, Predictor],
    provenance: Provenance,
    *,
    report_refusal: bool = True,
    package: Package = WITHOUT_FALL_BACKS,
) -> Answer:
    """Run `pipeline` on the files of its roles.

    inputs : role name -> paths of one stack, any order.
    report_refusal : also encode an SR when the study is refused, so that the radiologist reads why.
    package : the kinds of objects that the destinations want.
    Never raises for unsuitable or unreadable images: those give an Answer with status "refused" and a reason.
    """
    clock = _Stopwatch()
    try:
        stacks = {role: load_ct_volume(paths) for role, paths in inputs.items()}
        pipeline_input = DECODERS[pipeline.name](stacks)
        clock.lap("read")
        findings = pipeline.load()(pipeline_input, bundles)
    except (UnsuitableInput, UnreadableSeries) as refusal:
        return refuse(
            pipeline, inputs, bundles, provenance, str(refusal), report_refusal=report_refusal, package=package
        )
    clock.seconds.update(findings.seconds)
    clock.restart()
    sources = {role: stack.headers for role, stack in stacks.items()}
    pixels = stacks[findings.role].volume.array if findings.role in stacks else None
    objects = encode_results(findings, sources, provenance, package=package, pixels=pixels)
    clock.lap("encode")
    return Answer("done", None, objects, _result(pipeline, bundles, provenance, sources, clock, findings))


def refuse(
    pipeline: Pipeline,
    inputs: Mapping[str, Sequence[Path]],
    bundles: Mapping[str, Predictor],
    provenance: Provenance,
    reason: str,
    *,
    report_refusal: bool = True,
    package: Package = WITHOUT_FALL_BACKS,
) -> Answer:
    """The answer for a study that the pipeline cannot read; `inputs` may be whatever images there are."""
    sources = {role: _headers(paths) for role, paths in inputs.items()}
    tell = report_refusal and any(sources.values())
    objects = encode_refusal(reason, sources, provenance, package=package) if tell else ()
    result = _result(pipeline, bundles, provenance, sources, _Stopwatch(), None)
    return Answer("refused", reason, tuple(objects), result | {"status": "refused", "reason": reason})


def _result(
    pipeline: Pipeline,
    bundles: Mapping[str, Predictor],
    provenance: Provenance,
    sources: Mapping[str, Sequence[pydicom.Dataset]],
    clock: "_Stopwatch",
    findings: Findings | None,
) -> dict[str, Any]:
    """result.json as the contract has it; the model named is the last of the pipeline's bundles, which decides."""
    model = bundles[pipeline.bundles[-1]] if bundles else None
    summary = dict(findings.summary) if findings else {}
    for lesion in summary.get("lesions", ()):
        lesion["tracking_uid"] = provenance.tracking_uid(lesion["tracking_id"])
    return {
        "pipeline": pipeline.name,
        "version": pipeline.version,
        "status": "done",
        "reason": None,
        "model": model
        and {
            "name": model.name,
            "version": model.version,
            "sha256": model.sha256,
            "trained_on": model.trained_on,
        },
        "seconds": {name: round(clock.seconds.get(name, 0.0), 3) for name in ("read", "prepare", "infer", "encode")},
        "inputs": {role: str(headers[0].SeriesInstanceUID) for role, headers in sources.items() if headers},
        "warnings": list(findings.warnings) if findings else [],
        **summary,
    }


def _headers(paths: Sequence[Path]) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]


class _Stopwatch:
    """Seconds per step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.restart()

    def restart(self) -> None:
        self._since = time.monotonic()

    def lap(self, name: str) -> None:
        self.seconds[name] = time.monotonic() - self._since
        self.restart()
