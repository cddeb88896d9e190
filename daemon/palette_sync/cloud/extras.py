"""Which extra of the package brings the library of each cloud."""

from __future__ import annotations

from importlib.util import find_spec

from palette_sync.core.cloud import Cloud

LIBRARIES = {Cloud.AWS: "botocore", Cloud.GOOGLE: "google.auth", Cloud.AZURE: "azure.identity"}


def missing_extra(cloud: Cloud) -> str | None:
    """The name of the extra that is to be installed for this cloud; None if its library is there. Loads nothing."""
    try:
        found = find_spec(LIBRARIES[cloud])
    except ModuleNotFoundError:  # the package above it is missing
        found = None
    return None if found is not None else cloud.value
