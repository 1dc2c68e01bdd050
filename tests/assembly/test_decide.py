"""Single pieces of evidence: gaps, counts, numbering, extents, associations, and the clock as last resort."""

from datetime import timedelta

import pytest
from study_timeline import START, Timeline, arrived, ct_series

from dicom_node.assembly import Overdue, Ready, Wait, decide
from storage.records import Association


def both(arterial: int = 20, portal: int = 20, **how: object) -> list:  # type: ignore[type-arg]
    return [
        *ct_series("1.2.1", "ART", arterial, number=1, **how),  # type: ignore[arg-type]
        *ct_series("1.2.2", "PVP", portal, number=2, **how),  # type: ignore[arg-type]
    ]


def test_a_gap_inside_a_stack_never_runs_however_long_it_is_quiet() -> None:
    images = both()
    without_one = images[:7] + images[8:]
    timeline = arrived(without_one)
    assert isinstance(timeline.verdict, Wait)
    assert "a gap of 5 mm between Instance Numbers 7 and 9, 2.5 mm elsewhere" in timeline.verdict.reason
    timeline.sleep(120)
    assert isinstance(timeline.verdict, Wait)
    timeline.sleep(600)
    assert isinstance(timeline.verdict, Overdue)
    assert not timeline.runs


def test_the_same_slices_missing_from_both_stacks_are_still_a_gap() -> None:
    images = [i for i in both() if i.attributes["InstanceNumber"] != 8]
    assert "gap" in arrived(images).verdict.reason  # type: ignore[union-attr]


def test_a_declared_count_that_is_not_met_never_runs() -> None:
    images = both(declare=True)
    # the last slice of both: same extent, no gap, numbered from 1; only the count knows
    timeline = arrived([i for i in images if i.attributes["InstanceNumber"] != 20])
    assert isinstance(timeline.verdict, Wait)
    assert "arterial: 19 of 20 declared by ImagesInAcquisition (0020,1002)" in timeline.verdict.reason
    timeline.sleep(300)
    assert not timeline.runs
    timeline.sleep(600)
    assert isinstance(timeline.verdict, Overdue)
    assert not timeline.runs


def test_a_missing_first_slice_of_both_stacks_is_seen_in_the_numbering() -> None:
    timeline = arrived([i for i in both() if i.attributes["InstanceNumber"] > 1])
    assert isinstance(timeline.verdict, Wait)
    assert "Instance Numbers start at 2" in timeline.verdict.reason
    assert timeline.verdict.until == timeline.associations[0].closed_at + timedelta(seconds=60)  # type: ignore[operator]


def test_every_second_slice_looks_free_of_gaps_but_not_by_its_numbers() -> None:
    timeline = arrived([i for i in both() if i.attributes["InstanceNumber"] % 2])
    assert isinstance(timeline.verdict, Wait)
    assert "Instance Number 2 is missing" in timeline.verdict.reason


def test_a_liver_and_an_abdomen_run_after_the_quiet_period_with_a_note() -> None:
    timeline = arrived(both(arterial=20, portal=50))
    assert isinstance(timeline.verdict, Wait)
    assert "do not cover the same" in timeline.verdict.reason
    timeline.sleep(59)
    assert not timeline.runs
    timeline.sleep(2)
    assert isinstance(timeline.verdict, Ready)
    assert "do not cover the same" in timeline.verdict.evidence
    assert "nothing came for 60 s" in timeline.verdict.evidence


def test_a_liver_and_an_abdomen_run_at_once_when_their_counts_are_met() -> None:
    assert isinstance(arrived(both(arterial=20, portal=50, declare=True)).verdict, Ready)


def test_different_spacings_that_reach_equally_far_are_the_same_extent() -> None:
    thin = ct_series("1.2.1", "ART", 41, number=1, spacing_mm=1.0)
    thick = ct_series("1.2.2", "PVP", 9, number=2, spacing_mm=5.0)
    assert isinstance(arrived([*thin, *thick]).verdict, Ready)


def test_an_opposite_slice_order_is_the_same_extent() -> None:
    portal = ct_series("1.2.2", "PVP", 20, number=2, start_mm=47.5, spacing_mm=-2.5)
    assert isinstance(arrived([*ct_series("1.2.1", "ART", 20, number=1), *portal]).verdict, Ready)


@pytest.mark.parametrize("declared", [5, 19])
def test_a_declared_count_smaller_than_what_is_there_is_ignored_with_a_note(declared: int) -> None:
    verdict = arrived(both(ImagesInAcquisition=declared)).verdict
    assert isinstance(verdict, Ready)
    assert f"says {declared} where 20 are there" in verdict.evidence


