"""A log that nobody reads: writing never blocks, what is dropped is counted and reported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import structlog

from palette_sync.telemetry.log_writer import LogWriter
from palette_sync.telemetry.logs import configure_logging
from palette_sync.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

LINE = "x" * 99 + "\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that is full: whoever writes into it waits."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"-" * 4096)
    except BlockingIOError:
        os.set_blocking(writing, True)
    yield reading, writing
    os.set_blocking(reading, False)
    read(reading)  # so that the writer's thread does not wait for ever


def read(reading: int) -> str:
    found = b""
    while True:
        try:
            data = os.read(reading, 65536)
        except BlockingIOError:
            return found.decode()
        if not data:
            return found.decode()
        found += data


def read_until(reading: int, text: str) -> str:
    found = ""
    while text not in found:
        found += os.read(reading, 65536).decode()
    return found


def test_everything_is_written_in_order(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = LogWriter(writing)
    for number in range(1000):
        writer.write(f"{number}\n")

    found = read_until(reading, "999\n").lstrip("-")

    assert found == "".join(f"{number}\n" for number in range(1000))
    assert writer.drain(30)


def test_what_does_not_fit_is_dropped_counted_and_reported(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = LogWriter(writing, backlog=10 * len(LINE))
    metrics = Metrics()
    for _ in range(12):
        writer.write(LINE)
    writer.count_drops(metrics.log_lines_dropped)
    for _ in range(3):
        writer.write(LINE)
    assert not writer.drain(0)
    assert b"palette_sync_log_lines_dropped_total 5.0" in metrics.render()[0]

    configure_logging(level="info", style="json", stream=writer)
    try:
        found = read_until(reading, "nobody read the log")
    finally:
        structlog.reset_defaults()

    assert found.count(LINE) == 10
    assert '"count": 5' in found


def test_an_error_is_raised_by_the_next_write() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = LogWriter(writing)
    writer.write(LINE)
    assert not writer.drain(30)

    with pytest.raises(BrokenPipeError):
        writer.write(LINE)
    os.close(writing)
