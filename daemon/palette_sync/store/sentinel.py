"""Which server is the master, according to the Sentinels."""

from __future__ import annotations

import asyncio
from typing import Any

from redis import exceptions
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel

OTHERS = 0.3  # seconds that a Sentinel may answer after another one


class Sentinels(Sentinel):
    """Asks all Sentinels at once. The one that knows the newest configuration names the master.

    redis-py asks one after the other and believes the first answer. A Sentinel that is cut off names a former master,
    and one that hangs makes everybody wait.
    """

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port. Raises MasterNotFoundError, and what a Sentinel answered if none knows the master."""
        pending = {asyncio.create_task(_masters(one), name="sentinel") for one in self.sentinels}
        found: list[dict[str, Any]] = []
        refusals: list[BaseException] = []
        try:
            while pending:
                done, pending = await asyncio.wait(
                    pending, timeout=OTHERS if found else None, return_when=asyncio.FIRST_COMPLETED
                )
                for one in done:
                    if (error := one.exception()) is not None:
                        refusals.append(error)
                    elif (state := one.result().get(service_name)) and self.check_master_state(state, service_name):
                        found.append(state)
                if not done:
                    break
        finally:
            for one in pending:
                one.cancel()
        if found:
            newest = max(found, key=lambda state: int(state.get("config-epoch", 0)))
            return newest["ip"], newest["port"]
        for error in refusals:
            if not isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError | OSError):
                raise error
        raise MasterNotFoundError(f"no Sentinel names a master for {service_name}")


async def _masters(sentinel: Any) -> dict[str, dict[str, Any]]:
    masters: dict[str, dict[str, Any]] = await sentinel.sentinel_masters()
    return masters
