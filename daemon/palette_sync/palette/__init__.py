"""Spectro Cloud Palette: the calls that a pass makes, and the errors that they raise."""

from palette_sync.palette.assets import admin_kubeconfig, kubeconfig, oidc_spec
from palette_sync.palette.client import PaletteClient, Recorder, Timing
from palette_sync.palette.discovery import api_key_expiry, discover, permission_names, user_info
from palette_sync.palette.errors import (
    FileTooLarge,
    IncompleteListing,
    Malformed,
    NotFound,
    NotPermitted,
    PaletteError,
    ProjectUnavailable,
    Rejected,
    ServerFailure,
    TenantMismatch,
    TooManyRequests,
    Unauthorized,
    Unreachable,
    UnusableSettings,
)
from palette_sync.palette.limits import DOCUMENTED_RATES, Limits, Rate
from palette_sync.palette.peek import Peek
from palette_sync.palette.rows import ApiKeyInfo, OidcSpec, UserInfo

__all__ = [
    "DOCUMENTED_RATES",
    "ApiKeyInfo",
    "FileTooLarge",
    "IncompleteListing",
    "Limits",
    "Malformed",
    "NotFound",
    "NotPermitted",
    "OidcSpec",
    "PaletteClient",
    "PaletteError",
    "Peek",
    "ProjectUnavailable",
    "Rate",
    "Recorder",
    "Rejected",
    "ServerFailure",
    "TenantMismatch",
    "Timing",
    "TooManyRequests",
    "Unauthorized",
    "Unreachable",
    "UnusableSettings",
    "UserInfo",
    "admin_kubeconfig",
    "api_key_expiry",
    "discover",
    "kubeconfig",
    "oidc_spec",
    "permission_names",
    "user_info",
]
