"""The client for one Palette: credential, rate limits, deadline, retries, body limits, and errors by meaning.

All requests only read, POST searches included, so every request may be retried. The project scope is a header of each
request, never a property of the client: a shared scope would leak from one request into another.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol, Self
from urllib.parse import quote

import orjson
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_any, stop_before_delay
from yarl import URL

from palette_sync.core.api_key import api_key_problem
from palette_sync.http import Cause, RequestOutcome, TransportError, http_date, open_session, request
from palette_sync.palette.errors import (
    FileTooLarge,
    Malformed,
    PaletteError,
    ServerFailure,
    TooManyRequests,
    Unreachable,
    UnusableSettings,
    error_of,
)
from palette_sync.tls import NotACertificate, trusting
from palette_sync.tracing import span

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    import aiohttp
    from tenacity import RetryCallState

    from palette_sync.core.model import Secret
    from palette_sync.http import Reply
    from palette_sync.palette.limits import Limits

JSON_LIMIT = 4 * 1024 * 1024  # a page of 50 rows has 200 kB
# Values in one answer: decoding millions of empty lists holds the event loop for seconds and takes much memory.
# A page of 50 rows has some 10,000.
MOST_VALUES = 100_000
FILE_LIMIT = 1024 * 1024
_JSON = "application/json"
_FILE = "application/octet-stream"
_UNREPEATABLE = frozenset(
    {Cause.TLS, Cause.HANDSHAKE, Cause.TLS_VERSION, Cause.PLAIN_HTTP, Cause.TOO_LARGE, Cause.PROXY}
)


class Recorder(Protocol):
    """Counts requests for metrics. `api` is a path without uids; `outcome` is `ok` or the outcome of an error class."""

    def request(self, api: str, outcome: str) -> None: ...

    def retry(self, api: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Timing:
    """Timeouts and retries, in seconds. `deadline` limits a whole call, `attempt` one request and its answer.

    The pause before retry n is drawn from 0 to min(`backoff_cap`, `backoff` * 2^(n-1)). If Palette asks for a longer
    pause (Retry-After), the client waits that long, up to `retry_after_cap`.
    """

    connect: float = 10.0
    attempt: float = 30.0
    deadline: float = 60.0
    attempts: int = 5
    backoff: float = 1.0
    backoff_cap: float = 20.0
    retry_after_cap: float = 30.0


class PaletteClient:
    """A client of one Palette instance; an async context manager. `requests` counts what was sent, retries included.

    The constructor raises UnusableSettings for a URL that is not https with a host, a key that cannot be sent in a
    header, or an invalid CA. `tls` takes precedence over `ca_pem`; without both, the system's trust is used.
    `sleep` and `draw` (0 <= x < 1) make the pauses before retries. `now` is compared with the date in Retry-After if
    the answer has no Date header.
    """

    def __init__(
        self,
        instance: str,
        url: str,
        api_key: Secret,
        *,
        limits: Limits,
        tls: ssl.SSLContext | None = None,
        ca_pem: str | None = None,
        proxy: str | None = None,
        timing: Timing = Timing(),
        connections: int = 32,
        recorder: Recorder | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.instance = instance
        self.requests = 0
        self._base, host = _check_url(url)
        self._key = _check_key(api_key)
        self._tls: ssl.SSLContext | bool = tls if tls is not None else _context(ca_pem)
        self._limits = limits.of(host)
        self._proxy = proxy
        self._timing = timing
        self._connections = connections
        self._recorder = recorder
        self._sleep = sleep
        self._draw = draw
        self._now = now
        self._session: aiohttp.ClientSession | None = None
        raw = self._key.reveal()
        spellings = {raw, quote(raw, safe=""), orjson.dumps(raw).decode()[1:-1]}
        self._secrets = tuple(sorted(spellings, key=len, reverse=True))

    def __repr__(self) -> str:
        return f"PaletteClient({self.instance!r})"

    async def __aenter__(self) -> Self:
        self._session = open_session(
            tls=self._tls,
            connections=self._connections,
            connect_timeout=self._timing.connect,
            proxy=self._proxy,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def redact(self, text: str) -> str:
        """Return `text` with the API key replaced by `***`."""
        for spelling in self._secrets:
            text = text.replace(spelling, "***")
        return text

    async def get_json(
        self,
        api: str,
        *,
        uid: str | None = None,
        project: str | None = None,
        params: Mapping[str, str] | None = None,
    ) -> object:
        """GET a JSON document. Raises PaletteError."""
        return _decode(api, await self.request("GET", api, uid=uid, project=project, params=params))

    async def post_json(
        self,
        api: str,
        body: object,
        *,
        project: str | None = None,
        params: Mapping[str, str] | None = None,
    ) -> object:
        """POST a search and return its JSON answer. Raises PaletteError."""
        return _decode(api, await self.request("POST", api, project=project, params=params, body=orjson.dumps(body)))

    async def get_file(
        self,
        api: str,
        *,
        uid: str,
        project: str | None = None,
        params: Mapping[str, str] | None = None,
    ) -> bytes:
        """GET a file of at most 1 MiB. Raises PaletteError."""
        return await self.request(
            "GET", api, uid=uid, project=project, params=params, accept=_FILE, max_body=FILE_LIMIT
        )

    async def request(
        self,
        method: str,
        api: str,
        *,
        uid: str | None = None,
        project: str | None = None,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        accept: str = _JSON,
        max_body: int = JSON_LIMIT,
    ) -> bytes:
        """Make one call and return the body of its 2xx answer. Raises PaletteError.

        `{uid}` in the path `api` is replaced by `uid`. `project` is the scope of this request only (None = the tenant).
        """
        call = _Call(
            method=method,
            api=api,
            path=api if uid is None else api.replace("{uid}", quote(uid, safe="")),
            headers=self._headers(project, accept, has_body=body is not None),
            params=params,
            body=body,
            max_body=max_body,
            ends_at=time.monotonic() + self._timing.deadline,
            is_file=accept == _FILE,
        )
        failures: list[BaseException | None] = []

        def note_retry(state: RetryCallState) -> None:
            failures.append(state.outcome.exception() if state.outcome is not None else None)
            if self._recorder is not None:
                self._recorder.retry(call.api)

        timing = self._timing
        retrying = AsyncRetrying(
            stop=stop_any(stop_after_attempt(timing.attempts), stop_before_delay(timing.deadline)),
            wait=self._wait,
            retry=retry_if_exception(lambda error: isinstance(error, PaletteError) and error.retryable),
            before_sleep=note_retry,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            async with asyncio.timeout(timing.deadline):
                return await retrying(self._attempt, call)
        except TimeoutError:
            if failures and failures[-1] is not None:
                raise failures[-1] from None
            text = f"{call.what}: no answer within {timing.deadline:g} s, including the wait for the rate limit"
            raise Unreachable(text, retryable=True, cause=Cause.TIMEOUT) from None

    async def _attempt(self, call: _Call) -> bytes:
        await self._limits.acquire(call.path)
        self.requests += 1
        with span("palette_request", api=call.api) as traced:
            try:
                reply = await self._send(call)
            except PaletteError as error:
                self._count(call, error.outcome)
                raise
            traced.set(status=reply.status)
        if HTTPStatus.OK <= reply.status < HTTPStatus.MULTIPLE_CHOICES:
            self._count(call, RequestOutcome.OK)
            return reply.body
        refusal = error_of(
            call.what,
            reply.status,
            reply.body,
            redact=self.redact,
            retry_after=_retry_after(reply.headers, self._now()),
        )
        self._count(call, refusal.outcome)
        raise refusal

    async def _send(self, call: _Call) -> Reply:
        if self._session is None:
            raise RuntimeError("the client is not open; use it as an async context manager")
        left = max(0.001, call.ends_at - time.monotonic())
        try:
            return await request(
                self._session,
                call.method,
                self._base + call.path,
                headers=call.headers,
                params=call.params,
                body=call.body,
                timeout=min(self._timing.attempt, left),
                max_body=call.max_body,
            )
        except TransportError as error:
            text = self.redact(f"{call.what}: {error}")
            if error.cause is Cause.TOO_LARGE and call.is_file:
                raise FileTooLarge(text) from None
            raise Unreachable(text, retryable=error.cause not in _UNREPEATABLE, cause=error.cause) from None

    def _headers(self, project: str | None, accept: str, *, has_body: bool) -> dict[str, str]:
        headers = {"ApiKey": self._key.reveal(), "Accept": accept}
        if project is not None:
            headers["ProjectUid"] = project
        if has_body:
            headers["Content-Type"] = _JSON
        return headers

    def _wait(self, state: RetryCallState) -> float:
        timing = self._timing
        ceiling: float = min(timing.backoff_cap, timing.backoff * 2.0 ** (state.attempt_number - 1))
        backoff = self._draw() * ceiling
        error = state.outcome.exception() if state.outcome is not None else None
        asked = error.retry_after if isinstance(error, TooManyRequests | ServerFailure) else None
        if asked is None or asked <= backoff:
            return backoff
        # Other clients were asked to wait equally long: add some jitter, so that they do not all return at once.
        return min(asked, timing.retry_after_cap) + self._draw() * timing.backoff

    def _count(self, call: _Call, outcome: RequestOutcome) -> None:
        if self._recorder is not None:
            self._recorder.request(call.api, outcome)


@dataclass(frozen=True, slots=True)
class _Call:
    """One call, unchanged for all its attempts. It is never printed, because its headers hold the key."""

    method: str
    api: str
    path: str
    headers: Mapping[str, str]
    params: Mapping[str, str] | None
    body: bytes | None
    max_body: int
    ends_at: float
    is_file: bool

    def __repr__(self) -> str:
        return f"_Call({self.what})"

    @property
    def what(self) -> str:
        return f"{self.method} {self.path}"


def _decode(api: str, body: bytes) -> object:
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MOST_VALUES:
        raise Malformed(f"{api}: the answer holds more than {MOST_VALUES} values")
    try:
        document: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Malformed(f"{api}: the answer is not JSON") from None
    return document


def _retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Read Retry-After as seconds. A date in it is compared with the answer's own Date header."""
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
        return float(text)
    when = http_date(text)
    if when is None:
        return None
    return max(0.0, (when - (http_date(headers.get("Date", "")) or now)).total_seconds())


def _check_url(url: str) -> tuple[str, str]:
    """Return the base URL, and host with port. The error text does not repeat the URL, which may hold a password."""
    try:
        parsed = URL(url)
    except ValueError:
        parsed = URL()
    extras = (parsed.user, parsed.password, parsed.query_string, parsed.fragment)
    if parsed.scheme != "https" or not parsed.host or any(extras) or parsed.path.strip("/"):
        raise UnusableSettings("the URL of Palette must be https:// and a host, without a path")
    host = parsed.host_port_subcomponent or ""
    return f"https://{host}", host


def _check_key(key: Secret) -> Secret:
    if problem := api_key_problem(key.reveal()):
        raise UnusableSettings(f"the API key {problem}")
    return key


def _context(ca_pem: str | None) -> ssl.SSLContext:
    try:
        return trusting(ca_pem)
    except NotACertificate:
        raise UnusableSettings("the CA for Palette holds no certificate in PEM form") from None
