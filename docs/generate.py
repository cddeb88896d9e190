"""Write the parts of the documentation that follow from the code. `make docs` runs it; a test compares the result.

A generated part of a page stands between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import hmac
import html
import json
import re
import sys
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import TYPE_CHECKING, Any

import reference

from palette_sync.core.mac_texts import check_text
from palette_sync.core.reasons import Reason, Shown
from palette_sync.core.snapshot_codec import (
    decode_record,
    head_from_fields,
    record_hash,
    server_hash,
    text_of_version,
)
from palette_sync.store.seal import MAC_INFO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ROOT = Path(__file__).parents[1]
_GROUPS = {
    Shown.RECORD: "In a cluster's record (`palette-sync clusters`, Backstage)",
    Shown.WORK: "Why a pass works on a cluster",
    Shown.ACTION: "Why an object in a cluster is written",
    Shown.CHANGE: "Why a record changed, was dropped or was held back",
    Shown.PASS: "Why a pass ended without a result",
    Shown.STATUS: "What `palette-sync status` reports as wrong",
}


def reasons_of_records() -> str:
    """The README's table: every reason that a cluster's record can have."""
    return _table(reason for reason in Reason if Shown.RECORD in reason.shown)


def all_reasons() -> str:
    """The page of all reasons, by where they appear."""
    parts = []
    for shown, title in _GROUPS.items():
        parts += [f"## {title}", "", _table(reason for reason in Reason if shown in reason.shown), ""]
    return "\n".join(parts).rstrip()


def reasons_of_runbook() -> str:
    """The runbook's sections: every reason of a cluster or of the status, each under a heading that can be linked."""
    parts = []
    for reason in Reason:
        if not reason.shown & (Shown.RECORD | Shown.STATUS):
            continue
        look = f"`palette-sync clusters --reason {reason}`, then `palette-sync show CLUSTER` for the message."
        if Shown.RECORD not in reason.shown:
            look = "`palette-sync status` says what exactly, and since when."
        parts += [
            f"### {reason}",
            "",
            f"- What it means: {reason.meaning}",
            f"- What palette-sync does by itself: {reason.by_itself}",
            f"- What to look at: {look}",
            f"- What to do: {reason.remedy or 'Nothing.'}",
            "",
        ]
    return "\n".join(parts).rstrip()


def _table(reasons: Iterable[Reason]) -> str:
    rows = [f"| `{one}` | {one.meaning} | {one.by_itself} | {one.remedy or '-'} |" for one in reasons]
    return "\n".join(["| reason | meaning | what palette-sync does | what you can do |", "|---|---|---|---|", *rows])


SCHEMAS = ROOT / "daemon" / "palette_sync" / "schemas"
EXAMPLE = ROOT / "tests" / "contract" / "snapshots" / "one-cluster.json"
# The order of the page, with the title of each document. A former record in the history repeats the record.
_DOCUMENTS = {
    "head": "Head",
    "cluster-record": "Record",
    "credential": "Credential",
    "change": "Change",
    "history": "History",
    "work": "Memory of a cluster",
    "scope": "Scope",
    "issuer": "Issuer",
    "status": "Status",
    "activity": "Activity",
    "lease": "Lease",
    "control": "Control",
}
_PATTERNS = {
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$": "time",
    "^(0|[1-9][0-9]{0,14})$": "number as text",
    "^[1-9][0-9]{0,14}$": "number as text",
    "^[A-Za-z0-9_-]{1,64}$": "uid",
    "^[0-9a-f]{64}$": "64 hex digits",
    "^([0-9a-f]{64})?$": "64 hex digits, or empty",
    "^[0-9a-f]{16}$": "16 hex digits",
}


def documents() -> str:
    """The contract's documents: a table of members for each schema."""
    if {path.stem for path in SCHEMAS.glob("*.json")} != _DOCUMENTS.keys():
        raise ValueError("the page names other documents than there are schemas")
    record = {(path, node["description"]) for path, node, _ in _members(_schema("cluster-record"))}
    parts = []
    for name, title in _DOCUMENTS.items():
        schema = _schema(name)
        parts += [
            f"### {title}",
            "",
            f"{_meaning(schema)} Schema: [{name}](../daemon/palette_sync/schemas/{name}.json).",
            "",
        ]
        kinds = schema["anyOf"] if name == "control" else [schema]
        for kind in kinds:
            rows = [
                f"| `{path}` | {_type(node)}{'' if required else ', optional'} | {_meaning(node)} |"
                for path, node, required in _members(kind)
                if name != "history" or (path.removeprefix("was.*."), node["description"]) not in record
            ]
            heading = "member" if kind is schema else f"{kind['title'].lower()}"
            parts += [f"| {heading} | type | meaning |", "|---|---|---|", *rows, ""]
    return "\n".join(parts).rstrip()


