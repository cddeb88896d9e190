"""The Helm chart, rendered by Helm's own engine: in step with `deploy/kubernetes/`, restricted, strict about values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

from deploy.places import DEPLOY, documents
from deploy.test_kubernetes import KINDS, strange
from palette_sync import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER = DEPLOY / "helm" / "palette-sync"
# Of Kubernetes: the oldest that Chart.yaml admits, one between, and the newest whose schemas are known.
OLDEST = documents(FOLDER / "Chart.yaml")[0]["kubeVersion"].removeprefix(">=").removesuffix(".0-0")
VERSIONS = (OLDEST, "1.30", kubernetes_validate.latest_version())
EVERYTHING = {
    "externalSecret": {
        "enabled": True,
        "storeRef": {"name": "vault"},
        "files": [{"file": "seal__keys", "key": "palette-sync", "property": "seal"}],
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "runbookBase": "https://docs.example/"},
    "dashboard": {"enabled": True},
    "trialValkey": {"enabled": True},
}


@pytest.fixture(scope="module")
def chart() -> Iterator[Any]:
    with helm.Chart.load(str(FOLDER)) as loaded:
        yield loaded


def rendered(chart: Any, values: dict[str, Any] | None = None, *, name: str = "palette-sync") -> list[dict[str, Any]]:
    files = chart.render(values or {}, name=name, namespace="tools")
    texts = [text for file, text in files.items() if file.endswith(".yaml")]
    return [one for text in texts for one in yaml.load_all(text, yaml.CSafeLoader) if one]


def by_kind(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {one["kind"]: one for one in objects}
    assert len(found) == len(objects)
    return found


def without_release(one: dict[str, Any]) -> dict[str, Any]:
    """An object without the labels of a release, and without the checksums."""
    plain: dict[str, Any] = json.loads(json.dumps(one))
    for label in ("instance", "version", "managed-by"):
        plain["metadata"]["labels"].pop(f"app.kubernetes.io/{label}", None)
    if plain["kind"] == "Deployment":
        plain["spec"]["template"]["metadata"].pop("annotations", None)
    return plain


def test_the_manifests_are_what_the_chart_renders(chart: Any) -> None:
    manifests = by_kind([one for file in sorted((DEPLOY / "kubernetes").glob("*.yaml")) for one in documents(file)])

    assert {kind: without_release(one) for kind, one in by_kind(rendered(chart)).items()} == manifests


def test_the_api_knows_every_key_of_every_option(chart: Any) -> None:
    found = rendered(chart, EVERYTHING, name="demo")

    assert [
        line for one in found if one["kind"] in KINDS for line in strange(one, KINDS[one["kind"]], one["kind"])
    ] == []
    assert {one["kind"] for one in found} - KINDS.keys() == {"ExternalSecret", "ServiceMonitor", "PrometheusRule"}
    assert all("demo" in one["metadata"]["name"] for one in found)


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_what_every_option_renders(chart: Any, version: str) -> None:
    """By the schemas of the API, which also know required fields and the values of a field."""
    for one in rendered(chart, EVERYTHING):
        if one["kind"] in KINDS:
            kubernetes_validate.validate(one, version, strict=True)


def test_kubernetes_would_not_accept_a_wrong_value_or_a_missing_field(chart: Any) -> None:
    deployment = by_kind(rendered(chart))["Deployment"]
    wrong, incomplete = json.loads(json.dumps(deployment)), json.loads(json.dumps(deployment))
    wrong["spec"]["replicas"] = "two"
    del incomplete["spec"]["selector"]

    for one in (wrong, incomplete):
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(one, VERSIONS[-1], strict=True)


def test_every_pod_is_restricted(chart: Any) -> None:
    """As the Pod Security Standard of that name asks, and without a credential of the cluster it runs in."""
    pods = [one["spec"]["template"]["spec"] for one in rendered(chart, EVERYTHING) if one["kind"] == "Deployment"]

    assert len(pods) == 2
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("values", [{"config": "[redis]\n"}, {"secret": {"revision": "2"}}])
def test_a_change_of_configuration_or_secret_rolls_the_pods(chart: Any, values: dict[str, Any]) -> None:
    before, after = (by_kind(rendered(chart, one))["Deployment"]["spec"]["template"] for one in ({}, values))

    assert before != after


def test_the_rules_are_those_of_prometheus_for_this_release(chart: Any) -> None:
    (rule,) = (one for one in rendered(chart, EVERYTHING, name="demo") if one["kind"] == "PrometheusRule")
    (alerts,) = documents(DEPLOY / "prometheus" / "alerts.yaml")
    text = json.dumps(alerts).replace('job=\\"palette-sync\\"', 'job=\\"demo-palette-sync\\"')

    assert rule["spec"] == json.loads(text.replace("https://example.com/palette-sync/", "https://docs.example/"))
    assert rule["spec"] != alerts


def test_the_dashboard_is_that_of_grafana(chart: Any) -> None:
    (shown,) = (one for one in rendered(chart, EVERYTHING) if one["metadata"]["name"] == "palette-sync-dashboard")

    assert json.loads(shown["data"]["palette-sync.json"]) == json.loads(
        (DEPLOY / "grafana" / "palette-sync.json").read_text()
    )


def test_the_secret_comes_from_the_store_or_exists(chart: Any) -> None:
    (secret,) = (one for one in rendered(chart, EVERYTHING) if one["kind"] == "ExternalSecret")
    pod = by_kind(rendered(chart, {"secret": {"name": "mine"}}))["Deployment"]["spec"]["template"]["spec"]

    assert secret["spec"]["target"] == {"name": "palette-sync"}
    assert secret["spec"]["data"] == [
        {"secretKey": "seal__keys", "remoteRef": {"key": "palette-sync", "property": "seal"}}
    ]
    assert [one["secret"]["secretName"] for one in pod["volumes"] if "secret" in one] == ["mine"]
    with pytest.raises(helm.HelmError, match="name the store"):
        chart.render({"externalSecret": {"enabled": True}}, name="x", namespace="x")


def test_networks_of_both_families_can_be_closed(chart: Any) -> None:
    values = {"networkPolicy": {"except": ["10.9.0.0/16", "fd00::/8"]}}
    (blocks, _) = by_kind(rendered(chart, values))["NetworkPolicy"]["spec"]["egress"]

    assert [one["ipBlock"]["except"] for one in blocks["to"]] == [
        ["169.254.0.0/16", "10.9.0.0/16"],
        ["fe80::/10", "fd00::/8"],
    ]


def test_a_single_replica_may_be_evicted_and_an_image_is_pinned_by_digest(chart: Any) -> None:
    digest = f"sha256:{'0' * 64}"
    found = by_kind(rendered(chart, {"replicas": 1, "image": {"digest": digest}}))

    assert "PodDisruptionBudget" not in found
    assert found["Deployment"]["spec"]["template"]["spec"]["containers"][0]["image"] == f"palette-sync@{digest}"


@pytest.mark.parametrize(
    "values",
    [
        {"replica": 2},
        {"replicas": "2"},
        {"image": {"digest": "sha256:1"}},
        {"networkPolicy": {"except": ["everywhere"]}},
        {"externalSecret": {"files": [{"file": "api_key", "key": "x"}]}},
        {"prometheusRule": {"runbookBase": "docs"}},
    ],
)
def test_wrong_values_are_refused(chart: Any, values: dict[str, Any]) -> None:
    with pytest.raises(helm.HelmError):
        chart.validate_schema(values)


def test_the_defaults_and_every_option_are_accepted(chart: Any) -> None:
    chart.validate_schema({})
    chart.validate_schema(EVERYTHING)
    schema, values = json.loads((FOLDER / "values.schema.json").read_text()), chart.values
    assert values.keys() == schema["properties"].keys() - {"global"}


def test_the_notes_name_the_next_command(chart: Any) -> None:
    notes = chart.render({}, name="demo", namespace="tools")["palette-sync/templates/NOTES.txt"]

    assert "kubectl --namespace tools create secret generic demo-palette-sync" in notes
    assert "exec deploy/demo-palette-sync -- palette-sync check" in notes


def test_it_is_a_chart_of_this_version_without_findings(chart: Any, tmp_path: Path) -> None:
    (metadata,) = documents(FOLDER / "Chart.yaml")

    assert (metadata["version"], metadata["appVersion"]) == (__version__, __version__)
    assert [one for one in helm.lint(str(FOLDER))["messages"] if one["severity"] > 1] == []
    chart.save(str(tmp_path))
    with helm.Chart.load(str(tmp_path / f"palette-sync-{__version__}.tgz")) as packed:
        assert rendered(packed, EVERYTHING) == rendered(chart, EVERYTHING), "links are packed as files"
