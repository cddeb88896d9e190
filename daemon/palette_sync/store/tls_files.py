"""The files of TLS to Redis, as redis-py's options. Files that cannot be used are named before anything connects."""

from __future__ import annotations

import ssl
from codecs import BOM_UTF8
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from palette_sync.store.errors import StoreMisconfigured

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Tls:
    """Files for `rediss://`: a CA to trust (None = the system's CAs), and a client certificate if the server asks."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


def tls_options(tls: Tls) -> dict[str, Any]:
    for name, file in (("ca_file", tls.ca_file), ("cert_file", tls.cert_file), ("key_file", tls.key_file)):
        if file is not None and not file.is_file():
            raise StoreMisconfigured(f"redis.{name}: {file} is not a file")
    _check_tls_files(tls)
    return {
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_ca_data": _ca_text(tls.ca_file) if tls.ca_file else None,
        "ssl_certfile": str(tls.cert_file) if tls.cert_file else None,
        "ssl_keyfile": str(tls.key_file) if tls.key_file else None,
    }


def _check_tls_files(tls: Tls) -> None:
    """Load the files once, because redis-py reports a bad file as a server that cannot be reached."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca_file is not None:
        try:
            context.load_verify_locations(cadata=_ca_text(tls.ca_file) or " ")
        except (OSError, ValueError):
            raise StoreMisconfigured(f"redis.ca_file: {tls.ca_file} does not hold a certificate in PEM form") from None
    if tls.cert_file is not None:
        try:
            context.load_cert_chain(tls.cert_file, tls.key_file, password="")
        except OSError:
            raise StoreMisconfigured(
                f"redis.cert_file: {tls.cert_file} and redis.key_file do not hold a certificate and its unencrypted "
                "key in PEM form"
            ) from None


def _ca_text(file: Path) -> str:
    """The text of a CA file. OpenSSL itself would miss a first certificate behind a byte order mark."""
    return file.read_bytes().removeprefix(BOM_UTF8).decode("ascii")
