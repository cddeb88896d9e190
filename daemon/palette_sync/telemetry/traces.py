"""Traces of passes over OTLP, for the extra `otel`. Nothing of OpenTelemetry is loaded while no endpoint is configured.

OpenTelemetry's own variables hold besides: `OTEL_EXPORTER_OTLP_HEADERS` for a collector that asks for a credential,
`OTEL_TRACES_SAMPLER` for fewer traces (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables).
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from palette_sync import __version__
from palette_sync.tracing import trace_with

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

LAST_SPANS = 3.0  # seconds that the end of the process waits for the collector


def tracing_installed() -> bool:
    """Whether the extra `otel` is installed. Loads nothing."""
    try:
        return find_spec("opentelemetry.sdk") is not None and find_spec("opentelemetry.exporter.otlp") is not None
    except ModuleNotFoundError:
        return False


@asynccontextmanager
async def traces(endpoint: str | None) -> AsyncIterator[None]:
    """Send spans to a collector while this context is open. `endpoint` gets `/v1/traces` appended; None: no traces."""
    if endpoint is None:
        yield
        return
    provider = await asyncio.to_thread(_provider, endpoint)
    trace_with(_OtelTracer(provider.get_tracer("palette_sync", __version__)))
    try:
        yield
    finally:
        trace_with(None)
        await asyncio.to_thread(_end, provider)


def _provider(endpoint: str) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create(
        {"service.name": "palette-sync", "service.version": __version__, "host.name": socket.gethostname()}
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=LAST_SPANS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _end(provider: Any) -> None:
    provider.force_flush(int(LAST_SPANS * 1000))
    provider.shutdown()


class _OtelSpan:
    def __init__(self, span: Any) -> None:
        self._span = span

    def set(self, **attributes: str | int | bool) -> None:
        self._span.set_attributes({_name(key): value for key, value in attributes.items()})

    def failed(self, reason: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attribute("error.type", reason)
        self._span.set_status(Status(StatusCode.ERROR, reason))


class _OtelTracer:
    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer

    @contextmanager
    def span(self, name: str, attributes: dict[str, str | int | bool]) -> Iterator[_OtelSpan]:
        named = {_name(key): value for key, value in attributes.items()}
        # An exception's text and stack stay here: they may hold what others sent.
        with self._tracer.start_as_current_span(
            name, attributes=named, record_exception=False, set_status_on_exception=False
        ) as made:
            yield _OtelSpan(made)


def _name(key: str) -> str:
    return f"palette_sync.{key}"
