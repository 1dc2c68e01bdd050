"""A folder of DICOM files as a pipeline's inputs, without database or rules: what `dicom-node run` works on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dicom_node.assembly import bind
from dicom_node.errors import UnreadableSeries
from dicom_node.recognition.ct_pixels import Enhancement, measure_enhancement
from dicom_node.recognition.headers import NotDicom, read_instance
from dicom_node.recognition.stacks import Stack
from dicom_node.recognition.study import recognise
from pipelines.pipeline import Pipeline
from storage.files import sha256_of
from storage.records import Instance


@dataclass(frozen=True)
class FolderInputs:
    """What was found for each role; `missing` says in words what was not."""

    study_instance_uid: str
    paths: Mapping[str, Sequence[Path]]  # role -> files of one stack
    fingerprint: str
    missing: str | None
    any_paths: Sequence[Path]  # some images of the study, for the headers of a refusal


def inputs_from_folder(folder: Path, pipeline: Pipeline) -> FolderInputs:
    """Recognise everything below `folder` and bind the pipeline's roles.

    Raises UnreadableSeries when the folder holds no DICOM object or more than one study.
    """
    instances = [_instance(path) for path in sorted(folder.rglob("*")) if path.is_file()]
    found = [instance for instance in instances if instance is not None]
    studies = sorted({instance.study_instance_uid for instance in found})
    if not found:
        raise UnreadableSeries(
            f"{folder}: no DICOM object in {len(instances)} files; the images of one study are needed"
        )
    if len(studies) > 1:
        raise UnreadableSeries(f"{folder}: images of {len(studies)} studies; give the folder of one study")
    recognised = recognise(found, pixels=_enhancement)
    binding = bind(pipeline, recognised)
    bound = {role: [Path(instance.path) for instance in stack.instances] for role, stack in binding.stacks.items()}
    return FolderInputs(studies[0], bound, binding.fingerprint, binding.missing or None, [Path(found[0].path)])


def _instance(path: Path) -> Instance | None:
    try:
        return replace(read_instance(path), path=str(path), sha256=sha256_of(path))
    except NotDicom:
        return None


def _enhancement(stack: Stack) -> Enhancement | None:
    return measure_enhancement([Path(instance.path) for instance in stack.instances])
