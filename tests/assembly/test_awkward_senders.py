"""Thirty-one awkward ways to send a two-phase CT study: one run, on all images, at once when the last is there."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from study_timeline import Timeline, ct_image, ct_series

from dicom_node.assembly import Overdue, Ready, Wait
from storage.records import Instance

SLICES = 24


@dataclass
class Sent:
    """The study to send: arterial, portal-venous, both."""

    declare: bool
    timeline: Timeline = field(default_factory=Timeline)

    def __post_init__(self) -> None:
        self.a = ct_series("1.2.1", "ARTERIAL", SLICES, number=1, declare=self.declare)
        self.p = ct_series("1.2.2", "PORTAL VENOUS", SLICES, number=2, declare=self.declare)
        self.all = self.a + self.p

    def send(self, images: list[Instance], **how: object) -> None:
        self.timeline.send(images, **how)  # type: ignore[arg-type]

    def sleep(self, seconds: float) -> None:
        self.timeline.sleep(seconds)


def gap(seconds: float) -> Callable[[Sent], None]:
    def scenario(s: Sent) -> None:
        s.send(s.a)
        s.sleep(seconds)
        s.send(s.p)

    return scenario


def gap_inside(seconds: float) -> Callable[[Sent], None]:
    def scenario(s: Sent) -> None:
        s.send(s.a + s.p[: len(s.p) // 2])
        s.sleep(seconds)
        s.send(s.p[len(s.p) // 2 :])

    return scenario


def gap_inside_first(s: Sent) -> None:
    s.send(s.p)
    s.send(s.a[: len(s.a) // 3])
    s.sleep(6)
    s.send(s.a[len(s.a) // 3 :])


def gap_open_association(s: Sent) -> None:
    uid = s.timeline.open()
    for image in s.all[:-3]:
        s.timeline.store(image, uid)
    s.sleep(6)
    for image in s.all[-3:]:
        s.timeline.store(image, uid)
    s.timeline.close(uid)


def three_parts(s: Sent) -> None:
    n = len(s.all) // 3
    for i, part in enumerate((s.all[:n], s.all[n : 2 * n], s.all[2 * n :])):
        s.sleep(6 if i else 0)
        s.send(part)


def shuffled(s: Sent) -> None:
    images = list(s.all)
    random.Random(5).shuffle(images)
    s.send(images)


def portal_first(s: Sent) -> None:
    s.send(s.p[::-1])
    s.sleep(6)
    s.send(s.a)


def resend_after_result(s: Sent) -> None:
    s.send(s.all)
    s.timeline.sleep_until_ready(120)
    s.sleep(5)
    s.send(s.all)


def one_per_association(s: Sent) -> None:
    for image in s.all:
        s.send([image])
        s.sleep(0.05)


def abort_resend(seconds: float) -> Callable[[Sent], None]:
    def scenario(s: Sent) -> None:
        s.send(s.all, abort_after=int(len(s.all) * 0.8))
        s.sleep(seconds)
        s.send(s.all)

    return scenario


def abort_rest(s: Sent) -> None:
    sent = int(len(s.all) * 0.9)
    s.send(s.all, abort_after=sent)
    s.sleep(8)
    s.send(s.all[sent:])


def late_slices(s: Sent) -> None:
    s.send(s.all[:-3])
    s.sleep(10)
    s.send(s.all[-3:])


def late_slices_after_result(s: Sent) -> None:
    s.send(s.all)
    s.timeline.sleep_until_ready(120)
    base = s.p[0].attributes
    late = [
        ct_image("1.2.2", 8999 + i, z_mm=-500.0 - i, description=base["SeriesDescription"], number=2) for i in range(2)
    ]
    s.send(late)


def late_localizer(s: Sent) -> None:
    s.send(s.all)
    s.timeline.sleep_until_ready(120)
    how = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]} | ({"ImagesInAcquisition": 1} if s.declare else {})
    scout = ct_image("1.2.9", 0, z_mm=0.0, description="LOCALIZER", number=99, **how)
    s.send([scout])


def trickle_associations(s: Sent) -> None:
    step = len(s.all) // 5
    for i in range(0, len(s.all), step):
        s.sleep(6 if i else 0)
        s.send(s.all[i : i + step])


SCENARIOS: dict[str, Callable[[Sent], object]] = {
    "clean": lambda s: s.send(s.all),
    "two_assoc": lambda s: (s.send(s.a), s.send(s.p)),
    "gap_0.5": gap(0.5),
    "gap_3": gap(3),
    "gap_6": gap(6),
    "gap_20": gap(20),
    "gap_6_inside_series": gap_inside(6),
    "gap_20_inside_series": gap_inside(20),
    "gap_6_inside_first": gap_inside_first,
    "gap_6_open_association": gap_open_association,
    "three_parts_6": three_parts,
    "interleaved": lambda s: s.send([x for pair in zip(s.a, s.p, strict=True) for x in pair]),
    "parallel_associations": lambda s: s.timeline.send_at_once(("M1", s.a), ("M1", s.p)),
    "reverse": lambda s: s.send(s.all[::-1]),
    "portal_first_gap_6": portal_first,
    "shuffled": shuffled,
    "every_image_twice": lambda s: s.send([x for p in s.all for x in (p, p)]),
    "resend_at_once": lambda s: (s.send(s.all), s.send(s.all)),
    "resend_after_result": resend_after_result,
    "one_image_per_association": one_per_association,
    "abort_resend_1": abort_resend(1),
    "abort_resend_8": abort_resend(8),
    "abort_then_rest_8": abort_rest,
    "late_slices": late_slices,
    "late_slices_after_result": late_slices_after_result,
    "late_localizer_after_result": late_localizer,
    "two_senders": lambda s: s.timeline.send_at_once(("MODALITY1", s.all), ("MODALITY2", s.all[::-1])),
    "trickle_25s": lambda s: s.send(s.all, gap_s=25 / (len(s.all) - 1)),
    "trickle_associations_6": trickle_associations,
}
NEVER: dict[str, Callable[[Sent], object]] = {
    "abort_and_silence": lambda s: s.send(s.all, abort_after=int(len(s.all) * 0.8)),
    "arterial_only": lambda s: s.send(s.a),
}

both_kinds = pytest.mark.parametrize("declare", [True, False], ids=["counts", "strip"])


@both_kinds
@pytest.mark.parametrize("name", SCENARIOS)
def test_one_run_on_all_images_at_once(name: str, declare: bool) -> None:
    sent = Sent(declare)
    SCENARIOS[name](sent)
    timeline = sent.timeline
    wanted = {image.sop_instance_uid for image in sent.all}
    complete_at = max(timeline.instances[uid].received_at for uid in wanted)  # type: ignore[type-var]
    first = next((at for at, verdict in timeline.looks if isinstance(verdict, Ready)), None)
    assert first is not None, timeline.verdict
    assert first >= complete_at, "ready before the last image"  # type: ignore[operator]
    # The look that follows the release of the association which brought the last image is ready, without a clock.
    bringer = timeline.instances[max(wanted, key=lambda u: timeline.instances[u].received_at)].association_id  # type: ignore[arg-type, return-value]
    released = next(a.closed_at for a in timeline.associations if a.association_id == bringer)
    slack = timedelta(seconds=0 if name != "two_senders" else 1)
    assert first <= released + slack  # type: ignore[operator]
    assert len(timeline.runs) == 1
    assert list(timeline.covered.values()) == [len(wanted)]


@both_kinds
@pytest.mark.parametrize("name", NEVER)
def test_what_is_incomplete_never_runs_and_is_shown(name: str, declare: bool) -> None:
    sent = Sent(declare)
    NEVER[name](sent)
    assert isinstance(sent.timeline.verdict, Wait)
    sent.sleep(700)
    assert not sent.timeline.runs
    assert isinstance(sent.timeline.verdict, Overdue)


@both_kinds
def test_an_arterial_series_alone_names_what_is_missing(declare: bool) -> None:
    sent = Sent(declare)
    sent.send(sent.a)
    verdict = sent.timeline.verdict
    assert isinstance(verdict, Wait)
    assert verdict.reason.startswith("portal_venous: no stack recognised")
    assert "arterial is series 1 'ARTERIAL'" in verdict.reason
