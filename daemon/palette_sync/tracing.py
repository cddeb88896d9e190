"""Spans: what a pass spends its time on, for a tracer. Without one a span costs next to nothing.

The layers below `telemetry` name their spans here and know no tracing library. Attributes never hold secrets, messages
of others, or addresses with a query.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


class Span(Protocol):
    """One piece of work. `failed` marks it as failed, for a reason that is a word."""

    def set(self, **attributes: str | int | bool) -> None: ...

    def failed(self, reason: str) -> None: ...


class Tracer(Protocol):
    """Makes spans. A span's parent is the span in which it begins, also across tasks."""

    def span(self, name: str, attributes: dict[str, str | int | bool]) -> AbstractContextManager[Span]: ...


class _NoSpan:
    def set(self, **_attributes: str | int | bool) -> None:
        pass

    def failed(self, _reason: str) -> None:
        pass


_NO_SPAN = _NoSpan()
_tracer: Tracer | None = None


def trace_with(tracer: Tracer | None) -> None:
    """Make spans with this tracer from now on; None: make none."""
    global _tracer  # noqa: PLW0603 - one tracer for the process, as with logs
    _tracer = tracer


@contextmanager
def span(name: str, **attributes: str | int | bool) -> Iterator[Span]:
    """A span around the block. An exception marks it as failed with the exception's type."""
    if _tracer is None:
        yield _NO_SPAN
        return
    with _tracer.span(name, attributes) as made:
        try:
            yield made
        except BaseException as error:
            made.failed(type(error).__name__)
            raise
