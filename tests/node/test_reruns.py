"""Late images, new versions and runs on purpose: what the new objects say of the old ones, on real PostgreSQL.

Only the networks are missing: a pipeline of balls answers in place of ct_lesion, so that a test says what is found.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from pydicom import Dataset, dcmread
from tiny_objects import dataset_bytes

import storage.deliveries
import storage.events
import storage.jobs
import storage.results
import storage.studies
from dicom_node import jobs
from dicom_node.dimse.part10 import file_head
from dicom_node.errors import NodeError
from dicom_node.node import Node
from dicom_node.recognition.headers import read_instance, series_header
from dicom_node.rerun import rerun
from dicom_node.settings import Settings
from dicom_node.story import study_story
from dicom_node.study_desk import StudyDesk
from pipelines.catalogue import PIPELINES
from pipelines.findings import Finding, Findings, Measurement, UnsuitableInput
from pipelines.inputs import CtLesionInput
from pipelines.pipeline import Pipeline
from storage import configurations, database, instances
from storage.database import connect, open_pool
from storage.files import FolderStore, sha256_of
from storage.records import Job, Result

STUDY = "2.25.4711"
CT = "1.2.840.10008.5.1.4.1.1.2"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
ROLES = {"arterial": "2.25.21", "portal_venous": "2.25.22"}
RULES = """
destinations: {pacs: {type: dimse, host: 127.0.0.1, port: 104, ae_title: PACS}}
rules:
  - {name: liver, when: {attribute: Modality, equals: CT}, run: ct_lesion, send_to: [pacs], report_refusal: true}
