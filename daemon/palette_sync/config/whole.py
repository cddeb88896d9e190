"""The layers of a whole configuration: variables are read as the models of the settings want them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic_settings import EnvSettingsSource, SettingsError

from palette_sync.config.errors import NOT_JSON
from palette_sync.config.layers import NOT_SETTINGS, PREFIX, Layers, closest, merge
from palette_sync.config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from palette_sync.config.layers import Document


class WholeLayers(Layers):
    """Variables of all tables. An unknown one is a problem."""

    def _read_environment(self, environ: Mapping[str, str]) -> Document:
        ours = {name: value for name, value in environ.items() if name.upper().startswith(PREFIX)}
        self._refuse_unknown(ours)
        document: Document = {}
        for name, value in sorted(ours.items()):
            if not value or name.upper() in NOT_SETTINGS:
                continue
            source = EnvSettingsSource(Settings)
            source.env_vars = {name.lower(): value}  # one at a time, so that an error can name it
            try:
                merge(document, source(), same_layer=True)
            except SettingsError:
                self.problems.append(f"variable {name}: {NOT_JSON}")
                self.unread.add(tuple(name.lower().removeprefix(PREFIX.lower()).split("__")))
        return document

    def _refuse_unknown(self, names: Iterable[str]) -> None:
        """pydantic-settings ignores a variable that belongs to no table; here it is a problem."""
        known = tuple(f"{PREFIX}{field}".upper() for field in Settings.model_fields)
        for name in sorted(names):
            upper = name.upper()
            if upper in NOT_SETTINGS or any(upper == field or upper.startswith(f"{field}__") for field in known):
                continue
            guess = closest(upper.removeprefix(PREFIX).split("__")[0].lower(), Settings.model_fields)
            self.problems.append(f"variable {name}: is unknown{guess}; rename or unset it")
