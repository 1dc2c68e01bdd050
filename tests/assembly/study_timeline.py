"""A study as it arrives, event by event, with the node's view of it after each: what the scheduler would decide."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dicom_node.assembly import Binding, Overdue, Ready, Wait, bind_roles, decide
from dicom_node.recognition.study import recognise
from pipelines.catalogue import PIPELINES
from storage.records import Association, Instance

CT = "1.2.840.10008.5.1.4.1.1.2"
START = datetime(2025, 1, 2, 10, 0, tzinfo=UTC)
ROLES = PIPELINES["ct_lesion"].roles
TRANSFER_S = 0.01


def ct_image(
    series: str,
    index: int,
    *,
    z_mm: float,
    description: str = "",
    number: int = 1,
    uid: str | None = None,
    **attributes: Any,
) -> Instance:
    """One axial CT image; further attributes by keyword, None takes one away."""
    values: dict[str, Any] = {
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SeriesDescription": description,
        "SeriesNumber": number,
        "InstanceNumber": index + 1,
        "AcquisitionNumber": number,
        "AcquisitionDate": "20250102",
        "AcquisitionTime": "101112",
        "ContrastBolusAgent": "IODINE",
        "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        "ImagePositionPatient": [-200.0, -200.0, z_mm],
        "PixelSpacing": [0.8, 0.8],
        "Rows": 512,
        "Columns": 512,
        "FrameOfReferenceUID": "1.2.3",
    } | attributes
    sop = uid or f"{series}.{index + 1}"
    return Instance(
        sop_instance_uid=sop,
        sop_class_uid=CT,
        series_instance_uid=series,
        study_instance_uid="1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        path=f"{sop}.dcm",
        sha256=hashlib.sha256(sop.encode()).hexdigest(),
        size_bytes=1000,
        attributes={k: v for k, v in values.items() if v is not None},
    )


def ct_series(
    series: str, description: str, count: int, *, number: int = 1, declare: bool = False, start_mm: float = 0.0,
    spacing_mm: float = 2.5, **attributes: Any,
) -> list[Instance]:  # fmt: skip
    """A stack in the order of Instance Numbers."""
    values = ({"ImagesInAcquisition": count} if declare else {}) | attributes
    return [
        ct_image(series, i, z_mm=start_mm + spacing_mm * i, description=description, number=number, **values)
        for i in range(count)
    ]


@dataclass
class Timeline:
    """The node's index of one study; every change is followed by a look, as the scheduler does."""

    now: datetime = START
    instances: dict[str, Instance] = field(default_factory=dict)
    associations: list[Association] = field(default_factory=list)
    last_received_at: datetime = START
    last_new_at: datetime = START
    looks: list[tuple[datetime, Ready | Wait | Overdue]] = field(default_factory=list)
    runs: dict[str, datetime] = field(default_factory=dict)  # fingerprint -> when it was first ready
    covered: dict[str, int] = field(default_factory=dict)  # fingerprint -> images

    def open(self, calling: str = "MODALITY1") -> str:
        uid = f"a{len(self.associations)}"
        self.associations.append(Association(uid, "r", calling, "NODE", "127.0.0.1", self.now, None, "open", 0))
        return uid

    def close(self, uid: str, state: str = "released") -> None:
        self.associations = [
            replace(a, closed_at=self.now, state=state) if a.association_id == uid else a for a in self.associations
        ]
        self.look()

    def store(self, image: Instance, uid: str) -> None:
        self.now += timedelta(seconds=TRANSFER_S)
        if image.sop_instance_uid not in self.instances:
            self.instances[image.sop_instance_uid] = replace(image, association_id=uid, received_at=self.now)
            self.last_received_at = self.last_new_at = self.now
        self.look()

    def send(
        self,
        images: Sequence[Instance],
        *,
        calling: str = "MODALITY1",
        abort_after: int | None = None,
        gap_s: float = 0.0,
    ) -> None:
        """One association; aborted after so many images."""
        uid = self.open(calling)
        for count, image in enumerate(images):
            if count == abort_after:
                self.close(uid, "aborted")
                return
            self.store(image, uid)
            if gap_s:
                self.sleep(gap_s)
        self.close(uid)

    def send_at_once(self, *parts: tuple[str, Sequence[Instance]]) -> None:
        """Several associations side by side, image by image; the shorter ones end first."""
        uids = [self.open(calling) for calling, _ in parts]
        for step in range(max(len(images) for _, images in parts)):
            for uid, (_, images) in zip(uids, parts, strict=True):
                if step < len(images):
                    self.store(images[step], uid)
                elif step == len(images):
                    self.close(uid)
        for uid in uids:
            if next(a for a in self.associations if a.association_id == uid).state == "open":
                self.close(uid)

    def sleep(self, seconds: float) -> None:
        """Let time pass; looks whenever a verdict asked for it."""
        end = self.now + timedelta(seconds=seconds)
        while self.now < end:
            verdict = self.looks[-1][1] if self.looks else None
            wake = verdict.until if isinstance(verdict, Wait) else end
            self.now = min(end, max(wake, self.now + timedelta(seconds=0.1)))
            self.look()

    def sleep_until_ready(self, seconds: float) -> bool:
        end = self.now + timedelta(seconds=seconds)
        while not self.runs and self.now < end:
            self.sleep(0.5)
        return bool(self.runs)

    def bind(self, overrides: dict[str, Any] | None = None) -> Binding:
        return bind_roles(ROLES, recognise(list(self.instances.values())), overrides)

    def look(self) -> Ready | Wait | Overdue:
        binding = self.bind()
        verdict = decide(binding, self.associations, last_received_at=self.last_received_at, now=self.now)
        self.looks.append((self.now, verdict))
        if isinstance(verdict, Ready) and verdict.fingerprint not in self.runs:
            self.runs[verdict.fingerprint] = self.now
            self.covered[verdict.fingerprint] = sum(len(v["sop_instance_uids"]) for v in verdict.inputs.values())
        return verdict

    @property
    def verdict(self) -> Ready | Wait | Overdue:
        return self.looks[-1][1]


def arrived(images: Iterable[Instance]) -> Timeline:
    """A study that came in one association, released."""
    timeline = Timeline()
    timeline.send(list(images))
    return timeline
