"""A draft rule set over the studies received last: what would start, what would stop starting, and why."""

from collections.abc import Iterator
from dataclasses import dataclass

import storage.instances
import storage.studies
from dicom_node.assembly import bind
from dicom_node.node import Node
from dicom_node.recognition.study import recognise
from dicom_node.routing.configuration import Configuration
from dicom_node.routing.matching import match
from pipelines.catalogue import PIPELINES


@dataclass(frozen=True)
class DryRunRow:
    """One rule on one study."""

    study_instance_uid: str
    rule: str
    now: str  # "runs ct_lesion", "-", ...
    draft: str
    reason: str


def dry_run(node: Node, draft: Configuration, limit: int) -> Iterator[DryRunRow]:
    """Compare `draft` with the rules in force on the `limit` studies received last."""
    current = node.configuration()
    with node.pool.connection() as connection:
        studies = storage.studies.recent(connection, limit)
    for study in studies:
        with node.pool.connection() as connection:
            instances = storage.instances.for_study(connection, study.study_instance_uid)
            series = storage.instances.series_for_study(connection, study.study_instance_uid)
        recognised = recognise(instances)

        def verdicts(configuration: Configuration, series=series, recognised=recognised) -> dict[str, tuple[str, str]]:  # type: ignore[no-untyped-def]
            found = {}
            for rule_match in match(configuration, series, recognised):
                if not rule_match.matched:
                    found[rule_match.rule.name] = ("-", rule_match.reason)
                    continue
                binding = bind(PIPELINES[rule_match.rule.run], recognised, rule_match.rule.roles, series)
                runs = f"runs {rule_match.rule.run}{' (stat)' if rule_match.rule.stat else ''}"
                text = runs if not binding.missing else "waits"
                found[rule_match.rule.name] = (text, binding.missing or rule_match.reason)
            return found

        now, then = verdicts(current), verdicts(draft)
        for rule in sorted(now.keys() | then.keys()):
            absent = ("no such rule", "")
            row = DryRunRow(
                study.study_instance_uid, rule, now.get(rule, absent)[0], *then.get(rule, ("no such rule", "removed"))
            )
            yield row
