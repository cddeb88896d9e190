"""Palette's documents become values of ours, or are refused; nothing in between."""

from __future__ import annotations

import base64
import copy
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from palette_sync.core.model import Location, Project, Scope
from palette_sync.palette.assets import decode_file
from palette_sync.palette.errors import (
    Malformed,
    NotFound,
    NotPermitted,
    PaletteError,
    ProjectUnavailable,
    Rejected,
    ServerFailure,
    TooManyRequests,
    Unauthorized,
    error_of,
    read_envelope,
)
from palette_sync.palette.rows import (
    ApiKeyInfo,
    OidcSpec,
    Page,
    UserInfo,
    read_api_key,
    read_cluster,
    read_oidc,
    read_page,
    read_project,
    read_rows,
    read_time,
    read_user_info,
)

UID = "62a54c7b5d0a2f1d6f1e0001"
PROJECT = "62a54c7b5d0a2f1d6f1e00aa"
CANARY = "canary-0123456789"
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def row(**changes: Any) -> dict[str, Any]:
    """A search row after the vendor's sample; `a__b=c` changes document["a"]["b"]."""
    document: dict[str, Any] = {
        "metadata": {
            "uid": UID,
            "name": "web",
            "creationTimestamp": "2026-03-01T10:20:30.123Z",
            "deletionTimestamp": "0001-01-01T00:00:00.000Z",
            "annotations": {
                "scope": "project",
                "projectUid": PROJECT,
                "permissions": "cluster.adminKubeconfigDownload, cluster.delete, cluster.get, cluster.update,",
            },
            "labels": {"team": "web", "plain": "spectro__tag", "empty": ""},
        },
        "specSummary": {
            "cloudConfig": {"cloudType": "eks"},
            "projectMeta": {"name": "payments", "uid": PROJECT},
            "clusterProfileTemplates": None,
        },
        "status": {
            "state": "Running",
            "health": {"state": "Healthy"},
            "virtual": None,
            "location": {"countryCode": "DE", "countryName": "Germany", "regionCode": "eu", "regionName": None},
        },
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        target = document
        for key in parents:
            target = target[key]
        target[last] = value
    return document


def test_a_row_becomes_a_cluster() -> None:
    cluster = read_cluster(row())

    assert (cluster.uid, cluster.name, cluster.scope) == (UID, "web", Scope.PROJECT)
    assert cluster.project == Project(PROJECT, "payments")
    assert (cluster.state, cluster.health, cluster.cloud_type) == ("Running", "Healthy", "eks")
    assert cluster.created_at == datetime(2026, 3, 1, 10, 20, 30, 123000, tzinfo=UTC)
    assert cluster.tags == ("empty", "plain", "team:web")
    assert cluster.location == Location("DE", "Germany", "eu", "")
    kept = {"cluster.adminKubeconfigDownload", "cluster.delete", "cluster.get"}
    assert cluster.permissions == kept, "the others are not kept"
    assert not cluster.virtual
    assert not cluster.paused
    assert not cluster.gone


@pytest.mark.parametrize(
    ("changes", "imported"),
    [
        pytest.param({}, False, id="made by Palette"),
        pytest.param({"status__clusterImport": None}, False, id="null"),
        pytest.param({"status__clusterImport": {"isBrownfield": False, "state": ""}}, False, id="not imported"),
        pytest.param({"status__clusterImport": {"isBrownfield": True, "state": "Success"}}, True, id="imported"),
        pytest.param({"specSummary__importMode": ""}, False, id="no import mode"),
        pytest.param({"specSummary__importMode": "read-only"}, True, id="a read-only import"),
    ],
)
def test_an_imported_cluster_is_known_as_such(changes: dict[str, Any], imported: bool) -> None:  # noqa: FBT001 - a table
    assert read_cluster(row(**changes)).imported is imported


def test_null_stands_for_every_empty_object_and_array() -> None:
    bare = {"metadata": {"uid": UID, "name": "web", "annotations": None, "labels": None}}
    nulls = row(metadata=bare["metadata"], specSummary=None, status=None)

    for document in (bare, nulls):
        cluster = read_cluster(document)
        assert (cluster.state, cluster.health, cluster.tags) == ("Unknown", "", ())
        assert (cluster.scope, cluster.project) == (Scope.PROJECT, None)
        assert (cluster.created_at, cluster.permissions) == (None, None)


@pytest.mark.parametrize("missing", ["uid", "name"])
@pytest.mark.parametrize("value", [None, "", "  ", 7, {"a": 1}])
def test_a_row_without_uid_or_name_is_malformed(missing: str, value: object) -> None:
    document = row()
    document["metadata"][missing] = value

    with pytest.raises(Malformed):
        read_cluster(document)
    with pytest.raises(Malformed):
        read_project(document)


@pytest.mark.parametrize("uid", ["../../v1/users", "a/b", "a b", "a\r\nX: y", "a\tb", "a.b", "a" * 65, "ü"])
def test_a_uid_that_would_change_a_path_or_a_header_is_malformed(uid: str) -> None:
    with pytest.raises(Malformed) as caught:
        read_cluster(row(metadata__uid=uid))

    assert uid not in str(caught.value)


@pytest.mark.parametrize("uid", ["5f3c00000000000000000001", "edge-host_01", "-x", "a" * 64])
def test_a_uid_is_letters_digits_hyphens_and_underscores(uid: str) -> None:
    assert read_cluster(row(metadata__uid=uid)).uid == uid


@pytest.mark.parametrize("annotation", ["project uid", "a\tb", "a\nb", "p" * 65])
def test_a_project_with_another_uid_is_malformed(annotation: str) -> None:
    with pytest.raises(Malformed, match="a cluster's project has an invalid uid"):
        read_cluster(row(metadata__annotations__projectUid=annotation))


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": []},
        {"metadata__labels": ["a"]},
        {"metadata__labels": {CANARY: 7}},
        {"metadata__annotations__scope": 1},
        {"metadata__annotations__projectUid": {}},
        {"specSummary": "x"},
        {"specSummary__projectMeta": "x"},
        {"status__state": 3},
        {"status__health": "Healthy"},
        {"status__location": []},
        {"status__location__regionName": 1},
        {"status__virtual": True},
    ],
)
def test_a_field_of_the_wrong_kind_is_malformed_and_not_repeated(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed) as caught:
        read_cluster(row(**change))

    assert CANARY not in str(caught.value)


