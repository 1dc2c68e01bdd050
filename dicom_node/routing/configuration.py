"""The administrator's YAML file: destinations, senders and rules, checked as a whole with the line of every problem."""

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from dicom_node.delivery import SENDERS
from dicom_node.errors import ConfigurationError
from dicom_node.routing.conditions import Condition, parse_condition
from pipelines.catalogue import PIPELINES

MAX_CHARACTERS = 1_000_000
_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")  # PS3.5 6.2: no backslash, no control characters
_HOST = re.compile(r"[0-9A-Za-z.:/_-]{1,255}|\*")
_SCALAR_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}
#: YAML 1.1 makes false of NO and off, 8 of 010 and 750 of 12:30. Values of DICOM look like that, and such a condition
#: would never be met.
_MEANS_ITSELF = {
    "tag:yaml.org,2002:bool": re.compile("true|false", re.IGNORECASE),
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(0|[1-9][0-9]*)"),
    "tag:yaml.org,2002:float": re.compile(
        r"[-+]?(0|[1-9][0-9]*)?\.?[0-9]*([eE][-+]?[0-9]+)?|[-+]?\.(inf|nan)", re.IGNORECASE
    ),
}
_COLLECTION_TAGS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
#: in the file's grammar, but not deliverable by this version
_LATER_TYPES = ("stow", "folder")


@dataclass(frozen=True)
class Destination:
    """Where results go."""

    name: str
    type: str
    host: str
    port: int
    ae_title: str


@dataclass(frozen=True)
class Sender:
    """Who may send."""

    ae_title: str
    host: str  # address, network (CIDR) or name
    port: int | None = None  # where it takes reports of storage commitment


@dataclass(frozen=True)
class Rule:
    """Which studies go to which pipeline, and where its results go."""

    name: str
    when: Condition
    run: str
    send_to: tuple[str, ...]
    roles: Mapping[str, Condition] = field(default_factory=dict)  # role -> how its stack is recognised instead
    report_refusal: bool = False
    enabled: bool = True


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
    if len(text) > MAX_CHARACTERS:
        raise ConfigurationError(f"the file has {len(text)} characters, {MAX_CHARACTERS} at most are read")
    try:
        root = yaml.compose(text, Loader=_PlainLoader)
    except yaml.YAMLError as error:
        raise ConfigurationError(_yaml_problem(error)) from error
    except RecursionError as error:
        raise ConfigurationError("the file is nested too deeply") from error
    if root is None:
        return Configuration()
    problems = sorted(set(_node_problems(root)))
    if problems:
        raise ConfigurationError("\n".join(f"line {line}: {text}" for line, text in problems))
    return _Reader().read(root)


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases: a rules file needs none, and a few lines of them can fill any memory."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: aliases (*name) are not allowed here")
        return super().compose_node(parent, index)


def _yaml_problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: not YAML: {error.problem}"
    return str(error)


def _node_problems(node: yaml.Node) -> Iterator[tuple[int, str]]:
    """What no rules file may hold anywhere: keys that are there twice, and values that are no text, number or truth."""
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        if node.tag not in _SCALAR_TAGS:
            yield line, f"{node.value!r} is read as {node.tag.rpartition(':')[2]}; put it in quotes if it is a text"
        elif node.style is None and (plain := _MEANS_ITSELF.get(node.tag)) and not plain.fullmatch(node.value):
            yield line, f"{node.value} is read as {_plain(node)!r}; put it in quotes if it is a text"
        return
    if node.tag not in _COLLECTION_TAGS:
        yield line, f"{node.tag.rpartition(':')[2]!r} is no kind of value that a rules file holds"
        return
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _node_problems(item)
        return
    seen: set[str] = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            yield key.start_mark.line + 1, "a key must be a plain word"
        elif key.value in seen:
            yield key.start_mark.line + 1, f"{key.value!r} is there twice"
        else:
            seen.add(key.value)
            yield from _node_problems(key)
        yield from _node_problems(value)


