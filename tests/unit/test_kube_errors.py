"""What an API server says of a failure is read as foreign text: cut, on one line, and of any shape."""

from __future__ import annotations

import orjson
import pytest

from palette_sync.http import Reply
from palette_sync.kube.errors import LONGEST_MESSAGE, Forbidden, NamespaceTerminating, ServerFailure, error_of


def error_for(status: int, document: object) -> Exception:
    return error_of("GET Secret x", Reply(status, {}, orjson.dumps(document)))


def test_nothing_that_an_api_server_says_moves_a_cursor() -> None:
    words = {"reason": "\x1b]0;title\x07", "message": "a\x1b[2J\nb \u202e \x9b31m" + "c" * 999}

    error = error_for(500, {"kind": "Status", **words})

    assert isinstance(error, ServerFailure)
    assert str(error).isprintable()
    assert "a [2J b" in str(error)
    assert len(str(error)) < LONGEST_MESSAGE + 60


@pytest.mark.parametrize("causes", [5, True, "x", [5], [{"reason": 5}], {"a": 1}, None])
def test_causes_of_any_shape_are_no_bug(causes: object) -> None:
    error = error_for(403, {"kind": "Status", "message": "no", "details": {"causes": causes}})

    assert type(error) is Forbidden


def test_a_terminating_namespace_is_known_by_its_cause() -> None:
    causes = [{"reason": "NamespaceTerminating"}]

    assert isinstance(error_for(403, {"kind": "Status", "details": {"causes": causes}}), NamespaceTerminating)
