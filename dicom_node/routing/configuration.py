"""The administrator's YAML file: destinations, senders and rules, checked as a whole with the line of every problem."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from dicom_node.routing.addresses import ae_title_problem, count_problem, host_problem, port_problem
from dicom_node.routing.conditions import Condition, parse_condition
from dicom_node.routing.destination import Destination, read_destination
from dicom_node.routing.nodes import NodeReader, compose, near, plain
from dicom_node.routing.sender import RATES, Sender, sop_class_problem, sop_class_uid
from pipelines.catalogue import PIPELINES
from storage.jobs import STAT

#: what images that come after a result do
LATE_POLICIES = ("rerun", "alert", "ignore")


@dataclass(frozen=True)
class Rule:
    """Which studies go to which pipeline, and where its results go."""

    name: str
    when: Condition
    run: str
    send_to: tuple[str, ...]
    roles: Mapping[str, Condition] = field(default_factory=dict)  # role -> how its stack is recognised instead
    report_refusal: bool = False
    late: str | None = None  # images after a result: rerun, alert or ignore; None: as the setting late_images says
    enabled: bool = True
    stat: bool = False  # somebody waits: parts of an exam are answered early, on a queue of their own

    @property
    def queue(self) -> str:
        """Celery queue of its jobs."""
        return STAT if self.stat else PIPELINES[self.run].queue


@dataclass(frozen=True)
class Configuration:
    """The whole file."""

    destinations: Mapping[str, Destination] = field(default_factory=dict)
    senders: tuple[Sender, ...] = ()
    rules: tuple[Rule, ...] = ()

    def destination(self, name: str) -> Destination | None:
        """One destination, None when there is none of this name."""
        return self.destinations.get(name)


def load_configuration(text: str) -> Configuration:
    """Read and check a file. Raises ConfigurationError that lists every problem with its line."""
    root = compose(text)
    return Configuration() if root is None else _Reader().read(root)


class _Reader(NodeReader):
    """The file's three lists."""

    def read(self, root: yaml.Node) -> Configuration:
        parts = self.mapping(root, "the file", {"destinations", "senders", "rules"}, set())
        destinations = {
            name: destination
            for name, node in self.entries(parts.get("destinations"), "destinations")
            if (destination := read_destination(self, name, node)) is not None
        }
        senders = [self.sender(node) for node in self.items(parts.get("senders"), "senders")]
        named = {name for name, _ in self.entries(parts.get("destinations"), "destinations", silent=True)}
        rules = [self.rule(node, named) for node in self.items(parts.get("rules"), "rules")]
        self.unique_names([(rule, node) for rule, node in zip(rules, self.items(parts.get("rules"), ""), strict=True)])
        self.raise_problems()
        return Configuration(
            destinations, tuple(s for s in senders if s is not None), tuple(r for r in rules if r is not None)
        )

    # ---- senders and rules

    def sender(self, node: yaml.Node) -> Sender | None:
        known = {"ae_title", "host", "port", "called_ae_titles", "sop_classes", "max_associations", *RATES}
        values = self.mapping(node, "a sender", known, set())
        ae_title = self.text(values, node, "a sender", "ae_title", ae_title_problem)
        what = f"sender {ae_title}" if ae_title else "a sender"
        sop_classes = self.texts(values, what, "sop_classes", sop_class_problem)
        limits = {key: self.value(values, node, what, key, _is_rate) for key in RATES if key in values}
        associations = (
            self.value(values, node, what, "max_associations", count_problem) if "max_associations" in values else None
        )
        return Sender(
            ae_title or "",
            self.texts(values, what, "host", host_problem, needed_in=node) or (),
            called_ae_titles=self.texts(values, what, "called_ae_titles", ae_title_problem),
            sop_classes=sop_classes and tuple(uid for name in sop_classes if (uid := sop_class_uid(name))),
            max_associations=associations,
            port=self.value(values, node, what, "port", port_problem) if "port" in values else None,
            is_archive=False,
            **{key: float(value) for key, value in limits.items() if value is not None},
        )

    def rule(self, node: yaml.Node, destinations: set[str]) -> Rule | None:
        known = {"name", "when", "run", "roles", "send_to", "report_refusal", "late", "enabled", "stat"}
        values = self.mapping(node, "a rule", known, {"name", "when", "run", "send_to"})
        name = self.text(values, node, "a rule", "name", lambda v: None if v.strip() else "must not be empty") or ""
        what = f"rule {name!r}"
        run = self.text(values, node, what, "run", _is_pipeline)
        when = self.condition(values.get("when"), what)
        roles = {}
        for role, role_node in self.entries(values.get("roles"), f"{what}: roles"):
            if run in PIPELINES and role not in {r.name for r in PIPELINES[str(run)].roles}:
                there = ", ".join(r.name for r in PIPELINES[str(run)].roles)
                self.problem(role_node, f"{what}: pipeline {run} has no role {role!r}; it has: {there}")
            roles[role] = self.condition(role_node, f"{what}, role {role}")
        send_to = [str(plain(item)) for item in self.items(values.get("send_to"), f"{what}: send_to")]
        for item, target in zip(self.items(values.get("send_to"), ""), send_to, strict=True):
            if target not in destinations:
                self.problem(item, f"{what}: destination {target!r} is not defined{near(target, destinations)}")
        flags = {
            key: self.flag(values, what, key, default)
            for key, default in (("report_refusal", False), ("enabled", True), ("stat", False))
        }
        if flags["stat"] and run in PIPELINES and not PIPELINES[run].answers_per_slice:
            quick = ", ".join(name for name, pipeline in PIPELINES.items() if pipeline.answers_per_slice)
            self.problem(
                values["stat"], f"{what}: stat is for pipelines that answer in seconds, slice by slice: {quick}"
            )
        late = self.text(values, node, what, "late", _is_late_policy) if "late" in values else None
        if when is None or run is None or None in roles.values():
            return None
        bound = {k: v for k, v in roles.items() if v is not None}
        return Rule(name, when, run, tuple(send_to), bound, late=late, **flags)

    def condition(self, node: yaml.Node | None, what: str) -> Condition | None:
        if node is None:
            return None
        found: Condition | None = None
        before = self.problem_count
        for leaf in _leaves(node):  # each leaf alone first, so that the line is the leaf's
            try:
                parse_condition(plain(leaf))
            except ValueError as error:
                self.problem(leaf, f"{what}: {error}")
        if self.problem_count == before:
            try:
                found = parse_condition(plain(node))
            except ValueError as error:
                self.problem(node, f"{what}: {error}")
        return found

    def unique_names(self, rules: list[tuple[Rule | None, yaml.Node]]) -> None:
        seen: set[str] = set()
        for rule, node in rules:
            if rule is not None and rule.name in seen:
                self.problem(node, f"rule {rule.name!r} is there twice; names are what jobs and events refer to")
            if rule is not None:
                seen.add(rule.name)


def _leaves(node: yaml.Node) -> Iterator[yaml.Node]:
    """The comparisons inside a condition."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if plain(key) in ("all", "any", "not"):
            for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                yield from _leaves(part)
            return
    yield node


def _is_rate(value: Any) -> str | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return None if is_number and 0 < value < math.inf else "a number above 0 is needed"


def _is_late_policy(value: str) -> str | None:
    return None if value in LATE_POLICIES else f"one of {', '.join(LATE_POLICIES)} is needed"


def _is_pipeline(value: str) -> str | None:
    return None if value in PIPELINES else f"no such pipeline{near(value, set(PIPELINES))}"
