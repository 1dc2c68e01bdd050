"""What a pipeline is: a name, the roles it needs, the bundles it uses, and a function."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.findings import Findings


class Predictor(Protocol):
    """An opened bundle: normalises, runs the network by sliding window, returns its output."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def trained_on(self) -> str: ...
    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size (slice, row, column) of the grid that the network works on."""
        ...

    @property
    def in_channels(self) -> tuple[str, ...]:
        """Names of the input channels, in order."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the output channels, in order."""
        ...

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """image [channel, slice, row, column] in physical units (HU) -> probabilities [channel, slice, row, column]."""
        ...


@dataclass(frozen=True)
class Role:
    """A named input of a pipeline that the router must bind to a stack of images."""

    name: str  # "arterial"
    meaning: str
    required: bool = True
    is_awaited: bool = False  # optional, but worth a quiet period: it usually comes with the others


Run = Callable[[Any, Mapping[str, Predictor]], Findings]


@dataclass(frozen=True)
class Pipeline:
    """One entry of the catalogue; importable without torch, `load` brings the code in."""

    name: str
    version: str
    title: str  # for people and SeriesDescription: "AI CT liver lesions"
    modality: str
    roles: tuple[Role, ...]
    bundles: tuple[str, ...]
    queue: str  # Celery queue: "gpu" or "cpu"
    module: str  # has run(input, bundles) -> Findings
    #: sets of optional roles of which at least one must be bound whole; empty: the required roles suffice
    any_of: tuple[tuple[str, ...], ...] = ()
    #: kinds of result objects that go with the usual ones, to destinations that do not state what they want
    objects: tuple[str, ...] = ()
    #: may be run on the slices that are whole while others are on their way, as `more_to_come` of its input then says
    answers_per_slice: bool = False

    def configuration(self) -> Mapping[str, str]:
        """Settings of the site that change the answer, for its provenance; imports the pipeline's module.

        Raises ValueError or OSError where they cannot be used.
        """
        found: Mapping[str, str] = getattr(import_module(self.module), "configuration", dict)()
        return found

    def load(self) -> Run:
        """Import the pipeline's module (and with it torch) and return its run function."""
        run: Run = import_module(self.module).run
        return run
