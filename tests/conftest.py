"""What holds for every test: a clean environment, and no network beyond loopback."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

# No deadline: how long an example takes depends on the load of the machine. The examples of `make test` are the same in
# every run, so that no run fails for a reason that the change under test did not bring; `make explore` draws new ones.
settings.register_profile(
    "tests", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True, max_examples=25
)
settings.register_profile("explore", settings.get_profile("tests"), derandomize=False, max_examples=1500)
settings.load_profile("tests")

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["integration.fixtures"]


def pytest_configure(config: pytest.Config) -> None:
    """Begin without an event loop. looptime's plugin leaves one open in a process whose first test is synchronous, and
    its collection would then fail whichever test runs at that moment, because warnings are errors."""
    asyncio.set_event_loop(None)


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """Remove the settings and proxies of the shell that started the tests. Once is enough: a test that sets a variable
    does so with `monkeypatch`, which takes it back."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("PALETTE_SYNC_") and name != "PALETTE_SYNC_SHARED":
                patch.delenv(name)
            if name.lower() in {"http_proxy", "https_proxy", "all_proxy", "credentials_directory"}:
                patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def _loopback_only() -> Iterator[None]:
    """A test that tries to leave this machine fails."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in {socket.AF_INET, socket.AF_INET6} and not ipaddress.ip_address(address[0]).is_loopback:
            raise AssertionError(f"a test tried to reach {address}")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield
