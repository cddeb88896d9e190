"""Which addresses others may make the daemon connect to."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette_sync.core.network import REFUSED, NetworkPolicy, Standing


def policy(allow: str = "", deny: str = "") -> NetworkPolicy:
    return NetworkPolicy(tuple(map(ip_network, allow.split())), tuple(map(ip_network, deny.split())))


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.255.254", "::1"),
        *("169.254.169.254", "fe80::1", "fe80::1%eth0", "febf::1"),
        *("0.0.0.0", "0.1.2.3", "::"),
        *("224.0.0.1", "239.255.255.255", "255.255.255.255", "ff02::1"),
        *("fd00:ec2::254", "168.63.129.16", "100.100.100.200", "192.0.0.192"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1", "::127.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
        pytest.param("64:ff9b:1::a9fe:a9fe", id="NAT64 with a prefix of its own, of 96 bits"),
        pytest.param("64:ff9b:1:a9fe:a9:fe00::", id="NAT64 with a prefix of its own, of 48 bits"),
        pytest.param("2002:7f00:1::", id="6to4"),
        pytest.param("2001:0:1:2:3:4:5601:5601", id="Teredo of 169.254.169.254"),
    ],
)
def test_special_addresses_are_refused_in_every_form(address: str) -> None:
    assert NetworkPolicy().judge(address) is Standing.REFUSED


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3",
        "192.168.0.1",
        "172.17.0.2",
        "203.0.113.7",
        "2001:db8::1",
        "fd00::1",
        "64:ff9b::a00:1",
        "64:ff9b:1::a00:1",
    ],
)
def test_all_other_addresses_are_permitted_without_being_named(address: str) -> None:
    assert NetworkPolicy().judge(address) is Standing.UNNAMED


@pytest.mark.parametrize(
    ("allow", "deny", "address", "standing"),
    [
        pytest.param("127.0.0.0/8", "", "127.0.0.1", Standing.NAMED, id="allow wins against the same network"),
        pytest.param("127.0.0.0/8", "", "::ffff:127.0.0.1", Standing.NAMED, id="and in another form"),
        pytest.param("::1/128", "", "::1", Standing.NAMED, id="IPv6 loopback"),
        pytest.param("0.0.0.0/0 ::/0", "", "127.0.0.1", Standing.REFUSED, id="everything does not open loopback"),
        pytest.param("0.0.0.0/0 ::/0", "", "fd00:ec2::254", Standing.REFUSED, id="nor a metadata service"),
        pytest.param("0.0.0.0/0", "", "10.0.0.1", Standing.NAMED, id="but it names the rest"),
        pytest.param("", "10.0.0.0/8", "10.0.0.1", Standing.REFUSED, id="deny"),
        pytest.param("", "10.0.0.0/8", "::ffff:10.0.0.1", Standing.REFUSED, id="deny in another form"),
        pytest.param("10.0.0.0/8", "10.9.0.0/16", "10.9.0.1", Standing.REFUSED, id="the smaller network: deny"),
        pytest.param("10.9.0.0/16", "10.0.0.0/8", "10.9.0.1", Standing.NAMED, id="the smaller network: allow"),
        pytest.param("10.0.0.0/8", "0.0.0.0/0 ::/0", "10.0.0.1", Standing.NAMED, id="only what is named"),
        pytest.param("10.0.0.0/8", "0.0.0.0/0 ::/0", "192.0.2.1", Standing.REFUSED, id="and nothing else"),
        pytest.param("10.0.0.0/8", "0.0.0.0/0 ::/0", "2001:db8::1", Standing.REFUSED, id="in both families"),
    ],
)
def test_the_smallest_network_decides(allow: str, deny: str, address: str, standing: Standing) -> None:
    assert policy(allow, deny).judge(address) is standing


def test_a_name_is_no_address() -> None:
    with pytest.raises(ValueError, match="example"):
        NetworkPolicy().judge("metadata.example")


@given(st.sampled_from([one for one in REFUSED if one.version == 4]), st.data())
def test_no_form_of_a_refused_address_is_permitted(network: object, data: st.DataObject) -> None:
    address = IPv4Address(data.draw(st.integers(int(network[0]), int(network[-1]))))  # type: ignore[index]
    embedded = [
        IPv6Address(int(IPv6Address(prefix)) | int(address)) for prefix in ("::ffff:0:0", "::ffff:0:0:0", "64:ff9b::")
    ]
    embedded.append(IPv6Address(int(IPv6Address("2002::")) | int(address) << 80))

    assert {NetworkPolicy().judge(str(one)) for one in (address, *embedded)} == {Standing.REFUSED}
