"""Where palette-sync may connect when somebody else names the address: a kubeconfig, or an OIDC configuration. Pure.

Whoever controls one of these could otherwise make the daemon call services that only its own host or network can
reach: a cloud's metadata service (169.254.169.254), a port on loopback. So the address is judged after resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address

# No API server and no issuer of a user has such an address, except on the daemon's own host.
REFUSED: tuple[Network, ...] = tuple(
    ip_network(one)
    for one in (
        *("0.0.0.0/8", "::/128"),  # unspecified; Linux connects 0.0.0.0 and :: to the host itself
        *("127.0.0.0/8", "::1/128"),  # loopback
        *("169.254.0.0/16", "fe80::/10"),  # link-local, and most metadata services
        *("224.0.0.0/4", "255.255.255.255/32", "ff00::/8"),  # multicast and broadcast
        # Metadata services outside of link-local: AWS over IPv6, Azure, Alibaba Cloud, Oracle Cloud.
        *("fd00:ec2::254/128", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32"),
    )
)
# Prefixes whose last 32 bits are an IPv4 address that the packet may end up at: IPv4-mapped (RFC 4291), IPv4-translated
# (RFC 2765), NAT64 (RFC 6052), and the deprecated IPv4-compatible form.
_IPV4_LAST = tuple(IPv6Network(one) for one in ("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "::/96"))
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")  # RFC 8215
_6TO4 = IPv6Network("2002::/16")  # RFC 3056
_TEREDO = IPv6Network("2001::/32")  # RFC 4380
_NOT_IPV4 = frozenset({IPv6Address("::"), IPv6Address("::1")})
_IPV4_MASK = 0xFFFFFFFF


class Standing(Enum):
    """What the policy says of an address. `NAMED`: an entry of `allow` covers it."""

    REFUSED = auto()
    UNNAMED = auto()
    NAMED = auto()


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """`allow` and `deny` of the configuration. Of several networks that hold an address the smallest decides.

    So `allow = ["0.0.0.0/0"]` does not open loopback, and `deny = ["0.0.0.0/0", "::/0"]` with a smaller `allow` permits
    nothing else. `allow` wins against an equal network of `REFUSED`.
    """

    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()

    def judge(self, address: str) -> Standing:
        """Judge a literal address, in every form in which it may hold an IPv4 address. Raises ValueError."""
        standings = {self._judge_one(form) for form in _forms(ip_address(address.partition("%")[0]))}
        if Standing.REFUSED in standings:
            return Standing.REFUSED
        return Standing.NAMED if Standing.NAMED in standings else Standing.UNNAMED

    def _judge_one(self, address: _Address) -> Standing:
        allowed = _smallest(self.allow, address)
        refused = max(_smallest(self.deny, address), _smallest(REFUSED, address))
        if allowed < 0 and refused < 0:
            return Standing.UNNAMED
        return Standing.NAMED if allowed >= refused else Standing.REFUSED


UNCONFIGURED = NetworkPolicy()


def _smallest(networks: Iterable[Network], address: _Address) -> int:
    """The longest prefix of the networks that hold the address; -1 if none does."""
    return max((one.prefixlen for one in networks if one.version == address.version and address in one), default=-1)


def _forms(address: _Address) -> Iterator[_Address]:
    """The address, and each IPv4 address that it embeds."""
    yield address
    if isinstance(address, IPv4Address) or address in _NOT_IPV4:
        return
    number = int(address)
    if any(address in prefix for prefix in _IPV4_LAST):
        yield IPv4Address(number & _IPV4_MASK)
    elif address in _LOCAL_NAT64:
        # The operator chose the length of the prefix, so the address may stand at its end or (RFC 6052, 2.2) after 48
        # bits, around the eight bits in the middle that are zero.
        last, early = number & _IPV4_MASK, (number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF
        yield from (IPv4Address(one) for one in (last, early) if one)
    elif address in _6TO4:
        yield IPv4Address(number >> 80 & _IPV4_MASK)
    elif address in _TEREDO:
        yield IPv4Address(~number & _IPV4_MASK)
