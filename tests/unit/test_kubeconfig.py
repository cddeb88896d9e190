"""A kubeconfig is untrusted input: what is read of it, and what is refused by which name."""

from __future__ import annotations

import base64
import traceback
from typing import Any

import pytest
import yaml

from palette_sync.core.cloud import Cloud, CloudCluster
from palette_sync.core.model import Secret, Server
from palette_sync.core.reasons import Reason
from palette_sync.kube.kubeconfig import (
    LARGEST,
    AdminAccess,
    BearerToken,
    CertificateAndToken,
    ClientCertificate,
    CloudTokenNeeded,
    KubeconfigError,
    parse,
    parse_server_only,
)
from palette_sync.simulator.certificates import Authority
from unit.growth import growth

CANARY = "canary-7f3a"
CA = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n"
KEY = f"-----BEGIN EC PRIVATE KEY-----\n{CANARY}\n-----END EC PRIVATE KEY-----\n"
URL = "https://10.0.0.1:6443"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


CLUSTER = {"server": URL, "certificate-authority-data": b64(CA)}
CERT_USER = {"client-certificate-data": b64(CERTIFICATE), "client-key-data": b64(KEY)}
TOKEN_USER = {"token": CANARY}


def kubeconfig(cluster: Any = None, user: Any = None, **changes: Any) -> Secret:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "elsewhere", "context": {"cluster": "x", "user": "y"}},
            {"name": "here", "context": {"cluster": "kubernetes", "user": "admin"}},
        ],
        "clusters": [{"name": "kubernetes", "cluster": CLUSTER if cluster is None else cluster}],
        "users": [{"name": "admin", "user": TOKEN_USER if user is None else user}],
        **changes,
    }
    return Secret(yaml.safe_dump({key: value for key, value in document.items() if value is not None}))


def bomb(level: str) -> str:
    """Ten levels of ten aliases each: ten thousand million nodes when they are written out."""
    lines = ["l0: &l0 {k: v}"]
    lines += [f"l{n}: &l{n} " + level.format(", ".join([f"*l{n - 1}"] * 10)) for n in range(1, 11)]
    return "\n".join(lines)


def refused(text: Secret, **options: Any) -> KubeconfigError:
    with pytest.raises(KubeconfigError) as caught:
        parse(text, **options)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert CANARY not in shown
    assert CANARY not in str(caught.value.__dict__)
    return caught.value


def test_a_file_of_kubeadm_grants_access_by_client_certificate() -> None:
    access = parse(kubeconfig(user=CERT_USER))

    assert access == AdminAccess(Server(URL, b64(CA)), ClientCertificate(CERTIFICATE, Secret(KEY)))
    assert CANARY not in repr(access)
    assert CANARY not in repr(access.credential)


def test_a_token_grants_access_too() -> None:
    assert parse(kubeconfig()).credential == BearerToken(Secret(CANARY))


def test_a_token_and_a_certificate_are_both_kept() -> None:
    credential = parse(kubeconfig(user={**CERT_USER, **TOKEN_USER})).credential

    assert credential == CertificateAndToken(ClientCertificate(CERTIFICATE, Secret(KEY)), BearerToken(Secret(CANARY)))
    assert CANARY not in repr(credential)


@pytest.mark.parametrize("missing", sorted(CERT_USER))
def test_half_a_certificate_beside_a_token_is_left_out(missing: str) -> None:
    half = {key: value for key, value in CERT_USER.items() if key != missing}

    assert parse(kubeconfig(user={**half, **TOKEN_USER})).credential == BearerToken(Secret(CANARY))


def test_only_the_pem_blocks_of_a_key_file_are_kept() -> None:
    file = f"some text\n-----BEGIN EC PARAMETERS-----\nCC\n-----END EC PARAMETERS-----\n{KEY}"
    credential = parse(kubeconfig(user={**CERT_USER, "client-key-data": b64(file)})).credential

    assert credential == ClientCertificate(CERTIFICATE, Secret(KEY))