"""


@dataclass
class Opened:
    """A bundle that nothing is asked of."""

    name: str
    version: str = "1"
    sha256: str = "ab" * 32
    trained_on: str = "simulated CT"


@dataclass
class Bench:
    """A node and what its pipeline will find: (centre in mm, radius in mm) by falling size, or a refusal."""

    node: Node
    balls: Sequence[tuple[tuple[float, float, float], float]] = ()
    refusal: str = ""
    slices: dict[int, Path] = field(default_factory=dict)

    def find(self, study: CtLesionInput, bundles: Any) -> Findings:
        if self.refusal:
            raise UnsuitableInput(self.refusal)
        volume = study.portal_venous
        index = np.indices(volume.spatial_shape).reshape(3, -1).T
        points = volume.map_indices_to_reference(index)
        found, summary = [], []
        for number, (centre, radius) in enumerate(self.balls, 1):
            mask = (((points - np.asarray(centre)) ** 2).sum(axis=1) <= radius**2).reshape(volume.spatial_shape)
            size = Measurement("long_axis", 2 * radius, "mm")
            found.append(Finding(f"Lesion {number}", "lesion", "liver", mask, (size,)))
            summary.append({"tracking_id": f"Lesion {number}", "centre_mm": list(centre)})
        return Findings("portal_venous", tuple(found), summary={"lesions": summary})

    def images(self, *, below_mm: float = 60.0, spacing_mm: float = 10.0) -> dict[str, Any]:
        """Job.inputs: both phases from 0 mm up to `below_mm`, in the file store and in the index."""
        inputs: dict[str, Any] = {}
        for role, series in ROLES.items():
            paths, uids = [], []
            for index, z in enumerate(np.arange(0.0, below_mm, spacing_mm)):
                uid = f"{series}.{round(10 * spacing_mm)}.{index + 1}"
                data = file_head(CT, uid, "1.2.840.10008.1.2.1") + ct_slice(uid, role, series, float(z), index)
                paths.append(self.keep(uid, data))
                uids.append(uid)
            inputs[role] = {"series_instance_uid": series, "sop_instance_uids": uids, "paths": paths}
        return inputs

    def keep(self, uid: str, data: bytes) -> str:
        """Store and index one image as reception and indexing do."""
        aside = self.node.settings.data_dir / f"{uid}.dcm"
        aside.write_bytes(data)
        sha256 = sha256_of(aside)
        path = self.node.store.put_file(aside, sha256)
        instance = replace(read_instance(self.node.store.path(path)), path=path, sha256=sha256)
        with self.node.pool.connection() as connection:
            instances.add(connection, instance, series_header(self.node.store.path(path)))
        return path

    def ask(self, fingerprint: str, inputs: dict[str, Any], *, again: bool = False) -> Job:
        with self.node.pool.connection() as connection:
            job = storage.jobs.request(
                connection, STUDY, "ct_lesion", fingerprint, "liver", inputs, ["pacs"], "gpu", True, again=again
            )
        assert job is not None
        return job

    def run(self, fingerprint: str, inputs: dict[str, Any], *, again: bool = False) -> "Ended":
        job = self.ask(fingerprint, inputs, again=again)
        jobs.run_job(self.node, job.id)
        return self.ended(job.id)

    def ended(self, job_id: int) -> "Ended":
        with self.node.pool.connection() as connection:
            job = storage.jobs.get(connection, job_id)
            results = storage.results.for_job(connection, job_id)
        assert job is not None
        return Ended(job, results, {r.sop_class_uid: self.node.store.path(r.path).read_bytes() for r in results})

    def set_version(self, version: str) -> None:
        """Every bundle is another one from now on."""
        for bundle in self.node._bundles.values():
            bundle.version = version  # type: ignore[misc]


@dataclass
class Ended:
    """A job that has ended, with its objects."""

    job: Job
    results: list[Result]
    data: dict[str, bytes]

    @property
    def sr(self) -> Dataset:
        return dcmread(BytesIO(self.data[SR]))

    @property
    def lesions(self) -> dict[tuple[float, ...], tuple[str, str]]:
        """Centre -> (name, Tracking UID), as SR, SEG and result.json agree on it."""
        assert self.job.result is not None
        told = {tuple(x["centre_mm"]): (x["tracking_id"], x["tracking_uid"]) for x in self.job.result["lesions"]}
        segments = {(str(s.TrackingID), str(s.TrackingUID)) for s in dcmread(BytesIO(self.data[SEG])).SegmentSequence}
        assert segments == set(told.values())
        groups = {pair for pair in _tracked_in(self.sr) if pair[0] != "Liver"}
        assert groups == set(told.values())
        return told

    @property
    def predecessors(self) -> list[str]:
        return [
            str(item.ReferencedSOPInstanceUID)
            for study in self.sr.get("PredecessorDocumentsSequence") or []
            for series in study.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        ]

    @property
    def report_uid(self) -> str:
        return next(r.sop_instance_uid for r in self.results if r.sop_class_uid == SR)


def _tracked_in(item: Dataset) -> Iterator[tuple[str, str]]:
    content = item.get("ContentSequence") or []
    values = {str(c.ConceptNameCodeSequence[0].CodeValue): c for c in content if "ConceptNameCodeSequence" in c}
    if "112040" in values:
        yield str(values["112039"].TextValue), str(values["112040"].UID)
    for child in content:
        yield from _tracked_in(child)


def ct_slice(uid: str, role: str, series: str, z: float, index: int) -> bytes:
    """An axial slice of 40 x 40 pixels of 2.5 mm, [0, 100) mm along both edges."""
    pixels = np.full((40, 40), 60 if role == "arterial" else 110, dtype="<i2")
    return dataset_bytes(
        uid, STUDY, series, Rows=40, Columns=40, PixelData=pixels.tobytes(), BitsStored=16, HighBit=15,
        PixelRepresentation=1, PhotometricInterpretation="MONOCHROME2", PixelSpacing=[2.5, 2.5], SliceThickness=2.5,
        ImagePositionPatient=[0, 0, z], ImageOrientationPatient=[1, 0, 0, 0, 1, 0], FrameOfReferenceUID="2.25.23",
        RescaleSlope=1, RescaleIntercept=0, InstanceNumber=index + 1, SeriesDescription=f"liver {role}",
        ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], SeriesNumber=2 + list(ROLES).index(role), AcquisitionNumber=1,
        ContrastBolusAgent="IODINE",
    )  # fmt: skip


@pytest.fixture
def bench(fresh_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    pool = open_pool(fresh_database_url)
    settings = Settings(data_dir=tmp_path, DATABASE_URL=fresh_database_url, job_attempts=2, quiet_period_s=0.0)
    opened = {name: Opened(name) for name in PIPELINES["ct_lesion"].bundles}
    node = Node(settings, pool, FolderStore(tmp_path / "store"), _bundles=opened)  # type: ignore[arg-type]
    made = Bench(node)
    monkeypatch.setattr(Pipeline, "load", lambda self: made.find)
    with pool.connection() as connection:
        configurations.add(connection, RULES, "test")
    try:
        yield made
    finally:
        pool.close()


P, Q, R = (20.0, 20.0, 12.0), (70.0, 30.0, 14.0), (40.0, 70.0, 45.0)


def test_late_images_keep_the_lesions_that_were_there(bench: Bench) -> None:
    bench.balls = [(P, 10), (Q, 8)]
    first = bench.run("f1", bench.images(below_mm=30))
    assert first.predecessors == []
    bench.balls = [(R, 14), (P, 10), (Q, 8)]  # by size the new one is Lesion 1, and the slices are finer now
    second = bench.run("f2", bench.images(spacing_mm=5.0))
    assert second.lesions[P] == first.lesions[P]
    assert second.lesions[Q] == first.lesions[Q]
    assert second.lesions[R][0] == "Lesion 3"
    assert second.lesions[R][1] not in {uid for _, uid in first.lesions.values()}
    assert second.predecessors == [first.report_uid]
    assert {r.sop_instance_uid for r in first.results}.isdisjoint(r.sop_instance_uid for r in second.results)
    assert first.sr.SeriesInstanceUID != second.sr.SeriesInstanceUID
    with bench.node.pool.connection() as connection:
        story = study_story(connection, STUDY)
    assert f"follows job {first.job.id}" in str(story)


def test_of_three_runs_the_last_one_is_named_and_all_are_remembered(bench: Bench) -> None:
    bench.balls = [(P, 10), (Q, 8)]
    first = bench.run("f1", bench.images())
    bench.balls = [(Q, 8)]  # this version does not see P
    bench.set_version("2")
    second = bench.run("f1", bench.images(), again=True)
    bench.balls = [(R, 14), (P, 10), (Q, 8)]
    bench.set_version("3")
    third = bench.run("f1", bench.images(), again=True)
    assert second.lesions == {Q: first.lesions[Q]}
    assert third.lesions == {R: third.lesions[R], P: first.lesions[P], Q: first.lesions[Q]}
    assert third.lesions[R][0] == "Lesion 3"
    assert (second.predecessors, third.predecessors) == ([first.report_uid], [second.report_uid])
    uids = [r.sop_instance_uid for run in (first, second, third) for r in run.results]
    assert len(set(uids)) == len(uids)


@pytest.mark.parametrize("is_reported", [True, False])
def test_a_refusal_between_two_answers(bench: Bench, is_reported: bool) -> None:
    bench.balls = [(P, 10)]
    first = bench.run("f1", bench.images(below_mm=30))
    bench.refusal = "the arterial phase is blurred"
    refused = bench.ask("f2", bench.images())
    with bench.node.pool.connection() as connection:
        connection.execute("UPDATE job SET report_refusal = %s WHERE id = %s", (is_reported, refused.id))
    jobs.run_job(bench.node, refused.id)
    second = bench.ended(refused.id)
    assert second.job.state == "refused"
    bench.refusal = ""
    third = bench.run("f3", bench.images(spacing_mm=5.0))
    assert third.lesions[P] == first.lesions[P]
    if is_reported:  # "not analysed" is no longer true, and the reader is told so
        assert second.predecessors == [first.report_uid]
        assert third.predecessors == [second.report_uid]
    else:
        assert second.results == []
        assert third.predecessors == [first.report_uid]


def test_the_same_version_on_the_same_images_gives_nothing_new(bench: Bench) -> None:
    bench.balls = [(P, 10)]
    inputs = bench.images()
    first = bench.run("f1", inputs)
    with bench.node.pool.connection() as connection:  # a resend: the scheduler asks for the same
        values = (STUDY, "ct_lesion", "f1", "liver", inputs, ["pacs"], "gpu")
        assert storage.jobs.request(connection, *values) is None
    again = bench.run("f1", inputs, again=True)
    assert (again.job.state, again.results) == ("superseded", [])
    assert "same bundles" in again.job.reason
    bench.set_version("2")
    with bench.node.pool.connection() as connection:  # a new version alone starts nothing by itself
        assert storage.jobs.request(connection, *values) is None
    second = bench.run("f1", inputs, again=True)
    assert second.job.state == "done"
    assert second.predecessors == [first.report_uid]
    assert second.lesions == first.lesions
    assert second.job.edition not in ("", first.job.edition)
    bench.set_version("1")  # back to what has answered before
    assert bench.run("f1", inputs, again=True).job.state == "superseded"


def test_a_second_attempt_gives_the_same_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.balls = [(P, 10), (Q, 8)]
    bench.run("f1", bench.images(below_mm=30))
    bench.balls = [(R, 14), (Q, 8)]
    inputs = bench.images()
    attempts = []

    def breaks(node: Node, job: Job, answer: Any) -> None:
        attempts.append(answer)
        raise RuntimeError("killed before it was kept")

    job = bench.ask("f2", inputs)
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "_keep", breaks)
        with pytest.raises(RuntimeError):
            jobs.run_job(bench.node, job.id)
    with bench.node.pool.connection() as connection:
        storage.jobs.release(connection, job.id, bench.node.owner, "killed")
    bench.node.__dict__.pop("node_id")  # as another process would
    jobs.run_job(bench.node, job.id)
    second = bench.ended(job.id)
    assert second.job.attempts == 2
    assert [item.data for item in attempts[0].objects] == [second.data[r.sop_class_uid] for r in second.results]
    assert attempts[0].result["tracking"] == (second.job.result or {})["tracking"]


def test_runs_of_one_study_follow_each_other(bench: Bench) -> None:
    """A second worker does not begin with the late images while the first still reads the others."""
    bench.balls = [(P, 10)]
    inputs = bench.images()
    find, seen = bench.find, []

    def meanwhile(study: CtLesionInput, bundles: Any) -> Findings:
        later = bench.ask("f2", bench.images(spacing_mm=5.0))
        jobs.run_job(bench.node, later.id)
        seen.append((later.id, bench.ended(later.id).job.state))
        return find(study, bundles)

    bench.find = meanwhile  # type: ignore[method-assign]
    first = bench.run("f1", inputs)
    bench.find = find  # type: ignore[method-assign]
    ((later_id, state),) = seen
    assert state == "waiting"
    with bench.node.pool.connection() as connection:
        rung = connection.execute("SELECT argument FROM outbox WHERE task = 'run_job' ORDER BY id").fetchall()
    assert rung[-1] == (str(later_id),)  # the end of the first one announces it
    jobs.run_job(bench.node, later_id)
    assert bench.ended(later_id).predecessors == [first.report_uid]


def test_a_worker_that_died_does_not_bring_the_older_images_back(bench: Bench) -> None:
    inputs = bench.images()
    older = bench.ask("f1", inputs)
    with bench.node.pool.connection() as connection:
        assert storage.jobs.claim(connection, older.id, "dead worker", -1.0) is not None
    newer = bench.ask("f2", inputs)
    with bench.node.pool.connection() as connection:
        (back,) = storage.jobs.overdue(connection, 5)
    assert (back.id, back.state) == (older.id, "waiting")
    bench.balls = [(P, 10)]
    jobs.run_job(bench.node, newer.id)
    jobs.run_job(bench.node, older.id)
    assert bench.ended(newer.id).job.state == "done"
    assert bench.ended(older.id).job.state == "superseded"
    assert bench.ended(newer.id).predecessors == []


def test_results_of_a_time_before_editions_are_not_made_twice(bench: Bench) -> None:
    bench.balls = [(P, 10)]
    inputs = bench.images()
    first = bench.run("f1", inputs)
    with bench.node.pool.connection() as connection:
        connection.execute("UPDATE job SET edition = 'unknown'")  # as migration 0006 finds it
    again = bench.run("f1", inputs, again=True)
    assert again.job.state == "failed"
    assert again.results == []
    assert bench.ended(first.job.id).data == first.data


def due(bench: Bench) -> list[Job]:
    """The study's jobs after it has been considered."""
    desk = StudyDesk(bench.node)
    for study in _studies(bench):
        desk.consider(study)
    with bench.node.pool.connection() as connection:
        return storage.jobs.for_study(connection, STUDY)