def _schema(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((SCHEMAS / f"{name}.json").read_text())
    return schema


def _members(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield every member below a schema: its path, its own schema, and whether it is always there."""
    seen: set[str] = set()
    for branch in (schema, *schema.get("oneOf", ()), *schema.get("anyOf", ())):
        for name, node in branch.get("properties", {}).items():
            if node is False or name in seen or "description" not in node:
                continue
            seen.add(name)
            required = name in branch.get("required", ()) and (branch is schema or name in schema.get("required", ()))
            yield f"{path}{name}", node, required
            yield from _members(node, f"{path}{name}.")
    if isinstance(schema.get("items"), dict):
        yield from _members(schema["items"], f"{path.removesuffix('.')}[].")
    if isinstance(named := schema.get("additionalProperties"), dict):
        if "description" in named:
            yield f"{path}*", named, False
        yield from _members(named, f"{path}*.")


def _meaning(node: dict[str, Any]) -> str:
    text = node["description"].removesuffix(" RFC 3339, UTC, whole seconds.")
    return html.escape(text, quote=False).replace("|", "\\|")


def _type(node: dict[str, Any]) -> str:
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return ", ".join(f"`{word}`" for word in node["enum"])
    kind: str = node.get("type", "string")
    if kind == "array":
        return f"list of {_type(node['items'])}s"
    return _PATTERNS.get(node.get("pattern", ""), kind)


def reader() -> str:
    """The line of the ACL file for readers, one rule group per line."""
    lines = (ROOT / "deploy" / "redis" / "users.acl").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("user palette-sync-reader ")]
    words = [word for word in line.split() if not word.startswith("#")]
    keys = next(number for number, word in enumerate(words) if word.startswith("~"))
    commands = words.index("-@all")
    rows = [" ".join(words[:keys]), *words[keys:commands], " ".join(words[commands:])]
    return "\n".join(["```", *rows, "```"])


def example() -> str:
    """The worked example: what Redis holds, and each step from there to the mac and the token."""
    golden = json.loads(EXAMPLE.read_text())
    redis, (key_line,) = golden["redis"], golden["keys"]
    head, instance = redis["head"], golden["instance"]
    ((uid, record),) = redis["clusters"].items()
    credential = redis["credentials"][uid]
    header, _, iv, ciphertext, tag = json.loads(credential)["sealed"].split(".")
    (change,) = redis["changes"]
    parts = [
        ("The seal key, as a line of the file of keys:", [key_line]),
        ("The mac key that is derived from it, in hex:", [_mac_key(_unpadded(key_line.split()[1])).hex()]),
        ("`{golden:alpha}:head`:", [f"{name}: {head[name]}" for name in sorted(head)]),
        (f"`{{golden:alpha}}:clusters`, field `{uid}`:", [record]),
        (f"`{{golden:alpha}}:credentials`, field `{uid}`:", [credential]),
        (
            f"`{{golden:alpha}}:changes`, entry `{change['id']}`:",
            [f"{name}: {change['fields'][name]}" for name in sorted(change["fields"])],
        ),
        ("The one line that is hashed for the digest, with a TAB:", [f"{uid}\t{record_hash(record.encode())}"]),
        ("Its SHA-256 is `digest`:", [head["digest"]]),
        (
            "The one line that is hashed for the digest of credentials, with a TAB:",
            [f"{uid}\t{record_hash(credential.encode())}"],
        ),
        ("Its SHA-256 is `credentials_digest`:", [head["credentials_digest"]]),
        ("The text of the mac:", [text_of_version(golden["prefix"], instance, head_from_fields(head))]),
        ("Its HMAC-SHA256 with the mac key is `mac`:", [head["mac"]]),
        (
            "The text of the check:",
            [
                check_text(
                    golden["prefix"],
                    instance,
                    epoch=int(head["epoch"]),
                    version=int(head["version"]),
                    checked_at=head["checked_at"],
                )
            ],
        ),
        ("Its HMAC-SHA256 with the mac key is `checked_mac`:", [head["checked_mac"]]),
        ("The text of the server, without a line feed at the end of its last, empty line:", server_lines(record)),
        ("Its SHA-256 is the server of the sealed token:", [server_hash(decode_record(record.encode()).server)]),
        ("The protected header of the sealed token, decoded:", [_unpadded(header).decode()]),
        (
            "Initialization vector, ciphertext and tag, in hex:",
            [_unpadded(iv).hex(), _unpadded(ciphertext).hex(), _unpadded(tag).hex()],
        ),
        ("The token:", [golden["expected"]["clusters"][uid]["token"]]),
    ]
    return "\n\n".join("\n".join([text, "", "```", *lines, "```"]) for text, lines in parts)


def server_lines(record: str) -> list[str]:
    server = json.loads(record)["server"]
    return [server.get(name, "") for name in ("url", "ca_data", "tls_server_name")]


def _mac_key(seal_key: bytes) -> bytes:
    """HKDF (RFC 5869) with SHA-256, without salt: extract, and the one block of expand."""
    return hmac.digest(hmac.digest(bytes(32), seal_key, "sha256"), MAC_INFO + b"\x01", "sha256")


def _unpadded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


PARTS: dict[tuple[str, str], Callable[[], str]] = {
    ("README.md", "reasons"): reasons_of_records,
    ("docs/reasons.md", "reasons"): all_reasons,
    ("docs/runbook.md", "reasons"): reasons_of_runbook,
    ("docs/configuration.md", "configuration"): reference.configuration,
    ("docs/commands.md", "commands"): reference.commands,
    ("docs/redis-contract.md", "documents"): documents,
    ("docs/redis-contract.md", "reader"): reader,
    ("docs/redis-contract.md", "example"): example,
}


def generated(page: str, text: str) -> str:
    """Return the text of `page` with its generated parts as they follow from the code. Raises KeyError."""
    for (name, part), write in PARTS.items():
        if name != page:
            continue
        pattern = re.compile(rf"(<!-- generated: {part} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        if not pattern.search(text):
            raise KeyError(f"{page} has no part <!-- generated: {part} -->")
        content = write()
        text = pattern.sub(lambda found, content=content: found.group(1) + content + found.group(2), text)
    return text


def main() -> None:
    for page in sorted({page for page, _ in PARTS}):
        path = ROOT / page
        before = path.read_text()
        after = generated(page, before)
        if after != before:
            path.write_text(after)
            sys.stdout.write(f"{page}\n")


if __name__ == "__main__":
    main()