def test_only_the_current_context_counts() -> None:
    poisoned = {
        "clusters": [
            {"name": "x", "cluster": {"server": "http://evil", "insecure-skip-tls-verify": True}},
            {"name": "kubernetes", "cluster": CLUSTER},
        ],
        "users": [
            {"name": "y", "user": {"exec": {"command": "sh"}}},
            {"name": "admin", "user": TOKEN_USER},
        ],
    }

    assert parse(kubeconfig(**poisoned)).server == Server(URL, b64(CA))


@pytest.mark.parametrize(
    ("cluster", "server"),
    [
        pytest.param({**CLUSTER, "server": f"{URL}/"}, Server(URL, b64(CA)), id="a slash at the end"),
        pytest.param({**CLUSTER, "server": f"{URL}/k8s/c-1"}, Server(f"{URL}/k8s/c-1", b64(CA)), id="a path"),
        pytest.param({"server": "https://[::1]:6443"}, Server("https://[::1]:6443"), id="no CA is the system's trust"),
        pytest.param({**CLUSTER, "tls-server-name": "api"}, Server(URL, b64(CA), "api"), id="another name to verify"),
        pytest.param({**CLUSTER, "insecure-skip-tls-verify": False}, Server(URL, b64(CA)), id="insecure: false"),
        pytest.param(
            {"server": URL, "certificate-authority-data": b64(f"two\n{CA}{CA}")},
            Server(URL, b64(f"{CA}\n{CA}".replace("\n\n", "\n"))),
            id="a bundle",
        ),
    ],
)
def test_the_server_is_read(cluster: dict[str, Any], server: Server) -> None:
    found = parse_server_only(kubeconfig(cluster=cluster))

    assert (found.url, found.tls_server_name) == (server.url, server.tls_server_name)
    assert _blocks(found.ca_data) == _blocks(server.ca_data)


def _blocks(ca_data: str | None) -> list[str]:
    return base64.b64decode(ca_data).decode().split() if ca_data else []