def _studies(bench: Bench) -> list[Any]:
    with bench.node.pool.connection() as connection:
        connection.execute("UPDATE study SET last_received_at = now() - interval '1 minute', look_again_at = now()")
        return list(storage.studies.due(connection, 5))


def test_rerun_on_purpose_takes_the_images_that_are_there(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="nothing was received"):
        rerun(bench.node, STUDY)
    with bench.node.pool.connection() as connection:
        configurations.add(connection, RULES.replace("report_refusal", "late: ignore, report_refusal"), "test")
    bench.images(below_mm=30)
    (first,) = due(bench)
    bench.balls = [(P, 10)]
    jobs.run_job(bench.node, first.id)
    assert [job.id for job in due(bench)] == [first.id]  # considered again: nothing new
    bench.images()
    assert [job.id for job in due(bench)] == [first.id]  # late images are ignored here
    (asked,) = rerun(bench.node, STUDY)
    assert asked.job is not None
    assert len(asked.job.inputs["portal_venous"]["paths"]) == 6
    assert rerun(bench.node, STUDY, "ct_lesion")[0].job is None  # one waits already
    jobs.run_job(bench.node, asked.job.id)
    assert bench.ended(asked.job.id).predecessors == [bench.ended(first.id).report_uid]
    with pytest.raises(NodeError, match="no rule gives it to mre_qc"):
        rerun(bench.node, STUDY, "mre_qc")


