"""Are simulated exams of every maker recognised and paired right, beside the other series of their studies?

    python tests/benchmarks/mre_recognition.py [--seeds 20] [--first 1]

Per exam: the kind of every series (those that are no elastography must not be taken for it), that all of the exam are
one group, the series that plays each role, vendor, sequence, phase offsets, frequency, slice positions, and the values
of phase, elastogram and confidence against what was simulated.
Exit 1 unless every one is right.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np

from dicom_node.binding import bind
from dicom_node.decoding.elastography import mre_input
from dicom_node.recognition.headers import read_instance
from dicom_node.recognition.study import Recognised, recognise
from models.phantoms.mre import decoys
from models.phantoms.mre.cases import WRITERS
from models.phantoms.mre.exam import Exam, simulate_exam
from models.phantoms.mre.study import ROLES, Study, base_dataset, draw_geometry
from pipelines.catalogue import PIPELINES
from pipelines.inputs import MreInput

#: Series of a study, as the phantoms name them -> kind.
KINDS = {
    "magnitude": "mre magnitude",
    "phase": "mre phase",
    "wave": "mre wave",
    "stiffness": "mre elastogram",
    "confidence": "mre confidence",
    "overlay": "mre colour",
    "colour": "mre colour",
    "colour_wave": "mre other map",
    "unwrapped": "mre other map",
}
SEQUENCES = {"gre": "GRE", "se_epi": "SE-EPI"}


def main() -> int:
    """Print one row per maker; the exit status."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=20, help="exams of each maker")
    options.add_argument("--first", type=int, default=1, help="first seed")
    given = options.parse_args()
    wrong = 0
    for writer in WRITERS:
        found: Counter[str] = Counter()
        for seed in range(given.first, given.first + given.seeds):
            exam = simulate_exam(seed, vendor=writer.split()[0], matrix=64, slices=2 + seed % 3)
            with tempfile.TemporaryDirectory() as folder:
                problems = faults_of(written(exam, writer, Path(folder)))
            found["right" if not problems else "wrong"] += 1
            for problem in problems:
                print(f"  {writer}, seed {seed}: {problem}")
        wrong += found["wrong"]
        print(f"{writer:12} {found['right']:4} of {given.seeds} exams right ({found['right'] / given.seeds:.0%})")
    return 1 if wrong else 0


def written(exam: Exam, writer: str, folder: Path) -> Study:
    """The exam in a maker's words, with other series of a liver study; the seed draws names and maps."""
    rng = np.random.default_rng([exam.seed, 0x12EC])
    sequence = str(rng.choice(list(SEQUENCES)))
    dressed = replace(exam, protocol=replace(exam.protocol, sequence=sequence))
    makers, write = WRITERS[writer]
    start = datetime(2025, 1, 2, 8)  # noqa: DTZ001 - DICOM local time
    base = base_dataset(dressed, rng, start, makers[int(rng.integers(len(makers)))])
    wanted = frozenset({"magnitude", "phase"} | {role for role in ROLES if rng.random() < 0.85})
    study = Study(dressed, base, draw_geometry(rng), start, folder, rng, wanted)
    write(study)
    decoys.write(study, all_kinds=True)
    return study


def faults_of(study: Study) -> list[str]:
    """What is not as it was written; empty: all is right."""
    recognised = _recognised(sorted(study.folder.glob("*.dcm")))
    found = []
    kinds = {(one.stack.series_instance_uid, one.kind) for one in recognised.stacks if one.kind.startswith("mre ")}
    wanted = {(uid, KINDS[role]) for role, uid in study.series.items()}
    names = {uid: role for role, uid in study.series.items()}
    found += [f"{names.get(uid, 'another series')} taken for {kind}" for uid, kind in sorted(kinds - wanted)]
    found += [f"{names[uid]} not recognised as {kind}" for uid, kind in sorted(wanted - kinds)]
    groups = {one.group for one in recognised.stacks if one.kind in KINDS.values() and one.group}
    if groups != {"elastography 1"}:
        found.append(f"groups {sorted(groups)}")
    binding = bind(PIPELINES["mre_qc"], recognised)
    if binding.missing or binding.awaited:
        return [*found, f"not bound: {binding.missing or binding.awaited}"]
    named = {"elastogram": "stiffness", "colour": "overlay" if "overlay" in study.series else "colour"}
    for role, stack in binding.stacks.items():
        if stack.series_instance_uid != study.series[named.get(role, role)]:
            found.append(f"{role} is played by {names.get(stack.series_instance_uid, 'another series')}")
    bound = {stack.series_instance_uid for stack in binding.stacks.values()}
    instead = {"colour"} if "overlay" in study.series else set()
    for role, uid in study.series.items():
        if uid not in bound and KINDS[role] != "mre other map" and role not in instead:
            found.append(f"{role} plays no role")
    paths = {role: [Path(one.path) for one in stack.instances] for role, stack in binding.stacks.items()}
    return found + list(_misread(mre_input(paths).value, study))


def _misread(value: MreInput, study: Study) -> Iterable[str]:
    protocol = study.exam.protocol
    for name, read, meant in (
        ("vendor", value.vendor, protocol.vendor),
        ("sequence", value.sequence, SEQUENCES[protocol.sequence]),
        ("phase offsets", value.phase_offsets, protocol.offsets),
        ("slices", len(value.slices), len(study.exam.slices)),
    ):
        if read != meant:
            yield f"{name} {read}, not {meant}"
    if value.frequency_hz not in (None, protocol.hz):
        yield f"frequency {value.frequency_hz}, not {protocol.hz}"
    for index, (one, piece) in enumerate(zip(value.slices, study.exam.slices, strict=False)):
        maps, position_mm = piece.acquired.maps, study.geometry.position_mm(study.exam, index)
        if abs(one.position_mm - position_mm) > 0.001:
            yield f"slice {index + 1} at {one.position_mm:.3f}, not {position_mm:.3f} mm"
        if one.phase is None or np.abs(np.angle(np.exp(1j * (one.phase - maps.phase)))).max() > 0.003:
            yield f"slice {index + 1}: phase differs"
        if one.elastogram is not None and not np.allclose(one.elastogram, maps.stiffness_kpa, atol=0.004):
            yield f"slice {index + 1}: elastogram differs"
        if one.confidence is not None and not np.allclose(one.confidence, maps.confidence, atol=0.001):
            yield f"slice {index + 1}: confidence differs"


def _recognised(paths: Iterable[Path]) -> Recognised:
    return recognise([replace(read_instance(path), path=str(path)) for path in paths])


if __name__ == "__main__":
    sys.exit(main())
