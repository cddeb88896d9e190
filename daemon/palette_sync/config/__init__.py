"""The configuration: a TOML file, then secret files, then `PALETTE_SYNC_...` variables.

`settings` has every key, `values` the types of single values, `layers` reads, `problems` words what is wrong. `partial`
reads only what diagnosis needs, without the models: so nothing that needs them is imported here before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palette_sync.config.errors import ConfigError
    from palette_sync.config.loading import load
    from palette_sync.config.settings import InstanceSettings, Settings

__all__ = ["ConfigError", "InstanceSettings", "Settings", "load"]
_MODULES = {"ConfigError": "errors", "InstanceSettings": "settings", "Settings": "settings", "load": "loading"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