@pytest.mark.parametrize(
    ("cluster", "reason"),
    [
        pytest.param({**CLUSTER, "server": "http://10.0.0.1"}, "NotHttps", id="http"),
        pytest.param({**CLUSTER, "server": f"https://u:{CANARY}@10.0.0.1"}, "NotHttps", id="a password in the address"),
        pytest.param({**CLUSTER, "server": f"{URL}/?x={CANARY}"}, "NotHttps", id="a query"),
        pytest.param({"certificate-authority-data": b64(CA)}, "NotHttps", id="no server"),
        pytest.param({**CLUSTER, "server": [URL]}, "KubeconfigMalformed", id="a list of servers"),
        pytest.param({"server": URL, "certificate-authority": f"/{CANARY}"}, "FilePathRefused", id="a CA file"),
        pytest.param({**CLUSTER, "proxy-url": f"http://{CANARY}"}, "ProxyRefused", id="a proxy"),
        pytest.param({"server": URL, "insecure-skip-tls-verify": True}, "InsecureTLS", id="no verification"),
        pytest.param({**CLUSTER, "insecure-skip-tls-verify": "True"}, "InsecureTLS", id="no verification, as text"),
        pytest.param({"server": URL, "certificate-authority-data": f"{CANARY}!"}, "BadCA", id="a CA that is no base64"),
        pytest.param({"server": URL, "certificate-authority-data": b64(CANARY)}, "BadCA", id="a CA that is no PEM"),
        pytest.param({"server": URL, "certificate-authority-data": b64(KEY)}, "BadCA", id="a key in place of a CA"),
        pytest.param([URL], "KubeconfigMalformed", id="a cluster that is a list"),
        pytest.param({"server": f"{URL}/{'a' * 2048}"}, "NotHttps", id="an address without end"),
        pytest.param({"server": URL, "certificate-authority-data": "null"}, "BadCA", id="a CA that is the word null"),
        pytest.param({**CLUSTER, "tls-server-name": "a b"}, "KubeconfigMalformed", id="a name of two words"),
        pytest.param({**CLUSTER, "tls-server-name": "a" * 254}, "KubeconfigMalformed", id="a name without end"),
        pytest.param({**CLUSTER, "insecure-skip-tls-verify": "maybe"}, "KubeconfigMalformed", id="insecure: maybe"),
        pytest.param(
            {"server": URL, "certificate-authority-data": b64(CA * 400)}, "BadCA", id="a CA larger than is published"
        ),
    ],
)
def test_a_server_is_refused_by_name(cluster: Any, reason: str) -> None:
    assert refused(kubeconfig(cluster=cluster)).reason == reason
    with pytest.raises(KubeconfigError, check=lambda error: error.reason == reason):
        parse_server_only(kubeconfig(cluster=cluster))


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        pytest.param({"exec": {"command": f"touch {CANARY}"}}, "ExecRefused", id="exec"),
        pytest.param({"exec": {"command": "x"}, **TOKEN_USER}, "ExecRefused", id="exec beside a token"),
        pytest.param({"exec": "x"}, "ExecRefused", id="exec as text"),
        pytest.param({"auth-provider": {"config": {"cmd-path": CANARY}}}, "AuthProviderRefused", id="auth-provider"),
        pytest.param({"client-certificate": f"/{CANARY}", **CERT_USER}, "FilePathRefused", id="a certificate file"),
        pytest.param({"client-key": f"/{CANARY}", **CERT_USER}, "FilePathRefused", id="a key file"),
        pytest.param({"tokenFile": f"/{CANARY}", **TOKEN_USER}, "FilePathRefused", id="a token file"),
        pytest.param({"token": f"a\r\nHost: {CANARY}"}, "BadCredential", id="a header in the token"),
        pytest.param({"token": f"{CANARY}ü"}, "BadCredential", id="a token beyond ASCII"),
        pytest.param({"username": "admin", "password": CANARY}, "NoCredential", id="a password"),
        pytest.param({"client-key-data": b64(KEY)}, "NoCredential", id="a key without certificate"),
        pytest.param({"client-certificate-data": b64(CERTIFICATE)}, "NoCredential", id="a certificate without key"),
        pytest.param({**CERT_USER, "client-key-data": b64(CERTIFICATE)}, "BadCredential", id="no key in the key"),
        pytest.param({**CERT_USER, "client-certificate-data": CANARY}, "BadCredential", id="no base64"),
        pytest.param({}, "NoCredential", id="nothing at all"),
    ],
)
def test_a_user_is_refused_by_name(user: Any, reason: str) -> None:
    assert refused(kubeconfig(user=user)).reason == reason
    assert parse_server_only(kubeconfig(user=user)).url == URL  # which looks at no user


@pytest.mark.parametrize(
    ("section", "reason", "cluster"),
    [
        pytest.param(
            {"command": "aws-iam-authenticator", "args": ["token", "-i", "shop"]},
            Reason.NEEDS_AWS_CREDENTIALS,
            CloudCluster(Cloud.AWS, "shop"),
            id="AWS",
        ),
        pytest.param(
            {"command": "gke-gcloud-auth-plugin", "args": None},
            Reason.NEEDS_GOOGLE_CREDENTIALS,
            CloudCluster(Cloud.GOOGLE),
            id="Google",
        ),
        pytest.param(
            {"command": "kubelogin", "args": ["get-token", {"server-id": CANARY}, "--server-id", CANARY]},
            Reason.NEEDS_AZURE_CREDENTIALS,
            CloudCluster(Cloud.AZURE),
            id="Azure",
        ),
    ],
)
def test_a_known_authenticator_is_refused_with_the_cloud_that_it_asks(
    section: dict[str, Any], reason: Reason, cluster: CloudCluster
) -> None:
    with pytest.raises(CloudTokenNeeded) as caught:
        parse(kubeconfig(user={"exec": section, **TOKEN_USER}))

    assert (caught.value.reason, caught.value.cluster, caught.value.server.url) == (reason, cluster, URL)
    assert CANARY not in str(caught.value)


