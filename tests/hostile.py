"""What an attacker may send: kubeconfigs, bodies, Palette's rows, objects of API servers, documents in Redis.

The corpora are fixed; they hold each kind that did harm once. The strategies draw new ones: mostly well-formed
documents in which any value may be replaced by one that nobody expects.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import yaml
from hypothesis import strategies as st

URL = "https://127.0.0.1:1"
CONTROLS = "\x00\x1b[2J\x07\r\n\t\x7f\x9b\u202e\u2066\u2028\ufeff"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def pem(label: str, size: int) -> str:
    return f"-----BEGIN {label}-----\n{'A' * size}\n-----END {label}-----\n"


# -- kubeconfigs -----------------------------------------------------------------------------------------------------


def _document(cluster: Any, user: Any) -> dict[str, Any]:
    return {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }


def kubeconfig(cluster: Any, user: Any) -> str:
    return yaml.safe_dump(_document(cluster, user))


def _aliases(level: str) -> str:
    lines = ["l0: &l0 {k: v}"]
    lines += [f"l{n}: &l{n} " + level.format(", ".join([f"*l{n - 1}"] * 10)) for n in range(1, 11)]
    return "\n".join(lines)


_USER = {"token": "t"}
KUBECONFIGS: dict[str, str] = {
    "aliases": _aliases("[{}]"),
    "merges": _aliases("{{<<: [{}]}}"),
    "nested lists": "[" * 100_000,
    "nested mappings": "{a: " * 30_000,
    "many keys": "\n".join(f"k{number}: {number}" for number in range(9_000)),
    "one long line": "a: " + "x" * 120_000,
    "quotes": 'a: "' + '\\"' * 60_000 + '"',
    "anchors": "\n".join(f"a{number}: &a{number} x" for number in range(7_000)),
    "comments": "#\n" * 60_000,
    "tags": "a: !!binary " + "A" * 100_000,
    "controls": kubeconfig({"server": URL + CONTROLS}, _USER),
    "PEM headers": kubeconfig({"server": URL, "certificate-authority-data": b64("-----BEGIN A-----\n" * 4_000)}, _USER),
    "a CA that is no certificate": kubeconfig(
        {"server": URL, "certificate-authority-data": b64(pem("CERTIFICATE", 15_000))}, _USER
    ),
    "CAs that are no certificates": kubeconfig(
        {"server": URL, "certificate-authority-data": b64(pem("CERTIFICATE", 8) * 300)}, _USER
    ),
    "a CA that is a list": kubeconfig({"server": URL, "certificate-authority-data": [b64("x")]}, _USER),
    "a key without end": kubeconfig(
        {"server": URL},
        {"client-certificate-data": b64(pem("CERTIFICATE", 8)), "client-key-data": b64(pem("RSA PRIVATE KEY", 60_000))},
    ),
    "a token without end": kubeconfig({"server": URL}, {"token": "t" * 100_000}),
    "clusters": yaml.safe_dump({"current-context": "c", "clusters": [{"name": "k"}] * 5_000}),
    "another program": kubeconfig({"server": URL}, {"exec": {"command": "touch", "args": ["/tmp/x"]}}),
    "metadata service": kubeconfig({"server": "https://169.254.169.254", "insecure-skip-tls-verify": False}, _USER),
    "a web page": "<!doctype html><html>" + "<p>" * 30_000,
    "too large": "a" * 1_500_000,
}
_STRANGE: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.sampled_from(
        ["", "null", "~", "True", "/etc/passwd", "http://x", "https://x?y", "https://169.254.169.254", URL, CONTROLS]
    ),
    st.lists(st.text(max_size=4), max_size=3),
    st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3),
)


def _fields(*names: str) -> st.SearchStrategy[Any]:
    good = st.fixed_dictionaries({}, optional=dict.fromkeys(names, _STRANGE))
    return good | _STRANGE


@st.composite
def hostile_kubeconfigs(draw: st.DrawFn) -> str:
    """A kubeconfig, mostly of the right shape, in which any field may have any value."""
    cluster = draw(
        _fields(
            "server",
            "certificate-authority",
            "certificate-authority-data",
            "insecure-skip-tls-verify",
            "proxy-url",
            "tls-server-name",
        )
    )
    user = draw(
        _fields(
            *("token", "tokenFile", "client-certificate", "client-certificate-data", "client-key", "client-key-data"),
            *("exec", "auth-provider", "username", "password"),
        )
    )
    if isinstance(cluster, dict):
        cluster.setdefault("server", URL)
    document: dict[str, Any] = _document(cluster, user)
    for key in draw(st.sets(st.sampled_from(sorted(document)), max_size=1)):
        document[key] = draw(_STRANGE)
    return json.dumps(document) if draw(st.booleans()) else yaml.safe_dump(document, allow_unicode=True)


# -- bodies ----------------------------------------------------------------------------------------------------------

_LARGE = 1_000_000
BODIES: dict[str, str] = {
    "objects": "[" + "{}," * (_LARGE // 3) + "{}]",
    "lists": "[" + "[]," * (_LARGE // 3) + "[]]",
    "items": '{"items":[' + "{}," * (_LARGE // 3) + '{}],"listmeta":{"count":3,"continue":"x"}}',
    "keys": "{" + ",".join(f'"k{number}":1' for number in range(_LARGE // 12)) + "}",
    "labels": '{"metadata":{"uid":"u","resourceVersion":"1","labels":{'
    + ",".join(f'"k{number}":"v"' for number in range(_LARGE // 14))
    + "}}}",
    "a long text": '{"kind":"Status","message":"' + "x" * _LARGE + '"}',
    "a text of controls": '{"kind":"Status","message":"' + "\\u001b\\u202e" * (_LARGE // 12) + '"}',
    "nested": "[" * 900 + "]" * 900,
    "keys of an issuer": '{"keys":[' + '{"kid":"a","kty":"RSA"},' * (_LARGE // 26) + "{}]}",
    "a long number": '{"listmeta":{"count":1' + "0" * 300 + '},"items":[]}',
    "null": "null",
}


# -- Palette's rows and objects of API servers -----------------------------------------------------------------------


def _changed(document: Any, draw: st.DrawFn) -> Any:
    """The document with some of its values, at any depth, replaced by strange ones or left out."""
    if draw(st.integers(0, 9)) == 0:
        return draw(_STRANGE)
    if isinstance(document, dict):
        return {key: _changed(value, draw) for key, value in document.items() if draw(st.integers(0, 19))}
    if isinstance(document, list):
        return [_changed(value, draw) for value in document]
    return document


_ROW: dict[str, Any] = {
    "metadata": {
        "uid": "62a54c7b5d0a2f1d6f1e0001",
        "name": "web",
        "creationTimestamp": "2026-03-01T10:20:30.123Z",
        "labels": {"env": "prod", "plain": "spectro__tag"},
        "annotations": {
            "scope": "project",
            "projectUid": "p1",
            "permissions": "cluster.get,cluster.adminKubeconfigDownload",
        },
    },
    "specSummary": {"cloudConfig": {"cloudType": "aws"}, "projectMeta": {"uid": "p1", "name": "Shop"}},
    "status": {
        "state": "Running",
        "health": {"state": "Healthy"},
        "location": {"countryCode": "DE", "countryName": "Germany", "regionCode": "eu", "regionName": "Europe"},
        "virtual": {"hostCluster": {"uid": ""}, "lifecycleStatus": {"status": "Running"}},
    },
}
_META = {
    "uid": "5d3c",
    "resourceVersion": "7",
    "name": "backstage-sa-token",
    "labels": {"a": "b"},
    "annotations": {"c": "d"},
}
_OBJECT: dict[str, Any] = {
    "kind": "Secret",
    "metadata": _META,
    "type": "kubernetes.io/service-account-token",
    "data": {"token": "dA=="},
    "status": {"phase": "Active"},
    "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    "aggregationRule": None,
    "roleRef": {"kind": "ClusterRole", "name": "x"},
    "subjects": [{"kind": "ServiceAccount", "name": "sa", "namespace": "tools"}],
    "automountServiceAccountToken": False,
}


@st.composite
def hostile_rows(draw: st.DrawFn) -> Any:
    """A row of a cluster listing in which any value may be another."""
    row = _changed(_ROW, draw)
    if isinstance(row, dict) and draw(st.booleans()):
        size = draw(st.sampled_from([10, 1000, 100_000]))
        row["status"] = {"state": draw(st.text(min_size=1, max_size=3)) * size}
        row["metadata"] = {
            **_ROW["metadata"],
            "name": "n" * size,
            "labels": {f"k{one}": CONTROLS for one in range(200)},
        }
    return row


@st.composite
def hostile_objects(draw: st.DrawFn) -> Any:
    """An object of an API server in which any value may be another."""
    return _changed(_OBJECT, draw)


# -- states of Redis -------------------------------------------------------------------------------------------------


@st.composite
def hostile_documents(draw: st.DrawFn, document: dict[str, Any]) -> bytes:
    """Bytes that a field of a Redis hash may hold in place of the document."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.binary(max_size=40))
    if kind == 1:
        return b"[" * draw(st.sampled_from([10, 1000, 100_000]))
    return json.dumps(_changed(document, draw)).encode()