def test_a_count_per_acquisition_with_two_reconstructions_is_met_by_both_together() -> None:
    def acquisition(first: int, phase: str, time: str) -> list:  # type: ignore[type-arg]
        how = {"ImagesInAcquisition": 60, "AcquisitionNumber": first, "AcquisitionTime": time}
        return [
            *ct_series(f"1.2.{first}1", phase, 40, number=first * 10 + 1, spacing_mm=1.25, **how),
            *ct_series(f"1.2.{first}2", phase, 20, number=first * 10 + 2, spacing_mm=2.5, **how),
        ]

    verdict = arrived([*acquisition(1, "ART", "101000"), *acquisition(2, "PVP", "101035")]).verdict
    assert isinstance(verdict, Ready)
    assert "in all 2 reconstructions" in verdict.evidence


def test_a_short_reconstruction_is_not_hidden_by_a_complete_one_of_the_same_acquisition() -> None:
    thick = ct_series("1.2.12", "ART", 20, number=12, spacing_mm=5.0, ImagesInAcquisition=20, AcquisitionNumber=1)
    thin = ct_series("1.2.11", "ART", 90, number=11, spacing_mm=1.0, ImagesInAcquisition=100, AcquisitionNumber=1)
    portal = ct_series("1.2.21", "PVP", 100, number=21, spacing_mm=1.0, ImagesInAcquisition=100, AcquisitionNumber=2)
    verdict = arrived([*thick, *thin, *portal]).verdict
    assert isinstance(verdict, Wait)
    assert "90 of 100" in verdict.reason


def test_a_series_count_covers_both_phases_in_one_series() -> None:
    both_say = {"number": 1, "NumberOfSeriesRelatedInstances": 40}
    arterial = ct_series("1.2.1", "LIVER", 20, ContrastBolusAgentPhase="ARTERIAL", **both_say)
    later = {"ContrastBolusAgentPhase": "PORTAL_VENOUS", "AcquisitionNumber": 2, "start_mm": -50.0}
    portal = ct_series("1.2.1", "LIVER", 40, **later, **both_say)[20:]
    images = arterial + portal
    verdict = arrived(images).verdict
    assert isinstance(verdict, Ready), verdict
    assert "40 of 40 of the Series" in verdict.evidence


def test_a_study_count_delays_but_does_not_forbid() -> None:
    timeline = arrived(both(NumberOfStudyRelatedInstances=900))
    assert isinstance(timeline.verdict, Wait)
    assert "40 of 900 images of the study" in timeline.verdict.reason
    timeline.sleep(61)
    assert isinstance(timeline.verdict, Ready)


# ---- associations


def test_an_open_association_holds_the_study_back_only_while_it_is_lively() -> None:
    timeline = Timeline()
    uid = timeline.open()
    for image in both():
        timeline.store(image, uid)
    assert isinstance(timeline.verdict, Wait)
    timeline.sleep(9)
    assert not timeline.runs
    timeline.sleep(1.5)
    assert isinstance(timeline.verdict, Ready)
    assert "an open association has been silent" in timeline.verdict.evidence


def test_a_silent_open_association_counts_where_the_evidence_is_weak() -> None:
    timeline = Timeline()
    uid = timeline.open()
    for image in both(portal=17):
        timeline.store(image, uid)
    timeline.sleep(30)
    assert isinstance(timeline.verdict, Wait)
    assert "still open" in timeline.verdict.reason


@pytest.mark.parametrize("state", ["aborted", "lost"])
def test_after_a_cut_equal_extents_run_only_after_the_quiet_period(state: str) -> None:
    timeline = Timeline()
    uid = timeline.open()
    for image in both():
        timeline.store(image, uid)
    timeline.close(uid, state)
    timeline.sleep(30)
    assert isinstance(timeline.verdict, Wait)
    assert state in timeline.verdict.reason
    timeline.sleep(31)
    assert isinstance(timeline.verdict, Ready)


def test_after_a_cut_met_counts_run_at_once() -> None:
    timeline = Timeline()
    uid = timeline.open()
    for image in both(declare=True):
        timeline.store(image, uid)
    timeline.sleep(0.1)
    timeline.close(uid, "aborted")
    assert isinstance(timeline.verdict, Ready)


def test_a_lost_association_noticed_after_the_sender_came_again_is_healed() -> None:
    images = both()
    timeline = arrived(images)
    released = timeline.associations[0]
    lost = Association("x", "r", "M", "N", "h", START - timedelta(seconds=9), timeline.now, "lost", 3)
    verdict = decide(timeline.bind(), [lost, released], last_received_at=timeline.last_received_at, now=timeline.now)
    assert isinstance(verdict, Ready)


def test_wait_names_a_moment_and_overdue_comes_from_the_settings() -> None:
    timeline = arrived(both(arterial=0))
    how = {"last_received_at": timeline.last_received_at, "quiet_period_s": 5.0, "overdue_s": 20.0}
    binding, associations = timeline.bind(), timeline.associations
    verdict = decide(binding, associations, now=timeline.now, **how)  # type: ignore[arg-type]
    assert isinstance(verdict, Wait)
    assert verdict.until == timeline.last_received_at + timedelta(seconds=20)
    late = decide(binding, associations, now=timeline.now + timedelta(seconds=20), **how)  # type: ignore[arg-type]
    assert isinstance(late, Overdue)
