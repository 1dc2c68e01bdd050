"""How far results are, in words: "delivered" when a destination took them, "committed" when its archive said so."""

from collections.abc import Sequence

from storage.commitment_requests import DeliveryCommitment, Progress
from storage.records import Delivery

_SOON = {
    "wanted": "its archive is to be asked for commitment",
    "asked": "its archive is asked for commitment",
    "sent_again": "its archive did not have it",
}


def delivery_words(delivery: Delivery, commitment: DeliveryCommitment | None) -> str:
    """Where one object stands at one destination."""
    words = [_state_words(delivery, commitment), f"attempts {delivery.attempts}"]
    if delivery.status is not None:
        words.append(f"status 0x{delivery.status:04X}")
    if delivery.reason:
        words.append(delivery.reason)
    return ", ".join(words)


def _state_words(delivery: Delivery, commitment: DeliveryCommitment | None) -> str:
    if commitment is not None and commitment.committed_at is not None:
        return f"committed {commitment.committed_at:%H:%M:%S} (storage commitment {commitment.transaction_uid})"
    if delivery.state != "done":
        again = commitment is not None and commitment.state == "sent_again"
        return f"{delivery.state} again: {commitment.reason}" if again and commitment else delivery.state
    words = f"delivered {delivery.delivered_at:%H:%M:%S}" if delivery.delivered_at else "delivered"
    if commitment is None:
        return words
    if commitment.state == "failed":
        return f"{words}, NOT committed: {commitment.reason}"
    since = f" since {commitment.requested_at:%H:%M:%S}" if commitment.requested_at else ""
    soon = _SOON[commitment.state] + (since if commitment.state == "asked" else "")
    return f"{words}, {soon}{': ' + commitment.reason if commitment.reason else ''}"


def results_words(progresses: Sequence[Progress]) -> str:
    """Where the results of one study stand, destination by destination; empty without results."""
    return ", ".join(f"{progress.destination}: {_progress_words(progress)}" for progress in progresses)


def _progress_words(progress: Progress) -> str:
    if progress.delivered < progress.results:
        parked = f", {progress.parked} parked" if progress.parked else ""
        return f"{progress.delivered} of {progress.results} delivered{parked}"
    if progress.not_committed:
        return f"delivered, {progress.not_committed} NOT committed"
    return "committed" if progress.committed == progress.results else "delivered"
