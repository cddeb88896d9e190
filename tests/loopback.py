"""The network policy of tests, whose servers are all on loopback."""

from __future__ import annotations

from ipaddress import ip_network

from palette_sync.core.network import NetworkPolicy

LOOPBACK = NetworkPolicy(allow=(ip_network("127.0.0.0/8"), ip_network("::1/128")))
