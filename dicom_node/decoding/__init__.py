"""Datasets -> pipeline inputs. Importable without torch and SimpleITK."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dicom_node.decoding.ct import ct_lesion_input
from dicom_node.decoding.decoded import Decoded
from dicom_node.decoding.elastography import mre_input
from dicom_node.decoding.volume import LoadedStack, load_ct_volume, load_mr_volume, slice_positions


def _ct_lesion(paths: Mapping[str, Sequence[Path]]) -> Decoded:
    stacks = {role: load_ct_volume(files) for role, files in paths.items()}
    return Decoded(
        ct_lesion_input(stacks),
        {role: stack.headers for role, stack in stacks.items()},
        pixels={role: stack.volume.array for role, stack in stacks.items()},
    )


#: Pipeline name -> function of (role -> files) that makes the pipeline's input. Each raises UnreadableSeries.
DECODERS: dict[str, Callable[[Mapping[str, Sequence[Path]]], Decoded]] = {
    "ct_lesion": _ct_lesion,
    "mre_qc": mre_input,
}

__all__ = ["DECODERS", "Decoded", "LoadedStack", "load_ct_volume", "load_mr_volume", "slice_positions"]
