"""Which rules apply to a study, and why each does or does not. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from dicom_node.recognition.study import OURS, Recognised
from dicom_node.routing.configuration import Configuration, Rule
from storage.records import Series


@dataclass(frozen=True)
class RuleMatch:
    """One rule's verdict on one study."""

    rule: Rule
    matched: bool
    reason: str


def match(configuration: Configuration, series: Sequence[Series], recognised: Recognised) -> list[RuleMatch]:
    """Try every rule on a study.

    A rule matches when at least one series meets its condition; then all series are offered to the pipeline's roles.
    Series that this node made take no part, so that a result sent back never starts anything.
    """
    ours = {verdict.series_instance_uid for verdict in recognised.series if verdict.kind == OURS}
    foreign = [one for one in series if one.series_instance_uid not in ours]
    return [_try(rule, foreign) for rule in configuration.rules]


def _try(rule: Rule, series: Sequence[Series]) -> RuleMatch:
    if not rule.enabled:
        return RuleMatch(rule, False, "the rule is switched off")
    if not series:
        return RuleMatch(rule, False, "the study holds only results of this node")
    reasons: dict[str, int] = {}
    for one in series:
        explained = rule.when.explain(one.header)
        if explained.holds:
            return RuleMatch(rule, True, f"series {one.series_instance_uid}: {explained.text}")
        reasons[explained.text] = reasons.get(explained.text, 0) + 1
    told = "; ".join(f"{text} ({count} series)" for text, count in reasons.items())
    return RuleMatch(rule, False, f"no series meets the condition: {told}")
