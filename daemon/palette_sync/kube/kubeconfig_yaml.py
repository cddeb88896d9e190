"""Read untrusted YAML of a kubeconfig into dicts, lists and texts.

It is read from libyaml's events without recursion, because a deeply nested document overflows the C stack of PyYAML's
loaders and would end the process. The rest is as kubectl has it (sigs.k8s.io/yaml, not strict): the first document
counts, of a key that is given twice the last value, and a merge overwrites what stands before it. Aliases are limited.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

DEEPEST = 24
MOST_ALIASED = 10_000  # nodes that aliases may add in total
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BINARY = "tag:yaml.org,2002:binary"
_MERGE = "<<"
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_Node = str | list["_Node"] | dict[str, "_Node"] | None


class YamlRefused(Exception):
    """A text that is not used. The message completes `the kubeconfig ...` and quotes nothing."""


def read_yaml(text: str) -> object:
    """Return the first document, None for an empty text. Every scalar is a text or None. Raises YamlRefused."""
    try:
        return _Builder().build(yaml.parse(text, Loader=_LOADER))
    except (yaml.YAMLError, UnicodeError):
        raise YamlRefused("is not valid YAML") from None


@dataclass(slots=True)
class _Open:
    """A collection that is being read. `size` counts its nodes as if every alias were written out."""

    node: list[_Node] | dict[str, _Node]
    anchor: str | None
    key: str | None = None
    merges: bool = False
    size: int = 1


class _Builder:
    """Builds nested dicts, lists and strings from parse events, with a stack of its own and a depth limit.

    An alias shares its node, so it costs nothing; merging copies, which the limit on aliased nodes bounds.
    """

    def __init__(self) -> None:
        self._root = _Open([], None)
        self._stack = [self._root]
        self._anchors: dict[str, tuple[_Node, int]] = {}
        self._aliased = 0

    def build(self, events: Iterator[yaml.Event]) -> object:
        """Return the first document; None for an empty file. Raises YamlRefused, YAMLError."""
        for event in events:
            if isinstance(event, yaml.DocumentEndEvent):
                break
            if isinstance(event, yaml.AliasEvent):
                self._alias(event.anchor)
            elif isinstance(event, yaml.CollectionStartEvent):
                if len(self._stack) > DEEPEST:
                    raise YamlRefused("is nested too deeply")
                self._stack.append(_Open({} if isinstance(event, yaml.MappingStartEvent) else [], event.anchor))
            elif isinstance(event, yaml.CollectionEndEvent):
                done = self._stack.pop()
                self._add(done.node, done.anchor, done.size)
            elif isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
        return self._root.node[0] if isinstance(self._root.node, list) and self._root.node else None

    def _alias(self, anchor: str | None) -> None:
        # An anchor counts once its node is complete, so that no node can hold itself.
        if anchor is None or anchor not in self._anchors:
            raise YamlRefused("has a YAML alias that refers to nothing before it")
        node, size = self._anchors[anchor]
        self._aliased += size
        if self._aliased > MOST_ALIASED:
            raise YamlRefused("has YAML aliases that expand to too much")
        self._add(node, None, size)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        top = self._stack[-1]
        if isinstance(top.node, dict) and top.key is None and event.value == _MERGE and event.implicit[0]:
            top.key, top.merges = _MERGE, True
            return
        self._add(_decoded(event), event.anchor, 1)

    def _add(self, node: _Node, anchor: str | None, size: int) -> None:
        """Put a complete node where it belongs: into a list, as a key, or as the value of the key before it."""
        top = self._stack[-1]
        top.size += size
        if anchor is not None:
            self._anchors[anchor] = (node, size)
        if isinstance(top.node, list):
            top.node.append(node)
        elif top.key is None:
            if not isinstance(node, str):
                raise YamlRefused("has a key that is no text")
            top.key = node
        else:
            if top.merges:
                _merge(top.node, node)
            else:
                top.node[top.key] = node
            top.key, top.merges = None, False


def _decoded(event: yaml.ScalarEvent) -> str | None:
    """A scalar as text, None for a null. `!!binary` is base64 of it; other tags mean nothing here."""
    if event.implicit[0] and event.value in _NULLS:  # plain: in quotes it is a text
        return None
    if event.tag != _BINARY:
        return event.value
    try:
        return base64.b64decode("".join(event.value.split()), validate=True).decode()
    except ValueError:
        raise YamlRefused("has a !!binary value that is not base64 of text") from None


def _merge(into: dict[str, _Node], merged: _Node) -> None:
    """`<<`: take over the keys of one mapping or of several, of which earlier ones win. What follows in `into` wins."""
    found = merged if isinstance(merged, list) else [merged]
    for one in reversed(found):
        if not isinstance(one, dict):
            raise YamlRefused("merges something that is no mapping")
        into.update(one)