def test_a_file_with_a_token_says_which_cluster_of_a_cloud_it_is_for() -> None:
    eks = {**CLUSTER, "server": "https://0A.gr7.eu-central-1.eks.amazonaws.com"}

    assert parse(kubeconfig(cluster=eks)).cloud == CloudCluster(Cloud.AWS, "kubernetes")
    assert parse(kubeconfig()).cloud is None


def test_empty_exec_and_auth_provider_are_none() -> None:
    assert parse(kubeconfig(user={**TOKEN_USER, "exec": None, "auth-provider": None})).credential


def plain(text: str) -> AdminAccess:
    """What is read of a file like kubeconfig(), with `text` in place of its cluster and user."""
    return parse(
        Secret("current-context: here\ncontexts:\n- name: here\n  context: {cluster: kubernetes, user: admin}\n" + text)
    )


CLUSTER_LINES = f"clusters:\n- name: kubernetes\n  cluster:\n    server: {URL}\n"
USER_LINES = f"users:\n- name: admin\n  user: {{token: {CANARY}}}\n"


@pytest.mark.parametrize(
    ("text", "server"),
    [
        pytest.param(f"{CLUSTER_LINES}{USER_LINES}---\n", Server(URL), id="a separator at the end"),
        pytest.param(f"{CLUSTER_LINES}{USER_LINES}...\n---\n[", Server(URL), id="what follows the first document"),
        pytest.param(
            f"{CLUSTER_LINES}    server: https://second\n{USER_LINES}", Server("https://second"), id="a key twice"
        ),
        pytest.param(
            f"{CLUSTER_LINES}    certificate-authority-data: !!binary |\n      {b64(b64(CA))[:40]}\n"
            f"      {b64(b64(CA))[40:]}\n{USER_LINES}",
            Server(URL, b64(CA)),
            id="binary",
        ),
        pytest.param(
            f"{USER_LINES}x: &server {URL}\nclusters:\n- name: kubernetes\n  cluster: {{server: *server}}\n",
            Server(URL),
            id="an alias to a text",
        ),
        pytest.param(
            f"{USER_LINES}clusters: &all\n- {{name: kubernetes, cluster: {{server: '{URL}'}}}}\nagain: *all\n",
            Server(URL),
            id="an alias to a list",
        ),
        pytest.param(
            f"{USER_LINES}x: &x {{server: https://other, tls-server-name: api}}\n"
            f"clusters:\n- name: kubernetes\n  cluster:\n    <<: *x\n    server: {URL}\n",
            Server(URL, None, "api"),
            id="a merge, and a key after it",
        ),
        pytest.param(
            f"{USER_LINES}x: &x {{server: {URL}}}\ny: &y {{server: https://other, tls-server-name: api}}\n"
            "clusters:\n- name: kubernetes\n  cluster: {<<: [*x, *y]}\n",
            Server(URL, None, "api"),
            id="a merge of two, of which the first wins",
        ),
        pytest.param(f"{CLUSTER_LINES.replace('https', 'HTTPS')}{USER_LINES}", Server(URL), id="HTTPS in capitals"),
    ],
)
def test_a_file_is_read_as_kubectl_reads_it(text: str, server: Server) -> None:
    assert plain(text) == AdminAccess(server, BearerToken(Secret(CANARY)))


def test_a_certificate_of_a_bundle_that_does_not_load_is_left_out() -> None:
    good = Authority("a").pem.strip()
    bundle = f"{good}\n{CA}{good}\n"

    server = parse(kubeconfig({**CLUSTER, "certificate-authority-data": b64(bundle)})).server

    assert _blocks(server.ca_data) == f"{good}\n{good}".split()


