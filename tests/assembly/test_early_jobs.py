"""What is answered of an elastography while its study still arrives: in time, once, and never a half slice."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import pytest
from elastography_exams import OFFSETS, SLICES, ge, indexed, siemens

from dicom_node.assembly import Ready
from dicom_node.binding import bind
from dicom_node.early_answers import LONGEST_PAUSE_S, PAUSE_S, SILENCE_S, Early, Later, early_answer
from dicom_node.recognition.study import recognise
from pipelines.catalogue import PIPELINES
from storage.records import Instance, Job

START = datetime(2025, 1, 2, 10, 0, tzinfo=UTC)
PIPELINE = PIPELINES["mre_qc"]
COUNT = 2 * SLICES * OFFSETS


@pytest.fixture(scope="module")
def by_slice(tmp_path_factory: pytest.TempPathFactory) -> list[Instance]:
    """Magnitude and phase of a Siemens exam, slice after slice, as breath-holds come."""
    found = indexed(siemens(), tmp_path_factory.mktemp("siemens"))
    return sorted((i for i in found if i.attributes["SeriesNumber"] in (4, 5)), key=_place)


@pytest.fixture(scope="module")
def unstated(tmp_path_factory: pytest.TempPathFactory) -> list[Instance]:
    """The same of GE, which says nowhere how many images there will be."""
    found = indexed(ge(), tmp_path_factory.mktemp("ge"))
    return [i for i in found if i.attributes["SeriesNumber"] == 4]


def _place(instance: Instance) -> float:
    return float(instance.attributes["ImagePositionPatient"][2])


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def arriving(instances: Sequence[Instance], every_s: float = 0.0, from_s: float = 0.0) -> list[Instance]:
    return [replace(i, received_at=at(from_s + n * every_s)) for n, i in enumerate(instances)]


def asked(instances: Sequence[Instance], seconds: float, jobs: Sequence[Job] = ()) -> Ready | Early | Later:
    return early_answer(bind(PIPELINE, recognise(instances)), jobs, at(seconds))


def job(answer: Ready | Early, state: str = "done") -> Job:
    """The job that was asked for."""
    partial = answer.partial if isinstance(answer, Early) else ""
    inputs = MappingProxyType(dict(answer.inputs))
    return Job(1, "1.2", "mre_qc", answer.fingerprint, "r", inputs, (), "stat", state, "", 1, START, START, None, None,
               None, None, partial=partial)  # fmt: skip


def slices_in(answer: Ready | Early) -> int:
    return len(answer.inputs["phase"]["sop_instance_uids"]) // OFFSETS


def test_whole_slices_are_answered_a_moment_after_the_first_is_there(by_slice: list[Instance]) -> None:
    images = arriving(by_slice[: 2 * 2 * OFFSETS + 3])  # two slices and a bit of the third
    assert asked(images, PAUSE_S / 2) == Later(at(PAUSE_S))
    answer = asked(images, PAUSE_S)
    assert isinstance(answer, Early)
    assert answer.partial == "2 slices of 3 so far, more may come"
    assert "others wait" in answer.evidence
    assert slices_in(answer) == 2
    assert {uid for bound in answer.inputs.values() for uid in bound["sop_instance_uids"]} == {
        i.sop_instance_uid for i in images[: 4 * OFFSETS]
    }


def test_nothing_is_answered_twice_and_one_answer_is_made_at_a_time(by_slice: list[Instance]) -> None:
    first = arriving(by_slice[: 2 * OFFSETS + 1])
    answer = asked(first, 2)
    assert isinstance(answer, Early)
    for state in ("waiting", "running", "done", "refused", "failed"):
        assert isinstance(asked(first, 3, [job(answer, state)]), Later), state
    assert asked(first, 3, [job(answer, "superseded")]) == answer
    more = first + arriving(by_slice[2 * OFFSETS + 1 : 4 * OFFSETS + 1], from_s=3)
    assert asked(more, 10, [job(answer, "running")]) == Later(at(10.5))
    second = asked(more, 10, [job(answer)])
    assert isinstance(second, Early)
    assert slices_in(second) == 2
    assert second.fingerprint != answer.fingerprint


def test_slices_that_stream_in_are_answered_together(by_slice: list[Instance]) -> None:
    """An image every 0.1 s: not a report per slice, and no endless waiting either."""
    images = arriving(by_slice, every_s=0.1)
    jobs: list[Job] = []
    answers = []
    for step in range(1, 80):
        here = [i for i in images[:-1] if i.received_at is not None and i.received_at <= at(step / 10)]
        if not here:
            continue
        found = asked(here, step / 10, jobs)
        if isinstance(found, Early):
            jobs.append(job(found))
            answers.append((step / 10, slices_in(found)))
    first_whole_s = 0.1 * (2 * OFFSETS - 1)
    assert answers[0][0] == pytest.approx(first_whole_s + LONGEST_PAUSE_S, abs=0.15)
    assert [count for _, count in answers] == [3]


def test_an_exam_that_is_whole_by_its_header_is_answered_as_a_whole(by_slice: list[Instance]) -> None:
    declared = [replace(i, attributes={**i.attributes, "NumberOfSeriesRelatedInstances": COUNT // 2}) for i in by_slice]
    images = arriving(declared)
    assert asked(images, PAUSE_S / 2) == Later(at(PAUSE_S))
    answer = asked(images, PAUSE_S)
    assert isinstance(answer, Ready)
    binding = bind(PIPELINE, recognise(images))
    assert (answer.fingerprint, answer.inputs) == (binding.fingerprint, binding.inputs)  # the final one: asked once
    assert asked(images, 10, [job(answer)]) == Later(None)
    short = asked(images[:-1], 3)
    assert isinstance(short, Early)
    assert slices_in(short) == SLICES - 1
    assert isinstance(asked(images, 10, [job(short)]), Ready)


def test_where_nobody_states_the_offsets_silence_must_speak(unstated: list[Instance]) -> None:
    images = arriving(unstated)
    assert asked(images, SILENCE_S / 2) == Later(at(SILENCE_S))
    answer = asked(images, SILENCE_S)
    assert isinstance(answer, Early)  # not the whole exam: that nobody has said
    assert answer.partial == "4 slices so far, more may come"
    uneven = [i for i in images if i.attributes["InstanceNumber"] != COUNT]
    found = asked(uneven, 20)
    assert isinstance(found, Later) or slices_in(found) == SLICES - 1


def test_phase_with_fewer_offsets_than_magnitude_is_not_whole_however_silent(by_slice: list[Instance]) -> None:
    silent = [
        replace(i, attributes={k: v for k, v in i.attributes.items() if k != "NumberOfTemporalPositions"})
        for i in arriving(by_slice)
    ]
    last = max(i.attributes["TemporalPositionIdentifier"] for i in silent)
    cut = [i for i in silent if i.attributes["SeriesNumber"] == 4 or i.attributes["TemporalPositionIdentifier"] != last]
    assert asked(cut, 30) == Later(None)
    assert isinstance(asked(silent, 30), Early)


def test_a_repeated_scan_is_answered_too(by_slice: list[Instance], tmp_path: Path) -> None:
    """The first verdict was to repeat; the second scan arrives in the same study."""
    declared = [replace(i, attributes={**i.attributes, "NumberOfSeriesRelatedInstances": COUNT // 2}) for i in by_slice]
    first = arriving(declared)
    done = asked(first, 5)
    assert isinstance(done, Ready)
    again = [
        i for i in indexed(siemens(series=30, time="102500"), tmp_path) if i.attributes["SeriesNumber"] in (30, 31)
    ]
    again.sort(key=_place)
    both = first + arriving(again[: 2 * OFFSETS + 1], from_s=100)
    answer = asked(both, 102, [job(done)])
    assert isinstance(answer, Early)
    assert slices_in(answer) == 1
