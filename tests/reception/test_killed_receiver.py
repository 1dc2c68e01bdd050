"""kill -9 of the receiver while eight associations send; hundreds of kills: tests/benchmarks/kill_receiver.py."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from killing import Sending, Verdict, judge, kill_and_check
from receiver_process import ReceiverProcess

from dicom_node.dimse.part10 import file_head

CT, EXPLICIT_LITTLE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"


def test_nothing_acknowledged_is_missing_and_nothing_half_written_is_visible(tmp_path: Path) -> None:
    verdict, chance = Verdict(), random.Random(11)
    with ReceiverProcess(tmp_path) as receiver:
        for _ in range(3):
            kill_and_check([receiver], verdict, chance, longest_s=0.6)
    assert verdict.problems == []
    assert not verdict.refused
    assert verdict.acknowledged > 20  # else the receiver was killed before it did anything


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (lambda content: content[:-1], "not what was sent"),
        (lambda content: content[:-2] + bytes([content[-2] ^ 1]) + content[-1:], "not what was sent"),
        (lambda content: b"", "half-written"),
        (None, "not there"),
    ],
)
def test_the_judge_sees_what_is_wrong(tmp_path: Path, broken: Callable[[bytes], bytes] | None, problem: str) -> None:
    sending = Sending("2.25.1000", 5, 4000)
    (tmp_path / f"{1:019d}-0123456789abcdef.opened.json").write_text("{}")
    whole = file_head(CT, sending.sop_instance_uid, EXPLICIT_LITTLE) + sending.dataset()
    path = tmp_path / f"{2:019d}-0123456789abcdef-000001.dcm"

    def judged() -> list[str]:
        return judge(tmp_path, {sending.sop_instance_uid: sending}, {sending.sop_instance_uid}, Verdict())

    path.write_bytes(whole)
    assert judged() == []
    if broken is not None:
        path.write_bytes(broken(whole))
    (found,) = judged()
    assert problem in found
