"""Read the layers of the configuration and merge them.

Later layers win: 1. the TOML file; 2. secret files in a directory (`PALETTE_SYNC_SECRETS_DIR`, or systemd's
`CREDENTIALS_DIRECTORY`); 3. variables `PALETTE_SYNC_...`, with `__` between table and key. Then `[defaults]` is copied
into every instance, and each `<key>_file` is replaced by the content of its file.

What cannot be read is collected in `problems`, so that all of it is reported at once. No problem contains a value.
`exposed` collects the keys whose secret file other users of the machine can read.
"""

from __future__ import annotations

import difflib
import re
import stat
import tomllib
from abc import ABC, abstractmethod
from contextlib import suppress
from copy import deepcopy
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palette_sync.config.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PREFIX = "PALETTE_SYNC_"
TABLES = ("instances", "redis", "seal", "service", "http", "otel", "network", "defaults")  # of `settings.Settings`
SECRETS_DIR_VARIABLE = f"{PREFIX}SECRETS_DIR"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
FILE = "_file"  # the suffix of a key that names a file with the value
NOT_SETTINGS = frozenset({SECRETS_DIR_VARIABLE, CONFIG_VARIABLE})
_CHECK_PATH = "correct the path or the permissions"
_FILE_NAME = re.compile(r"[a-z0-9_-]{1,40}(\.[a-z][a-z-]{0,9}){1,2}")  # prod.api-key, seal.keys
_LARGEST_SECRET = 64 * 1024  # bytes

Document = dict[str, Any]
Location = tuple[str | int, ...]


