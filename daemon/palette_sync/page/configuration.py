"""The configuration in force as values for the page. It holds no secret: those are masked before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Setting:
    """`value` is text for people; None: it is not set. `origin` says where it comes from, "" if that is not known."""

    name: str
    value: str | None
    origin: str
    default: bool


@dataclass(frozen=True, slots=True)
class Configuration:
    """`tables` are the settings by table, such as `instances.prod`. `rejected`: why a newer one is not in force.

    `exposed`: where secret files are named that other users of the machine can read.
    """

    path: str
    fingerprint: str
    loaded_at: datetime
    tables: dict[str, list[Setting]]
    rejected: tuple[str, ...] = ()
    rejected_at: datetime | None = None
    exposed: tuple[str, ...] = ()

    @property
    def changed(self) -> dict[str, list[Setting]]:
        """The settings that are not defaults, of tables that have any."""
        found = {name: [one for one in settings if not one.default] for name, settings in self.tables.items()}
        return {name: settings for name, settings in found.items() if settings}
