"""What `import-backstage` makes of the in-process plugin's configuration."""

from __future__ import annotations

import subprocess
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from palette_sync.cli import import_backstage
from palette_sync.cli.exits import Exit
from palette_sync.config import load
from palette_sync.core.backstage_files import BackstageConfigError, Reference, Variable, merge
from palette_sync.core.backstage_import import Imported, Row, translate
from palette_sync.core.backstage_keys import Fate
from palette_sync.core.backstage_output import app_config_text, variable_lines
from palette_sync.core.model import Project
from palette_sync.core.select import Filters

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = {"url": "https://palette.example", "tenant": "acme", "apiToken": "canary-token"}


def imported(*environments: Any, **rest: Any) -> Imported:
    return translate(merge([("/etc/backstage", {"spectrocloud": {"environments": list(environments)}, **rest})]))


def instance(**keys: Any) -> dict[str, Any]:
    return imported({**PLAIN, **keys}).instances["acme"]


def rows(found: Imported) -> dict[str, Row]:
    return {row.key.removeprefix("spectrocloud.environments[0]."): row for row in found.rows}


# -- files -----------------------------------------------------------------------------------------------------------


def test_later_files_win_key_by_key_and_lists_are_replaced() -> None:
    below = {"a": {"b": "1", "c": "2"}, "list": ["x", "y"], "kept": True}
    above = {"a": {"b": "3", "c": None}, "list": ["z", None]}

    assert merge([("/a", below), ("/b", above), ("/c", None)]) == {
        "a": {"b": "3", "c": "2"},
        "list": ["z"],
        "kept": True,
    }


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("${A}", (Variable("A"),)),
        ("https://${ HOST }:${PORT:-443}/", ("https://", Variable("HOST"), ":", Variable("PORT", "443"), "/")),
        ("$${B} ${A}", ("${B} ", Variable("A"))),
    ],
)
def test_a_variable_in_a_text_stays_a_reference(text: str, parts: tuple[Any, ...]) -> None:
    assert merge([("/a", {"key": text})]) == {"key": Reference("env", parts=parts)}


def test_an_escaped_variable_is_a_text() -> None:
    assert merge([("/a", {"key": "$${A} costs $5"})]) == {"key": "${A} costs $5"}


def test_objects_that_refer_stay_references() -> None:
    document = {"a": {"$env": "A"}, "b": {"$file": "./token"}, "c": {"$include": "x.yaml#a.b"}, "d": {"$schema": "s"}}

    assert merge([("/etc", document)]) == {
        "a": Reference("env", parts=(Variable("A"),)),
        "b": Reference("file", target="./token", folder="/etc"),
        "c": Reference("include", target="x.yaml#a.b", folder="/etc"),
        "d": {"$schema": "s"},
    }


@pytest.mark.parametrize("document", [["a"], {"a": [{"$env": "A", "b": "c"}]}, {"a": {"$file": ["x"]}}])
def test_what_backstage_refuses_is_refused(document: Any) -> None:
    with pytest.raises(BackstageConfigError):
        merge([("/a", document)])


# -- keys ------------------------------------------------------------------------------------------------------------


def test_the_smallest_configuration_keeps_names_and_virtual_clusters() -> None:
    found = imported(PLAIN)

    assert found.instances == {
        "acme": {
            "url": "https://palette.example",
            "api_key_file": "acme.api-key",
            "tenant": "acme",
            "name_prefix": "",
            "include_virtual": True,
            "auth": {"mode": "service-account"},
        }
    }
    assert {row.key.rpartition(".")[2]: row.fate for row in found.rows} == {
        "(virtual clusters)": Fate.STAYS,
        "apiToken": Fate.CHANGES,
        "name (absent)": Fate.STAYS,
        "tenant": Fate.CHANGES,
        "url": Fate.STAYS,
    }
    assert found.variables == {}


