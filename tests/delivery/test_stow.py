"""STOW-RS to a stand-in archive that misbehaves in every way."""

import json
import logging
import os
import threading
import tracemalloc
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from time import time

import pytest
from certificates import Authority
from hypothesis import given
from hypothesis import strategies as st
from sent import Deliver, delivery
from tiny_objects import dataset_bytes, new_uid, write_object
from web_archive import Answer, Post, WebArchive, all_stored

from dicom_node.delivery import Fate, Outcome, stow
from dicom_node.delivery.stow_answer import outcome_of, read_answer
from dicom_node.routing.destination import Destination, DestinationTls
from storage.records import Delivery

DONE = Outcome(Fate.DELIVERED, 0)


def at(url: str, **keys: object) -> Destination:
    return Destination("archive", "stow", url=url, **keys)  # type: ignore[arg-type]


def test_one_post_brings_the_bytes_of_the_store(results: list[Delivery], deliver_to: Deliver, tmp_path: Path) -> None:
    archive = WebArchive()
    with archive.running() as url:
        reports = deliver_to(at(url), results)
    assert reports == [(number, DONE) for number in (1, 2, 3, 4)]
    (post,) = archive.posts
    assert post.target == "/dicom-web/studies"
    assert post.headers["Accept"] == "application/dicom+json"
    assert "Authorization" not in post.headers
    assert post.objects == {d.sop_instance_uid: (tmp_path / "store" / d.path).read_bytes() for d in results}


def test_posts_are_bounded_and_share_a_connection(
    results: list[Delivery], deliver_to: Deliver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    size = (tmp_path / "store" / "1.dcm").stat().st_size
    monkeypatch.setattr(stow, "MAX_POST_BYTES", 2 * size + size // 2)
    archive = WebArchive()
    tried_before = replace(results[3], attempts=2)
    with archive.running() as url:
        reports = deliver_to(at(url), [*results[:3], tried_before, delivery(5, results[0].sop_instance_uid, "1.dcm")])
    assert [outcome for _, outcome in reports] == [DONE] * 5
    # what failed before goes alone
    assert [len(post.objects) for post in archive.posts] == [2, 1, 1, 1]
    assert archive.connections == 1


def test_memory_stays_flat(deliver_to: Deliver, tmp_path: Path) -> None:
    uid = new_uid()
    (tmp_path / "store").mkdir()
    big = write_object(tmp_path / "store" / "big.dcm", dataset_bytes(uid), uid)
    with big.open("ab") as file:
        file.truncate(96 << 20)

    archive = WebArchive()
    archive.swallows = True
    with archive.running() as url:
        tracemalloc.start()
        ((_, outcome),) = deliver_to(at(url), [delivery(1, uid, "big.dcm")])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert outcome == DONE
    assert peak < 4 << 20


def test_an_answer_before_the_end_of_the_body_is_heard(deliver_to: Deliver, tmp_path: Path) -> None:
    uid = new_uid()
    (tmp_path / "store").mkdir()
    write_object(tmp_path / "store" / "1.dcm", dataset_bytes(uid), uid)
    archive = WebArchive()
    archive.early = Answer(401)
    with archive.running() as url:
        ((_, outcome),) = deliver_to(at(url), [delivery(1, uid, "1.dcm")])
    assert outcome.fate is Fate.REJECTED
    assert "does not accept the node's credentials" in outcome.reason


def test_each_object_has_its_own_fate(results: list[Delivery], deliver_to: Deliver) -> None:
    uids = [d.sop_instance_uid for d in results]

    def react(_post: Post) -> Answer:
        return Answer(202, stored=uids[:1], failed={uids[1]: 0xA700, uids[2]: 0xA900, uids[3]: 0x0122})

    with WebArchive(react).running() as url:
        reports = dict(deliver_to(at(url), results))
    assert reports[1] == DONE
    assert [(reports[n].fate, reports[n].status) for n in (2, 3, 4)] == [
        (Fate.BUSY, 0xA700),
        (Fate.REFUSED, 0xA900),
        (Fate.NOT_TAKEN, 0x0122),
    ]
    assert all(f"0x{reports[n].status:04X}" in reports[n].reason for n in (2, 3, 4))


@pytest.mark.parametrize("reason", [0x0111, 0xB00E])
def test_what_is_there_already_has_arrived(results: list[Delivery], deliver_to: Deliver, reason: int) -> None:
    with WebArchive(lambda post: Answer(409, failed=dict.fromkeys(post.objects, reason))).running() as url:
        reports = deliver_to(at(url), results)
    assert {outcome.fate for _, outcome in reports} == {Fate.DELIVERED}


def test_a_batch_refused_for_one_object_goes_object_by_object(results: list[Delivery], deliver_to: Deliver) -> None:
    bad = results[1].sop_instance_uid

    def react(post: Post) -> Answer:
        return Answer(400, body=b"bad", content_type="text/plain") if bad in post.objects else all_stored(post)

    archive = WebArchive(react)
    with archive.running() as url:
        reports = dict(deliver_to(at(url), results))
    assert [reports[n].fate for n in (1, 2, 3, 4)] == [Fate.DELIVERED, Fate.REFUSED, Fate.DELIVERED, Fate.DELIVERED]
    assert len(archive.posts) == 5


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        (301, Fate.REJECTED),
        (401, Fate.REJECTED),
        (403, Fate.REJECTED),
        (404, Fate.REJECTED),
        (429, Fate.AWAY),
        (503, Fate.AWAY),
    ],
)
def test_an_archive_that_wants_nothing_is_asked_once(
    results: list[Delivery], deliver_to: Deliver, status: int, fate: Fate
) -> None:
    archive = WebArchive(lambda _: Answer(status, body=b"", headers={"Retry-After": "30"}))
    with archive.running() as url:
        reports = deliver_to(at(url), [replace(d, attempts=2) for d in results])
    assert len(archive.posts) == 1
    assert {outcome.fate for _, outcome in reports} == {fate}
    assert all(f"HTTP {status}" in outcome.reason for _, outcome in reports)
    assert {outcome.wait_s for _, outcome in reports} == {30.0 if fate is Fate.AWAY else 0.0}


