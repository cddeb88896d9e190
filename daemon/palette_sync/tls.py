"""TLS contexts from PEM text. Loading the system's trust takes 20 ms and 0.8 MB, so there is one context of it."""

from __future__ import annotations

import ssl
from functools import lru_cache


class NotACertificate(ValueError):
    """A text holds no certificate in PEM form."""


def trusting(ca_pem: str | None) -> ssl.SSLContext:
    """Return a client context that trusts the certificates in `ca_pem`; None = the system's trust, shared.

    Raises NotACertificate.
    """
    if ca_pem is None:
        return _system_trust()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # OpenSSL takes an empty text for "nothing to load"; a blank one is an error.
        context.load_verify_locations(cadata=ca_pem or " ")
    except (ssl.SSLError, ValueError, TypeError):  # TypeError: a text that is not ASCII
        raise NotACertificate from None
    return context


@lru_cache(maxsize=1)
def _system_trust() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
