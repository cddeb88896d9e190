"""Reads the certificate files that the configuration names, once: a file that vanishes later disturbs nothing."""

from __future__ import annotations

from codecs import BOM_UTF8
from typing import TYPE_CHECKING

from palette_sync.assembly.store import StartError

if TYPE_CHECKING:
    from pathlib import Path


def read_pem(where: str, file: Path) -> str:
    """Return the text of a file. `where` is the key that names it. Raises StartError."""
    try:
        return file.read_bytes().removeprefix(BOM_UTF8).decode("ascii")
    except OSError as error:
        raise StartError(f"{where}: cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StartError(f"{where}: {file} is not text in PEM form") from None
