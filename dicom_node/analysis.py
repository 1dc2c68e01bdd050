"""One study through one pipeline: load, infer, encode. No database, no broker, no network."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pydicom

from dicom_node.decoding import DECODERS
from dicom_node.encoding.package import KINDS, WITHOUT_FALL_BACKS, Package
from dicom_node.encoding.provenance import Provenance
from dicom_node.encoding.results import EncodedObject, encode_refusal, encode_results
from dicom_node.encoding.sources import InvalidResult
from dicom_node.encoding.tracking import TrackedFinding, tracked
from dicom_node.errors import UnreadableSeries
from pipelines.findings import Findings, UnsuitableInput
from pipelines.pipeline import Pipeline, Predictor

#: Key of the input images that no slice is shown by, beside the roles.
OTHERS = "others"


@dataclass(frozen=True)
class Answer:
    """What came of one study: result objects and the content of result.json."""

    status: Literal["done", "refused"]
    reason: str | None
    objects: tuple[EncodedObject, ...]  # of all packages, each once, in the order of KINDS
    result: Mapping[str, Any]
    #: package -> SOP Instance UIDs of its objects
    packages: Mapping[Package, frozenset[str]] = field(default_factory=dict)


def analyse(
    pipeline: Pipeline,
    inputs: Mapping[str, Sequence[Path]],
    bundles: Mapping[str, Predictor],
    provenance: Provenance,
    *,
    report_refusal: bool = True,
    earlier: Sequence[TrackedFinding] = (),
    packages: Sequence[Package] = (WITHOUT_FALL_BACKS,),
    between_steps: Callable[[], None] = lambda: None,
) -> Answer:
    """Run `pipeline` on the files of its roles.

    inputs : role name -> paths of one stack, any order.
    earlier : findings of runs before this one on the same study, whose names and Tracking UIDs are kept.
    report_refusal : also encode an SR when the study is refused, so that the radiologist reads why.
    packages : what the destinations want; each is encoded once.
    between_steps : called after reading and after inference; what it raises ends the work.
    Never raises for unsuitable or unreadable images: those give an Answer with status "refused" and a reason.
    """
    clock = _Stopwatch()
    try:
        decoded = DECODERS[pipeline.name](inputs)
        if provenance.partial:
            decoded = replace(decoded, value=replace(decoded.value, more_to_come=True))
        clock.lap("read")
        between_steps()
        findings = pipeline.load()(decoded.value, bundles)
    except (UnsuitableInput, UnreadableSeries) as refusal:
        reason = str(refusal)
        return refuse(pipeline, inputs, bundles, provenance, reason, report_refusal=report_refusal, packages=packages)
    between_steps()
    clock.seconds.update(findings.seconds)
    clock.restart()
    sources, pixels = decoded.sources, decoded.pixels.get(findings.role)
    frames = decoded.frame_numbers.get(findings.role)
    findings, provenance, followed = tracked(findings, sources, provenance, earlier, frames)
    read = {**sources, OTHERS: decoded.others} if decoded.others else sources
    objects, made_for = _encoded(
        packages,
        lambda package: encode_results(
            findings, read, provenance, frame_numbers=frames, package=package, pixels=pixels
        ),
    )
    clock.lap("encode")
    result = _result(pipeline, bundles, sources, clock, findings)
    if provenance.partial:
        result["partial"] = provenance.partial
    result["tracking"] = [finding.as_json() for finding in followed]
    return Answer("done", None, objects, result, made_for)


def refuse(
    pipeline: Pipeline,
    inputs: Mapping[str, Sequence[Path]],
    bundles: Mapping[str, Predictor],
    provenance: Provenance,
    reason: str,
    *,
    report_refusal: bool = True,
    packages: Sequence[Package] = (WITHOUT_FALL_BACKS,),
) -> Answer:
    """The answer for a study that the pipeline cannot read; `inputs` may be whatever images there are."""
    sources = {role: _headers(paths) for role, paths in inputs.items()}
    wanted = packages if report_refusal and any(sources.values()) else ()
    objects, made_for = _encoded(wanted, lambda package: encode_refusal(reason, sources, provenance, package=package))
    result = _result(pipeline, bundles, sources, _Stopwatch(), None)
    return Answer("refused", reason, objects, result | {"status": "refused", "reason": reason}, made_for)


def _encoded(
    packages: Sequence[Package], encode: Callable[[Package], Sequence[EncodedObject]]
) -> tuple[tuple[EncodedObject, ...], dict[Package, frozenset[str]]]:
    """The objects of all packages, each once, and which of them are whose. Raises InvalidResult."""
    objects: dict[str, EncodedObject] = {}
    made_for: dict[Package, frozenset[str]] = {}
    for package in packages:
        encoded = encode(package)
        made_for[package] = frozenset(item.sop_instance_uid for item in encoded)
        for item in encoded:
            if objects.setdefault(item.sop_instance_uid, item).data != item.data:
                raise InvalidResult(f"{item.kind} {item.sop_instance_uid} has other content for {package}")
    order = list(KINDS)
    return tuple(sorted(objects.values(), key=lambda item: order.index(item.kind))), made_for


def _result(
    pipeline: Pipeline,
    bundles: Mapping[str, Predictor],
    sources: Mapping[str, Sequence[pydicom.Dataset]],
    clock: "_Stopwatch",
    findings: Findings | None,
) -> dict[str, Any]:
    """result.json as the contract has it; the model named is the last of the pipeline's bundles, which decides."""
    model = bundles[pipeline.bundles[-1]] if bundles else None
    summary = dict(findings.summary) if findings else {}
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
        "remarks": list(findings.remarks) if findings else [],
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
