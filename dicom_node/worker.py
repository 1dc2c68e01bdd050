"""The worker process: a Celery worker around jobs.py.

Inference (queue "gpu") runs in one thread of a process that warms its models before it takes a job: a forked child
of a process that has run a convolution hangs, and threads keep the broker's heartbeat alive through a long job.
Deliveries are handed on to threads of their own (couriers.py), so one thread that takes messages is enough for them.
"""

import os
import signal
import threading
import time
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import structlog
from celery.platforms import SecurityWarning
from celery.signals import setup_logging, worker_ready

from dicom_node import jobs, tasks
from dicom_node.node import Node
from dicom_node.patience import DATABASE_AWAY
from pipelines.catalogue import PIPELINES
from pipelines.pipeline import Pipeline
from storage.jobs import STAT

log = structlog.get_logger()

#: Inference that nobody waits for is so much nicer than reception and than inference that somebody waits for.
NICER = 5
RULES_EVERY_S = 1.0


def work(node: Node, broker_url: str, queues: list[str], ready_file: Path | None) -> None:
    """Take messages from `queues` until SIGTERM. `ready_file` is written when the first one can be taken."""
    app = tasks.configure(broker_url, node)
    if "gpu" in queues:
        warm(node, [pipeline for pipeline in PIPELINES.values() if pipeline.queue == "gpu"])
        with suppress(OSError):
            os.nice(NICER)
    elif STAT in queues:
        # Its networks are small: a second thread costs them more than it brings, above all beside other work.
        node.settings = node.settings.model_copy(update={"torch_threads": node.settings.torch_threads or 1})
        _warm_when_wanted(node)

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


def warm(node: Node, pipelines: Iterable[Pipeline]) -> None:
    """Open the bundles of pipelines and run each once, so that the first study does not wait for it."""
    import numpy as np

    for pipeline in pipelines:
        pipeline.load()
        for predictor in node.bundles(pipeline).values():
            slices = 4 if pipeline.answers_per_slice else 32
            predictor(np.zeros((len(predictor.in_channels), slices, 96, 96), np.float32))
        log.info("models are warm", pipeline=pipeline.name)


def _warm_when_wanted(node: Node) -> None:
    """Warm what rules with `stat` run: now, or as soon as there is such a rule. Without one it costs no memory."""

    def wanted() -> list[Pipeline]:
        rules = node.configuration().rules
        return [PIPELINES[name] for name in dict.fromkeys(rule.run for rule in rules if rule.stat and rule.enabled)]

    def watch() -> None:
        while True:
            time.sleep(RULES_EVERY_S)
            try:
                new = [pipeline for pipeline in wanted() if pipeline.name not in warmed]
                if new:
                    warm(node, new)
                    warmed.update(pipeline.name for pipeline in new)
            except DATABASE_AWAY:
                continue
            except Exception:
                log.exception("models could not be opened before their first job")
                return

    first = wanted()
    warm(node, first)
    warmed = {pipeline.name for pipeline in first}
    threading.Thread(target=watch, name="warm", daemon=True).start()