def test_a_row_that_is_no_object_is_named_by_its_place() -> None:
    with pytest.raises(Malformed, match=r"row 2 of 2: a cluster is not an object"):
        read_rows((row(), None), read_cluster)


def test_a_tenant_scoped_cluster_has_no_project_even_if_the_row_names_one() -> None:
    cluster = read_cluster(row(metadata__annotations__scope="tenant"))

    assert (cluster.scope, cluster.project) == (Scope.TENANT, None)


@pytest.mark.parametrize(
    ("annotation", "meta", "expected"),
    [
        (PROJECT, {"uid": PROJECT, "name": "payments"}, Project(PROJECT, "payments")),
        ("other", {"uid": PROJECT, "name": "payments"}, Project("other", "")),
        (PROJECT, None, Project(PROJECT, "")),
        (None, {"uid": PROJECT, "name": "payments"}, Project(PROJECT, "payments")),
        ("", {"uid": "", "name": ""}, None),
        (None, None, None),
    ],
)
def test_the_annotation_names_the_project_and_project_meta_fills_in(
    annotation: str | None, meta: object, expected: Project | None
) -> None:
    document = row(metadata__annotations__projectUid=annotation, specSummary__projectMeta=meta)

    assert read_cluster(document).project == expected


@pytest.mark.parametrize("scope", [None, "", "system", "project"])
def test_a_scope_that_is_not_tenant_is_judged_as_a_project(scope: str | None) -> None:
    assert read_cluster(row(metadata__annotations__scope=scope)).scope is Scope.PROJECT


@pytest.mark.parametrize(
    ("change", "virtual", "paused"),
    [
        ({"specSummary__cloudConfig": {"cloudType": "nested"}}, True, False),
        ({"specSummary__cloudConfig": {"cloudType": "Nested"}}, True, False),
        ({"status__virtual": {"hostCluster": {"uid": UID}}}, True, False),
        ({"status__virtual": {"hostCluster": None, "virtualClusters": [{"uid": "x"}]}}, False, False),
        ({"status__virtual": {"lifecycleStatus": {"status": "Paused"}}}, False, True),
        ({"status__virtual": {"lifecycleStatus": {"status": "Pausing"}}}, False, True),
        ({"status__virtual": {"lifecycleStatus": {"status": "Resuming"}}}, False, True),
        ({"status__virtual": {"lifecycleStatus": {"status": "Running"}}}, False, False),
        ({"status__virtual": {"lifecycleStatus": None}}, False, False),
    ],
)
def test_virtual_and_paused_clusters_are_known_as_such(change: dict[str, Any], virtual: bool, paused: bool) -> None:  # noqa: FBT001 - a table
    cluster = read_cluster(row(**change))

    assert (cluster.virtual, cluster.paused) == (virtual, paused)


