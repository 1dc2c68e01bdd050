"""Which objects a destination gets of one answer, and what it gets instead of those that it does not take."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

#: Kinds of objects in the order in which they are built and sent: what a report refers to goes before it.
KINDS: Mapping[str, str] = MappingProxyType(
    {
        "seg": "Segmentation, BINARY",
        "seg_labelmap": "Label Map Segmentation; beside a BINARY one, never instead of it",
        "pm": "Parametric Map",
        "kos": "Key Object Selection Document",
        "sc": "Secondary Capture: one page that sums up",
        "pdf": "Encapsulated PDF: the same page",
        "sr": "Comprehensive 3D SR",
        "sr_comprehensive": "Comprehensive SR",
        "sr_enhanced": "Enhanced SR",
        "sr_text": "Basic Text SR, for dictation systems",
    }
)

#: kind -> SOP Class of its objects.
SOP_CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "seg": "1.2.840.10008.5.1.4.1.1.66.4",
        "seg_labelmap": "1.2.840.10008.5.1.4.1.1.66.7",
        "pm": "1.2.840.10008.5.1.4.1.1.30",
        "kos": "1.2.840.10008.5.1.4.1.1.88.59",
        "sc": "1.2.840.10008.5.1.4.1.1.7",
        "pdf": "1.2.840.10008.5.1.4.1.1.104.1",
        "sr": "1.2.840.10008.5.1.4.1.1.88.34",
        "sr_comprehensive": "1.2.840.10008.5.1.4.1.1.88.33",
        "sr_enhanced": "1.2.840.10008.5.1.4.1.1.88.22",
        "sr_text": "1.2.840.10008.5.1.4.1.1.88.11",
    }
)

#: kind -> what is sent instead, in this order, when a destination refuses its SOP Class.
FALL_BACKS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "seg": ("sc",),
        "pm": ("sc",),
        "sr": ("sr_comprehensive", "sr_enhanced", "sr_text"),
        "sr_comprehensive": ("sr_enhanced", "sr_text"),
        "sr_enhanced": ("sr_text",),
    }
)


@dataclass(frozen=True)
class Package:
    """What a destination is to get. The same for many destinations, so that most answers are built once."""

    kinds: tuple[str, ...] = ("seg", "pm", "sr")
    omit_empty_frames: bool = True  # of Segmentations; some viewers want a frame for every slice
    fall_backs: bool = True

    def with_kinds(self, kinds: Iterable[str]) -> "Package":
        """The same with these kinds too."""
        wanted = {*self.kinds, *kinds}
        return replace(self, kinds=tuple(kind for kind in KINDS if kind in wanted))

    @property
    def reports_alone(self) -> "Package":
        """The reports of it; the whole of it if it has none, as then something else tells the reader."""
        reports = tuple(kind for kind in self.kinds if kind.split("_")[0] == "sr")
        return replace(self, kinds=reports) if reports else self

    @property
    def built(self) -> tuple[str, ...]:
        """Kinds to build: those wanted and, if allowed, those that may be needed instead, in the order of KINDS."""
        wanted = set(self.kinds)
        if self.fall_backs:
            wanted.update(instead for kind in self.kinds for instead in FALL_BACKS.get(kind, ()))
        return tuple(kind for kind in KINDS if kind in wanted)


#: What a destination gets that states nothing else.
USUAL = Package()
#: The same where nobody can refuse anything, such as a folder.
WITHOUT_FALL_BACKS = Package(fall_backs=False)