class _Reader:
    """Walks the YAML nodes, which know their lines, and collects every problem."""

    def __init__(self) -> None:
        self.problems: list[tuple[int, str]] = []

    def read(self, root: yaml.Node) -> Configuration:
        parts = self.mapping(root, "the file", {"destinations", "senders", "rules"}, set())
        destinations = {
            name: destination
            for name, node in self.entries(parts.get("destinations"), "destinations")
            if (destination := self.destination(name, node)) is not None
        }
        senders = [self.sender(node) for node in self.items(parts.get("senders"), "senders")]
        named = {name for name, _ in self.entries(parts.get("destinations"), "destinations", silent=True)}
        rules = [self.rule(node, named) for node in self.items(parts.get("rules"), "rules")]
        self.unique_names([(rule, node) for rule, node in zip(rules, self.items(parts.get("rules"), ""), strict=True)])
        if self.problems:
            lines = [f"line {line}: {text}" for line, text in sorted(set(self.problems))]
            raise ConfigurationError("\n".join(lines))
        return Configuration(
            destinations, tuple(s for s in senders if s is not None), tuple(r for r in rules if r is not None)
        )

    # ---- the three kinds of entry

    def destination(self, name: str, node: yaml.Node) -> Destination | None:
        kind = _scalar_in(node, "type")
        if kind in _LATER_TYPES:
            self.problem(
                node, f"destination {name}: type {kind} is not in this version; there is: {', '.join(SENDERS)}"
            )
            return None
        values = self.mapping(node, f"destination {name}", {"type", "host", "port", "ae_title"}, set())
        if kind not in SENDERS:
            self.problem(node, f"destination {name}: type {kind!r} is not known; there is: {', '.join(SENDERS)}")
        host = self.text(values, node, f"destination {name}", "host", _is_single_host)
        port = self.value(values, node, f"destination {name}", "port", _is_port)
        ae_title = self.text(values, node, f"destination {name}", "ae_title", _is_ae_title)
        return Destination(name, str(kind), host or "", int(port or 0), ae_title or "")

    def sender(self, node: yaml.Node) -> Sender | None:
        values = self.mapping(node, "a sender", {"ae_title", "host", "port"}, set())
        ae_title = self.text(values, node, "a sender", "ae_title", _is_ae_title)
        host = self.text(values, node, "a sender", "host", _is_host)
        port = self.value(values, node, "a sender", "port", _is_port) if "port" in values else None
        return Sender(ae_title or "", host or "", port)

    def rule(self, node: yaml.Node, destinations: set[str]) -> Rule | None:
        known = {"name", "when", "run", "roles", "send_to", "report_refusal", "enabled"}
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
        send_to = [str(_plain(item)) for item in self.items(values.get("send_to"), f"{what}: send_to")]
        for item, target in zip(self.items(values.get("send_to"), ""), send_to, strict=True):
            if target not in destinations:
                self.problem(item, f"{what}: destination {target!r} is not defined{_near(target, destinations)}")
        flags = {
            key: self.flag(values, what, key, default)
            for key, default in (("report_refusal", False), ("enabled", True))
        }
        if when is None or run is None or None in roles.values():
            return None
        return Rule(name, when, run, tuple(send_to), {k: v for k, v in roles.items() if v is not None}, **flags)

    def condition(self, node: yaml.Node | None, what: str) -> Condition | None:
        if node is None:
            return None
        found: Condition | None = None
        before = len(self.problems)
        for leaf in _leaves(node):  # each leaf alone first, so that the line is the leaf's
            try:
                parse_condition(_plain(leaf))
            except ValueError as error:
                self.problem(leaf, f"{what}: {error}")
        if len(self.problems) == before:
            try:
                found = parse_condition(_plain(node))
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

    # ---- pieces

    def problem(self, node: yaml.Node, text: str) -> None:
        self.problems.append((node.start_mark.line + 1, text))

    def entries(self, node: yaml.Node | None, what: str, *, silent: bool = False) -> Iterator[tuple[str, yaml.Node]]:
        if node is None or _plain(node) is None:
            return
        if not isinstance(node, yaml.MappingNode):
            if not silent:
                self.problem(node, f"{what}: 'name: ...' entries are needed")
            return
        seen: set[str] = set()
        for key, value in node.value:
            name = str(_plain(key))
            if name in seen and not silent:
                self.problem(key, f"{what}: {name!r} is there twice")
            seen.add(name)
            yield name, value

    def items(self, node: yaml.Node | None, what: str) -> list[yaml.Node]:
        if node is None or _plain(node) is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            if what:
                self.problem(node, f"{what}: a list is needed")
            return []
        return list(node.value)

    def mapping(self, node: yaml.Node, what: str, known: set[str], needed: set[str]) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self.problem(node, f"{what}: 'key: value' pairs are needed, one of {', '.join(sorted(known))}")
            return {}
        values = dict(self.entries(node, what))
        for key, _ in node.value:
            if (name := str(_plain(key))) not in known:
                self.problem(key, f"{what}: unknown key {name!r}{_near(name, known)}")
        for name in sorted(needed - values.keys()):
            self.problem(node, f"{what}: {name!r} is missing")
        return values

    def value(
        self, values: Mapping[str, yaml.Node], node: yaml.Node, what: str, key: str, check: Callable[[Any], str | None]
    ) -> Any:
        if key not in values:
            if not any(text == f"{what}: {key!r} is missing" for _, text in self.problems):
                self.problem(node, f"{what}: {key!r} is missing")
            return None
        found = _plain(values[key])
        if problem := check(found):
            self.problem(values[key], f"{what}: {key} {found!r}: {problem}")
            return None
        return found

    def text(
        self, values: Mapping[str, yaml.Node], node: yaml.Node, what: str, key: str, check: Callable[[str], str | None]
    ) -> str | None:
        found = self.value(values, node, what, key, lambda v: check(str(v)) if v is not None else "is empty")
        return None if found is None else str(found)

    def flag(self, values: Mapping[str, yaml.Node], what: str, key: str, default: bool) -> bool:
        if key not in values:
            return default
        found = _plain(values[key])
        if not isinstance(found, bool):
            self.problem(values[key], f"{what}: {key} {found!r}: true or false is needed")
            return default
        return found


