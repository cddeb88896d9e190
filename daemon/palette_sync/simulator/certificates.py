"""Certificate authorities of the simulated world, cheap enough for ten thousand of them in one process.

Every authority has its own key, created on first use, so no cluster trusts another's certificates. The rest is shared
to save time and memory: one key pair for all server certificates, one for all client certificates, and a cache of the
TLS contexts that were used last.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import tempfile
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Callable

_LEEWAY = timedelta(days=1)
_CA_LIFE = timedelta(days=3650)
_LEAF_LIFE = timedelta(days=365)
LOOPBACK = "127.0.0.1"
_SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@dataclass(frozen=True, slots=True)
class SharedKeys:
    """The key pairs of all server and of all client certificates of one simulator."""

    server: ec.EllipticCurvePrivateKey
    client: ec.EllipticCurvePrivateKey

    @staticmethod
    def new() -> SharedKeys:
        return SharedKeys(new_key(), new_key())


class Authority:
    """A certificate authority whose key and certificate are created on first use.

    With `issuer` it is an intermediate one. Its servers then present it too, and the root if `presents_root`.
    """

    def __init__(self, common_name: str, *, issuer: Authority | None = None, presents_root: bool = False) -> None:
        self._name = _name(common_name)
        self._issuer = issuer
        self._presents_root = presents_root

    @cached_property
    def _key(self) -> ec.EllipticCurvePrivateKey:
        return new_key()

    @cached_property
    def _certificate(self) -> x509.Certificate:
        now = datetime.now(UTC)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        signer = self if self._issuer is None else self._issuer
        return (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(signer._name)  # noqa: SLF001
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _LEEWAY)
            .not_valid_after(now + _CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .add_extension(identifier, critical=False)
            .sign(signer._key, hashes.SHA256())  # noqa: SLF001
        )

    @cached_property
    def pem(self) -> str:
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def presented(self) -> str:
        """The certificates (PEM) that a server presents after its own."""
        if self._issuer is None:
            return ""
        return self.pem + (self._issuer.pem if self._presents_root else "")

    def server_certificate(self, key: ec.EllipticCurvePrivateKey, *, host: str) -> bytes:
        """Issue a server certificate (PEM) for `host`, 127.0.0.1, localhost and the names of an API server."""
        names: list[x509.GeneralName] = [_general_name(name) for name in sorted({host, LOOPBACK, *_SERVER_NAMES})]
        subject = _name("simulated-server")
        return self._sign(subject, key, ExtendedKeyUsageOID.SERVER_AUTH, x509.SubjectAlternativeName(names))

    def client_certificate(self, key: ec.EllipticCurvePrivateKey, user: str, group: str) -> bytes:
        """Issue a client certificate (PEM) for `user` in `group`, like kubeadm."""
        return self._sign(_name(user, group), key, ExtendedKeyUsageOID.CLIENT_AUTH)

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        purpose: x509.ObjectIdentifier,
        names: x509.SubjectAlternativeName | None = None,
    ) -> bytes:
        now = datetime.now(UTC)
        own = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _LEEWAY)
            .not_valid_after(now + _LEAF_LIFE)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(own, critical=False)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _name(common_name: str, organisation: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organisation is not None:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    return x509.Name(attributes)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def server_context(authority: Authority, keys: SharedKeys, *, ask_client: bool, host: str = LOOPBACK) -> ssl.SSLContext:
    """Build the TLS context of a server whose clients use the name or address `host`.

    With `ask_client`, clients may present a certificate of the same authority.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 0
    chain = authority.server_certificate(keys.server, host=host) + authority.presented.encode()
    _load_chain(context, chain + key_pem(keys.server))
    if ask_client:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as Go: an intermediate authority is an anchor too
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=authority.pem)
    return context


def _load_chain(context: ssl.SSLContext, pem: bytes) -> None:
    """Load certificate and key through a file, because OpenSSL only reads files; in memory if the system allows it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("simulated-server", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, pem)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)


class ContextCache:
    """Keeps the TLS contexts that were used last."""

    def __init__(self, capacity: int = 512) -> None:
        self._capacity = capacity
        self._contexts: OrderedDict[str, ssl.SSLContext] = OrderedDict()

    def get(self, name: str, build: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        context = self._contexts.get(name)
        if context is None:
            context = self._contexts[name] = build()
            if len(self._contexts) > self._capacity:
                self._contexts.popitem(last=False)
        self._contexts.move_to_end(name)
        return context


class LazyContext:
    """Takes the place of a server's `SSLContext`, and looks up the real context when a client connects.

    asyncio only calls `wrap_bio` of a server's context.
    """

    def __init__(self, find: Callable[[], ssl.SSLContext]) -> None:
        self._find = find

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 - the signature that asyncio calls
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return self._find().wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    def as_context(self) -> ssl.SSLContext:
        return cast("ssl.SSLContext", self)
