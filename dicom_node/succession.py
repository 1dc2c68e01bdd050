"""What came before a job: the runs of the same pipeline on the same study that it follows.

A run follows the last one that ended done or refused. Its reports name those of the last run that sent any as their
predecessors, also where that one says why the study was not analysed; its findings are held against those of all
runs before, so that a lesion which one version did not see is known again by the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pydicom
import structlog
from pydicom.uid import BasicTextSRStorage, Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

import storage.jobs
import storage.results
from dicom_node.encoding.provenance import Predecessor
from dicom_node.encoding.tracking import TrackedFinding, latest
from dicom_node.node import Node
from storage.records import Job, Result

log = structlog.get_logger()

#: SOP Classes of reports, the main one first.
REPORT_CLASSES = (
    str(Comprehensive3DSRStorage),
    str(ComprehensiveSRStorage),
    str(EnhancedSRStorage),
    str(BasicTextSRStorage),
)


@dataclass(frozen=True)
class Before:
    """What a run must know of those before it."""

    reports: tuple[Predecessor, ...] = ()  # of the last run that sent any, the main one first
    findings: tuple[TrackedFinding, ...] = ()  # of all runs, each where it was seen last


def before(node: Node, job: Job) -> Before:
    """The runs that `job` follows; the same in each of its attempts, as they ended before the first one began."""
    with node.pool.connection() as connection:
        jobs = {other.id: other for other in storage.jobs.for_study(connection, job.study_instance_uid)}
        results = storage.results.for_study(connection, job.study_instance_uid)
    chain = _chain(job, jobs)
    reports: tuple[Predecessor, ...] = ()
    for run in chain:
        made = [item for item in results if item.job_id == run.id and item.sop_class_uid in REPORT_CLASSES]
        if made:
            made.sort(key=lambda item: REPORT_CLASSES.index(item.sop_class_uid))
            reports = tuple(_predecessor(node, item) for item in made)
            break
    return Before(reports, latest([_findings(run) for run in chain]))


def _chain(job: Job, jobs: Mapping[int, Job]) -> list[Job]:
    """The runs before, newest first."""
    chain: list[Job] = []
    previous = job.predecessor_id
    while previous is not None and previous in jobs:
        chain.append(jobs[previous])
        previous = jobs[previous].predecessor_id
    return chain


def _predecessor(node: Node, result: Result) -> Predecessor:
    header = pydicom.dcmread(node.store.path(result.path), specific_tags=["SeriesInstanceUID"])
    return Predecessor(
        result.study_instance_uid, str(header.SeriesInstanceUID), result.sop_instance_uid, result.sop_class_uid
    )


def _findings(run: Job) -> list[TrackedFinding]:
    """What a run noted of its findings in result.json; those of versions that noted nothing are not known again."""
    try:
        return [TrackedFinding.from_json(item) for item in (run.result or {}).get("tracking") or ()]
    except (KeyError, TypeError, ValueError) as error:
        log.warning("findings of an earlier run cannot be read", job=run.id, error=repr(error))
        return []
