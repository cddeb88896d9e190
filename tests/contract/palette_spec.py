"""Checks Palette's answers against its OpenAPI description (Swagger 2.0), stricter than the description itself.

The description lies in a folder `shared` beside the repository, or where PALETTE_SYNC_SHARED points; without it the
tests that need it are skipped. Two rules are ours: a property that the description does not name is an error, and null
stands for "absent", as documented samples of Palette have it.
"""

from __future__ import annotations

import json
import os
import re
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

_SHARED = Path(os.environ.get("PALETTE_SYNC_SHARED") or Path(__file__).parents[3] / "shared")
_FILE = _SHARED / "palette-openapi.json"
_FORMATS = jsonschema.FormatChecker(formats=())


@_FORMATS.checks("date-time", raises=ValueError)
def _is_time(value: object) -> bool:
    if isinstance(value, str):
        datetime.fromisoformat(value)
        return value.endswith("Z")
    return False


@cache
def _description() -> dict[str, Any]:
    if not _FILE.is_file():
        pytest.skip(f"Palette's OpenAPI description is not at {_FILE}; set PALETTE_SYNC_SHARED")
    description: dict[str, Any] = _closed(json.loads(_FILE.read_text(encoding="utf-8")))
    return description


def _closed(node: Any) -> Any:
    """The description with every object that names its properties closed to others."""
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _closed(value) for key, value in node.items()}
    if isinstance(closed.get("properties"), dict) and "allOf" not in closed:
        closed.setdefault("additionalProperties", False)
    return closed


def _without_nulls(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_nulls(value) for key, value in node.items() if value is not None}
    if isinstance(node, list):
        return [_without_nulls(item) for item in node]
    return node


def check_answer(method: str, path: str, status: int, content_type: str, body: bytes) -> None:
    """Assert that an answer is one that the description allows for this operation."""
    operation = _operation(method, path)
    produces = operation.get("produces") or _description()["produces"]
    assert content_type.partition(";")[0] in produces, f"{method} {path} answers {content_type}, not {produces}"
    response = operation["responses"][str(status)]
    if response.get("schema", {}).get("format") != "binary":
        check_document(response["schema"], json.loads(body))


def check_error(body: bytes) -> None:
    """Assert that an error is of the business dialect: `v1Error`, with a word for a code."""
    check_document({"$ref": "#/definitions/v1Error"}, json.loads(body))


def check_document(schema: dict[str, Any], document: Any) -> None:
    whole = {**schema, "definitions": _description()["definitions"]}
    validator = jsonschema.Draft4Validator(whole, format_checker=_FORMATS)
    problems = [
        f"{'/'.join(map(str, e.absolute_path))}: {e.message}" for e in validator.iter_errors(_without_nulls(document))
    ]
    assert problems == []


def _operation(method: str, path: str) -> dict[str, Any]:
    plain = _description()["paths"].get(path, {}).get(method.lower())
    if plain is not None:
        return dict(plain)
    for template, operations in _description()["paths"].items():
        pattern = re.sub(r"\\{[^/]+?\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path) and method.lower() in operations:
            return dict(operations[method.lower()])
    raise AssertionError(f"{method} {path} is not in the description")
