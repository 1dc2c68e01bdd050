"""The simulated exams of every maker's writer are recognised, paired, bound and read back, beside other MR series."""

import gzip
import json
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from dicom_node.binding import bind
from dicom_node.decoding.elastography import mre_input
from dicom_node.recognition.headers import read_instance
from dicom_node.recognition.parsing import UnreadableHeader
from dicom_node.recognition.study import recognise
from models.phantoms.mre import decoys
from models.phantoms.mre.cases import WRITERS
from models.phantoms.mre.exam import Exam, simulate_exam
from models.phantoms.mre.study import ROLES, Study, base_dataset, draw_geometry
from pipelines.catalogue import MRE_ANY_OF, MRE_ROLES
from pipelines.pipeline import Pipeline
from storage.records import Instance

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
PIPELINE = Pipeline("mre_qc", "0", "AI MRE", "MR", MRE_ROLES, (), "cpu", "none", MRE_ANY_OF, answers_per_slice=True)
#: Series of a study, as the phantoms name them -> kind. Of elastograms in colours the overlaid one plays the role.
KINDS = {
    "magnitude": "mre magnitude", "phase": "mre phase", "wave": "mre wave", "stiffness": "mre elastogram",
    "confidence": "mre confidence", "overlay": "mre colour", "colour": "mre colour", "colour_wave": "mre other map",
    "unwrapped": "mre other map",
}  # fmt: skip


@pytest.fixture(scope="module")
def exam() -> Exam:
    return simulate_exam(3, vendor="Siemens", matrix=64, slices=2)


def written(exam: Exam, writer: str, seed: int, folder: Path) -> Study:
    """The exam in a maker's words; the seed draws how it names things and which series it sends."""
    rng = np.random.default_rng(seed)
    sequence = str(rng.choice(["gre", "se_epi"]))
    dressed = replace(exam, protocol=replace(exam.protocol, vendor=writer.split()[0], sequence=sequence))
    makers, write = WRITERS[writer]
    start = datetime(2025, 1, 2, 8)  # noqa: DTZ001 - DICOM local time
    base = base_dataset(dressed, rng, start, makers[int(rng.integers(len(makers)))])
    wanted = frozenset({"magnitude", "phase"} | {role for role in ROLES if rng.random() < 0.85})
    study = Study(dressed, base, draw_geometry(rng), start, folder, rng, wanted)
    write(study)
    decoys.write(study, all_kinds=False)
    return study


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("writer", WRITERS)
def test_every_writers_exam_is_recognised_paired_and_read(writer: str, seed: int, exam: Exam, tmp_path: Path) -> None:
    study = written(exam, writer, seed, tmp_path)
    found = [replace(read_instance(path), path=str(path)) for path in sorted(tmp_path.glob("*.dcm"))]
    recognised = recognise(found)
    kinds = {(r.kind, r.stack.series_instance_uid) for r in recognised.stacks if r.kind.startswith("mre ")}
    assert kinds == {(KINDS[role], uid) for role, uid in study.series.items()}, json.dumps(study.series)
    assert {r.group for r in recognised.stacks if r.kind in KINDS.values() and r.group} == {"elastography 1"}
    binding = bind(PIPELINE, recognised)
    assert binding.missing == binding.awaited == ""
    for role, stack in binding.stacks.items():
        named = {"elastogram": "stiffness", "colour": "overlay" if "overlay" in study.series else "colour"}
        assert stack.series_instance_uid == study.series[named.get(role, role)]
    value = mre_input({role: [Path(i.path) for i in s.instances] for role, s in binding.stacks.items()}).value
    assert value.vendor == writer.split()[0]
    assert (value.sequence, value.phase_offsets) == (
        {"gre": "GRE", "se_epi": "SE-EPI"}[study.exam.protocol.sequence], study.exam.protocol.offsets,
    )  # fmt: skip
    assert value.frequency_hz in (None, study.exam.protocol.hz)
    for index, one in enumerate(value.slices):
        maps = exam.slices[index].acquired.maps
        assert one.position_mm == pytest.approx(study.geometry.position_mm(study.exam, index), abs=0.001)
        turn = np.exp(1j * one.phase) * np.exp(-1j * maps.phase)  # type: ignore[operator]
        assert np.abs(np.angle(turn)).max() < 0.003
        if one.elastogram is not None:
            assert np.allclose(one.elastogram, maps.stiffness_kpa, atol=0.003)
        if one.confidence is not None:
            assert np.allclose(one.confidence, maps.confidence, atol=0.001)


def foreign_images(folder: Path, unpacked: Path) -> Iterator[Path]:
    """Every file below a folder; what is packed in .zip or .gz as well."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                archive.extractall(unpacked / path.stem)
            yield from (file for file in sorted((unpacked / path.stem).rglob("*")) if file.is_file())
        elif path.suffix == ".gz":
            (unpacked / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
            yield unpacked / path.stem
        else:
            yield path


def test_real_images_of_other_kinds_are_never_taken_for_elastography(tmp_path: Path) -> None:
    """Localizers, diffusion and enhanced multi-frame images of GE, Philips and Siemens; with names that tempt, too."""
    if not (SHARED / "mr").is_dir():
        pytest.skip(f"{SHARED / 'mr'}: real images are not here")
    studies: dict[str, list[Instance]] = defaultdict(list)
    for path in foreign_images(SHARED / "mr", tmp_path):
        with suppress(UnreadableHeader):
            instance = read_instance(path)
            studies[instance.study_instance_uid].append(replace(instance, path=str(path)))
    assert len(studies) >= 5
    assert sum(map(len, studies.values())) >= 30
    for study in studies.values():
        for renamed in (study, [_liver(instance) for instance in study]):
            recognised = recognise(renamed)
            assert not [one for one in recognised.stacks if one.kind.startswith("mre")]
            assert bind(PIPELINE, recognised).missing


def _liver(instance: Instance) -> Instance:
    """The same image as of a liver study that has elastography elsewhere."""
    named = {"StudyDescription": "MR LIVER ELASTOGRAPHY", "SeriesDescription": "Ax liver", "BodyPartExamined": "LIVER"}
    return replace(instance, attributes={**instance.attributes, **named})
