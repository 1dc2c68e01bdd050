"""The Celery app and its tasks: doorbells of a line each around jobs.py and delivering.py. Ids in, nothing out."""

from typing import Any

from celery import Celery

from dicom_node import commitment, commitment_requests, delivering, jobs
from dicom_node.couriers import Couriers
from dicom_node.node import Node
from storage.jobs import STAT

#: queue "gpu": inference, one job at a time; queue "cpu": deliveries and answers, each on a thread of its own; queue
#: "stat": inference for somebody who waits, in a worker that does nothing else
QUEUES = ("gpu", "cpu", STAT)

app = Celery("dicom_node")
app.conf.update(
    accept_content=["json"],
    task_serializer="json",
    task_ignore_result=True,
    # PostgreSQL decides who owns a job and a sweeper rings again, so a message may be acknowledged early: no broker
    # then holds it for the length of a job, and none delivers it a second time because the job took long.
    task_acks_late=False,
    worker_prefetch_multiplier=1,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    task_create_missing_queues=True,
    # Redis and Valkey give back what a dead worker had taken only with these three (kombu 5.7)
    broker_transport_options={},
)

_node: Node | None = None
couriers = Couriers()


def configure(broker_url: str, node: Node | None = None) -> Celery:
    """Point the app at a broker; a worker also hands over its node."""
    global _node
    if "redis" in broker_url:
        app.conf.broker_transport_options = {
            "visibility_timeout": 30,
            "unacked_restore_interval": 2,
            "unacked_restore_throttle": 1,
            "socket_keepalive": True,
        }
    app.conf.broker_url = broker_url
    _node = node
    return app


def current_node() -> Node:
    """The node of this worker process."""
    if _node is None:
        raise RuntimeError("tasks run in a worker that `configure` has given a node")
    return _node


@app.task(name="run_job")
def run_job(job_id: str) -> None:
    """Run one job."""
    jobs.run_job(current_node(), int(job_id))


@app.task(name="deliver")
def deliver(destination: str) -> None:
    """Send what waits for one destination."""
    node = current_node()
    couriers.send(f"destination {destination}", lambda: delivering.deliver(node, destination))


@app.task(name="report_commitments")
def report_commitments(calling_ae_title: str) -> None:
    """Take answers of storage commitment to the one who asked."""
    node = current_node()
    couriers.send(f"sender {calling_ae_title}", lambda: commitment.report_answers(node, calling_ae_title))


@app.task(name="ask_archive")
def ask_archive(destination: str) -> None:
    """Ask an archive whether it keeps what it was sent."""
    node = current_node()
    couriers.send(f"archive {destination}", lambda: commitment_requests.ask_archive(node, destination))


def ring(task: str, argument: str, queue: str, connection: Any = None) -> None:
    """Send one message; raises kombu's OperationalError when the broker is away."""
    app.send_task(task, args=[argument], queue=queue, connection=connection, retry=False)
