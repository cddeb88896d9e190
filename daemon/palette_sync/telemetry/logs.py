"""Logging: each event is one line of JSON, or a readable line on a terminal. Secrets are masked.

A `Secret` shows as `***`, and text is masked where it looks like a token, a key or a password. Event names are stable
(`pass_finished`, `cluster_changed`, ...). Long values are cut. Tracebacks never show local variables, which structlog's
default renderers would.
"""

from __future__ import annotations

import io
import logging
import re
import sys
from typing import TYPE_CHECKING, Literal, TextIO

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

LONGEST_VALUE = 2000
Format = Literal["auto", "json", "console"]
# These libraries log warnings only: their debug lines hold headers and bodies.
_LIBRARIES = (
    *("aiohttp", "apscheduler", "asyncio", "azure", "botocore", "google", "kubernetes_asyncio", "msal", "redis"),
    *("requests", "tenacity", "urllib3"),
)
_DOTTED = re.compile(r"[A-Za-z0-9_.-]{12,}")
_TOKEN_BEGINS, _SHORTEST_HEADER = "eyJ", 11
_SECRET_SHAPES = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"  # user:password in an address
    r"|(?i:(?<=bearer )\S+|(?<=apikey[:=] )\S+)",
    re.DOTALL,
)


def configure_logging(*, level: str, style: Format, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging. Call it before anything logs, and again after a reload."""
    stream = stream or sys.stderr
    console = style == "console" or (style == "auto" and stream.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if console:
        ending: list[Processor] = [
            redact,
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), sort_keys=False, exception_formatter=_masked_traceback
            ),
        ]
    else:
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        ending = [
            structlog.processors.ExceptionRenderer(tracebacks),
            redact,
            _in_order,
            structlog.processors.JSONRenderer(default=str),
        ]
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(threshold, logging.INFO))
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)


def redact(_logger: WrappedLogger | None, _method: str, event: EventDict) -> EventDict:
    """Mask what looks like a secret, and cut what is long, in every value of an event."""
    return {key: value if key == "exc_info" else _clean(value) for key, value in event.items()}


def _masked_traceback(stream: TextIO, exc_info: ExcInfo) -> None:
    """Write a whole traceback, masked: the text of an exception comes from elsewhere too."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    stream.write(_masked(text.getvalue()))


def _masked(text: str) -> str:
    return _SECRET_SHAPES.sub("***", _DOTTED.sub(_without_token, text))


def _without_token(found: re.Match[str]) -> str:
    """Words joined by dots, up to where a JWT or JWE begins.

    A single regular expression would scan a long text to its end from every possible beginning.
    """
    words, before = found.group(), 0
    for word in words.split(".")[:-1]:
        begins = word.find(_TOKEN_BEGINS)
        if begins >= 0 and len(word) - begins >= _SHORTEST_HEADER:
            return words[: before + begins] + "***"
        before += len(word) + 1
    return words


def _in_order(_logger: WrappedLogger | None, _method: str, event: EventDict) -> EventDict:
    """Put first what a reader looks for first."""
    first = {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}
    return {**first, **event}


def _clean(value: object) -> object:
    if isinstance(value, str):
        value = _masked(value)
        return value if len(value) <= LONGEST_VALUE else value[:LONGEST_VALUE] + "..."
    if isinstance(value, dict):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item) for item in value]
    # Anything else is logged as its text.
    return value if value is None or isinstance(value, bool | int | float) else _clean(str(value))
