"""Which way to a cluster's API server is tried first: its own address, or Spectro Proxy. Pure."""

from __future__ import annotations

from enum import StrEnum


class Way(StrEnum):
    """`direct`: the address of the admin kubeconfig. `proxy`: the address that Palette names with `frp=true`."""

    DIRECT = "direct"
    PROXY = "proxy"


class SpectroProxy(StrEnum):
    """Whether Spectro Proxy is used. `auto`: whichever way works."""

    AUTO = "auto"
    NEVER = "never"
    ALWAYS = "always"


def ways(setting: SpectroProxy, *, first: Way, remembered: Way | None) -> tuple[Way, ...]:
    """The ways to try, in order. `remembered` is the one that worked last; None = none did, or it was `first`."""
    if setting is SpectroProxy.NEVER:
        return (Way.DIRECT,)
    if setting is SpectroProxy.ALWAYS:
        return (Way.PROXY,)
    begin = remembered or first
    return (begin, *(way for way in Way if way is not begin))


def to_remember(way: Way, *, first: Way) -> Way | None:
    """What is stored of the way that worked: nothing where it is tried first anyway."""
    return None if way is first else way