NAMED = {"name": "kubernetes", "cluster": CLUSTER}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(kubeconfig(**{"current-context": None}), "NoCurrentContext", id="no current-context"),
        pytest.param(kubeconfig(**{"current-context": ""}), "NoCurrentContext", id="an empty current-context"),
        pytest.param(kubeconfig(**{"current-context": CANARY}), "KubeconfigMalformed", id="an unknown context"),
        pytest.param(kubeconfig(contexts=None), "KubeconfigMalformed", id="no contexts"),
        pytest.param(kubeconfig(contexts={"here": {}}), "KubeconfigMalformed", id="contexts that are no list"),
        pytest.param(kubeconfig(contexts=["here"]), "KubeconfigMalformed", id="a context that is a word"),
        pytest.param(kubeconfig(contexts=[{"name": "here"}]), "KubeconfigMalformed", id="a context of nothing"),
        pytest.param(kubeconfig(clusters=[]), "KubeconfigMalformed", id="no such cluster"),
        pytest.param(kubeconfig(users=[]), "KubeconfigMalformed", id="no such user"),
        pytest.param(kubeconfig(clusters=[NAMED, dict(NAMED)]), "KubeconfigMalformed", id="two clusters of one name"),
        pytest.param(Secret(""), "KubeconfigMalformed", id="an empty file"),
        pytest.param(Secret(f"- {CANARY}"), "KubeconfigMalformed", id="a list"),
        pytest.param(Secret(f"{CANARY}"), "KubeconfigMalformed", id="a word"),
        pytest.param(Secret(f"{{{CANARY}"), "KubeconfigMalformed", id="no YAML"),
        pytest.param(Secret(f"a: {CANARY}\x00"), "KubeconfigMalformed", id="a zero byte"),
        pytest.param(Secret(f"a: {CANARY}\ud800"), "KubeconfigMalformed", id="half a character"),
        pytest.param(Secret(f"a: &a [*a, {CANARY}]"), "KubeconfigMalformed", id="an alias to what is not complete"),
        pytest.param(Secret(f"<<: {CANARY}"), "KubeconfigMalformed", id="a merge of a text"),
        pytest.param(Secret(f"a: !!binary {CANARY}!"), "KubeconfigMalformed", id="binary that is no base64"),
        pytest.param(Secret("a: !!binary //79"), "KubeconfigMalformed", id="binary that is no text"),
        pytest.param(Secret("---\n---\na: 1"), "KubeconfigMalformed", id="an empty first document"),
        pytest.param(Secret(f"<!doctype html>\nto: {CANARY}"), "KubeconfigMalformed", id="a web page"),
        pytest.param(Secret(f'"{CANARY}"'), "KubeconfigMalformed", id="a JSON string"),
        pytest.param(Secret("\ufffd\ufffda\x00:\x00 \x00b\x00"), "KubeconfigMalformed", id="UTF-16"),
        pytest.param(Secret(f"{{[{CANARY}]: 1}}"), "KubeconfigMalformed", id="a key that is a list"),
        pytest.param(Secret(bomb("[{}]")), "KubeconfigMalformed", id="a bomb of aliases"),
        pytest.param(Secret(bomb("{{<<: [{}]}}")), "KubeconfigMalformed", id="a bomb of merges"),
        pytest.param(
            Secret("a: &a [" + "x, " * 50 + "x]\nb: [" + "*a, " * 300 + "x]"), "KubeconfigMalformed", id="many"
        ),
        pytest.param(Secret("[" * 100_000), "KubeconfigMalformed", id="nested beyond any stack"),
        pytest.param(Secret("{a: " * 30_000), "KubeconfigMalformed", id="nested mappings"),
        pytest.param(Secret("a" * (LARGEST + 1)), "KubeconfigTooLarge", id="too large"),
    ],
)
def test_a_file_is_refused_by_name(text: Secret, reason: str) -> None:
    assert refused(text).reason == reason


def test_python_tags_are_text_and_nothing_is_built_from_them(tmp_path: Any) -> None:
    text = kubeconfig().reveal() + f"extra: !!python/object/apply:os.system ['touch {tmp_path}/made']\n"

    assert parse(Secret(text)).server.url == URL
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "cluster",
    [
        pytest.param({"server": URL, "insecure-skip-tls-verify": True}, id="in place of no verification"),
        pytest.param({**CLUSTER, "certificate-authority-data": b64("x")}, id="in place of a bad one"),
        pytest.param({"server": URL}, id="in place of none"),
    ],
)
def test_the_operators_ca_wins(cluster: dict[str, Any]) -> None:
    assert parse(kubeconfig(cluster=cluster), ca_pem=CA).server == Server(URL, b64(CA))
    assert parse_server_only(kubeconfig(cluster=cluster), ca_pem=CA).ca_data == b64(CA)