class Layers(ABC):
    """The documents of all layers. It knows which layer a key came from, and what could not be read.

    How variables are read is left to subclasses, because reading them by the models takes long.
    """

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        """Read every layer. Raises ConfigError if the file itself cannot be read."""
        self.path = path
        self.problems: list[str] = []
        self.exposed: list[str] = []
        self.unread: set[tuple[str, ...]] = set()
        self.file = self._read_toml()
        self._resolve_paths(self.file, path.parent)
        self.secrets = self._read_secrets_directory(environ)
        self.environment = self._read_environment(environ)

    def merged(self) -> Document:
        """Return one document with inheritance and secret files applied."""
        document: Document = {}
        for layer in (self.file, self.secrets, self.environment):
            merge(document, deepcopy(layer))
        instances, defaults = document.get("instances"), document.get("defaults")
        self._read_file_key(defaults, "api_key", "defaults")
        if isinstance(instances, dict):
            if isinstance(defaults, dict):
                for name, instance in instances.items():
                    if isinstance(instance, dict):
                        instances[name] = merge(deepcopy(defaults), instance)
            for name, instance in instances.items():
                self._read_file_key(instance, "api_key", "instances", name)
        self._read_file_key(document.get("redis"), "url", "redis")
        self._read_file_key(document.get("seal"), "keys", "seal")
        self._read_file_key(document.get("http"), "token", "http")
        self._check_private_key(document.get("redis"))
        self._check_inline_secrets()
        return document

    def source_of(self, location: Location) -> str:
        """Name the file, secret or variable that gave the value at `location`, for a problem."""
        keys = _keys(location)
        if keys and has(self.environment, keys):
            return f"variable {PREFIX}{'__'.join(keys).upper()}"
        if keys and has(self.secrets, keys):
            return f"secret {'__'.join(keys)}"
        return str(self.path)

    def gives(self, location: Location) -> bool:
        """Whether a layer gives the value at `location` itself, so that it is not inherited."""
        keys = _keys(location)
        return any(has(layer, keys) for layer in (self.file, self.secrets, self.environment))

    def could_not_read(self, location: Location) -> bool:
        """Whether the value at `location` is absent only because its file or variable could not be read."""
        candidates = [location]
        if location[:1] == ("instances",):
            candidates.append(("defaults", *location[2:]))
        return any(one[: len(unread)] == unread for unread in self.unread for one in candidates)

    def _read_toml(self) -> Document:
        try:
            return tomllib.loads(self.path.read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            remedy = "write one with `palette-sync config init`, or name another file with --config"
            raise ConfigError([f"{self.path}: there is no such file; {remedy}"]) from None
        except OSError as error:
            raise ConfigError([f"{self.path}: cannot be read: {error.strerror}; {_CHECK_PATH}"]) from None
        except UnicodeDecodeError:
            raise ConfigError([f"{self.path}: is not UTF-8 text; save it in that encoding"]) from None
        except RecursionError:
            raise ConfigError([f"{self.path}: is nested too deeply; no key is more than a few levels deep"]) from None
        except tomllib.TOMLDecodeError as error:
            # The message can quote a single character, never a value.
            raise ConfigError([f"{self.path}: is not valid TOML: {error}"]) from None

    def _read_secrets_directory(self, environ: Mapping[str, str]) -> Document:
        """Read files named like `instances__prod__api_key`. Other files are ignored: the directory may be shared."""
        document: Document = {}
        for variable in ("CREDENTIALS_DIRECTORY", SECRETS_DIR_VARIABLE):
            given = environ.get(variable)
            if not given:
                continue
            try:
                files = sorted(Path(given).iterdir())
            except (OSError, ValueError):  # ValueError: a NUL in the path
                self.problems.append(
                    f"variable {variable}: is not the path of a directory that can be read; {_CHECK_PATH}"
                )
                self.unread.add(())
                continue
            for file in files:
                keys = file.name.lower().split("__")
                if file.is_file() and keys[0] in TABLES and len(keys) > 1:
                    text = self._read_secret(file, f"secret {file.name}")
                    if text is None:
                        self.unread.add(tuple(keys))
                    else:
                        merge(document, _nested(keys, text), same_layer=True)
        return document

    @abstractmethod
    def _read_environment(self, environ: Mapping[str, str]) -> Document:
        """Return what the variables give."""

    def _read_file_key(self, section: object, key: str, *table: str) -> None:
        """Replace `<key>_file` by the content of the file. Both keys in the same layer are a problem."""
        if not isinstance(section, dict) or key + FILE not in section:
            return
        given = section.pop(key + FILE)
        location = (*table, key + FILE)
        where = f"{self.source_of(location)}: {'.'.join(location)}"
        self.unread.add((*table, key))
        if key in section:
            self.problems.append(f"{where}: is set together with {key}; keep one of the two")
        elif not isinstance(given, str):
            self.problems.append(f"{where}: must be the path of a file")
        elif (text := self._read_secret(Path(given), where)) is not None:
            section[key] = text
            self.unread.discard((*table, key))

    def _check_private_key(self, redis: object) -> None:
        """The Redis client itself reads this file, so only its permissions are looked at here."""
        given = redis.get("key_file") if isinstance(redis, dict) else None
        if isinstance(given, str):
            with suppress(OSError, ValueError):
                self._note_if_exposed(Path(given), f"{self.source_of(('redis', 'key_file'))}: redis.key_file")

    def _check_inline_secrets(self) -> None:
        """The configuration file is a secret file itself where it holds secrets."""
        instances = self.file.get("instances")
        tables = [self.file.get("defaults"), *(instances.values() if isinstance(instances, dict) else ())]
        inline = any(isinstance(table, dict) and "api_key" in table for table in tables)
        seal, redis, http = self.file.get("seal"), self.file.get("redis"), self.file.get("http")
        inline |= isinstance(seal, dict) and "keys" in seal
        inline |= isinstance(redis, dict) and "@" in str(redis.get("url"))
        inline |= isinstance(http, dict) and "token" in http
        if inline:
            with suppress(OSError):
                self._note_if_exposed(self.path, f"{self.path}: holds secrets")

    def _note_if_exposed(self, file: Path, where: str) -> None:
        if readable_by_others(file):
            self.exposed.append(where)

    def _read_secret(self, file: Path, where: str) -> str | None:
        """Return the stripped content, or None after adding a problem."""
        named = self._named(file)
        try:
            with file.open("rb") as stream:
                content = stream.read(_LARGEST_SECRET + 1)
            if len(content) <= _LARGEST_SECRET:
                self._note_if_exposed(file, where)
                return content.decode("utf-8-sig").strip()
            self.problems.append(f"{where}: {named} is larger than 64 KiB, too large for a secret; correct the path")
        except OSError as error:
            self.problems.append(f"{where}: {named} cannot be read: {error.strerror}; {_CHECK_PATH}")
        except UnicodeDecodeError:
            self.problems.append(f"{where}: {named} is not UTF-8 text; correct the path or the encoding")
        except ValueError:
            self.problems.append(f"{where}: must be the path of a file")  # it contains a NUL
        return None

    def _named(self, file: Path) -> str:
        """`the file` with its path, if that cannot be the secret itself, set under the wrong key.

        A secret is a single word, or begins with no folder that exists; and its form is not that of a file's name.
        """
        with suppress(OSError, ValueError):
            folder = file.parent
            beside = folder in {self.path.parent, Path(), Path("/")}
            if folder.is_dir() and (_FILE_NAME.fullmatch(file.name) if beside else not file.name.count(" ")):
                return f"the file {file}"
        return "the file"

    def _resolve_paths(self, table: Document, base: Path, *above: str) -> None:
        """Make relative paths in the file relative to the file, not to where the process starts."""
        for key, value in table.items():
            if isinstance(value, dict):
                self._resolve_paths(value, base, *above, key)
            elif isinstance(value, list):
                for number, one in enumerate(value):
                    if isinstance(one, dict):
                        self._resolve_paths(one, base, *above, key, str(number))
            elif key.endswith(FILE) and isinstance(value, str):
                try:
                    table[key] = str(base / Path(value).expanduser())
                except RuntimeError:
                    where = ".".join((*above, key))
                    self.problems.append(
                        f"{self.path}: {where}: names the home of an unknown user; write the full path"
                    )


def log_format_of(path: Path, environ: Mapping[str, str]) -> str:
    """`service.log_format`, also of a configuration that is not valid otherwise; "auto" where it cannot be read."""
    variable = f"{PREFIX}SERVICE__LOG_FORMAT"
    found: object = next((value for name, value in environ.items() if value and name.upper() == variable), None)
    if found is None:
        with suppress(OSError, ValueError, RecursionError):
            service = tomllib.loads(path.read_text(encoding="utf-8-sig")).get("service")
            found = service.get("log_format") if isinstance(service, dict) else None
    return found if isinstance(found, str) else "auto"


def readable_by_others(file: Path) -> bool:
    """Whether users outside of the file's owner and group can read it: its own mode and that of each folder above.

    Raises OSError.
    """
    path = file.resolve()
    reachable = all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)
    return reachable and bool(path.stat().st_mode & stat.S_IROTH)


