"""The CA that is published: one with which Node verifies the API server, because Backstage runs on Node.

Go, and so kubectl, takes any certificate of the CA as the end of a chain. Node takes roots only
(https://nodejs.org/api/tls.html, `ca` and `allowPartialTrustChain`), and without a CA it knows its own roots only, not
those of this host.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from palette_sync.core.model import ca_data_of, ca_pem_of
from palette_sync.core.reasons import Reason
from palette_sync.http import Cause, TransportError, tls_connection
from palette_sync.kube.errors import ChainIncomplete, Unreachable, unreachable
from palette_sync.kube.transport import tls_context
from palette_sync.tls import path_to_root

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from palette_sync.core.model import Server
    from palette_sync.core.network import NetworkPolicy

T = TypeVar("T")
MOST_PRESENTED = 16  # certificates of a server that are looked at


@dataclass(frozen=True, slots=True)
class Chains:
    """The certificates of a server: as it presented them, and as they were verified, each from the server's own up."""

    presented: tuple[x509.Certificate, ...]
    verified: tuple[x509.Certificate, ...]


async def as_reader(
    server: Server,
    work: Callable[[Server], Awaitable[T]],
    *,
    timeout: float,  # noqa: ASYNC109 - of each handshake
    network: NetworkPolicy,
) -> T:
    """Call `work` with the server as it can be published: with a CA by which Node verifies it.

    The CA of the kubeconfig is used where it will do. Raises ChainIncomplete where no such CA is known, and what `work`
    raises.
    """
    if server.ca_data is None:
        return await work(await with_root(server, timeout=timeout, network=network))
    try:
        return await work(server)
    except Unreachable as error:
        if error.reason is not Reason.CERTIFICATE_REFUSED:
            raise
        completed = await with_root(server, timeout=timeout, network=network)
        if completed == server:
            raise
    return await work(completed)


async def with_root(
    server: Server,
    *,
    timeout: float,  # noqa: ASYNC109 - of the handshake
    network: NetworkPolicy,
) -> Server:
    """Return the server with a CA that ends at a root.

    Without a CA it is the root of the system's trust that verified the server. Where the CA is no root, the server is
    verified by it, and the certificates that it presents complete the CA. Raises Unreachable, ChainIncomplete.
    """
    chains = await _handshake(server, timeout=timeout, network=network)
    if not chains.verified:
        raise Unreachable("the API server's certificates cannot be read", cause=Cause.TLS)
    if server.ca_data is None:
        return replace(server, ca_data=ca_data_of(_pem(chains.verified[-1:])))
    known = ca_pem_of(server)
    anchor = _anchor(chains.verified, known)
    path = path_to_root(anchor, chains.presented)
    if path is None:
        raise ChainIncomplete(
            f"the CA {_name(anchor)} is no root: {_name(anchor, issuer=True)} issued it, and neither the kubeconfig "
            "nor the API server holds that one; give the cluster its root CA by a rule in [defaults.trust]"
        )
    if not path:
        return server
    break_ = "" if known.endswith("\n") else "\n"  # the file of a rule may end without one
    return replace(server, ca_data=ca_data_of(known + break_ + _pem(path)))


def _anchor(verified: Sequence[x509.Certificate], known: str) -> x509.Certificate:
    """The first certificate of a verified chain that is known; OpenSSL may follow the chain beyond it."""
    try:
        trusted = set(x509.load_pem_x509_certificates(known.encode()))
    except ValueError:  # OpenSSL reads some certificates that are not valid
        trusted = set()
    return next((one for one in verified if one in trusted), verified[-1])


async def _handshake(
    server: Server,
    *,
    timeout: float,  # noqa: ASYNC109 - passed on
    network: NetworkPolicy,
) -> Chains:
    """Connect as kubectl would, and return the certificates. Raises Unreachable, KubeconfigError."""
    context = tls_context(server, None, any_anchor=server.ca_data is not None)
    try:
        async with tls_connection(
            server.url, tls=context, server_hostname=server.tls_server_name, timeout=timeout, network=network
        ) as connection:
            return _chains(connection)
    except TransportError as error:
        raise unreachable(error) from None


def _chains(connection: Any) -> Chains:
    """Read both chains. `ssl.SSLObject` shows them since Python 3.13, and hides them in `_sslobj` before."""
    source = connection if hasattr(connection, "get_verified_chain") else connection._sslobj  # noqa: SLF001
    return Chains(
        presented=_certificates(source.get_unverified_chain() or ()),
        verified=_certificates(source.get_verified_chain() or ()),
    )


def _certificates(chain: Iterable[Any]) -> tuple[x509.Certificate, ...]:
    found = [one if isinstance(one, bytes) else one.public_bytes(_DER) for one in chain]
    try:
        return tuple(x509.load_der_x509_certificate(der) for der in found[:MOST_PRESENTED])
    except ValueError:  # OpenSSL reads some certificates that are not valid
        return ()


_DER = 2  # `_ssl.ENCODING_DER`, which Python before 3.13 names in its C module only


def _pem(certificates: Iterable[x509.Certificate]) -> str:
    return "".join(one.public_bytes(Encoding.PEM).decode("ascii") for one in certificates)


def _name(certificate: x509.Certificate, *, issuer: bool = False) -> str:
    name = certificate.issuer if issuer else certificate.subject
    return repr(name.rfc4514_string()[:100])
