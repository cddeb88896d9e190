"""Fixtures around a real Valkey server, for tests of every level.

Every test process loads this module, the unit tests' too. What it needs is imported by the fixture that needs it: the
simulator, the assembly and the Redis client take longer to import than most test files take to run.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from palette_sync.store.redis import Store
    from palette_sync.store.seal import SealKeys

# Their assertions show values, as those of test files do.
pytest.register_assert_rewrite("integration.stage", "integration.runners", "integration.store_builders")


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    from integration.valkey import ServerThread

    server = ServerThread()
    yield server.open()
    server.close()


@pytest.fixture
def seal_keys() -> SealKeys:
    from palette_sync.store.seal import SealKeys

    return SealKeys.from_lines(SealKeys.generate_line("test"))


@pytest.fixture
def prefix() -> str:
    """Begins the keys of this test alone; all tests of a process share one server."""
    return f"test-{secrets.token_hex(6)}"


@pytest_asyncio.fixture
async def store(valkey_url: str, prefix: str, seal_keys: SealKeys) -> AsyncIterator[Store]:
    from palette_sync.store.redis import Store

    async with Store.open(valkey_url, prefix=prefix, sealer=seal_keys) as opened:
        yield opened


@pytest_asyncio.fixture
async def raw(valkey_url: str) -> AsyncIterator[Any]:
    """A plain client of the server, to look at keys and to damage them."""
    from integration.store_builders import raw_client

    async with raw_client(valkey_url) as client:
        yield client


@pytest_asyncio.fixture
async def stage_of(valkey_url: str, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Make a stage: `await stage_of(clusters=6, extra="more TOML")`."""
    from integration.stage import stages

    async with stages(valkey_url, tmp_path) as make:
        yield make
