"""`deploy/kubernetes/`: known keys only, restricted, and in step with the daemon."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes_asyncio.client import models

from deploy.places import DEPLOY, documents
from palette_sync.config import ConfigError, load
from palette_sync.config.settings import ServiceSettings
from palette_sync.store.seal import SealKeys

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = DEPLOY / "kubernetes"
KINDS = {
    "Deployment": "V1Deployment",
    "Service": "V1Service",
    "ConfigMap": "V1ConfigMap",
    "NetworkPolicy": "V1NetworkPolicy",
    "PodDisruptionBudget": "V1PodDisruptionBudget",
}
_CONTAINER = re.compile(r"(list|dict)[\[(](?:str, ?)?([^\])]+)[\])]")
_PLAIN = {"str": str, "int": int, "bool": bool, "float": float}


@pytest.fixture(scope="module")
def manifests() -> dict[str, Any]:
    found = [one for file in sorted(FOLDER.glob("*.yaml")) for one in documents(file)]
    assert len({one["kind"] for one in found}) == len(found)
    return {one["kind"]: one for one in found}


@pytest.fixture(scope="module")
def pod(manifests: dict[str, Any]) -> dict[str, Any]:
    return dict(manifests["Deployment"]["spec"]["template"]["spec"])


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (found,) = pod["containers"]
    return dict(found)


def strange(value: Any, kind: str, where: str) -> list[str]:
    """Where a manifest says something that its type in the API does not have."""
    nested = _CONTAINER.fullmatch(kind)
    if nested:
        outer, inner = nested.groups()
        if not isinstance(value, list if outer == "list" else dict):
            return [f"{where}: no {outer}"]
        items = enumerate(value) if outer == "list" else value.items()
        return [line for key, one in items for line in strange(one, inner, f"{where}.{key}")]
    if kind in _PLAIN:
        return [] if type(value) is _PLAIN[kind] else [f"{where}: {value!r} is no {kind}"]
    model = getattr(models, kind, None)
    if model is None:  # such as object, for what is int or str
        return []
    known = {model.attribute_map[name]: type_ for name, type_ in model.openapi_types.items()}
    return [
        line
        for key, one in value.items()
        for line in (strange(one, known[key], f"{where}.{key}") if key in known else [f"{where}: {key} is unknown"])
    ]


def test_the_api_knows_every_key(manifests: dict[str, Any]) -> None:
    assert manifests.keys() == KINDS.keys()
    assert [line for kind, one in manifests.items() for line in strange(one, KINDS[kind], kind)] == []


def test_an_unknown_key_and_a_wrong_type_would_be_seen(manifests: dict[str, Any]) -> None:
    wrong = {"spec": {"replica": 2, "minReadySeconds": "2", "template": {"spec": {"containers": [{"nam": "x"}]}}}}

    assert len(strange(wrong, "V1Deployment", "Deployment")) == 3


def test_the_pod_is_restricted(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """As the Pod Security Standard of that name asks, and without a credential of the cluster it runs in."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert {"hostPath"} & {key for volume in pod["volumes"] for key in volume} == set()


def test_kubernetes_waits_longer_than_the_daemon_takes(pod: dict[str, Any]) -> None:
    stop = ServiceSettings()

    assert stop.grace < stop.deadline
    assert stop.deadline.total_seconds() < pod["terminationGracePeriodSeconds"]


def test_the_probes_ask_where_the_daemon_answers(container: dict[str, Any]) -> None:
    environment = {one["name"]: one["value"] for one in container["env"]}
    address, _, port = environment["PALETTE_SYNC_HTTP__LISTEN"].rpartition(":")
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}

    assert address == "0.0.0.0"
    for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        asked = container[probe]["httpGet"]
        assert asked["path"] == path
        assert ports[asked["port"]] == int(port)


def test_the_service_finds_the_pods(manifests: dict[str, Any], container: dict[str, Any]) -> None:
    service, template = manifests["Service"], manifests["Deployment"]["spec"]["template"]
    (port,) = service["spec"]["ports"]

    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert manifests["Deployment"]["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert port["targetPort"] in {one["name"] for one in container["ports"]}


def test_the_network_policy_lets_nothing_in_but_prometheus_and_keeps_the_daemon_from_link_local_addresses(
    manifests: dict[str, Any], container: dict[str, Any]
) -> None:
    policy, template = manifests["NetworkPolicy"]["spec"], manifests["Deployment"]["spec"]["template"]
    everywhere, dns = policy["egress"]

    assert policy["podSelector"]["matchLabels"] == template["metadata"]["labels"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == ["http"]
    assert all(rule["from"] for rule in policy["ingress"])
    assert {one["ipBlock"]["cidr"]: one["ipBlock"]["except"] for one in everywhere["to"]} == {
        "0.0.0.0/0": ["169.254.0.0/16"],
        "::/0": ["fe80::/10"],
    }
    assert {port["port"] for port in dns["ports"]} == {53}


def test_service_links_are_off_because_they_would_be_refused(pod: dict[str, Any], tmp_path: Path) -> None:
    assert pod["enableServiceLinks"] is False

    config = tmp_path / "config.toml"
    config.write_text('seal = "none"\n[instances.prod]\nurl = "https://palette.example"\napi_key = "canary"\n')
    with pytest.raises(ConfigError, match="PALETTE_SYNC_REDIS_PORT: is unknown"):
        load(config, environ={"PALETTE_SYNC_REDIS_PORT": "tcp://10.0.0.1:9464"})


def test_config_map_and_secret_make_a_whole_configuration(
    manifests: dict[str, Any], pod: dict[str, Any], container: dict[str, Any], tmp_path: Path
) -> None:
    """With the files in the shape in which a kubelet lays them out: links through a dated folder."""
    volumes = {one["name"]: one for one in pod["volumes"]}
    mounts = {one["mountPath"]: volumes[one["name"]] for one in container["volumeMounts"]}
    environment = {one["name"]: one["value"] for one in container["env"]}
    config_map = manifests["ConfigMap"]
    assert mounts["/etc/palette-sync"]["configMap"]["name"] == config_map["metadata"]["name"]
    assert "secret" in mounts[environment["PALETTE_SYNC_SECRETS_DIR"]]
    shape = re.findall(r"--from-file=(\w+)", (FOLDER / "config.yaml").read_text())
    instances = tomllib.loads(config_map["data"]["config.toml"])["instances"]
    assert set(shape) == {*(f"instances__{name}__api_key" for name in instances), "redis__url", "seal__keys"}

    config = tmp_path / "config.toml"
    config.write_text(config_map["data"]["config.toml"])
    secrets = tmp_path / "secrets"
    dated = secrets / "..2026_01_01_00_00_00.1"
    dated.mkdir(parents=True)
    (secrets / "..data").symlink_to(dated.name)
    values = {"redis__url": "redis://w:canary@redis:6379/0", "seal__keys": SealKeys.generate_line("k")}
    for name in shape:
        (dated / name).write_text(values.get(name, "canary"))
        (secrets / name).symlink_to(f"..data/{name}")
    settings = load(config, environ={**environment, "PALETTE_SYNC_SECRETS_DIR": str(secrets)})

    assert settings.instances.keys() == instances.keys()


def test_no_manifest_holds_a_secret(manifests: dict[str, Any]) -> None:
    assert "Secret" not in manifests
    assert "api_key =" not in manifests["ConfigMap"]["data"]["config.toml"]


def test_the_image_is_pinned(container: dict[str, Any]) -> None:
    from palette_sync import __version__

    assert container["image"] == f"palette-sync:{__version__}"