def test_rerun_where_no_rule_matches_any_more_repeats_the_last_run(bench: Bench) -> None:
    inputs = bench.images()
    bench.balls = [(P, 10)]
    bench.run("f1", inputs)
    with bench.node.pool.connection() as connection:
        configurations.add(connection, RULES.replace("equals: CT", "equals: MR").replace("[pacs]", "[]"), "test")
    bench.set_version("2")
    (asked,) = rerun(bench.node, STUDY)
    assert asked.job is not None
    assert (asked.job.fingerprint, asked.job.inputs, asked.job.send_to) == ("f1", inputs, ())


@pytest.mark.parametrize(("policy", "jobs_after"), [("rerun", 2), ("alert", 1), ("ignore", 1)])
def test_what_late_images_do_is_the_rules_to_say(bench: Bench, policy: str, jobs_after: int) -> None:
    with bench.node.pool.connection() as connection:
        configurations.add(connection, RULES.replace("report_refusal", f"late: {policy}, report_refusal"), "test")
    bench.images(below_mm=30)
    (first,) = due(bench)
    bench.balls = [(P, 10)]
    jobs.run_job(bench.node, first.id)
    bench.images()
    assert len(due(bench)) == jobs_after
    with bench.node.pool.connection() as connection:
        told = [event.text for event in storage.events.for_study(connection, STUDY) if event.kind == "late"]
    assert len(told) == (0 if policy == "ignore" else 1)


