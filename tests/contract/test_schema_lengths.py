"""Everything that is published has a length, and what is published of any row keeps it."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

from builders import NOW
from hostile import CONTROLS, hostile_rows
from palette_sync.core import snapshot_codec as codec
from palette_sync.core.fold import AccessFailed, Presentation, fold_record
from palette_sync.core.model import ClusterKey
from palette_sync.core.reasons import Reason
from palette_sync.palette.errors import Malformed
from palette_sync.palette.rows import read_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMAS = {
    path.name: json.loads(path.read_text(encoding="utf-8"))
    for path in files("palette_sync").joinpath("schemas").iterdir()
    if path.name.endswith(".json")
}
RECORD = Draft202012Validator(SCHEMAS["cluster-record.json"])


def boundless(node: Any, where: str = "") -> Iterator[str]:
    """The texts and lists of a schema that may be of any length."""
    if isinstance(node, list):
        for number, one in enumerate(node):
            yield from boundless(one, f"{where}/{number}")
    if not isinstance(node, dict):
        return
    fixed = node.keys() & {"enum", "const"} or not re.search(r"[*+]|,\}", node.get("pattern", "*"))
    if node.get("type") == "string" and "maxLength" not in node and not fixed:
        yield where
    if node.get("type") == "array" and "maxItems" not in node:
        yield where
    for key, value in node.items():
        yield from boundless(value, f"{where}/{key}")


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_text_and_list_has_a_length(name: str) -> None:
    assert list(boundless(SCHEMAS[name])) == []


@given(hostile_rows())
def test_the_record_of_any_row_keeps_the_lengths(row: Any) -> None:
    try:
        cluster = read_cluster(row)
    except Malformed:
        return
    record = fold_record(
        cluster,
        key=ClusterKey("alpha", cluster.uid),
        name=cluster.name,
        previous=None,
        verdict=AccessFailed(Reason.INVALID, CONTROLS * 10_000),
        credential_alive=False,
        presentation=Presentation("t" * 200, "https://console.example"),
        now=NOW,
    )

    assert list(RECORD.iter_errors(orjson.loads(codec.encode_record(record)))) == []
