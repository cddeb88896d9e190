"""JSON documents, encoded canonically and decoded strictly, with errors that quote no value.

Writers compare hashes of these bytes, so the same value is always encoded as the same bytes: UTF-8 JSON, sorted keys,
no spaces, no nulls (a key without a value is left out), times as RFC 3339 in UTC with `Z` and whole seconds (fractions
are cut off). Decoding accepts only what encoding could have written, but ignores unknown keys, so that a newer writer
of the same schema stays readable. An error names the document, the path of the key, and what is wrong.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from palette_sync.core.model import UID, YEARS

if TYPE_CHECKING:
    from collections.abc import Mapping

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
MOST = 10**15 - 1  # of a number: 15 digits, which every language represents exactly
_Word = TypeVar("_Word", bound=StrEnum)


class DocumentError(ValueError):
    """A document cannot be decoded. `what` is its kind, `where` the path of the invalid key, `why` the reason."""

    def __init__(self, what: str, where: str, why: str) -> None:
        super().__init__(f"{what}: {where}: {why}" if where else f"{what}: {why}")


def format_time(moment: datetime) -> str:
    """Write a time as `2026-01-31T09:30:00Z`. Raises ValueError for a time without a zone."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone cannot be published")
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def encode_document(what: str, document: Mapping[str, object]) -> bytes:
    """Write canonical JSON. Raises DocumentError for values that JSON or UTF-8 cannot carry."""
    try:
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        raise DocumentError(what, "", "holds a value that JSON cannot carry") from None


def decode_object(what: str, raw: bytes) -> dict[str, Any]:
    """Read any JSON object, as it is. Raises DocumentError."""
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise DocumentError(what, "", "is not JSON") from None
    if not isinstance(document, dict):
        raise DocumentError(what, "", "is not a JSON object")
    return document


def present(**values: object) -> dict[str, object]:
    """Return the values that are not None, times as text."""
    return {
        key: format_time(value) if isinstance(value, datetime) else value
        for key, value in values.items()
        if value is not None
    }


_MOST_SECONDS = 2**32  # what a TokenRequest may ask for at most


class Fields:
    """The members of one JSON object, read by key and type. Every method raises DocumentError."""

    __slots__ = ("_members", "_path", "_what")

    def __init__(self, what: str, members: Mapping[str, Any], path: str = "") -> None:
        self._what = what
        self._members = members
        self._path = path

    def wrong(self, key: str, why: str) -> DocumentError:
        return DocumentError(self._what, self._path + key, why)

    def __contains__(self, key: str) -> bool:
        return key in self._members

    def _get(self, key: str, kind: type, named: str) -> Any:
        if key not in self._members:
            raise self.wrong(key, "is missing")
        value = self._members[key]
        if type(value) is not kind:
            raise self.wrong(key, f"is not {named}")
        return value

    def text(self, key: str) -> str:
        value: str = self._get(key, str, "a string")
        return value

    def name(self, key: str) -> str:
        """A string that must not be empty."""
        value = self.text(key)
        if not value:
            raise self.wrong(key, "is empty")
        return value

    def uid(self, key: str) -> str:
        value = self.text(key)
        if not UID.fullmatch(value):
            raise self.wrong(key, "is not 1 to 64 letters, digits and _ -")
        return value

    def line(self, key: str) -> str:
        """A string that must not be empty, and holds no line feed."""
        value = self.name(key)
        if "\n" in value:
            raise self.wrong(key, "holds a line feed")
        return value

    def maybe_text(self, key: str) -> str | None:
        return self.text(key) if key in self._members else None

    def flag(self, key: str) -> bool:
        value: bool = self._get(key, bool, "true or false")
        return value

    def maybe_flag(self, key: str) -> bool:
        """False where the key is absent: only True is written."""
        return key in self._members and self.flag(key)

    def count(self, key: str) -> int:
        value: int = self._get(key, int, "a whole number")
        if value < 0:
            raise self.wrong(key, "is negative")
        if value > MOST:
            raise self.wrong(key, f"is above {MOST}")
        return value

    def counts(self, key: str) -> dict[str, int]:
        """An object whose members are whole numbers."""
        members = Fields(self._what, self._get(key, dict, "an object"), f"{self._path}{key}.")
        return {name: members.count(name) for name in members._members}

    def maybe_seconds(self, key: str) -> timedelta | None:
        if key not in self._members:
            return None
        seconds = self.count(key)
        if seconds > _MOST_SECONDS:
            raise self.wrong(key, "is too large")
        return timedelta(seconds=seconds)

    def word(self, key: str, words: type[_Word]) -> _Word:
        value = self.text(key)
        try:
            return words(value)
        except ValueError:
            raise self.wrong(key, "is not one of " + ", ".join(words)) from None

    def maybe_word(self, key: str, words: type[_Word]) -> _Word | None:
        return self.word(key, words) if key in self._members else None

    def time(self, key: str) -> datetime:
        value = self.text(key)
        if not _TIME.fullmatch(value):
            raise self.wrong(key, "is not a time like 2026-01-31T09:30:00Z")
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise self.wrong(key, "is a time that does not exist") from None
        if moment.year not in YEARS:
            raise self.wrong(key, f"is not between the years {YEARS[0]} and {YEARS[-1]}")
        return moment

    def maybe_time(self, key: str) -> datetime | None:
        return self.time(key) if key in self._members else None

    def texts(self, key: str) -> tuple[str, ...]:
        values: list[object] = self._get(key, list, "a list")
        if not all(isinstance(value, str) for value in values):
            raise self.wrong(key, "holds something that is not a string")
        return tuple(str(value) for value in values)

    def objects(self, key: str) -> list[Fields]:
        values: list[object] = self._get(key, list, "a list")
        found = []
        for position, value in enumerate(values):
            if not isinstance(value, dict):
                raise self.wrong(f"{key}[{position}]", "is not an object")
            found.append(Fields(self._what, value, f"{self._path}{key}[{position}]."))
        return found

    def object(self, key: str) -> Fields:
        return Fields(self._what, self._get(key, dict, "an object"), f"{self._path}{key}.")


def time_or_none(members: Mapping[str, Any], key: str) -> datetime | None:
    """A time of a document; None where it is absent or not a time."""
    try:
        return Fields("document", members).maybe_time(key)
    except DocumentError:
        return None