@pytest.mark.parametrize(
    ("value", "at_least", "at_most"),
    [
        ("7", 7, 7),
        ("in 90 s", 60, 90),
        ("soon", 0, 0),
        ("999999999", 3600, 3600),
        ("", 0, 0),
    ],
)
def test_retry_after(results: list[Delivery], deliver_to: Deliver, value: str, at_least: float, at_most: float) -> None:
    if value == "in 90 s":
        value = formatdate(time() + 90, usegmt=True)
    with WebArchive(lambda _: Answer(503, headers={"Retry-After": value})).running() as url:
        ((_, outcome),) = deliver_to(at(url), results[:1])
    assert at_least <= outcome.wait_s <= at_most


def test_a_stumbling_archive_is_tried_with_the_others(results: list[Delivery], deliver_to: Deliver) -> None:
    bad = results[1].sop_instance_uid
    archive = WebArchive(lambda post: Answer(500, body=b"") if bad in post.objects else all_stored(post))
    with archive.running() as url:
        first = dict(deliver_to(at(url), results))
        again = dict(deliver_to(at(url), [replace(d, attempts=2) for d in results]))
    assert {outcome.fate for outcome in first.values()} == {Fate.BUSY}
    assert [again[n].fate for n in (1, 2, 3, 4)] == [Fate.DELIVERED, Fate.BUSY, Fate.DELIVERED, Fate.DELIVERED]


def test_a_cut_connection_leaves_the_first_unanswered_and_the_rest_untried(
    results: list[Delivery], deliver_to: Deliver
) -> None:
    def react(_post: Post) -> Answer:
        raise ConnectionError

    archive = WebArchive(react)
    with archive.running() as url:
        reports = dict(deliver_to(at(url), [replace(d, attempts=2) for d in results]))
    assert [reports[n].fate for n in (1, 2, 3, 4)] == [Fate.UNANSWERED, Fate.AWAY, Fate.AWAY, Fate.AWAY]
    assert len(archive.posts) == 1
    assert "cut the connection" in reports[1].reason


