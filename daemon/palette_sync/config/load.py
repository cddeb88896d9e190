"""Load the configuration and report everything that is wrong with it at once.

Unknown keys, unknown variables and a missing file are errors. pydantic-settings would ignore them silently.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pydantic import ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from palette_sync.config.errors import ConfigError
from palette_sync.config.layers import Layers
from palette_sync.config.problems import problems_of
from palette_sync.config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def load(path: Path, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the configuration whose file is `path`. Raises `ConfigError` with every problem found."""
    layers = Layers(path, os.environ if environ is None else environ)
    document = layers.merged()

    class Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base's shape
            env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base's shape
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base's shape
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base's shape
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (InitSettingsSource(settings_cls, init_kwargs=document),)

    try:
        settings = Loaded()  # type: ignore[call-arg]  # the fields come from the source above
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False, include_context=False)
        raise ConfigError(layers.problems + problems_of(details, layers)) from None
    if layers.problems:
        raise ConfigError(layers.problems)
    return settings