def _plain(node: yaml.Node) -> Any:
    """The value of a node; safe types only."""
    return yaml.SafeLoader("").construct_object(node, deep=True)


def _scalar_in(node: yaml.Node, key: str) -> Any:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((_plain(value) for name, value in node.value if _plain(name) == key), None)


def _leaves(node: yaml.Node) -> Iterator[yaml.Node]:
    """The comparisons inside a condition."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if _plain(key) in ("all", "any", "not"):
            for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                yield from _leaves(part)
            return
    yield node


def _near(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there is: {', '.join(sorted(known)) or 'none'}"


def _is_host(value: str) -> str | None:
    problem = "an address, a network such as 10.1.2.0/24 or a host name is needed"
    if not _HOST.fullmatch(value):
        return problem
    if "/" in value or ":" in value or re.fullmatch(r"[0-9.]+", value):  # meant as an address: must be one
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            return problem
    return None


def _is_single_host(value: str) -> str | None:
    return "one address or a host name is needed" if "/" in value or value == "*" else _is_host(value)


def _is_port(value: Any) -> str | None:
    is_port = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536
    return None if is_port else "a port from 1 to 65535 is needed"


def _is_ae_title(value: str) -> str | None:
    return None if _AE_TITLE.fullmatch(value) and value.strip() else "1 to 16 characters without backslash are needed"


def _is_pipeline(value: str) -> str | None:
    return None if value in PIPELINES else f"no such pipeline{_near(value, set(PIPELINES))}"