@pytest.mark.parametrize("state", ["Deleting", "Deleted"])
def test_deleted_rows_are_read_as_they_are(state: str) -> None:
    assert read_cluster(row(status__state=state)).gone


def test_an_empty_permissions_annotation_means_none_are_given() -> None:
    assert read_cluster(row(metadata__annotations__permissions="")).permissions == frozenset()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-03-01T10:20:30.123Z", datetime(2026, 3, 1, 10, 20, 30, 123000, tzinfo=UTC)),
        ("2026-03-01T12:20:30+02:00", datetime(2026, 3, 1, 10, 20, 30, tzinfo=UTC)),
        ("2026-03-01T10:20:30", datetime(2026, 3, 1, 10, 20, 30, tzinfo=UTC)),
        ("0001-01-01T00:00:00.000Z", None),
        ("0001-01-01T00:00:00+05:00", None),
        ("9999-12-31T23:59:59Z", None),
        ("yesterday", None),
        ("", None),
        (None, None),
        (1234, None),
    ],
)
def test_the_year_one_and_nonsense_are_no_time(value: object, expected: datetime | None) -> None:
    assert read_time(value) == expected


def test_a_page_tells_its_rows_its_token_and_the_total() -> None:
    document = {"items": [1, 2], "listmeta": {"continue": "next", "count": 7, "limit": 2, "offset": 2}}

    assert read_page(document) == Page((1, 2), "next", 7)
    assert read_page({"items": None, "listmeta": {"continue": None, "count": 0}}) == Page((), "", 0)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"items": []},
        {"items": [], "listmeta": None},
        {"items": [], "listmeta": {"continue": ""}},
        {"items": [], "listmeta": {"continue": "", "count": None}},
        {"items": [], "listmeta": {"continue": "", "count": "3"}},
        {"items": [], "listmeta": {"continue": "", "count": True}},
        {"items": [], "listmeta": {"continue": "", "count": -1}},
        {"items": [], "listmeta": {"continue": 5, "count": 0}},
        {"items": {}, "listmeta": {"continue": "", "count": 0}},
        {"listmeta": {"continue": "", "count": 0}},
    ],
)
def test_a_page_that_does_not_say_how_it_goes_on_is_malformed(document: object) -> None:
    with pytest.raises(Malformed):
        read_page(document)


def test_a_project_row_gives_uid_and_name() -> None:
    assert read_project({"metadata": {"uid": PROJECT, "name": "payments"}, "status": None}) == Project(
        PROJECT, "payments"
    )


def test_user_information_names_a_tenant() -> None:
    assert read_user_info({"orgName": "o", "tenantUid": "t", "userUid": "u"}) == UserInfo("o", "t", "u")
    assert read_user_info({"orgName": None, "tenantUid": "t"}) == UserInfo("", "t", "")
    for broken in ({}, {"tenantUid": ""}, [], None, "x"):
        with pytest.raises(Malformed):
            read_user_info(broken)


def key(name: str, expiry: str | None, user: str = "u1") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": f"uid-{name}-{user}"},
        "spec": {"expiry": expiry, "user": {"uid": user}, "key": CANARY},
        "status": {"isActive": True},
    }


def test_an_api_key_is_found_by_name_or_uid_without_its_value() -> None:
    document = {"items": [key("other", None), key("mine", "2027-01-01T00:00:00.000Z")]}
    expected = ApiKeyInfo("mine", datetime(2027, 1, 1, tzinfo=UTC))

    assert read_api_key(document, "mine", user_uid="u1") == expected
    assert read_api_key(document, "uid-mine-u1", user_uid="u1") == expected
    assert CANARY not in repr(read_api_key(document, "mine", user_uid="u1"))
    assert read_api_key(document, "nobody", user_uid="u1") is None
    assert read_api_key({"items": None}, "mine", user_uid="u1") is None


