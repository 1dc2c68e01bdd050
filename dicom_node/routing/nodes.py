"""Reading a YAML file node by node, so that every problem can be told with its line."""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import yaml

from dicom_node.errors import ConfigurationError

MAX_CHARACTERS = 1_000_000
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


def compose(text: str) -> yaml.Node | None:
    """The file's nodes, None for an empty file.

    Raises ConfigurationError, every problem with its line, for what is no YAML, too long or nested too deeply, and
    for values that YAML reads as something else than they look like.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigurationError(f"the file has {len(text)} characters, {MAX_CHARACTERS} at most are read")
    try:
        root = yaml.compose(text, Loader=_PlainLoader)
        problems = sorted(set(_node_problems(root))) if root is not None else []
    except yaml.YAMLError as error:
        raise ConfigurationError(_yaml_problem(error)) from error
    except RecursionError as error:
        raise ConfigurationError("the file is nested too deeply") from error
    if problems:
        raise ConfigurationError(_told(problems))
    return root


def _told(problems: Iterable[tuple[int, str]]) -> str:
    return "\n".join(f"line {line}: {text}" for line, text in sorted(set(problems)))


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
        elif node.style is None and (itself := _MEANS_ITSELF.get(node.tag)) and not itself.fullmatch(node.value):
            yield line, f"{node.value} is read as {plain(node)!r}; put it in quotes if it is a text"
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


class NodeReader:
    """Takes values out of YAML nodes, which know their lines, and collects every problem."""

    def __init__(self) -> None:
        self._problems: list[tuple[int, str]] = []

    def raise_problems(self) -> None:
        """Raises ConfigurationError if there was any problem."""
        if self._problems:
            raise ConfigurationError(_told(self._problems))

    @property
    def problem_count(self) -> int:
        """How many problems were found so far."""
        return len(self._problems)

    def problem(self, node: yaml.Node, text: str) -> None:
        """Note a problem at the node's line."""
        self._problems.append((node.start_mark.line + 1, text))

    def entries(self, node: yaml.Node | None, what: str, *, silent: bool = False) -> Iterator[tuple[str, yaml.Node]]:
        """The names and nodes of a mapping."""
        if node is None or plain(node) is None:
            return
        if not isinstance(node, yaml.MappingNode):
            if not silent:
                self.problem(node, f"{what}: 'name: ...' entries are needed")
            return
        seen: set[str] = set()
        for key, value in node.value:
            name = str(plain(key))
            if name in seen and not silent:
                self.problem(key, f"{what}: {name!r} is there twice")
            seen.add(name)
            yield name, value

    def items(self, node: yaml.Node | None, what: str) -> list[yaml.Node]:
        """The nodes of a list, none for an empty value; no problem is noted where `what` is empty."""
        if node is None or plain(node) is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            if what:
                self.problem(node, f"{what}: a list is needed")
            return []
        return list(node.value)

    def mapping(self, node: yaml.Node, what: str, known: set[str], needed: set[str]) -> dict[str, yaml.Node]:
        """The nodes of a mapping by key; unknown keys and missing ones are problems."""
        if not isinstance(node, yaml.MappingNode):
            self.problem(node, f"{what}: 'key: value' pairs are needed, one of {', '.join(sorted(known))}")
            return {}
        values = dict(self.entries(node, what))
        for key, _ in node.value:
            if (name := str(plain(key))) not in known:
                self.problem(key, f"{what}: unknown key {name!r}{near(name, known)}")
        for name in sorted(needed - values.keys()):
            self.problem(node, f"{what}: {name!r} is missing")
        return values

    def value(
        self, values: Mapping[str, yaml.Node], node: yaml.Node, what: str, key: str, check: Callable[[Any], str | None]
    ) -> Any:
        """The value of a key that must be there; None after a problem, which `check` tells."""
        if key not in values:
            if not any(text == f"{what}: {key!r} is missing" for _, text in self._problems):
                self.problem(node, f"{what}: {key!r} is missing")
            return None
        found = plain(values[key])
        if problem := check(found):
            self.problem(values[key], f"{what}: {key} {found!r}: {problem}")
            return None
        return found

    def text(
        self, values: Mapping[str, yaml.Node], node: yaml.Node, what: str, key: str, check: Callable[[str], str | None]
    ) -> str | None:
        """Like `value`, for a text."""
        found = self.value(values, node, what, key, lambda v: check(str(v)) if v is not None else "is empty")
        return None if found is None else str(found)

    def texts(
        self,
        values: Mapping[str, yaml.Node],
        what: str,
        key: str,
        check: Callable[[str], str | None],
        needed_in: yaml.Node | None = None,
    ) -> tuple[str, ...] | None:
        """One text or a list of them, at least one; None where the key is not there."""
        node = values.get(key)
        if node is None:
            if needed_in is not None:
                self.problem(needed_in, f"{what}: {key!r} is missing")
            return None
        items = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not items:
            self.problem(node, f"{what}: {key}: the list is empty; leave {key} out, or name at least one")
        found = []
        for item in items:
            text = plain(item)
            if isinstance(item, yaml.ScalarNode) and text is not None:
                problem = check(str(text))
            else:
                problem = "is empty" if text is None else "a text or a list of texts is needed"
            if problem:
                self.problem(item, f"{what}: {key} {text!r}: {problem}")
            else:
                found.append(str(text))
        return tuple(found)

    def flag(self, values: Mapping[str, yaml.Node], what: str, key: str, default: bool) -> bool:
        """true or false; `default` where the key is not there."""
        if key not in values:
            return default
        found = plain(values[key])
        if not isinstance(found, bool):
            self.problem(values[key], f"{what}: {key} {found!r}: true or false is needed")
            return default
        return found


def plain(node: yaml.Node) -> Any:
    """The value of a node; safe types only."""
    return yaml.SafeLoader("").construct_object(node, deep=True)


def scalar_in(node: yaml.Node, key: str) -> Any:
    """The value of a key of a mapping, without any check; None where there is none."""
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((plain(value) for name, value in node.value if plain(name) == key), None)


def near(name: str, known: set[str]) -> str:
    """The end of a message about an unknown name: the one that was meant, or all there are."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there is: {', '.join(sorted(known)) or 'none'}"
