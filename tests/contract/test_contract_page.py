"""docs/redis-contract.md says what the code does: keys, members of documents, limits, and an example that verifies."""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import json
import re
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from jsonschema import Draft202012Validator

from palette_sync.config.settings import RedisSettings
from palette_sync.core.model import UID
from palette_sync.reconcile.publish import INTERVAL
from palette_sync.store.batches import MOST_CHANGES
from palette_sync.store.bounds import BOUNDS, INSTANCE
from palette_sync.store.control import CLAIM_MS, EVERYBODY, FRESH_MS
from palette_sync.store.fenced_writer import CHANGES_LENGTH
from palette_sync.store.keys import TYPES, Keys
from palette_sync.store.read import CLOCKS_DIFFER

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "redis-contract.md").read_text()
SCHEMAS = {path.stem: json.loads(path.read_text()) for path in ROOT.glob("daemon/palette_sync/schemas/*.json")}


def section(title: str) -> str:
    """The text below a heading, up to the next one of the same level or above."""
    start = re.search(rf"^(#+) {re.escape(title)}$", PAGE, re.MULTILINE)
    assert start is not None, title
    level = len(start.group(1))
    return re.split(rf"^#{{1,{level}}} ", PAGE[start.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def blocks(title: str) -> list[tuple[str, str]]:
    """The code blocks of a section, each with the line of text above it."""
    return re.findall(r"^([^\n`|][^\n]*|`[^\n]*):\n\n```\n(.*?)\n```$", section(title), re.MULTILINE | re.DOTALL)


def block(start: str) -> str:
    """The block of the example whose text starts so."""
    (found,) = [code for text, code in blocks("Example") if text.startswith(start)]
    return found


def fields(text: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in text.splitlines())


def unpadded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_what_follows_from_the_code_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)

    assert generate.generated("docs/redis-contract.md", PAGE) == PAGE, "run `make docs`"


def test_every_key_is_listed_with_its_type_and_schema() -> None:
    row = re.compile(r"^\| `(.+?)` \| (\w+) \| .*? \|(?: \[(.*)\]\(.*/(.*)\.json\))? \|$", re.MULTILINE)
    rows = row.findall(section("Keys"))
    listed = {key: kind for key, kind, *_ in rows}
    keys = Keys("p")

    assert listed == {
        keys.instances: "set",
        keys.owner: "string",
        keys.members: "hash",
        keys.names: "hash",
        keys.control(EVERYBODY): "stream",
        **{keys.of("i", what): kind for what, kind in TYPES.items()},
    }
    for what in TYPES:
        assert getattr(keys, what)("i") == keys.of("i", what)
    assert all(name == file for *_, name, file in rows)
    assert {name for *_, name in rows if name} == SCHEMAS.keys()


def members(schema: object) -> Iterator[str]:
    """The names of all members anywhere in a schema."""
    if isinstance(schema, list):
        for one in schema:
            yield from members(one)
    elif isinstance(schema, dict):
        for name, member in schema.get("properties", {}).items():
            if member is not False:
                yield name
        for node in schema.get("properties", {}).values():
            yield from members(node)
        for word in ("items", "additionalProperties", "anyOf", "oneOf"):
            yield from members(schema.get(word))


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_member_of_a_document_is_listed_and_no_other(name: str) -> None:
    parts = re.split(r"^### ", section("Documents"), flags=re.MULTILINE)
    (part,) = [one for one in parts if f"/schemas/{name}.json" in one]
    listed = {path.rpartition(".")[2] for path in re.findall(r"^\| `(.+?)` \|", part, re.MULTILINE)} - {"*"}
    expected = set(members(SCHEMAS[name]))
    if name == "history":  # what a former record shares with a record is listed there
        expected = (expected - set(members(SCHEMAS["cluster-record"]))) | {"ca_sha256"}

    assert listed == expected


def test_the_limits_are_those_of_the_code() -> None:
    page = " ".join(PAGE.split())

    assert f"A version holds at most {MOST_CHANGES} changes" in page
    assert f"`changes` keeps about {CHANGES_LENGTH:,} entries" in page
    assert f"(default {RedisSettings.model_fields['history'].default}, 0 = none)" in page
    assert f"(`[redis] prefix`, default `{RedisSettings.model_fields['prefix'].default}`;" in page
    assert f"at most every {INTERVAL:g} seconds" in page
    assert f"a request is accepted for {FRESH_MS // 1000} seconds" in page
    assert f"`SET NX PX {CLAIM_MS}`" in page
    assert f"| names in `p:instances` | {BOUNDS.instances:,}; each matches `{INSTANCE.pattern}` |" in page
    assert f"| fields of a hash | {BOUNDS.fields:,} |" in page
    assert f"| bytes of a record | {BOUNDS.record // 1024} KiB |" in page
    assert f"without a version | {BOUNDS.document // 1024} KiB |" in page
    assert f"| bytes of one answer of the server | {BOUNDS.reply // 1024**2} MiB |" in page
    assert f"A uid, of a cluster or a project, matches `{UID.pattern}`." in page
    assert f"up to {CLOCKS_DIFFER.total_seconds() // 60:g} minutes later than the reader's clock" in page


def test_the_readers_keys_are_those_that_its_user_may_read() -> None:
    rights = section("Rights")
    allowed = re.findall(r"^~(?:\{palette-sync:\*\}|palette-sync):(\w+)$", rights, re.MULTILINE)
    sentence = re.search(r"A reader needs (.*?)\.", section("Keys"), re.DOTALL)

    assert sentence is not None
    assert [name.removeprefix("p:") for name in re.findall(r"`(.*?)`", sentence.group(1))] == allowed


def test_the_example_verifies_by_what_the_page_says() -> None:
    """With the standard library alone, and the values that stand on the page."""
    head, record = fields(block("`{golden:alpha}:head`")), block("`{golden:alpha}:clusters`")
    uid = json.loads(record)["uid"]
    line = f"{uid}\t{hashlib.sha256(record.encode()).hexdigest()}"
    (info,) = re.findall(r"info\s+`(.*?)`", section("Mac"))
    key = unpadded(block("The seal key").split()[1])
    mac_key = hmac.digest(hmac.digest(bytes(32), key, "sha256"), info.encode() + b"\x01", "sha256")
    sealed_line = f"{uid}\t{hashlib.sha256(block('`{golden:alpha}:credentials`').encode()).hexdigest()}"
    values = {**head, "prefix": "golden", "instance": "alpha"}
    values["hex SHA-256 of `unconfirmed`"] = hashlib.sha256(head["unconfirmed"].encode()).hexdigest()

    def text(row: str) -> str:
        """Make the text of a mac by what its row of the table says."""
        (listed,) = re.findall(rf"^\| {row}[^|]* \| (.*) \|$", section("Mac"), re.MULTILINE)
        name, *parts = listed.split(", ")
        return "\n".join(
            [name.strip("`"), *(values[part] if part in values else values[part.strip("`")] for part in parts)]
        )

    def mac(content: str) -> str:
        return hmac.new(mac_key, content.encode(), "sha256").hexdigest()

    assert block("The one line that is hashed for the digest,") == line
    assert head["digest"] == block("Its SHA-256 is `digest`") == hashlib.sha256(line.encode()).hexdigest()
    assert block("The one line that is hashed for the digest of credentials") == sealed_line
    assert head["credentials_digest"] == hashlib.sha256(sealed_line.encode()).hexdigest()
    assert block("The mac key") == mac_key.hex()
    assert block("The text of the mac") == text("`mac` of a version")
    assert head["mac"] == block("Its HMAC-SHA256 with the mac key is `mac`") == mac(text("`mac` of a version"))
    assert block("The text of the check") == text("`checked_mac`")
    assert head["checked_mac"] == mac(text("`checked_mac`"))
    change = fields(block("`{golden:alpha}:changes`"))
    shared = ("digest", "credentials_digest", "mac", "clusters", "complete", "unconfirmed")
    assert [change[name] for name in shared] == [head[name] for name in shared]
    assert change["at"] == head["changed_at"]


def test_the_token_of_the_example_opens_by_what_the_page_says() -> None:
    key = unpadded(block("The seal key").split()[1])
    sealed = json.loads(block("`{golden:alpha}:credentials`"))["sealed"].split(".")
    header, encrypted_key, iv, ciphertext, tag = sealed

    assert encrypted_key == ""
    assert unpadded(header).decode() == block("The protected header")
    protected, record = json.loads(unpadded(header)), json.loads(block("`{golden:alpha}:clusters`"))
    credential = json.loads(block("`{golden:alpha}:credentials`"))
    bound = ("prefix", "instance", "uid", "server", "issued_at", "expires_at")
    assert protected.keys() == {"alg", "enc", "kid", *bound}
    server = "\n".join(record["server"].get(name, "") for name in ("url", "ca_data", "tls_server_name"))
    assert protected["server"] == hashlib.sha256(server.encode()).hexdigest() == block("Its SHA-256 is the server")
    assert protected["issued_at"] == credential["issued_at"]
    assert protected["expires_at"] == credential["expires_at"]
    assert [unpadded(part).hex() for part in (iv, ciphertext, tag)] == block("Initialization vector").splitlines()
    opened = AESGCM(key).decrypt(unpadded(iv), unpadded(ciphertext) + unpadded(tag), header.encode())
    assert opened.decode() == block("The token")


def test_the_documents_of_the_example_are_valid() -> None:
    def check(name: str, document: Any) -> None:
        Draft202012Validator(SCHEMAS[name]).validate(document)

    check("head", fields(block("`{golden:alpha}:head`")))
    check("cluster-record", json.loads(block("`{golden:alpha}:clusters`")))
    check("credential", json.loads(block("`{golden:alpha}:credentials`")))
    change = fields(block("`{golden:alpha}:changes`"))
    check("change", change | {name: json.loads(change[name]) for name in ("put", "drop", "rotated")})
