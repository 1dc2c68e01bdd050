"""Networks in the worker process. The only module that brings torch in; import it late."""

import os
from collections.abc import Iterable, Mapping

from dicom_node.errors import ConfigurationError
from dicom_node.settings import Settings
from pipelines.pipeline import Predictor


def open_bundles(names: Iterable[str], settings: Settings) -> Mapping[str, Predictor]:
    """Open bundles on the configured device, with the cores shared fairly among the node's inference workers.

    Raises ConfigurationError when one is missing, altered or incomplete.
    """
    from models.bundle import BundleError, open_bundle

    threads = settings.torch_threads or max(1, len(os.sched_getaffinity(0)) // settings.workers)
    try:
        return {
            name: open_bundle(name, device=settings.device, threads=threads, root=settings.bundles_dir)
            for name in names
        }
    except BundleError as error:
        raise ConfigurationError(str(error)) from error
