"""Elastography is bound as one acquisition, from whatever of it is there, and slice by slice."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from elastography_exams import EXAMS, OFFSETS, SLICES, ge, indexed, ordinary_mr, siemens
from study_timeline import START

from dicom_node.assembly import Overdue, Ready, Wait, decide
from dicom_node.binding import Binding, bind
from dicom_node.recognition.study import recognise
from dicom_node.routing.conditions import parse_condition
from dicom_node.slice_groups import slice_groups
from pipelines.catalogue import MRE_ANY_OF, MRE_ROLES
from pipelines.pipeline import Pipeline
from storage.records import Association, Instance

PIPELINE = Pipeline("mre_qc", "0", "AI MRE", "MR", MRE_ROLES, (), "cpu", "none", MRE_ANY_OF, answers_per_slice=True)
LATER = START + timedelta(seconds=5)


@pytest.fixture(scope="module")
def siemens_exam(tmp_path_factory: pytest.TempPathFactory) -> list[Instance]:
    return indexed([*siemens(), *ordinary_mr()], tmp_path_factory.mktemp("siemens"))


@pytest.fixture(scope="module")
def ge_exam(tmp_path_factory: pytest.TempPathFactory) -> list[Instance]:
    return indexed(ge(), tmp_path_factory.mktemp("ge"))


def bound(instances: list[Instance]) -> Binding:
    return bind(PIPELINE, recognise(instances))


def of_series(instances: list[Instance], *numbers: int) -> list[Instance]:
    return [i for i in instances if i.attributes["SeriesNumber"] in numbers]


def released() -> list[Association]:
    return [Association("a", "r", "MR1", "NODE", "h", START, START, "released", 1)]


def decided(binding: Binding, after_s: float = 5.0) -> Ready | Wait | Overdue:
    return decide(binding, released(), last_received_at=START, now=START + timedelta(seconds=after_s))


def test_all_roles_of_an_exam_are_bound_and_run_at_once(siemens_exam: list[Instance], ge_exam: list[Instance]) -> None:
    for exam in (siemens_exam, ge_exam):
        binding = bound(exam)
        assert set(binding.stacks) == {role.name for role in MRE_ROLES}
        assert binding.missing == binding.awaited == ""
        verdict = decided(binding)
        assert isinstance(verdict, Ready), verdict
        assert f"{SLICES} slices with {OFFSETS} phase offsets, 10 mm apart" in verdict.evidence


@pytest.mark.parametrize(
    ("series", "roles"),
    [
        ((4,), {"magnitude"}), ((5,), {"phase"}), ((7,), {"elastogram"}), ((9,), {"colour"}),
        ((6, 8), {"wave", "confidence"}),
    ],
)  # fmt: skip
def test_any_usable_set_is_enough_but_is_not_run_before_the_quiet_period(
    series: tuple[int, ...], roles: set[str], siemens_exam: list[Instance]
) -> None:
    binding = bound(of_series(siemens_exam, *series))
    assert set(binding.stacks) == roles
    assert binding.missing == ""
    verdict = decided(binding)
    assert isinstance(verdict, Wait)
    lacking = " and ".join(role for role in ("magnitude", "phase") if role not in roles)
    assert f"{lacking} may still come" in verdict.reason
    assert isinstance(decided(binding, after_s=61), Ready)


def test_confidence_alone_or_ordinary_mr_is_not_enough(siemens_exam: list[Instance]) -> None:
    for series in ((8,), (90, 93, 97)):
        binding = bound(of_series(siemens_exam, *series))
        assert binding.missing.startswith("magnitude or phase or wave or elastogram or colour: no stack recognised")
        assert isinstance(decided(binding, after_s=61), Wait)
        assert isinstance(decided(binding, after_s=601), Overdue)


def test_a_missing_phase_offset_is_waited_for_and_named(siemens_exam: list[Instance]) -> None:
    rest = [i for i in siemens_exam if (i.attributes["SeriesNumber"], i.attributes["InstanceNumber"]) != (5, 6)]
    verdict = decided(bound(rest), after_s=61)
    assert isinstance(verdict, Wait)
    assert "phase: phase offsets are missing, 3 of 4 at -20.0 mm" in verdict.reason


def test_offsets_that_the_header_states_are_waited_for(siemens_exam: list[Instance]) -> None:
    """The last offset of every slice is missing: all slices agree, and only the header tells."""
    rest = [i for i in siemens_exam if i.attributes.get("TemporalPositionIdentifier") != OFFSETS]
    verdict = decided(bound(rest), after_s=61)
    assert isinstance(verdict, Wait)
    assert "3 of 4" in verdict.reason


def test_a_slice_that_one_role_lacks_is_waited_for(siemens_exam: list[Instance]) -> None:
    rest = [
        i
        for i in siemens_exam
        if i.attributes["SeriesNumber"] != 5 or i.attributes["ImagePositionPatient"][2] < -1  # phase lacks the last
    ]
    verdict = decided(bound(rest))
    assert isinstance(verdict, Wait)
    assert "they do not cover the same" in verdict.reason


def test_the_latest_acquisition_that_suffices_is_bound(tmp_path: Path) -> None:
    first = indexed(siemens(), tmp_path)
    second = indexed(siemens(series=30, time="102500"), tmp_path)
    assert {s.attributes["SeriesNumber"] for s in bound([*first, *second]).stacks.values()} == set(range(30, 36))
    only_magnitude = of_series(second, 30)
    assert {s.attributes["SeriesNumber"] for s in bound([*first, *only_magnitude]).stacks.values()} == set(range(4, 10))


def test_an_administrators_condition_may_name_a_role(siemens_exam: list[Instance]) -> None:
    rest = of_series(siemens_exam, 4, 5, 93)
    override = {"magnitude": parse_condition({"attribute": "SequenceName", "equals": "*fl3d2"})}
    binding = bind(PIPELINE, recognise(rest), override)
    assert {role: s.attributes["SeriesNumber"] for role, s in binding.stacks.items()} == {"magnitude": 93, "phase": 5}


# ------------------------------------------------------------------ slice by slice


def test_slices_become_complete_one_by_one(siemens_exam: list[Instance]) -> None:
    """Images arrive offset by offset; the last offset of the first slice completes it and no other."""
    raw = [i for i in of_series(siemens_exam, 4, 5)]
    early = [i for i in raw if i.attributes["InstanceNumber"] <= (OFFSETS - 1) * SLICES + 1]
    groups = slice_groups(bound(early))
    assert [group.is_complete for group in groups] == [True] + [False] * (SLICES - 1)
    assert groups[0].positions_mm == (-30.0,)
    assert "3 of 4 phase offsets" in groups[1].reason
    assert {role: len(found) for role, found in groups[0].instances.items()} == {"magnitude": 4, "phase": 4}
    later = slice_groups(bound(siemens_exam))
    assert all(group.is_complete for group in later)
    assert len({group.fingerprint for group in later}) == SLICES
    assert set(later[0].inputs) == {role.name for role in MRE_ROLES}
    assert later[0].inputs["phase"]["sop_instance_uids"] == [i.sop_instance_uid for i in groups[0].instances["phase"]]


def test_a_slice_is_not_complete_while_nobody_knows_how_many_offsets_there_will_be(ge_exam: list[Instance]) -> None:
    groups = slice_groups(bound(ge_exam))
    assert not any(group.is_complete for group in groups)
    assert "not stated" in groups[0].reason
    counted = [replace(i, attributes={**i.attributes, "ImagesInAcquisition": 2 * SLICES * OFFSETS}) for i in ge_exam]
    assert all(group.is_complete for group in slice_groups(bound(of_series(counted, 4))))


def test_frames_of_one_object_are_one_group(tmp_path: Path) -> None:
    (group,) = slice_groups(bound(indexed(EXAMS["Siemens enhanced"](), tmp_path)))
    assert group.is_complete
    assert group.positions_mm == (-30.0, -20.0, -10.0, 0.0)


def test_without_magnitude_and_phase_there_are_no_groups(siemens_exam: list[Instance]) -> None:
    assert slice_groups(bound(of_series(siemens_exam, 4, 7))) == ()
