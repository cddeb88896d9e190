"""Log lines: one JSON object each, and nothing that looks like a secret."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from palette_sync.core.model import Secret
from palette_sync.telemetry.logs import LONGEST_VALUE, configure_logging, redact

if TYPE_CHECKING:
    from collections.abc import Iterator

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl"
KEY = "-----BEGIN EC PRIVATE KEY-----\ncanarykey\n-----END EC PRIVATE KEY-----"


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("value", "secret"),
    [
        (f"token {JWT} refused", JWT),
        (f"file: {KEY}", "canarykey"),
        ("redis://user:canary@host:6379/0", "canary"),
        ("Authorization: Bearer canary", "canary"),
        ({"inner": ["x", {"deep": JWT}]}, JWT),
        (KEY.removesuffix("-----END EC PRIVATE KEY-----"), "canarykey"),
    ],
)
def test_what_looks_like_a_secret_is_masked_wherever_it_stands(value: object, secret: str) -> None:
    cleaned = redact(None, "info", {"event": "x", "value": value})

    assert secret not in json.dumps(cleaned)
    assert "***" in json.dumps(cleaned)


def test_long_values_are_cut_and_others_pass_as_they_are() -> None:
    cleaned = redact(None, "info", {"event": "x" * (2 * LONGEST_VALUE), "count": 3, "none": None})

    assert len(cleaned["event"]) == LONGEST_VALUE + 3
    assert (cleaned["count"], cleaned["none"]) == (3, None)


def test_json_lines_carry_level_time_event_and_fields() -> None:
    stream = io.StringIO()
    configure_logging(level="info", style="auto", stream=stream)

    structlog.get_logger().info("pass_finished", instance="prod", duration_s=1.5)
    structlog.get_logger().debug("hidden")

    (line,) = stream.getvalue().splitlines()
    event = json.loads(line)
    assert event["event"] == "pass_finished"
    assert (event["level"], event["instance"], event["duration_s"]) == ("info", "prod", 1.5)
    assert event["timestamp"].endswith("Z")


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_traceback_shows_no_local_variable_and_a_secret_only_masked(style: str) -> None:
    stream = io.StringIO()
    configure_logging(level="info", style=style, stream=stream)  # type: ignore[arg-type]
    token, held = "canary-local-value", Secret("canary-held-value")

    try:
        raise ValueError(f"with {held}")
    except ValueError:
        structlog.get_logger().exception("broken", token=held)

    assert token not in stream.getvalue()
    assert held.reveal() not in stream.getvalue()
    assert "ValueError" in stream.getvalue()


def test_libraries_say_only_warnings_and_those_are_redacted_too() -> None:
    stream = io.StringIO()
    configure_logging(level="debug", style="json", stream=stream)

    logging.getLogger("aiohttp.client").info("hidden")
    logging.getLogger("apscheduler").warning("late %s", JWT)

    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["event"] == "late ***"
