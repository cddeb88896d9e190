"""Palette's JSON documents for the simulated world, after its OpenAPI description and documented examples.

The real Palette sometimes sends null instead of an empty list. Some of these documents do so too, so that clients are
tested with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from palette_sync.simulator.search_filter import PROPERTIES, labels_of

if TYPE_CHECKING:
    from datetime import datetime

    from palette_sync.simulator.cluster import SimCluster, SimInstance
    from palette_sync.simulator.exchange import Json
    from palette_sync.simulator.inventory import SimProject

ZERO_TIME = "0001-01-01T00:00:00.000Z"
STATES = ("Pending", "Provisioning", "Running", "Deleting", "Deleted", "Error", "Importing")
ADMIN_DOWNLOAD = "cluster.adminKubeconfigDownload"
ADMIN_DOWNLOAD_BEFORE = "cluster.delete"  # before Palette 4.8.21
_KEY_CREATED = "2026-01-01T00:00:00.000Z"
_AGENT = "4.9.22/20260628.1200"
_CATALOGUE = {
    "project": ("project.get", "project.list"),
    "cluster": ("cluster.create", "cluster.delete", "cluster.get", "cluster.list", "cluster.update"),
    "virtualCluster": ("virtualCluster.get", "virtualCluster.list"),
}


def time_text(when: datetime) -> str:
    """Format a time as RFC 3339 with milliseconds and `Z`."""
    return when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03}Z"


def _metadata(uid: str, name: str, created: str, modified: str) -> Json:
    return {
        "uid": uid,
        "name": name,
        "creationTimestamp": created,
        "lastModifiedTimestamp": modified,
        "deletionTimestamp": ZERO_TIME,
        "annotations": {},
        "labels": {},
    }


def list_meta(token: str, count: int, limit: int, offset: int) -> Json:
    return {"continue": token, "count": count, "limit": limit, "offset": offset}


# Users and keys.


def user_info(instance: SimInstance) -> Json:
    return {"orgName": instance.org_name, "tenantUid": instance.tenant_uid, "userUid": instance.user_uid}


def api_keys(instance: SimInstance) -> Json:
    user = {"uid": instance.user_uid, "firstName": "Palette", "lastName": "Sync"}
    item = {
        "metadata": _metadata(f"{instance.user_uid[:-1]}f", instance.api_key_name, _KEY_CREATED, _KEY_CREATED),
        "spec": {"expiry": time_text(instance.key_expires_at), "key": "", "user": user},
        "status": {"isActive": instance.key_active},
    }
    return {"items": [item]}


def users(instance: SimInstance) -> Json:
    created = {"creationTimestamp": _KEY_CREATED, "lastModifiedTimestamp": _KEY_CREATED}
    metadata = {"uid": instance.user_uid, "name": "palette-sync", **created}
    return {"items": [{"metadata": metadata}], "listmeta": list_meta("", 1, 1, 1)}


def admin_permission(instance: SimInstance) -> str:
    """The permission that allows to download admin kubeconfigs in this version of Palette."""
    return ADMIN_DOWNLOAD if instance.behaviour.admin_permission else ADMIN_DOWNLOAD_BEFORE


def permissions(instance: SimInstance) -> list[Json]:
    """The catalogue of permissions that exist in this version of Palette (`v1Permissions`)."""
    names = {group: list(members) for group, members in _CATALOGUE.items()}
    names["cluster"] = sorted({*names["cluster"], admin_permission(instance)})
    return [{"name": group, "scope": "project", "permissions": members} for group, members in names.items()]


def login(instance: SimInstance) -> Json:
    return {
        "appEnv": "self-hosted",
        "authType": "password",
        "orgName": instance.org_name,
        "redirectUrl": "",
        "rootDomain": instance.url.removeprefix("https://"),
        "securityMode": "",
        "ssoLogins": [],
        "totalTenants": 1,
    }


# Projects.


def project_summary(instance: SimInstance, project: SimProject) -> Json:
    clusters = [c for c in instance.clusters.values() if c.project_uid == project.uid]
    created = time_text(project.created_at)
    metadata = _metadata(project.uid, project.name, created, created)
    metadata["annotations"] = {"scope": "tenant", "tenantUid": instance.tenant_uid}
    return {
        "metadata": metadata,
        "specSummary": {"logoUrl": "", "teams": [], "users": []},
        "status": {
            "clustersHealth": {
                "errored": sum(c.state == "Error" for c in clusters),
                "healthy": sum(c.health == "Healthy" for c in clusters),
                "running": sum(c.state == "Running" for c in clusters),
                "unhealthy": sum(c.health == "UnHealthy" for c in clusters),
            },
            "status": {"isDisabled": False},
            "usage": {"clusters": [{"uid": c.uid, "name": c.name, "cpuCores": 8, "isAlloy": False} for c in clusters]},
        },
    }


def project(found: SimProject) -> Json:
    created = time_text(found.created_at)
    return {
        "metadata": _metadata(found.uid, found.name, created, created),
        "spec": {"alerts": [], "logoUrl": "", "teams": [], "users": []},
        "status": {"isDisabled": False},
    }


# Clusters.


def _cluster_metadata(cluster: SimCluster) -> Json:
    metadata = _metadata(cluster.uid, cluster.name, time_text(cluster.created_at), time_text(cluster.modified_at))
    rights = cluster.instance.key_rights
    permissions = sorted(right for right in rights if right.startswith("cluster.") and right != ADMIN_DOWNLOAD)
    if cluster.admin_download and ADMIN_DOWNLOAD in rights:
        permissions.insert(0, admin_permission(cluster.instance))
    annotations = {
        "scope": cluster.scope,
        "scopeVisibility": "30" if cluster.project_uid is not None else "20",
        "tenantUid": cluster.instance.tenant_uid,
        "ownerUid": cluster.instance.user_uid,
        "permissions": ",".join(permissions),
    }
    if cluster.project_uid is not None:
        annotations["projectUid"] = cluster.project_uid
    metadata["annotations"] = annotations
    metadata["labels"] = labels_of(cluster.tags)
    return metadata


def _location(cluster: SimCluster) -> Json:
    place = cluster.place
    return {
        "countryCode": place.country_code,
        "countryName": place.country_name,
        "regionCode": place.region_code,
        "regionName": place.region_name,
        "coordinates": list(place.coordinates),
    }


def _health(cluster: SimCluster) -> Json:
    return {
        "state": cluster.health,
        "agentVersion": _AGENT,
        "lastHeartBeatTimestamp": time_text(cluster.modified_at),
        "conditions": [],
    }


def _virtual(cluster: SimCluster) -> Json:
    document: Json = {"state": "", "virtualClusters": [], "appDeployments": []}
    if cluster.virtual:
        document["lifecycleStatus"] = {"status": "Paused" if cluster.paused else "Running", "msg": ""}
    return document


def _cluster_import(cluster: SimCluster) -> Json | None:
    if not cluster.imported:
        return None
    return {"importLink": "", "isBrownfield": True, "state": "Importing" if cluster.state == "Importing" else "Success"}


def _cluster_type(cluster: SimCluster) -> str:
    """`Alloy...` are imported clusters: read-only ones are monitored only."""
    if not cluster.imported:
        return "PureManage"
    return "AlloyMonitor" if cluster.import_mode == "read-only" else "AlloyAssist"


def _project_meta(cluster: SimCluster) -> Json:
    if cluster.project_uid is None:
        return {"name": "", "uid": ""}
    return {"name": cluster.instance.projects[cluster.project_uid].name, "uid": cluster.project_uid}


def _cloud_config(cluster: SimCluster) -> Json:
    return {
        "cloudType": cluster.cloud_type,
        "uid": cluster.uid[::-1],
        "machinePools": [],
        "hybridMachinePools": [],
    }


def cluster_summary(cluster: SimCluster) -> Json:
    """A row of the dashboard search (`v1SpectroClusterSummary`)."""
    return {
        "metadata": _cluster_metadata(cluster),
        "specSummary": {
            "archTypes": ["amd64"],
            "cloudAccountMeta": {"name": "", "uid": ""},
            "cloudConfig": _cloud_config(cluster),
            "clusterConfig": {"hostClusterConfig": None, "timezone": ""},
            "clusterProfileTemplate": None,
            "clusterProfileTemplates": None,
            "projectMeta": _project_meta(cluster),
        },
        "status": {
            "state": cluster.state,
            "health": _health(cluster),
            "clusterImport": _cluster_import(cluster),
            "virtual": _virtual(cluster),
            "location": _location(cluster),
            "fips": {"mode": "none"},
            "metrics": None,
            "notifications": {"isAvailable": False},
        },
    }


def cluster_meta(cluster: SimCluster) -> Json:
    """A row of `/meta` (`v1SpectroClusterMeta`)."""
    return {
        "metadata": _cluster_metadata(cluster),
        "spec": {
            "archType": ["amd64"],
            "cloudAccountUid": "",
            "cloudRegion": cluster.place.region_code,
            "cloudType": cluster.cloud_type,
            "clusterType": _cluster_type(cluster),
            "location": _location(cluster),
            "tags": list(cluster.tags),
        },
        "status": {"state": cluster.state},
    }


def cluster_meta_summary(cluster: SimCluster) -> Json:
    """A row of the metadata search (`v1SpectroClusterMetaSummary`)."""
    return {
        "metadata": _cluster_metadata(cluster),
        "specSummary": {
            **cluster_meta(cluster)["spec"],
            "importMode": cluster.import_mode,
            "projectMeta": _project_meta(cluster),
        },
        "status": {
            "state": cluster.state,
            "health": {"state": cluster.health, "isHeartBeatFailed": cluster.health == "UnHealthy"},
            "updates": {"isUpdatesPending": False},
            "fips": {"mode": "none"},
            "cost": {"total": 0.0},
        },
    }


def _conditions(cluster: SimCluster) -> list[Json]:
    stamp = time_text(cluster.created_at)
    status = "True" if cluster.has_kubeconfig else "False"
    kinds = ("ImageResolutionDone", "BootstrappingDone", "KubeConfigReady", "ControlPlaneNodeAdditionDone")
    common = {"status": status, "reason": "", "message": "", "lastTransitionTime": stamp, "lastProbeTime": stamp}
    return [{"type": kind, **common} for kind in kinds]


def _endpoints(cluster: SimCluster) -> list[Json]:
    host, _, port = cluster.url.removeprefix("https://").partition(":")
    return [{"host": host, "port": int(port)}]


def cluster_overview(cluster: SimCluster) -> Json:
    """`v1SpectroClusterUidSummary`: the only document with information about kubeconfigs (`kubeMeta`)."""
    return {
        "metadata": _cluster_metadata(cluster),
        "spec": {
            "archTypes": ["amd64"],
            "cloudConfig": _cloud_config(cluster),
            "cloudaccount": {"name": "", "uid": ""},
            "clusterProfileTemplates": None,
        },
        "status": {
            "state": cluster.state,
            "health": _health(cluster),
            "kubeMeta": {
                "hasKubeConfig": cluster.has_kubeconfig,
                "hasKubeConfigClient": cluster.has_kubeconfig and cluster.oidc,
                "hasManifest": False,
                "kubernetesVersion": cluster.version.removeprefix("v"),
            },
            "apiEndpoints": _endpoints(cluster),
            "conditions": _conditions(cluster),
            "virtual": _virtual(cluster),
            "location": _location(cluster),
            "packs": None,
            "services": [],
            "fips": {"mode": "none"},
        },
    }


def cluster_object(cluster: SimCluster) -> Json:
    """`v1SpectroCluster`, which has neither health nor kubeMeta."""
    return {
        "kind": "SpectroCluster",
        "apiVersion": "v1",
        "metadata": _cluster_metadata(cluster),
        "spec": {
            "cloudType": cluster.cloud_type,
            "clusterType": _cluster_type(cluster),
            "cloudConfigRef": {"kind": "CloudConfig", "name": cluster.name, "uid": cluster.uid[::-1]},
            "clusterConfig": {"clusterMetaAttribute": "", "timezone": ""},
            "clusterProfileTemplates": [],
        },
        "status": {
            "state": cluster.state,
            "apiEndpoints": _endpoints(cluster),
            "conditions": _conditions(cluster),
            "virtual": _virtual(cluster),
            "packs": [],
            "services": [],
        },
    }


def cluster_status(cluster: SimCluster) -> Json:
    return {"status": {"state": cluster.state}}


def oidc(cluster: SimCluster, ca_base64: str) -> Json:
    """`v1SpectroClusterOidcSpec`. Its client secret is a canary: tests check that it appears nowhere."""
    if not cluster.oidc:
        if cluster.instance.behaviour.absent_oidc == "empty-strings":
            return {"issuerUrl": "", "clientId": "", "clientSecret": "", "scopes": None, "issuerTls": None}
        return {}
    return {
        "issuerUrl": cluster.instance.issuer_url,
        "clientId": cluster.oidc_client_id,
        "clientSecret": cluster.instance.oidc_client_secret,
        "scopes": ["openid", "profile", "email"],
        "issuerTls": {"caCertificateBase64": ca_base64, "insecureSkipVerify": False},
        "requiredClaims": {
            "Email": "email",
            "FirstName": "given_name",
            "LastName": "family_name",
            "SpectroTeam": "groups",
        },
    }


# The search.


def search_schema() -> Json:
    enums = {"clusterState": list(STATES), "healthState": ["Healthy", "UnHealthy"]}
    properties = [
        {
            "name": p.name,
            "displayName": p.display,
            "type": p.type,
            "enum": enums.get(p.name, []),
            "enumValues": [],
            "default": "",
            "hideDisplay": p.name == "isDeleted",
        }
        for p in PROPERTIES.values()
    ]
    return {"schema": {"properties": properties}}


def search_input(clusters: list[SimCluster]) -> Json:
    environments = sorted({c.cloud_type for c in clusters})
    return {"inputs": {"environment": {"values": [{"name": name, "uid": name} for name in environments]}}}


def cluster_tags(clusters: list[SimCluster]) -> Json:
    return {"tags": sorted({tag for c in clusters for tag in c.tags})}
