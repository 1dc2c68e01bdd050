"""Datasets -> pipeline inputs. Importable without torch and SimpleITK."""

from collections.abc import Callable, Mapping
from typing import Any

from dicom_node.decoding.ct import ct_lesion_input
from dicom_node.decoding.volume import LoadedStack, load_ct_volume, load_mr_volume, slice_positions

#: Pipeline name -> function of (role -> stack) that makes the pipeline's input.
DECODERS: dict[str, Callable[[Mapping[str, LoadedStack]], Any]] = {
    "ct_lesion": ct_lesion_input,
}

__all__ = ["DECODERS", "LoadedStack", "load_ct_volume", "load_mr_volume", "slice_positions"]