def test_a_key_without_a_time_never_expires() -> None:
    document = {"items": [key("mine", "0001-01-01T00:00:00.000Z")]}

    assert read_api_key(document, "mine", user_uid="u1") == ApiKeyInfo("mine", None)


def test_of_several_namesakes_the_users_own_counts_else_the_one_that_expires_first() -> None:
    document = {
        "items": [key("k", None, "u1"), key("k", "2028-01-01T00:00:00Z", "u2"), key("k", "2027-01-01T00:00:00Z", "u3")]
    }

    def year(user: str) -> int | None:
        found = read_api_key(document, "k", user_uid=user)
        assert found is not None
        return found.expiry.year if found.expiry else None

    assert (year("u1"), year("u2"), year("nobody")) == (None, 2028, 2027)


def test_a_list_of_keys_that_is_none_is_malformed() -> None:
    for broken in ([], {"items": {}}, {"items": ["x"]}):
        with pytest.raises(Malformed):
            read_api_key(broken, "k", user_uid="u1")


def oidc(**changes: object) -> dict[str, object]:
    return {
        "issuerUrl": "https://issuer.example",
        "clientId": "client",
        "clientSecret": CANARY,
        "issuerTls": {"caCertificateBase64": base64.b64encode(PEM.encode()).decode(), "insecureSkipVerify": False},
        **changes,
    }


def test_an_oidc_configuration_is_read_without_its_secret() -> None:
    spec = read_oidc(oidc())

    assert spec == OidcSpec("https://issuer.example", "client", PEM)
    assert CANARY not in repr(spec)


@pytest.mark.parametrize("change", [{"issuerUrl": ""}, {"clientId": None}, {"issuerUrl": None, "clientId": None}])
def test_without_issuer_or_client_there_is_no_oidc(change: dict[str, object]) -> None:
    assert read_oidc(oidc(**change)) is None
    assert read_oidc({}) is None


@pytest.mark.parametrize(
    ("trust", "pem"),
    [
        (None, None),
        ({"caCertificateBase64": "", "insecureSkipVerify": True}, None),
        ({"caCertificateBase64": PEM, "insecureSkipVerify": None}, PEM),
        ({"caCertificateBase64": "\n".join(base64.b64encode(PEM.encode()).decode())}, PEM),
    ],
)
def test_the_issuers_ca_may_be_absent_or_bare_or_wrapped(trust: object, pem: str | None) -> None:
    spec = read_oidc(oidc(issuerTls=trust))

    assert spec is not None
    assert spec.ca_pem == pem


@pytest.mark.parametrize("broken", ["%%%", base64.b64encode(b"no pem").decode(), base64.b64encode(b"\xff").decode()])
def test_an_issuers_ca_that_is_none_is_malformed(broken: str) -> None:
    with pytest.raises(Malformed):
        read_oidc(oidc(issuerTls={"caCertificateBase64": broken}))


@pytest.mark.parametrize("broken", [None, [], "x", {"issuerUrl": 1, "clientId": "c"}])
def test_an_oidc_document_of_the_wrong_kind_is_malformed(broken: object) -> None:
    with pytest.raises(Malformed):
        read_oidc(broken)


KUBECONFIG = "apiVersion: v1\nkind: Config\nclusters: []\n"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(KUBECONFIG.encode(), id="plain"),
        pytest.param(b"\xef\xbb\xbf" + KUBECONFIG.encode(), id="with a byte order mark"),
        pytest.param(base64.b64encode(KUBECONFIG.encode()), id="base64"),
        pytest.param(base64.encodebytes(KUBECONFIG.encode() * 1), id="base64 in lines"),
        pytest.param(base64.b64encode(KUBECONFIG.encode()) + b"\n", id="base64 and a newline"),
    ],
)
def test_a_kubeconfig_may_come_plain_or_in_base64(body: bytes) -> None:
    assert decode_file(body) == KUBECONFIG