def test_nobody_there_and_nobody_who_answers(
    results: list[Delivery], deliver_to: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = WebArchive()
    with archive.running() as url:
        pass
    reports = deliver_to(at(url), results)
    assert {outcome.fate for _, outcome in reports} == {Fate.AWAY}
    assert "cannot be reached: Connection refused" in reports[0][1].reason

    monkeypatch.setattr(stow, "ANSWER_WITHIN_S", 0.2)
    over = threading.Event()

    def wait_then_store(post: Post) -> Answer:
        over.wait(5)
        return all_stored(post)

    late = WebArchive(wait_then_store)
    with late.running() as url:
        reports = deliver_to(at(url), results)
        over.set()
    assert {outcome.fate for _, outcome in reports} == {Fate.UNANSWERED}
    assert "does not answer" in reports[0][1].reason


def test_order_within_a_study(results: list[Delivery], deliver_to: Deliver) -> None:
    """After one that did not arrive, later ones of its study are not tried; others are."""
    of_one_study = [replace(d, attempts=2, study_instance_uid="2.25.1") for d in results[:3]]
    bad = of_one_study[1].sop_instance_uid
    archive = WebArchive(lambda post: Answer(409, failed={bad: 0xA700}) if bad in post.objects else all_stored(post))
    with archive.running() as url:
        reports = dict(deliver_to(at(url), [*of_one_study, replace(results[3], attempts=2)]))
    assert [reports[n].fate for n in (1, 2, 3, 4)] == [Fate.DELIVERED, Fate.BUSY, Fate.HELD, Fate.DELIVERED]


def test_a_file_that_is_gone_does_not_stop_the_others(
    results: list[Delivery], deliver_to: Deliver, tmp_path: Path
) -> None:
    (tmp_path / "store" / "2.dcm").unlink()
    with WebArchive().running() as url:
        reports = dict(deliver_to(at(url), results))
    assert reports.pop(2).fate is Fate.BUSY
    assert {outcome.fate for outcome in reports.values()} == {Fate.DELIVERED}


@pytest.mark.parametrize("keys", [{"user": "nöde", "password_env": "SECRET"}, {"token_env": "SECRET"}])
def test_credentials_come_from_outside_and_go_nowhere_else(
    results: list[Delivery],
    deliver_to: Deliver,
    keys: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    archive = WebArchive(lambda _: Answer(401, body=b""))
    file = tmp_path / "secret"
    file.write_text("a-first.token~/+==\nanother line\n")
    with archive.running() as url:
        ((_, without),) = deliver_to(at(url, **keys), results[:1])
        monkeypatch.setenv("SECRET", "a-first.token~/+==")
        ((_, refused),) = deliver_to(at(url, **keys), results[:1])
        by_file = {key.replace("_env", "_file"): value if key == "user" else str(file) for key, value in keys.items()}
        deliver_to(at(url, **by_file), results[:1])
    assert (without.fate, "$SECRET is not set" in without.reason) == (Fate.AWAY, True)
    assert refused.fate is Fate.REJECTED
    values = [post.headers["Authorization"] for post in archive.posts]
    assert len(values) == 2
    assert values[0] == values[1]
    kind, _, value = values[0].partition(" ")
    assert (kind, value) == ("Bearer", "a-first.token~/+==") or (
        kind == "Basic" and b64decode(value).decode() == "nöde:a-first.token~/+=="
    )
    assert "a-first" not in caplog.text + refused.reason + without.reason
    assert value not in caplog.text


@pytest.mark.parametrize("content", ["", "two words", "new\\nline: x", "schlüssel", None])
def test_a_token_file_that_holds_none(
    results: list[Delivery], deliver_to: Deliver, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    with WebArchive().running() as url:
        reports = deliver_to(at(url, token_file=str(file)), results)
    assert {outcome.fate for _, outcome in reports} == {Fate.AWAY}
    assert str(file) in reports[0][1].reason
    assert not content or content not in reports[0][1].reason


def test_tls(results: list[Delivery], deliver_to: Deliver, tmp_path: Path) -> None:
    hospital, stranger = Authority(tmp_path, "hospital"), Authority(tmp_path, "stranger")
    ca = str(hospital.pair.certificate)
    archive = WebArchive()
    with archive.running(tls=hospital.issue("archive")) as url:
        assert deliver_to(at(url, tls=DestinationTls(ca=ca)), results)[0][1] == DONE
        wrong_ca = deliver_to(at(url, tls=DestinationTls(ca=str(stranger.pair.certificate))), results)
        system = deliver_to(at(url), results)
    with archive.running(tls=hospital.issue("other", "DNS:archive.example")) as url:
        wrong_name = deliver_to(at(url, tls=DestinationTls(ca=ca)), results)
        named = deliver_to(at(url, tls=DestinationTls(ca=ca, server_name="archive.example")), results)
    missing = deliver_to(at(url, tls=DestinationTls(ca="/nowhere/ca.pem")), results)
    for reports, told in [
        (wrong_ca, "certificate"),
        (system, "certificate"),
        (wrong_name, "127.0.0.1"),
        (missing, "/nowhere/ca.pem cannot be read"),
    ]:
        assert {outcome.fate for _, outcome in reports} == {Fate.AWAY}
        assert told in reports[0][1].reason
    assert named[0][1] == DONE
    assert len(archive.posts) == 2


# ---- answers


STORED, FAILED = "00081199", "00081198"


def listed(sequence: str, uid: str, reason: object = None) -> dict[str, object]:
    item: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
    if reason is not None:
        item["00081197"] = {"vr": "US", "Value": [reason]}
    return {sequence: {"vr": "SQ", "Value": [item]}}


@pytest.mark.parametrize(
    ("status", "content_type", "document", "fate"),
    [
        (200, "", "", Fate.DELIVERED),
        (200, "application/dicom+xml", "<NativeDicomModel/>", Fate.DELIVERED),
        (200, "application/dicom+json", [], Fate.DELIVERED),
        (202, "application/dicom+json", {}, Fate.BUSY),
        (202, "text/html", "stored some", Fate.BUSY),
        (200, "application/dicom+json", listed(STORED, "2.25.2"), Fate.BUSY),  # not a word about ours
        (200, "application/json", [listed(STORED, "2.25.1")], Fate.DELIVERED),
        (200, "application/dicom+json", listed(FAILED, "2.25.1", "43264"), Fate.REFUSED),
        (409, "application/dicom+json", listed(FAILED, "2.25.1"), Fate.BUSY),
        (409, "text/plain", "", Fate.REFUSED),
        (413, "text/plain", "", Fate.REFUSED),
        (502, "text/html", "<html>", Fate.AWAY),
        (507, "", "", Fate.BUSY),
    ],
)
def test_answers(status: int, content_type: str, document: object, fate: Fate) -> None:
    content = (document if isinstance(document, str) else json.dumps(document)).encode()
    assert outcome_of(read_answer(status, content_type, content), "2.25.1", "archive").fate is fate


json_values: Callable[..., st.SearchStrategy[object]] = lambda: st.recursive(  # noqa: E731
    st.none() | st.integers() | st.text(max_size=5) | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["00081199", "00081198", "00081155", "00081197", "00081196", "Value", "vr"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(status=st.integers(200, 599), document=json_values())
def test_no_answer_breaks_the_reader(status: int, document: object) -> None:
    answer = read_answer(status, "application/dicom+json", json.dumps(document).encode())
    assert isinstance(outcome_of(answer, "2.25.1", "archive"), Outcome)


def test_the_environment_sends_nothing_through_a_proxy(
    results: list[Delivery], deliver_to: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setitem(os.environ, name, "http://127.0.0.1:1")
    with WebArchive().running() as url:
        assert deliver_to(at(url), results)[0][1] == DONE
