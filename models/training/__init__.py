"""Training of bundles: one recipe per bundle on one shared loop."""

from pathlib import Path
from typing import Any


def train(bundle: str, **options: Any) -> Path:
    """Train a bundle; its recipe is loaded, with torch, when this is called.

    Options: see models.training.mre_bundle.train for mre_qc, models.training.bundle_training.train for the others.
    """
    if bundle == "mre_qc":
        from models.training.mre_bundle import train as train_mre

        return train_mre(**options)
    from models.training.bundle_training import train as train_bundle

    return train_bundle(bundle, **options)
