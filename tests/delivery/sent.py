"""Deliveries as the database gives them."""

from collections.abc import Callable
from datetime import UTC, datetime

from dicom_node.delivery import Outcome
from dicom_node.routing.destination import Destination
from storage.records import Delivery

Deliver = Callable[[Destination, list[Delivery]], list[tuple[int, Outcome]]]


def delivery(number: int, uid: str, path: str, **changes: object) -> Delivery:
    """A delivery being sent for the first time."""
    values = {
        "id": number, "result_id": number, "job_id": 1, "study_instance_uid": "2.25.1", "destination": "pacs",
        "state": "sending", "attempts": 1, "not_before": datetime.now(UTC), "status": None, "reason": "",
        "delivered_at": None, "sop_instance_uid": uid, "sop_class_uid": "", "transfer_syntax_uid": "", "path": path,
    }  # fmt: skip
    return Delivery(**(values | changes))  # type: ignore[arg-type]
