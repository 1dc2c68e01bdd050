"""Networks in the worker process. The only module that brings torch in; import it late."""

import os
from collections.abc import Iterable, Mapping

from dicom_node.settings import Settings
from pipelines.pipeline import Predictor


def open_bundles(names: Iterable[str], settings: Settings) -> Mapping[str, Predictor]:
    """Open bundles on the configured device, with the cores shared fairly among the node's inference workers."""
    from models.bundle import open_bundle

    threads = settings.torch_threads or max(1, len(os.sched_getaffinity(0)) // settings.workers)
    return {
        name: open_bundle(name, device=settings.device, threads=threads, root=settings.bundles_dir) for name in names
    }
