"""How one simulated Palette answers where versions of Palette differ, and where it has been seen to answer wrongly."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

ListingLie = Literal["none", "total-too-high", "empty", "half"]
BadKey = Literal["unauthorized", "not-found"]
BadProject = Literal["named", "forbidden"]
NoTenantRight = Literal["forbidden", "empty"]
AbsentOidc = Literal["empty-object", "empty-strings", "not-found"]


@dataclass(slots=True)
class Behaviour:
    """The defaults are those of Palette 4.9.22.

    - `listing_lie`: `total-too-high` announces more rows than there are; `empty` and `half` announce and give none or
      half of the rows.
    - `bad_key`: a wrong key is answered with 401, or with a 404 that repeats the key (palette-sdk-go, change 209).
    - `bad_project`: a wrong project header has its own errors, or is a missing permission, as before 4.9.22.
    - `no_tenant_right`: a key without tenant rights gets 403 for a search without project header, or 200 without rows.
    - `absent_oidc`: the answer about a cluster without OIDC.
    - `admin_permission`: the permission `cluster.adminKubeconfigDownload` exists; before 4.8.21, `cluster.delete` is
      needed instead.
    """

    listing_lie: ListingLie = "none"
    bad_key: BadKey = "unauthorized"
    bad_project: BadProject = "named"
    no_tenant_right: NoTenantRight = "forbidden"
    absent_oidc: AbsentOidc = "empty-object"
    admin_permission: bool = True

    def change(self, name: str, value: object) -> None:
        """Set one of the fields. Raises ValueError for an unknown name or value."""
        if name not in {field.name for field in fields(self)}:
            raise ValueError(f"there is no behaviour {name!r}")
        allowed = _WORDS.get(name, (True, False))
        if value not in allowed or isinstance(value, bool) is not (name not in _WORDS):
            raise ValueError(f"{name} is one of {', '.join(map(str, allowed))}")
        setattr(self, name, value)


_WORDS = {
    "listing_lie": get_args(ListingLie),
    "bad_key": get_args(BadKey),
    "bad_project": get_args(BadProject),
    "no_tenant_right": get_args(NoTenantRight),
    "absent_oidc": get_args(AbsentOidc),
}
