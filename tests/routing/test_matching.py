"""Which rules apply to a study: one Series is enough, our own results never count, every verdict has its reason."""

from typing import Any

from dicom_node.recognition.study import OURS, Recognised, SeriesVerdict
from dicom_node.routing.configuration import load_configuration
from dicom_node.routing.matching import match
from storage.records import Series

RULES = """\
rules:
  - {name: ct, when: {attribute: Modality, equals: CT}, run: ct_lesion, send_to: []}
  - {name: thin, when: {all: [{attribute: Modality, equals: CT}, {attribute: SliceThickness, between: [0, 1]}]},
     run: ct_lesion, send_to: []}
  - {name: switched off, when: {attribute: Modality, equals: CT}, run: ct_lesion, send_to: [], enabled: false}
"""


def series(uid: str, **values: Any) -> Series:
    tags = {"Modality": "00080060", "SliceThickness": "00180050"}
    header = {tags[k]: {"vr": "LO", "Value": [v]} for k, v in values.items()}
    return Series(uid, "1.2", str(values.get("Modality", "")), header, "", "")


def tried(*all_series: Series, ours: tuple[str, ...] = ()) -> dict[str, tuple[bool, str]]:
    verdicts = tuple(
        SeriesVerdict(s.series_instance_uid, OURS if s.series_instance_uid in ours else "ct arterial", "", 1)
        for s in all_series
    )
    recognised = Recognised((), verdicts, 1, None)
    return {m.rule.name: (m.matched, m.reason) for m in match(load_configuration(RULES), all_series, recognised)}


def test_one_series_that_meets_the_condition_is_enough() -> None:
    found = tried(series("1.1", Modality="SR"), series("1.2", Modality="CT", SliceThickness=5))
    assert found["ct"][0]
    assert "1.2" in found["ct"][1]


def test_conditions_are_met_by_one_series_and_not_by_pieces_of_two() -> None:
    found = tried(series("1.1", Modality="CT", SliceThickness=5), series("1.2", Modality="MR", SliceThickness=1))
    assert not found["thin"][0]
    assert "SliceThickness is '5'" in found["thin"][1]


def test_a_rule_that_is_off_says_so() -> None:
    assert tried(series("1.1", Modality="CT"))["switched off"] == (False, "the rule is switched off")


def test_our_own_results_start_nothing() -> None:
    found = tried(series("1.1", Modality="CT"), ours=("1.1",))
    assert not found["ct"][0]
    assert "only results of this node" in found["ct"][1]
    assert not tried(series("1.1", Modality="CT"), series("1.2", Modality="SR"), ours=("1.1",))["ct"][0]
