"""Training of bundles: one recipe per bundle on one shared loop."""

from pathlib import Path
from typing import Any


def train(bundle: str, **options: Any) -> Path:
    """Train a bundle; see models.training.bundle_training.train, which is loaded, with torch, when this is called."""
    from models.training.bundle_training import train as train_bundle

    return train_bundle(bundle, **options)