def refuse_beginnings(count: int) -> None:
    beginnings = b64("-----BEGIN A-----\n" * count)
    assert refused(kubeconfig({**CLUSTER, "certificate-authority-data": beginnings})).reason == "BadCA"


def test_a_ca_of_nothing_but_pem_headers_is_refused() -> None:
    refuse_beginnings(100)


@pytest.mark.explore
def test_refusing_pem_headers_takes_time_in_proportion_to_their_number() -> None:
    assert growth(refuse_beginnings, 600, times=8) < 24


@pytest.mark.parametrize("key", ["server", "tls-server-name"])
@pytest.mark.parametrize("evil", ["\x1b]0;x\x07", "\x00", "\u202e", "\x9b"])
def test_an_address_with_control_characters_is_refused(key: str, evil: str) -> None:
    error = refused(kubeconfig({**CLUSTER, key: f"{URL}/{evil}" if key == "server" else evil}))

    assert evil not in str(error)


WRONG_TYPES = [["x"], {"x": "y"}, [], {}]


@pytest.mark.parametrize("value", WRONG_TYPES, ids=repr)
@pytest.mark.parametrize(
    "key",
    [
        "server",
        "certificate-authority",
        "certificate-authority-data",
        "insecure-skip-tls-verify",
        "proxy-url",
        "tls-server-name",
    ],
)
def test_a_wrongly_typed_field_of_a_cluster_does_not_pass_for_absent(key: str, value: object) -> None:
    """A CA that is a list must not mean the system's trust."""
    file = kubeconfig(cluster={"server": URL, key: value})

    assert refused(file).reason == "KubeconfigMalformed"
    assert refused(file, ca_pem=CA).reason == "KubeconfigMalformed"


@pytest.mark.parametrize("value", WRONG_TYPES, ids=repr)
@pytest.mark.parametrize(
    "key", ["client-certificate", "client-key", "tokenFile", "token", "client-certificate-data", "client-key-data"]
)
def test_a_wrongly_typed_field_of_a_user_does_not_pass_for_absent(key: str, value: object) -> None:
    assert refused(kubeconfig(user={**TOKEN_USER, key: value})).reason == "KubeconfigMalformed"


@pytest.mark.parametrize("key", ["clusters", "users", "contexts"])
@pytest.mark.parametrize("value", [{"name": "x"}, "x", ["x"], [None]], ids=repr)
def test_a_listing_that_is_no_list_of_mappings_is_refused(key: str, value: object) -> None:
    assert refused(kubeconfig(**{key: value})).reason == "KubeconfigMalformed"


@pytest.mark.parametrize("key", ["current-context"])
@pytest.mark.parametrize("value", [["here"], {"here": 1}], ids=repr)
def test_a_current_context_that_is_no_text_is_refused(key: str, value: object) -> None:
    assert refused(kubeconfig(**{key: value})).reason == "KubeconfigMalformed"


@pytest.mark.parametrize("null", ["", "~", "null", "Null", "NULL"])
def test_a_null_is_absent_and_in_quotes_it_is_a_text(null: str) -> None:
    plain_text = f"{CLUSTER_LINES}    certificate-authority-data: {null}\n{USER_LINES}"
    quoted = f"{CLUSTER_LINES}    certificate-authority-data: '{null or '-'}'\n{USER_LINES}"

    assert plain(plain_text).server == Server(URL)
    with pytest.raises(KubeconfigError, check=lambda error: error.reason == "BadCA"):
        plain(quoted)


def test_a_token_without_end_is_refused() -> None:
    assert refused(kubeconfig(user={"token": CANARY * 2000})).reason == "BadCredential"
