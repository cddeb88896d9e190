"""Configuration: a TOML file, then secret files, then `PALETTE_SYNC_...` variables. Read by the command line alone."""

from palette_sync.config.load import ConfigError, load
from palette_sync.config.settings import InstanceSettings, Settings

__all__ = ["ConfigError", "InstanceSettings", "Settings", "load"]