def closest(name: str, options: Iterable[str]) -> str:
    """Return ` (did you mean '...'?)` with the option that resembles `name` most, or nothing."""
    found = difflib.get_close_matches(name, list(options), n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def merge(into: Document, layer: Document, *, same_layer: bool = False) -> Document:
    """Merge `layer` over `into`, tables key by key.

    `api_key` of a later layer replaces `api_key_file` of an earlier one, and the other way round. Parts of the
    `same_layer` keep both, so that `_read_file_key` can report the contradiction.
    """
    for key, value in layer.items():
        twin = key.removesuffix(FILE) if key.endswith(FILE) else key + FILE
        if not same_layer and twin not in layer:
            into.pop(twin, None)
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value, same_layer=same_layer)
        else:
            into[key] = value
    return into


def _nested(keys: list[str], value: str) -> Document:
    document: Document = {keys[-1]: value}
    for key in reversed(keys[:-1]):
        document = {key: document}
    return document


def _keys(location: Location) -> list[str]:
    """Return the keys down to the first list. A list always comes from one layer as a whole."""
    return [str(part) for part in takewhile(lambda part: isinstance(part, str), location)]


def has(document: object, keys: list[str]) -> bool:
    """Whether the document has a value at these keys."""
    for key in keys:
        if not isinstance(document, dict) or key not in document:
            return False
        document = document[key]
    return True
