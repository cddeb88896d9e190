"""What every test gets: a clean environment, and no network beyond loopback."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is and nothing about the code; and examples that are drawn anew
# in each run would make a run fail for what no change brought; `make explore` draws new ones, and many.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("explore", settings.get_profile("tests"), derandomize=False, max_examples=1500)
settings.load_profile("tests")

pytest_plugins = ["integration.valkey", "integration.stage"]


def pytest_configure(config: pytest.Config) -> None:
    """looptime's plugin leaves an event loop open where a process begins with a synchronous test; see to it that
    there is none to begin with, for its collection would fail whichever test runs then (warnings are errors)."""
    asyncio.set_event_loop(None)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings and proxies of whoever runs the tests say nothing here."""
    for name in list(os.environ):
        if name.startswith("PALETTE_SYNC_") and name != "PALETTE_SYNC_SHARED":
            monkeypatch.delenv(name)
        if name.lower() in {"http_proxy", "https_proxy", "all_proxy", "credentials_directory"}:
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that would leave this machine fails instead."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in {socket.AF_INET, socket.AF_INET6} and not ipaddress.ip_address(address[0]).is_loopback:
            raise AssertionError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
