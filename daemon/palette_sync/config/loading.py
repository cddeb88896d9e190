"""Load the configuration and report everything that is wrong with it at once.

Unknown keys, unknown variables and a missing file are errors. pydantic-settings would ignore them silently.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pydantic import ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from palette_sync.config.errors import ConfigError
from palette_sync.config.problems import problems_of
from palette_sync.config.settings import Settings
from palette_sync.config.whole import WholeLayers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from palette_sync.config.layers import Layers


EXPOSED = "other users of this machine can read the file; take that right away with chmod o-r"


def load(path: Path, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the configuration whose file is `path`. Raises `ConfigError` with every problem found."""
    return load_with_layers(path, environ=environ)[0]


def load_with_layers(path: Path, *, environ: Mapping[str, str] | None = None) -> tuple[Settings, Layers]:
    """Like `load`, with the layers that know where each value comes from."""
    layers = WholeLayers(path, os.environ if environ is None else environ)
    document = layers.merged()

    try:
        settings = _Loaded(document=document)  # type: ignore[call-arg]  # the fields come from the source below
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False, include_context=False)
        raise ConfigError(layers.problems + problems_of(details, layers)) from None
    if settings.service.strict_permissions:
        layers.problems += [f"{where}: {EXPOSED}" for where in layers.exposed]
    if layers.problems:
        raise ConfigError(layers.problems)
    settings._exposed_secrets = tuple(layers.exposed)  # noqa: SLF001 - only this function builds settings
    return settings, layers


class _Loaded(Settings):
    """The settings of the document that it is given, and of no other source."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base's shape
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base's shape
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base's shape
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        assert isinstance(init_settings, InitSettingsSource)
        return (InitSettingsSource(settings_cls, init_kwargs=init_settings.init_kwargs["document"]),)
