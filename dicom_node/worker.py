"""The worker process: a Celery worker around jobs.py.

Inference (queue "gpu") runs in one thread of a process that warms its models before it takes a job: a forked child
of a process that has run a convolution hangs, and threads keep the broker's heartbeat alive through a long job.
Deliveries are handed on to threads of their own (couriers.py), so one thread that takes messages is enough for them.
"""

import os
import signal
import warnings
from pathlib import Path

import structlog
from celery.platforms import SecurityWarning
from celery.signals import setup_logging, worker_ready

from dicom_node import jobs, tasks
from dicom_node.node import Node
from dicom_node.patience import DATABASE_AWAY
from pipelines.catalogue import PIPELINES

log = structlog.get_logger()


def work(node: Node, broker_url: str, queues: list[str], ready_file: Path | None) -> None:
    """Take messages from `queues` until SIGTERM. `ready_file` is written when the first one can be taken."""
    app = tasks.configure(broker_url, node)
    if "gpu" in queues:
        warm(node)

    def say_ready(**_: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: _stop(node))
        if ready_file is not None:
            ready_file.write_text(str(os.getpid()))

    worker_ready.connect(say_ready, weak=False)
    setup_logging.connect(_keep_our_logging, weak=False)
    # Celery warns a root user of pickled messages; this node takes JSON only.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    name = f"{'+'.join(queues)}-{os.getpid()}@%h"
    app.worker_main(
        ["--quiet", "worker", "--pool", "threads", "--concurrency", "1", "--queues", ",".join(queues),
         "--hostname", name,
         "--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    )  # fmt: skip


def _stop(node: Node) -> None:
    """Stop at once: a warm shutdown would wait for a job that another worker can run as well."""
    try:
        jobs.leave(node)
    except DATABASE_AWAY:
        log.warning("the database is away, the job's lease will run out")
    os._exit(0)


def _keep_our_logging(**_: object) -> None:
    """A receiver of this signal keeps Celery from setting up logging of its own."""


def warm(node: Node) -> None:
    """Open every bundle and run it once, so that the first study does not wait for it."""
    import numpy as np

    for pipeline in PIPELINES.values():
        if pipeline.queue == "gpu":
            for predictor in node.bundles(pipeline).values():
                predictor(np.zeros((len(predictor.in_channels), 32, 96, 96), np.float32))
    log.info("models are warm")