def test_every_key_of_the_cluster_provider_has_its_place() -> None:
    found = imported(
        {
            **PLAIN,
            "name": "prod-eu",
            "clusterProvider": {
                "authType": "oidc",
                "oidcAuthProviderName": "palette",
                "includeProjects": ["shop", "lab*", "a[b]?"],
                "excludeProjects": ["old"],
                "skipMetricsLookup": "false",
                "excludeTenantScopedClusters": "True",
                "refreshIntervalSeconds": "300",
                "clusterTimeoutSeconds": 20,
                "rbac": {
                    "namespace": "n",
                    "serviceAccountName": "a",
                    "secretName": "s",
                    "clusterRoleName": "r",
                    "clusterRoleBindingName": "b",
                    "clusterRoleRules": [{"apiGroups": ["", "core"], "resources": ["pods"], "verbs": ["get"]}],
                },
            },
        }
    ).instances["prod_eu"]

    assert found == {
        "url": "https://palette.example",
        "api_key_file": "prod_eu.api-key",
        "tenant": "acme",
        "name_prefix": "prod-eu",
        "include_virtual": True,
        "include_projects": ["shop", "lab[*]", "a[[]b][?]"],
        "exclude_projects": ["old"],
        "skip_metrics_lookup": False,
        "exclude_tenant_scoped_clusters": True,
        "refresh_interval": "300s",
        "cluster_timeout": "20s",
        "auth": {"mode": "oidc"},
        "oidc": {"provider": "palette"},
        "rbac": {
            "namespace": "n",
            "service_account": "a",
            "secret": "s",
            "cluster_role": "r",
            "cluster_role_binding": "b",
            "rules": [{"api_groups": ["core", "core"], "resources": ["pods"], "verbs": ["get"]}],
        },
    }


def test_escaped_projects_match_their_own_names_only() -> None:
    names = ["shop", "lab*", "a[b]?", "c]"]
    patterns = instance(clusterProvider={"includeProjects": names})["include_projects"]
    filters = Filters(include_projects=tuple(patterns))

    assert [filters.chooses_project(Project("uid", name)) for name in names] == [True] * 4
    assert not any(filters.chooses_project(Project("uid", name)) for name in ("lab1", "ab1", "a[b]x"))


def test_what_comes_from_variables_becomes_variables() -> None:
    found = imported(
        {
            **PLAIN,
            "url": "https://${HOST}:${PORT:-443}",
            "apiToken": {"$env": "TOKEN"},
            "name": "${NAME}",
            "clusterProvider": {"authType": "${TYPE}", "excludeProjects": ['quo"ted*', "${LAB}-$`x", "z"]},
        }
    )

    assert found.instances["acme"].keys() == {"tenant", "include_virtual", "auth"}
    assert found.instances["acme"]["auth"] == {}
    assert variable_lines(found) == [
        'export PALETTE_SYNC_INSTANCES__ACME__URL="https://${HOST}:${PORT:-443}"',
        'export PALETTE_SYNC_INSTANCES__ACME__API_KEY="${TOKEN}"',
        'export PALETTE_SYNC_INSTANCES__ACME__NAME_PREFIX="${NAME}"',
        'export PALETTE_SYNC_INSTANCES__ACME__AUTH__MODE="${TYPE}"',
        r'export PALETTE_SYNC_INSTANCES__ACME__EXCLUDE_PROJECTS="[\"quo\\\"ted[*]\", \"${LAB}-\$\`x\", \"z\"]"',
    ]
    assert rows(found)["apiToken"].fate is Fate.STAYS


def test_a_shell_reads_the_printed_variables_as_they_are_meant() -> None:
    found = imported({**PLAIN, "clusterProvider": {"excludeProjects": ['quo"ted', "${LAB}-$`x"]}})
    script = "\n".join([*variable_lines(found), 'printf %s "$PALETTE_SYNC_INSTANCES__ACME__EXCLUDE_PROJECTS"'])

    ran = subprocess.run(["sh", "-c", script], env={"LAB": "l"}, capture_output=True, text=True, check=True)

    assert ran.stdout == r'["quo\"ted", "l-$`x"]'


def test_a_token_in_a_file_is_read_from_the_same_file() -> None:
    found = imported({**PLAIN, "apiToken": {"$file": "./secrets/token"}})

    assert found.instances["acme"]["api_key_file"] == "/etc/backstage/secrets/token"
    assert rows(found)["apiToken"].remark == "the same file"


@pytest.mark.parametrize("token", ["canary-token", {"$include": "secrets.yaml#token"}, {"$file": "${STAGE}/token"}])
def test_any_other_token_is_to_be_written_into_a_file(token: Any) -> None:
    found = imported({**PLAIN, "apiToken": token})

    assert found.instances["acme"]["api_key_file"] == "acme.api-key"
    assert "write it into acme.api-key" in rows(found)["apiToken"].remark


