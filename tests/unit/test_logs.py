"""Log lines: one JSON object each, and nothing that looks like a secret."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from palette_sync.core.model import Secret
from palette_sync.telemetry.logs import LONGEST_VALUE, configure_logging, redact
from unit.growth import growth

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
        (f"at host.example.with.many.dots.{JWT}", "eyJzdWIi"),
        (repr(f"line\n{JWT}"), JWT),
        (f"eyJ.x eyJeyJ{JWT}", "eyJzdWIi"),
        ("eyJhbGciOiJkaXIifQ..canary.b.c", "canary"),
        (KEY.removesuffix("-----END EC PRIVATE KEY-----"), "canarykey"),
    ],
)
def test_what_looks_like_a_secret_is_masked_wherever_it_stands(value: object, secret: str) -> None:
    cleaned = redact(None, "info", {"event": "x", "value": value})

    assert secret not in json.dumps(cleaned)
    assert "***" in json.dumps(cleaned)


@pytest.mark.parametrize("text", ["monkeyJumper.service", "keyJ.txt", "eyJhbGciOiJkaXIifQ", "a.b.c.d.e.f.g.h"])
def test_text_that_only_resembles_a_token_is_kept(text: str) -> None:
    assert redact(None, "info", {"event": text}) == {"event": text}


# Each makes a regular expression that searches naively scan the rest of the text from every repetition.
REPEATED = pytest.mark.parametrize(
    "unit", ["eyJ", "eyJaaaaaaaa.", "-----BEGIN PRIVATE KEY-----", "://a:", "a.", "bearer "]
)


@REPEATED
def test_a_secret_among_many_beginnings_of_secrets_is_masked(unit: str) -> None:
    cleaned = redact(None, "info", {"event": f"{unit * 20} {JWT}"})

    assert "eyJzdWIi" not in json.dumps(cleaned)


@pytest.mark.explore
@REPEATED
def test_redacting_takes_time_in_proportion_to_the_length_of_the_text(unit: str) -> None:
    def read(length: int) -> None:
        redact(None, "info", {"event": unit * (length // len(unit))})

    assert growth(read, 25_000, times=8) < 24


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


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_what_a_reader_looks_for_first_stands_first() -> None:
    stream = io.StringIO()
    configure_logging(level="info", style="json", stream=stream)

    with structlog.contextvars.bound_contextvars(pass_id="abc"):
        structlog.get_logger().warning("prune_held", zone=1, action="hold")
    logging.getLogger("somebody").warning("foreign")

    ours, foreign = lines(stream)
    assert list(ours)[:3] == ["timestamp", "level", "event"]
    assert ours.keys() == {"timestamp", "level", "event", "zone", "action", "pass_id"}
    assert list(foreign) == ["timestamp", "level", "event"]


@dataclass(frozen=True)
class Holder:
    token: Secret


HELD = Secret("canary-held-value")


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(HELD, id="alone"),
        pytest.param([HELD, (HELD, {HELD})], id="in lists"),
        pytest.param({"deep": {"deeper": HELD}}, id="in mappings"),
        pytest.param({HELD: 1}, id="as a key"),
        pytest.param(Holder(HELD), id="in a dataclass"),
        pytest.param([Holder(HELD)], id="in a list of dataclasses"),
        pytest.param(f"{HELD} {HELD!r} {HELD:>20}", id="formatted"),
        pytest.param(ValueError(HELD), id="in an exception"),
        pytest.param(ValueError(f"refused {JWT}"), id="a token in an exception"),
        pytest.param(f"refused {JWT}".encode(), id="a token in bytes"),
        pytest.param({"deep": [JWT.encode()]}, id="a token in bytes in a list"),
    ],
)
def test_a_secret_is_masked_in_any_position(value: object, style: Any) -> None:
    stream = io.StringIO()
    configure_logging(level="info", style=style, stream=stream)

    structlog.get_logger().info("token_issued", value=value)

    assert HELD.reveal() not in stream.getvalue()
    assert JWT not in stream.getvalue()
    assert "***" in stream.getvalue()


def test_a_long_text_is_cut_whatever_type_carries_it() -> None:
    cleaned = redact(None, "info", {"event": "x", "value": ValueError("y" * (2 * LONGEST_VALUE))})

    assert len(str(cleaned["value"])) == LONGEST_VALUE + 3


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_secret_in_the_text_of_an_exception_is_masked_in_its_traceback(style: Any) -> None:
    stream = io.StringIO()
    configure_logging(level="info", style=style, stream=stream)

    try:
        raise ValueError(f"refused {JWT}")
    except ValueError:
        structlog.get_logger().exception("broken")
        logging.getLogger("somebody").exception("broken too")

    assert JWT not in stream.getvalue()
    assert stream.getvalue().count("refused ***") == 2
    assert stream.getvalue().count("test_logs.py") >= 2, "where it happened"


def test_simple_values_stay_what_they_are() -> None:
    event = {"event": "x", "count": 3, "share": 0.5, "dry": True, "none": None, "names": ("a", "b")}

    assert redact(None, "info", event) == {**event, "names": ["a", "b"]}
