"""Redis Cluster, over redis-py's client, which knows the slots and follows redirections.

All keys of an instance are in one slot, so each of its commands, scripts and transactions goes to one server. Of
several servers one may be away while the others answer.

What redis-py (8.1) does differently from what is needed here:

- Its transactions run in a thread and an event loop of their own, and follow no redirection. `Cluster.transaction`
  sends MULTI and EXEC as a pipeline to one server.
- It asks the server for the keys of XREAD, and sends TIME to any server. `Cluster.send` names the server.
- It connects only if the first server of the list answers COMMAND. `Cluster.ready` then takes another one.
- It asks either the configured servers for the list of all servers, or those of the last list. `Cluster.ready` keeps
  both: a name in the configuration may stand for other servers later, and a configured server may be away.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from redis import exceptions
from redis.asyncio.cluster import ClusterNode, RedisCluster

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    Words = Sequence[str | bytes | int]
    Ask = Callable[..., Awaitable[Any]]

CONNECTIONS = 256  # to each server
REDIRECTIONS = 3  # of one transaction
AWAY = (exceptions.ConnectionError, exceptions.TimeoutError)
_NO_CLUSTER = "cluster support disabled"


class Cluster:
    """The client of one cluster. `client` runs commands with keys; it must be `ready` before."""

    def __init__(self, hosts: Iterable[tuple[str, int]], *, parser_class: type, **options: Any) -> None:
        kind: Any = RedisCluster  # its commands are typed for the blocking and the asyncio client at once
        self.client: Any = kind(
            startup_nodes=[ClusterNode(host, port) for host, port in hosts],
            require_full_coverage=False,  # slots without a server concern their instances only
            dynamic_startup_nodes=False,
            reinitialize_steps=0,  # a redirection changes the entry of its slot, and closes no connection
            max_connections=CONNECTIONS,
            **options,
        )
        self._nodes = self.client.nodes_manager
        self._configured = dict(self._nodes.startup_nodes)
        # RedisCluster takes no class of a parser. It makes new nodes with these options.
        self.client.get_connection_kwargs()["parser_class"] = parser_class
        for node in self._configured.values():
            node.connection_kwargs["parser_class"] = parser_class

    async def ready(self) -> None:
        """Connect and learn which server has which slot, if that is not known. Raises what redis-py raises."""
        tried: set[str] = set()
        while True:
            try:
                await self.client.initialize()
                break
            except AWAY:
                first = next((node.name for node in self.client.get_primaries()), "")
                if first in tried or not first:
                    raise
                tried.add(first)
                self._nodes.move_node_to_end_of_cached_nodes(first)
        wanted = self._nodes.nodes_cache | self._configured
        if wanted.keys() != self._nodes.startup_nodes.keys():
            self._nodes.startup_nodes = wanted

    async def close(self) -> None:
        await self.client.aclose()
        # After an error the client counts as closed, and leaves connections open.
        for nodes in ("nodes_cache", "startup_nodes"):
            with suppress(exceptions.RedisError, OSError):
                await self._nodes.aclose(nodes)

    def slots(self, keys: Iterable[str]) -> list[list[str]]:
        """The keys in groups, each of one slot: a command takes only keys of one slot."""
        found: dict[int, list[str]] = {}
        for key in keys:
            found.setdefault(self.client.keyslot(key), []).append(key)
        return list(found.values())

    async def send(self, key: str, words: Words) -> Any:
        """Run a command on the server that has `key`."""
        return await self.client.execute_command(*words, target_nodes=self.client.get_node_from_key(key))

    def servers(self) -> dict[str, Ask]:
        """What runs a command on each server that takes writes, by host:port."""
        return {
            node.name: partial(self.client.execute_command, target_nodes=node) for node in self.client.get_primaries()
        }

    async def transaction(self, commands: Sequence[Words]) -> list[Any]:
        """Run commands in one MULTI. All their keys are in the slot of the first one's key."""
        key = str(commands[0][1])
        for left in reversed(range(REDIRECTIONS)):
            node = self.client.get_node_from_key(key)
            pipe = self.client.pipeline(transaction=False)
            for words in (("MULTI",), *commands, ("EXEC",)):
                pipe.execute_command(*words, target_nodes=node)
            try:
                answers = await pipe.execute(raise_on_error=False, allow_redirections=False)
            except AWAY as unsent:
                answers = [unsent]
            error = next((one for one in answers if isinstance(one, Exception)), None)
            if error is None:
                return [self._converted(words[0], one) for words, one in zip(commands, answers[-1], strict=True)]
            await self._heed(error, node)
            if not (isinstance(error, exceptions.MovedError) and left):
                raise error
        raise AssertionError("the last attempt returns or raises")

    async def _heed(self, error: Exception, node: ClusterNode) -> None:
        """Learn from an error where the slot is now."""
        if isinstance(error, exceptions.MovedError):
            await self._nodes.move_slot(error)
        elif isinstance(error, (*AWAY, exceptions.ClusterDownError)):
            vars(error)["connection"] = node  # as redis-py does, for `server_of`
            with suppress(exceptions.RedisError, exceptions.RedisClusterException, OSError):
                await self._nodes.initialize(last_failed_node_name=node.name)

    def _converted(self, word: object, answer: Any) -> Any:
        """An answer inside of that to EXEC, as redis-py converts the answer to the command alone."""
        if isinstance(answer, Exception):
            raise answer
        convert = self.client.response_callbacks.get(word)
        return answer if convert is None else convert(answer)


def server_of(error: BaseException) -> str:
    """The server that an error is about, as host:port; "" if that is unknown."""
    node = getattr(error, "connection", None)
    return str(node.name) if isinstance(node, ClusterNode) else ""


def cause_of(
    error: exceptions.RedisError | exceptions.RedisClusterException | OSError,
) -> exceptions.RedisError | OSError:
    """What stands behind redis-py's statement that no server can be asked for the slots."""
    found: BaseException | None = error
    while isinstance(found, exceptions.RedisClusterException):
        found = found.__cause__ or found.__context__
    return found if isinstance(found, exceptions.RedisError | OSError) else exceptions.RedisError(type(error).__name__)


def unavailable(error: BaseException) -> str:
    """Why a cluster cannot carry a command out at present; "" if the error says something else."""
    if isinstance(error, exceptions.SlotNotCoveredError):
        return "has no server for the slot of this key"
    if isinstance(error, exceptions.ClusterDownError):
        return "is down, or has no server for the slot of this key (CLUSTERDOWN)"
    if isinstance(error, exceptions.AskError | exceptions.TryAgainError) or type(error) is exceptions.ClusterError:
        return "is moving the slot of this key to another server"
    return ""


def is_no_cluster(error: BaseException) -> bool:
    """Whether a server answered that it is not part of a cluster."""
    return isinstance(error, exceptions.ResponseError) and _NO_CLUSTER in str(error)
