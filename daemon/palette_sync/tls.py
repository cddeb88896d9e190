"""TLS contexts from PEM text. Loading the system's trust takes 20 ms and 0.8 MB, so one context is shared."""

from __future__ import annotations

import re
import ssl
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PrivateKeyTypes

# One RSA signature with a key of 65,536 bits takes OpenSSL more than a minute, in one call that nothing can interrupt.
RSA_BITS = range(2048, 8192 + 1)
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
LONGEST_PEM = 16 * 1024  # characters of one key or certificate; an RSA key of 8,192 bits has 6,400
MOST_CERTIFICATES = 64
# Python's default without finite-field Diffie-Hellman, whose parameters the server chooses.
CIPHERS = "@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"
# What a server may send before its certificate is trusted. Verifying costs up to 20 ms for each certificate with a key
# of 16,384 bits, in one call on the event loop, and OpenSSL alone would accept 100 kB of them. Four certificates with
# keys of 4,096 bits have 8 kB.
LARGEST_HANDSHAKE = 16 * 1024
_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----")


# What `create_default_context` sets since Python 3.13, and Node does not.
_STRICTER = ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT


class NotACertificate(ValueError):
    """A text holds no certificate in PEM form."""


class _BoundedHandshake(ssl.SSLObject):
    """Refuses a handshake that is larger than `LARGEST_HANDSHAKE`, before OpenSSL has seen all of it."""

    incoming: ssl.MemoryBIO
    consumed: int = 0

    def do_handshake(self) -> None:
        """Raises ssl.SSLError."""
        before = self.incoming.pending
        if self.consumed + before > LARGEST_HANDSHAKE:
            raise ssl.SSLError(
                ssl.SSL_ERROR_SSL, f"the server sent more than {LARGEST_HANDSHAKE} bytes in its handshake"
            )
        try:
            super().do_handshake()
        finally:
            self.consumed += before - self.incoming.pending


class _ClientContext(ssl.SSLContext):
    """Bounds the handshakes of asyncio's connections."""

    sslobject_class = _BoundedHandshake

    def wrap_bio(self, incoming: ssl.MemoryBIO, *arguments: Any, **options: Any) -> ssl.SSLObject:
        wrapped = super().wrap_bio(incoming, *arguments, **options)
        assert isinstance(wrapped, _BoundedHandshake)
        wrapped.incoming = incoming
        return wrapped


def trusting(ca_pem: str | None) -> ssl.SSLContext:
    """Return a client context that trusts the certificates in `ca_pem`; None = the system's trust, shared.

    Raises NotACertificate.
    """
    if ca_pem is None:
        return _system_trust()
    context = _ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    try:
        # OpenSSL accepts an empty text as "nothing to load", but rejects a blank.
        context.load_verify_locations(cadata=ca_pem or " ")
    except (ssl.SSLError, ValueError, TypeError):  # TypeError: a text that is not ASCII
        raise NotACertificate from None
    return context


@lru_cache(maxsize=1)
def _system_trust() -> ssl.SSLContext:
    return system_trust()


def system_trust() -> ssl.SSLContext:
    """Return a new context with the system's trust, for callers that add a client certificate to it."""
    context = _ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    return context


@lru_cache(maxsize=1)
def reader_trust() -> ssl.SSLContext:
    """The system's trust with the rules by which Node verifies: a chain ends at a root. Shared."""
    return reader_rules(system_trust())


def reader_rules(context: ssl.SSLContext) -> ssl.SSLContext:
    context.verify_flags &= ~_STRICTER
    return context


def path_to_root(anchor: x509.Certificate, presented: Sequence[x509.Certificate]) -> list[x509.Certificate] | None:
    """The certificates from the issuer of `anchor` up to its root, among those that a server presented.

    Empty where `anchor` is a root itself (it signed itself); None where no root is among them.
    """
    path: list[x509.Certificate] = []
    current = anchor
    while not issued(current, current):
        issuer = next((one for one in presented if one not in path and issued(one, current)), None)
        if issuer is None:
            return None
        path.append(issuer)
        current = issuer
    return path


def issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether the one signed the other, by name and signature."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def key_problem(pem: str) -> str | None:
    """Explain why a private key from a kubeconfig is not used; None if it is. The text never quotes the key."""
    if len(pem) > LONGEST_PEM:
        return f"is longer than {LONGEST_PEM} characters"
    try:
        # Validating an RSA key takes a quarter of a second. An inconsistent key only makes the handshake fail.
        key = load_pem_private_key(pem.encode(), None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        return "is encrypted"
    except (ValueError, UnsupportedAlgorithm):
        return "cannot be read"
    return _strength_problem(key)


def certificates_problem(pem: str) -> str | None:
    """Explain why certificates from a kubeconfig are not used; None if they are."""
    blocks = _BLOCK.findall(pem)
    if len(blocks) > MOST_CERTIFICATES:
        return f"holds more than {MOST_CERTIFICATES} certificates"
    for block in blocks:
        if len(block) > LONGEST_PEM:
            return f"holds a certificate longer than {LONGEST_PEM} characters"
        try:
            key = x509.load_pem_x509_certificate(block.encode()).public_key()
        except (ValueError, UnsupportedAlgorithm):
            continue  # OpenSSL does not use it either
        if problem := _strength_problem(key):
            return f"holds a certificate whose key {problem}"
    return None


def _strength_problem(key: PrivateKeyTypes | CertificatePublicKeyTypes) -> str | None:
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        if key.key_size not in RSA_BITS:
            return f"has {key.key_size} bits; RSA keys of {RSA_BITS[0]} to {RSA_BITS[-1]} bits are used"
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        return None if isinstance(key.curve, CURVES) else "is on a curve other than P-256, P-384 and P-521"
    if isinstance(key, ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey):
        return None
    return "is neither RSA, nor ECDSA, nor Ed25519"