@pytest.mark.parametrize(
    ("key", "value", "remark"),
    [
        ("authType", "basic", "is neither serviceAccount nor oidc"),
        ("oidcAuthProviderName", ["a"], "is not a text"),
        ("includeProjects", "shop", "is not a list of texts"),
        ("includeProjects", {"$include": "p.yaml"}, "stands in another file, by $include"),
        ("excludeProjects", [{"$file": "p"}], "stands in another file, by $file"),
        ("skipMetricsLookup", "yes", "is neither true nor false"),
        ("refreshIntervalSeconds", "soon", "is not a number of seconds"),
        ("clusterTimeoutSeconds", "${a.b}", "comes from a variable that a shell cannot name"),
        ("rbac", {"$include": "rbac.yaml"}, "is in another file by $include"),
        ("rbac", "x", "is not an object"),
        ("other", "x", "the plugin's documentation does not name it"),
    ],
)
def test_what_cannot_be_taken_over_is_named(key: str, value: Any, remark: str) -> None:
    found = imported({**PLAIN, "clusterProvider": {key: value}})

    row = rows(found)[f"clusterProvider.{key}"]
    assert (row.fate, row.here) == (Fate.NO_PLACE, "")
    assert remark in row.remark
    assert found.instances == imported(PLAIN).instances


@pytest.mark.parametrize(
    "rules", ["x", ["x"], [], [{"apiGroups": ["apps"], "resources": [], "verbs": ["get"]}], [{"apiGroups": "apps"}]]
)
def test_rules_that_mean_something_else_here_are_not_taken_over(rules: Any) -> None:
    found = imported({**PLAIN, "clusterProvider": {"rbac": {"clusterRoleRules": rules}}})

    assert rows(found)["clusterProvider.rbac.clusterRoleRules"].fate is Fate.NO_PLACE
    assert "rbac" not in found.instances["acme"]


def test_a_name_whose_characters_backstage_refuses_changes() -> None:
    assert rows(imported({**PLAIN, "name": "Prod EU"}))["name"].fate is Fate.CHANGES
    assert rows(imported({**PLAIN, "name": "prod"}))["name"].fate is Fate.STAYS


def test_instances_get_names_that_variables_can_spell() -> None:
    found = imported(
        {**PLAIN, "name": "Prod EU"},
        {**PLAIN, "tenant": "prod-eu"},
        {**PLAIN, "tenant": "1"},
        {**PLAIN, "tenant": "${T}"},
    )

    assert list(found.instances) == ["prod_eu", "prod_eu_2", "palette_1", "palette"]


def test_the_rest_of_the_plugins_keys_is_named() -> None:
    found = translate(
        {
            "spectrocloud": {
                "enabled": True,
                "annotationPrefix": "x",
                "other": 1,
                "environments": [
                    {
                        **PLAIN,
                        "extra": 1,
                        "catalogProvider": {
                            "enabled": True,
                            "resources": {},
                            "defaultOwner": "platform",
                            "ownerNamespace": "teams",
                        },
                    }
                ],
            },
            "auth": {"providers": {"spectrocloud": {}}},
        }
    )
    by_fate = {fate: [row.key.removeprefix("spectrocloud.") for row in found.rows if row.fate is fate] for fate in Fate}

    at = "environments[0]."
    assert by_fate[Fate.NO_PLACE] == [
        "annotationPrefix",
        "enabled",
        f"{at}catalogProvider.enabled",
        f"{at}catalogProvider.ownerNamespace",
        f"{at}catalogProvider.resources",
        f"{at}extra",
        "other",
    ]
    assert "auth.providers.spectrocloud" in by_fate[Fate.STAYS]
    assert f"{at}catalogProvider.defaultOwner" in by_fate[Fate.CHANGES]
    assert 'defaultOwner: "group:teams/platform"' in app_config_text(found)


@pytest.mark.parametrize("owner", ["user:default/jo", "teams/platform"])
def test_an_owner_that_is_a_reference_already_stays_as_it_is(owner: str) -> None:
    assert imported({**PLAIN, "catalogProvider": {"defaultOwner": owner}}).default_owner == owner


def test_an_owner_that_comes_from_elsewhere_is_to_be_set_by_hand() -> None:
    found = imported({**PLAIN, "catalogProvider": {"defaultOwner": "${OWNER}"}})

    assert rows(found)["catalogProvider.defaultOwner"].fate is Fate.NO_PLACE
    assert "catalog:" not in app_config_text(found)