def test_a_comment_or_a_document_mark_may_come_first_and_json_is_yaml_too() -> None:
    assert decode_file(b"# note\n---\n" + KUBECONFIG.encode()) == "# note\n---\n" + KUBECONFIG
    assert decode_file(b'{"apiVersion": "v1"}') == '{"apiVersion": "v1"}'
    assert decode_file(b'"apiVersion": v1\n') == '"apiVersion": v1\n'


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe\x00",
        b"hello",
        b"YWJj",
        base64.b64encode(b"\xff\xfe"),
        base64.b64encode(KUBECONFIG.encode())[:-3] + b"!",
        b"<html>a</html>",
        b"",
    ],
)
def test_a_body_that_is_neither_yaml_nor_base64_of_yaml_is_none(body: bytes) -> None:
    assert decode_file(body) is None


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "BadPayload", Rejected),
        (401, "UnAuthorizedAccess", Unauthorized),
        (400, "UnAuthorizedAccess", Unauthorized),
        (401, None, Unauthorized),
        (403, "OperationForbidden", NotPermitted),
        (403, "ResOperationForbidden", NotPermitted),
        (400, "ResourceAccessDenied", ProjectUnavailable),
        (403, None, NotPermitted),
        (404, "ResourceNotFound", NotFound),
        (400, "ResourceNotFound", NotFound),
        (403, "ResourceAccessDenied", ProjectUnavailable),
        (404, "ProjectNotFoundInTenant", ProjectUnavailable),
        (400, "ProjectAccessDenied", ProjectUnavailable),
        (500, "ProjectNotFound", ProjectUnavailable),
        (404, "SomethingElseNotFound", Rejected),
        (401, "ResourceNotFound", Unauthorized),
        (401, "ProjectNotFoundInTenant", Unauthorized),
        (404, 404, NotFound),
        (405, 405, Rejected),
        (409, None, Rejected),
        (422, 608, Rejected),
        (429, None, TooManyRequests),
        (429, "TooManyRequests", TooManyRequests),
        (500, "ResourceNotFound", NotFound),
        (500, "OperationForbidden", NotPermitted),
        (503, "TooManyRequests", TooManyRequests),
        (500, "UnAuthorizedAccess", Unauthorized),
        (500, "Unknown", ServerFailure),
        (500, None, ServerFailure),
        (504, None, ServerFailure),
        (302, None, Rejected),
        (307, "UnAuthorizedAccess", Rejected),
        (304, None, Rejected),
        (101, None, Rejected),
    ],
)
def test_status_and_code_of_either_dialect_give_the_meaning(
    status: int, code: str | int | None, kind: type[PaletteError]
) -> None:
    body = b"<html>" if code is None else f'{{"code":{code!r},"message":"why"}}'.replace("'", '"').encode()

    error = error_of("GET /x", status, body, redact=str)

    assert type(error) is kind
    assert error.status == status
    assert error.code == (None if code is None else str(code))
    assert error.retryable is (kind in {TooManyRequests, ServerFailure})
    assert f"GET /x: HTTP {status}" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>secret page</html>",
        b'["secret"]',
        b'{"secret": 1}',
        b'{"code": true, "message": "secret"}',
        b'{"code": null, "message": "secret"}',
        b'{"message": "secret"}',
        b'{"code": "x", "message": "secret',
        b'{"code":"x","message":"' + b"secret" * 20_000 + b'"}',
    ],
)
def test_a_body_that_is_no_envelope_is_not_repeated(body: bytes) -> None:
    assert read_envelope(body).message == ""
    assert "secret" not in str(error_of("GET /x", 400, body, redact=str))


def test_a_message_is_redacted_before_it_is_cut_and_stays_on_one_line() -> None:
    filler = "x" * (200 - len(CANARY) // 2 - 8)
    body = f'{{"code":"Bad\\n{CANARY}","message":"a\\n\\u001b[31mb {filler}{CANARY}{"y" * 500}"}}'.encode()

    error = error_of("GET /x", 400, body, redact=lambda text: text.replace(CANARY, "***"))

    assert "canary" not in str(error)
    assert "canary" not in (error.code or "")
    assert str(error).isprintable()
    assert len(str(error)) < 300


def test_a_message_that_is_no_text_is_left_out() -> None:
    assert str(error_of("GET /x", 400, b'{"code":1,"message":{"a":1}}', redact=str)) == "GET /x: HTTP 400 1"


@pytest.mark.explore
def test_ten_thousand_rows_cost_little() -> None:
    rows = tuple(copy.deepcopy(row(metadata__uid=f"{number:024x}")) for number in range(10_000))

    before = time.process_time()
    clusters = read_rows(rows, read_cluster)
    spent = time.process_time() - before

    assert len(clusters) == 10_000
    assert spent < 2
