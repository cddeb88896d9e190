"""The configuration: a TOML file, then secret files, then `PALETTE_SYNC_...` variables.

`settings` has every key, `values` the types of single values, `layers` reads, `problems` words what is wrong.
"""

from palette_sync.config.errors import ConfigError
from palette_sync.config.load import load
from palette_sync.config.settings import InstanceSettings, Settings

__all__ = ["ConfigError", "InstanceSettings", "Settings", "load"]
