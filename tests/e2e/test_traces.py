"""Traces of passes, as a collector receives them from the daemon."""

from __future__ import annotations

import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from e2e.daemon import daemon, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from e2e.conftest import World


class Collector(ThreadingHTTPServer):
    """Keeps the bodies that it was sent, and answers with `status`."""

    def __init__(self, status: int = 200) -> None:
        self.bodies: list[tuple[str, bytes]] = []
        received = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def spans(self) -> list[Any]:
        found = []
        for _, body in list(self.bodies):
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                found += [span for scope in of_resource.scope_spans for span in scope.spans]
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.05,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def attributes(span: Any) -> dict[str, str]:
    return {
        one.key.removeprefix("palette_sync."): str(getattr(one.value, one.value.WhichOneof("value")))
        for one in span.attributes
    }


def test_a_pass_is_traced_from_its_listing_to_what_it_published(
    world_of: Callable[..., World], redis: dict[str, str], collector: Collector
) -> None:
    world = world_of("--instances", "1", "--clusters", "3")
    world.all_by_token()
    broken = world.clusters()[0]
    world.control("POST", "/faults", {"target": "kube", "kind": "status", "status": 500, "cluster": broken})
    environment = {"OTEL_BSP_SCHEDULE_DELAY": "200", "PALETTE_SYNC_OTEL__ENDPOINT": collector.url}

    with daemon(world.config, **redis, **environment) as run:
        run.wait_for("pass_finished", instance="alpha")
        until(lambda: any(span.name == "pass" for span in collector.spans()))
        assert run.stop() == 0
        log = run.text

    assert {path for path, _ in collector.bodies} == {"/v1/traces"}
    spans = collector.spans()
    first = next(span for span in spans if span.name == "pass" and attributes(span)["lists"] == "True")
    by_id = {span.span_id: span for span in spans}

    def inside(span: Any) -> bool:
        while span is not None and span.span_id != first.span_id:
            span = by_id.get(span.parent_span_id)
        return span is not None

    names = {span.name for span in spans if inside(span)}
    assert names == {"pass", "list", "palette_request", "cluster", "kube_request", "publish"}
    facts = attributes(first)
    assert (facts["instance"], facts["clusters"], facts["due"]) == ("alpha", "3", "3")
    assert facts["pass_id"] in log, "a trace and the log lines of its pass are found by each other"
    of_broken = next(one for one in spans if one.name == "cluster" and attributes(one)["cluster"] == broken)
    assert of_broken.status.message == attributes(of_broken)["error.type"] == "ServerFailure"
    operations = {attributes(span)["operation"] for span in spans if span.name == "kube_request"}
    assert "create_namespaced_service_account_token" in operations, "its answer held a token"
    key = world.config.parent / tomllib.loads(world.config.read_text())["instances"]["alpha"]["api_key_file"]
    everything = b"".join(body for _, body in collector.bodies)
    for secret in (b"eyJhbGciOi", b"Bearer", key.read_bytes().strip()):
        assert secret not in everything


def test_a_collector_that_is_away_delays_neither_passes_nor_the_end(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "2")
    with Collector() as unheard:
        environment = {"PALETTE_SYNC_OTEL__ENDPOINT": unheard.url}  # it accepts connections and never answers
        with daemon(world.config, **redis, **environment) as run:
            run.wait_for("pass_finished", instance="alpha")
            assert run.stop() == 0
            assert not run.events("daemon_crashed")
