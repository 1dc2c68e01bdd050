"""A Series becomes stacks: splits, breath-holds, gaps, duplicates, geometry."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.recognition.stacks import Stack, acquisition_time_s, seconds_of_day, stacks_of_series
from storage.records import Instance

AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def image(number: int, position: list[float] | None, uid: str | None = None, **attributes: Any) -> Instance:
    values = {
        "InstanceNumber": number, "AcquisitionNumber": 1, "ImageOrientationPatient": AXIAL, "Rows": 512, "Columns": 512,
        "PixelSpacing": [0.8, 0.8], "ImagePositionPatient": position,
    } | attributes  # fmt: skip
    kept = {k: v for k, v in values.items() if v is not None}
    return Instance(uid or f"1.{number}", "1.2.840.10008.5.1.4.1.1.2", "1.9", "1.8", "1.2", "", "", 0, attributes=kept)


def axial(numbers: range, start: float = 0.0, step: float = 2.0, first: int = 0, **attributes: Any) -> list[Instance]:
    return [image(n, [0.0, 0.0, start + step * (n - (first or numbers.start))], **attributes) for n in numbers]


def only(instances: list[Instance]) -> Stack:
    stacks = stacks_of_series(instances)
    assert len(stacks) == 1, [s.distinguished_by for s in stacks]
    return stacks[0]


def test_one_helical_series_is_one_stack() -> None:
    stack = only(axial(range(1, 31)))
    assert (stack.stack_id, stack.orientation, stack.slices, stack.spacing_mm) == ("1.9#1", "axial", 30, 2.0)
    assert stack.extent_mm == (0.0, 58.0)
    assert stack.gaps == ()
    assert stack.series_instance_numbers == tuple(range(1, 31))


def test_breath_holds_with_their_own_acquisition_numbers_are_one_stack() -> None:
    images = axial(range(1, 16)) + axial(range(16, 31), start=30.0, AcquisitionNumber=2)
    assert only(images).slices == 30


def test_phases_split_where_positions_repeat_and_breath_holds_stay_together() -> None:
    images = [
        *axial(range(1, 11), AcquisitionNumber=1),
        *axial(range(11, 21), start=20.0, AcquisitionNumber=2),
        *axial(range(21, 31), AcquisitionNumber=3),
        *axial(range(31, 41), start=20.0, AcquisitionNumber=4),
    ]
    first, second = stacks_of_series(images)
    assert (first.slices, second.slices) == (20, 20)
    assert first.instances[0].attributes["AcquisitionNumber"] == 1
    assert second.distinguished_by == "AcquisitionNumber 3\\4"


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("TemporalPositionIdentifier", (1, 2)), ("EchoTime", (2.3, 4.6)), ("DiffusionBValue", (50.0, 800.0)),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])),
        ("ConvolutionKernel", ("B30", "B70")),
    ],
)  # fmt: skip
def test_what_may_set_volumes_apart(keyword: str, values: tuple[Any, Any]) -> None:
    images = [
        replace(i, sop_instance_uid=f"{i.sop_instance_uid}.{n}")
        for n, value in enumerate(values)
        for i in axial(range(1, 11), **{keyword: value})
    ]
    stacks = stacks_of_series(images)
    assert [s.slices for s in stacks] == [10, 10]
    assert all(keyword in s.distinguished_by for s in stacks)


def test_orientation_matrix_spacing_and_localizer_always_split() -> None:
    images = [
        *axial(range(1, 11)),
        image(11, [0, 0, 50.0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        image(12, [0, 9.0, 0], ImageOrientationPatient=[1.0, 0, 0, 0, 0, -1.0]),
        image(13, [0, 0, 80.0], Rows=256),
        image(14, [0, 0, 82.0], PixelSpacing=[0.5, 0.5]),
        image(15, None),
    ]
    stacks = stacks_of_series(images)
    assert [s.slices for s in stacks] == [10, 1, 1, 1, 1, 1]
    assert [s.orientation for s in stacks] == ["axial", "axial", "coronal", "axial", "axial", ""]


def test_a_gap_is_named_by_its_neighbours() -> None:
    images = axial(range(1, 31))
    stack = only(images[:9] + images[11:])
    assert [(g.before, g.after, g.mm) for g in stack.gaps] == [(9, 12, 6.0)]


def test_copies_at_one_place_are_set_aside() -> None:
    stack = only([*axial(range(1, 31)), image(99, [0, 0, 10.0], uid="1.copy")])
    assert stack.slices == 30
    assert [i.sop_instance_uid for i in stack.duplicates] == ["1.copy"]


def test_the_same_instance_twice_counts_once() -> None:
    images = axial(range(1, 11))
    assert only(images + images).slices == 10


def test_jittered_positions_are_no_gaps() -> None:
    images = [image(n, [0, 0, 2.5 * n + (0.02 if n % 2 else -0.02)]) for n in range(1, 21)]
    assert only(images).gaps == ()


def test_a_multi_frame_object_is_a_stack_of_its_own() -> None:
    frames = [[0.0, 0.0, 3.0 * n] for n in range(12)]
    stack = only([image(1, None, FramePositions=frames)])
    assert (stack.slices, len(stack.instances), stack.spacing_mm) == (12, 1, 3.0)


def test_declared_counts_add_up_over_acquisitions() -> None:
    images = [
        *axial(range(1, 11), ImagesInAcquisition=10),
        *axial(range(11, 21), start=20.0, AcquisitionNumber=2, ImagesInAcquisition=12),
    ]
    stack = only(images)
    assert (stack.declared_count, stack.declared_by) == (22, "ImagesInAcquisition (0020,1002)")


angle = st.floats(-0.4, 0.4)


@settings(max_examples=60, deadline=None)
@given(tilt=angle, turn=angle, step=st.floats(0.5, 8), count=st.integers(3, 40), seed=st.randoms(use_true_random=False))
def test_any_orientation_and_arrival_order_give_the_same_stack(
    tilt: float, turn: float, step: float, count: int, seed: Any
) -> None:
    row = [math.cos(turn), math.sin(turn), 0.0]
    column = [-math.sin(turn) * math.cos(tilt), math.cos(turn) * math.cos(tilt), math.sin(tilt)]
    normal = [
        row[1] * column[2] - row[2] * column[1],
        row[2] * column[0] - row[0] * column[2],
        row[0] * column[1] - row[1] * column[0],
    ]
    images = [
        image(n, [7.0 + step * n * c for c in normal], ImageOrientationPatient=row + column)
        for n in range(1, count + 1)
    ]
    stack = only(images)
    shuffled = list(images)
    seed.shuffle(shuffled)
    assert only(shuffled) == stack
    assert stack.spacing_mm == pytest.approx(step, rel=1e-3)
    assert stack.gaps == ()
    assert [i.attributes["InstanceNumber"] for i in stack.instances] == list(range(1, count + 1))
    if count > 4:
        without = [i for i in images if i.attributes["InstanceNumber"] != 3]
        assert len(only(without).gaps) == 1


odd_values = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.floats(-9, 9), max_size=4)
)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), odd_values), max_size=20))
def test_odd_headers_never_raise_and_lose_no_image(values: list[tuple[int, int, Any]]) -> None:
    images = [
        image(number, [0.0, 0.0, float(z)], uid=f"1.{k}", AcquisitionNumber=acquisition, EchoTime=echo)
        for k, (number, z, echo) in enumerate(values)
        for acquisition in [z % 3]
    ]
    stacks = stacks_of_series(images)
    seen = [i.sop_instance_uid for s in stacks for i in (*s.instances, *s.duplicates)]
    assert sorted(seen) == sorted(i.sop_instance_uid for i in images)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("101112.5", 36672.5),
        ("1011", 36660.0),
        ("10", 36000.0),
        ("10:11:12", 36672.0),
        ("", None),
        (None, None),
        ("x", None),
    ],
)
def test_times(text: object, seconds: float | None) -> None:
    assert seconds_of_day(text) == seconds


def test_acquisition_times_differ_over_midnight() -> None:
    before = acquisition_time_s({"AcquisitionDate": "20250101", "AcquisitionTime": "235950"})
    after = acquisition_time_s({"AcquisitionDateTime": "20250102000020.5+0100"})
    assert before is not None
    assert after is not None
    assert after - before == 30.5