def test_what_is_absent_leads_to_nothing() -> None:
    found = imported({"url": "https://palette.example", "apiToken": "x", "catalogProvider": {"enabled": True}})

    assert "tenant" not in found.instances["palette"]
    assert found.default_owner == ""


def test_the_plugins_older_form_is_read_too() -> None:
    assert list(translate({"spectrocloud": [PLAIN], "auth": "x"}).instances) == ["acme"]
    assert list(translate({"spectrocloud": [PLAIN], "auth": {"providers": "x"}}).instances) == ["acme"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "has no spectrocloud.environments"),
        ({"spectrocloud": {"environments": []}}, "has no spectrocloud.environments"),
        ({"spectrocloud": Reference("include")}, "by \\$include"),
        ({"spectrocloud": {"environments": Reference("include")}}, "by \\$include"),
        ({"spectrocloud": {"environments": [Reference("include")]}}, r"environments\[0\]: is in another file"),
        ({"spectrocloud": {"environments": ["x"]}}, r"environments\[0\]: is not an object"),
        ({"spectrocloud": {"environments": [{"url": "x"}]}}, r"environments\[0\].apiToken: is missing"),
    ],
)
def test_without_an_instance_there_is_nothing_to_write(document: dict[str, Any], message: str) -> None:
    with pytest.raises(BackstageConfigError, match=message):
        translate(document)


# -- the command -----------------------------------------------------------------------------------------------------

APP_CONFIG = """\
spectrocloud:
  environments:
    - url: https://palette.example
      tenant: "the \\x7f \\"tenant\\""
      apiToken: canary-token
      clusterProvider:
        authType: ${TYPE}
        refreshIntervalSeconds: 300
        rbac: { clusterRoleRules: [{ apiGroups: [core], resources: [pods], verbs: [get, list] }] }
"""


def test_the_written_file_is_one_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "app-config.yaml", tmp_path / "config.toml"
    source.write_text(APP_CONFIG)

    assert import_backstage.run([source], target, as_json=False) is Exit.OK

    assert target.stat().st_mode & 0o777 == 0o600
    assert "canary-token" not in target.read_text() + "".join(capsys.readouterr())
    (name,) = tomllib.loads(target.read_text())["instances"]
    assert name == "the_tenant"
    (tmp_path / f"{name}.api-key").write_text("a-key-of-palette")
    (tmp_path / "seal.keys").write_text("k1 " + "A" * 42 + "E")
    settings = load(target, environ={"PALETTE_SYNC_INSTANCES__THE_TENANT__AUTH__MODE": "oidc"})
    loaded = settings.instances[name]
    assert loaded.tenant == 'the \x7f "tenant"'
    assert loaded.refresh_interval.total_seconds() == 300
    assert loaded.auth.mode == "oidc"
    assert loaded.rbac.rules[0].verbs == ("get", "list")


def test_json_holds_all_that_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "app-config.yaml", tmp_path / "config.toml"
    source.write_text(APP_CONFIG)

    assert import_backstage.run([source], target, as_json=True) is Exit.OK

    printed = capsys.readouterr().out
    for word in ('"fate": "changes"', "export PALETTE_SYNC_INSTANCES__THE_TENANT__AUTH__MODE", "paletteSync:"):
        assert word in printed


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), (b"a: [", "is not a YAML file"), (b"\xff", "is not a YAML file"), (b"a: b", "has no")],
)
def test_files_that_cannot_be_used_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, message: str
) -> None:
    source, target = tmp_path / "app-config.yaml", tmp_path / "config.toml"
    if content is not None:
        source.write_bytes(content)

    assert import_backstage.run([source], target, as_json=False) is Exit.FAILED

    assert message in capsys.readouterr().err
    assert not target.exists()


def test_no_file_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "app-config.yaml", tmp_path / "config.toml"
    source.write_text(APP_CONFIG)
    target.write_text("mine")

    assert import_backstage.run([source], target, as_json=False) is Exit.FAILED
    assert import_backstage.run([source], tmp_path / "absent" / "config.toml", as_json=False) is Exit.FAILED

    assert target.read_text() == "mine"
    printed = capsys.readouterr().err
    assert "name another file with --out" in printed
    assert "correct the path" in printed