def test_a_filled_database_of_the_version_before(database_server: Any) -> None:
    """Migration 0006 keeps the old rows valid and says which run followed which."""
    from importlib import resources

    files = {
        entry.name: entry.read_text()
        for entry in resources.files("storage").joinpath("migrations").iterdir()
        if entry.name.endswith(".sql")
    }
    url = database_server.create(template=None)
    database._migrate(url, {name: text for name, text in files.items() if name < "0006"})
    states = ("refused", "superseded", "done", "failed", "running", "waiting")
    with connect(url) as connection:
        connection.execute("INSERT INTO study VALUES ('1.2', '', now(), now())")
        for number, state in enumerate(states):
            owner = "w" if state == "running" else None
            connection.execute(
                "INSERT INTO job (study_instance_uid, pipeline, fingerprint, rule, inputs, send_to, queue, state, "
                "lease_owner) VALUES ('1.2', 'ct_lesion', %s, 'r', '{}', '{}', 'gpu', %s, %s)",
                (f"f{number}", state, owner),
            )
    assert "0006_rerun.sql" in database._migrate(url, files)
    with connect(url) as connection:
        found = {job.state: job for job in storage.jobs.for_study(connection, "1.2")}
        ids = {state: job.id for state, job in found.items()}
        assert [found[state].predecessor_id for state in states] == [
            None,
            None,
            ids["refused"],
            None,
            ids["done"],
            None,
        ]
        assert {state for state in states if found[state].edition == "unknown"} == {"done", "refused", "failed"}
        for again in (False, True):
            values = ("1.2", "ct_lesion", "f2", "r", {}, [], "gpu")
            assert (storage.jobs.request(connection, *values, again=again) is not None) is again
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("UPDATE job SET edition = 'unknown', fingerprint = 'f0' WHERE state = 'done'")
