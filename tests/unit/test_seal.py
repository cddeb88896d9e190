"""Sealing: a token opens for its cluster and with a known key only; keys rotate; errors hold no secret."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import tomllib
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import assume, given
from hypothesis import strategies as st

from builders import CA, SERVER, target
from palette_sync.core.mac_texts import UnclearText
from palette_sync.core.model import Secret, Server
from palette_sync.core.snapshot_codec import server_hash
from palette_sync.store.seal import SealError, SealKeyError, SealKeys, Unsealed

OLD = "old " + base64.urlsafe_b64encode(bytes(range(32))).decode()
NEW = "new " + base64.urlsafe_b64encode(bytes(range(32, 64))).decode().rstrip("=")
HERE = target("u1")
TOKEN = Secret("canary-token-91ab")
KEYS = SealKeys.from_lines(f"{NEW}\n{OLD}")


def header_of(sealed: str) -> dict[str, str]:
    first = sealed.split(".", maxsplit=1)[0]
    found: dict[str, str] = json.loads(base64.urlsafe_b64decode(first + "=="))
    return found


def jwe(header: dict[str, object], key: bytes, plaintext: bytes) -> str:
    """A JWE made by hand, as another library would make it."""

    def b64(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    protected, iv = b64(json.dumps(header).encode()), bytes(12)
    sealed = AESGCM(key).encrypt(iv, plaintext, protected.encode())
    return f"{protected}..{b64(iv)}.{b64(sealed[:-16])}.{b64(sealed[-16:])}"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_a_token_opens_for_its_cluster(token: str) -> None:
    assert KEYS.open(HERE, KEYS.seal(HERE, Secret(token))) == Secret(token)


def test_the_header_names_key_place_server_and_times_and_reveals_nothing_of_the_token() -> None:
    sealed = KEYS.seal(HERE, TOKEN)

    assert header_of(sealed) == {
        "alg": "dir",
        "enc": "A256GCM",
        "kid": "new",
        "prefix": "p",
        "instance": "alpha",
        "uid": "u1",
        "server": hashlib.sha256(f"https://10.0.0.1:6443\n{CA}\n".encode()).hexdigest(),
        "issued_at": "2026-03-01T11:00:00Z",
        "expires_at": "2026-03-02T11:00:00Z",
    }
    assert sealed.split(".")[1] == ""
    assert TOKEN.reveal() not in sealed


def test_the_same_token_is_sealed_differently_each_time() -> None:
    assert KEYS.seal(HERE, TOKEN) != KEYS.seal(HERE, TOKEN)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"uid": "u2"}, "for another cluster"),
        ({"instance": "bravo"}, "for another cluster"),
        ({"prefix": "q"}, "for another cluster"),
        ({"server": server_hash(replace(SERVER, url="https://10.0.0.2:6443"))}, "for another server"),
        ({"server": server_hash(replace(SERVER, ca_data=None))}, "for another server"),
        ({"server": server_hash(replace(SERVER, tls_server_name="api"))}, "for another server"),
        ({"issued_at": "2026-03-01T11:00:01Z"}, "with other times"),
        ({"expires_at": ""}, "with other times"),
    ],
)
def test_a_token_opens_for_its_place_server_and_times_only(change: dict[str, str], why: str) -> None:
    sealed = KEYS.seal(HERE, TOKEN)

    with pytest.raises(SealError, match=f"it was sealed {why}"):
        KEYS.open(replace(HERE, **change), sealed)


def test_the_parts_of_a_server_are_not_mistaken_for_each_other() -> None:
    with pytest.raises(UnclearText):
        server_hash(Server("https://a\n", ca_data="b"))


def test_a_moved_token_with_a_rewritten_header_does_not_open() -> None:
    sealed = KEYS.seal(HERE, TOKEN)
    there = replace(HERE, uid="u2")
    forged = base64.urlsafe_b64encode(json.dumps(header_of(sealed) | asdict(there)).encode()).decode().rstrip("=")

    with pytest.raises(SealError, match="does not open with the key new"):
        KEYS.open(there, ".".join([forged, *sealed.split(".")[1:]]))


def test_keys_rotate_without_a_gap() -> None:
    before = SealKeys.from_lines(OLD)
    sealed_before = before.seal(HERE, TOKEN)
    mac_before = before.mac("a text")

    assert KEYS.open(HERE, sealed_before) == TOKEN
    assert KEYS.mac_matches("a text", mac_before)
    assert header_of(KEYS.seal(HERE, TOKEN))["kid"] == "new"

    after = SealKeys.from_lines(NEW)
    with pytest.raises(SealError, match=r"the key old is not among the seal keys \(new\)"):
        after.open(HERE, sealed_before)
    assert not after.mac_matches("a text", mac_before)


def test_the_key_of_the_example_is_refused() -> None:
    example = (Path(__file__).parents[2] / "config.example.toml").read_text()
    (line,) = (one for one in example.splitlines() if one.startswith("# keys = "))

    with pytest.raises(SealKeyError, match=r"line 1: the key example is the public one of config\.example\.toml"):
        SealKeys.from_lines(tomllib.loads(line.removeprefix("# "))["keys"])


def test_the_same_kid_with_another_key_does_not_open() -> None:
    other = SealKeys.from_lines(SealKeys.generate_line("new"))

    with pytest.raises(SealError, match="does not open with the key new"):
        other.open(HERE, KEYS.seal(HERE, TOKEN))


def test_a_jwe_made_by_another_library_opens() -> None:
    header: dict[str, object] = {"alg": "dir", "enc": "A256GCM", "kid": "old", **asdict(HERE)}

    assert KEYS.open(HERE, jwe(header, bytes(range(32)), b"hello")) == Secret("hello")


@pytest.mark.parametrize(
    "change", [{"enc": "A128GCM"}, {"alg": "A256KW"}, {"zip": "DEF"}, {"crit": ["x"]}, {"x": "y"}, {"instance": 1}]
)
def test_a_jwe_of_another_kind_is_refused_although_its_key_is_right(change: dict[str, object]) -> None:
    header: dict[str, object] = {"alg": "dir", "enc": "A256GCM", "kid": "old", **asdict(HERE)} | change

    with pytest.raises(SealError):
        KEYS.open(HERE, jwe(header, bytes(range(32)), b"hello"))


def test_a_token_that_is_not_utf8_is_refused() -> None:
    header: dict[str, object] = {"alg": "dir", "enc": "A256GCM", "kid": "old", **asdict(HERE)}

    with pytest.raises(SealError):
        KEYS.open(HERE, jwe(header, bytes(range(32)), b"\xff"))


@given(st.text(max_size=80))
def test_anything_else_is_refused_with_a_seal_error(sealed: str) -> None:
    with pytest.raises(SealError):
        KEYS.open(HERE, sealed)


def test_a_deeply_nested_header_is_refused_with_a_seal_error() -> None:
    deep = base64.urlsafe_b64encode(b'{"kid":' * 100_000).decode() + "..a.b.c"

    with pytest.raises(SealError):
        KEYS.open(HERE, deep)
    assert not KEYS.current(deep)


@given(st.integers(0, 300), st.sampled_from("Aa0-_.!"))
def test_a_changed_token_does_not_open_and_is_not_quoted(position: int, letter: str) -> None:
    sealed = KEYS.seal(HERE, TOKEN)
    position %= len(sealed)
    changed = sealed[:position] + letter + sealed[position + 1 :]
    # The last letter of a part carries bits that base64 ignores.
    assume(changed != sealed and sealed[position + 1 : position + 2] not in {"", "."})

    with pytest.raises(SealError) as caught:
        KEYS.open(HERE, changed)

    assert changed.split(".")[-1] not in str(caught.value)


def test_the_mac_key_is_derived_with_hkdf() -> None:
    derived = HKDF(SHA256(), length=32, salt=None, info=b"palette-sync/mac/1").derive(bytes(range(32, 64)))

    assert KEYS.mac("a text") == hmac.new(derived, b"a text", hashlib.sha256).hexdigest()
    assert KEYS.mac_matches("a text", KEYS.mac("a text"))
    assert not KEYS.mac_matches("another text", KEYS.mac("a text"))


@pytest.mark.parametrize("mac", ["", "0" * 64, "ü"])
def test_a_malformed_mac_does_not_match(mac: str) -> None:
    assert not KEYS.mac_matches("a text", mac)


SWAPPED = base64.urlsafe_b64encode(b"stands where the id ought to be.").decode().rstrip("=") + " k1"
SHORT = base64.urlsafe_b64encode(b"short").decode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no key is configured"),
        ("# only a comment\n\n", "no key is configured"),
        ("canaryline", "line 1: a line consists of"),
        (f"{OLD}\na b c-canary", "line 2: a line consists of"),
        (f"# first\nk/1 {SHORT}", "line 2: the key id must have"),
        (f"k1 {SHORT}", "line 1: its second word is not base64url of 32 bytes"),
        ("k1 canary+canary!", "line 1: its second word is not base64url of 32 bytes"),
        (SWAPPED, "line 1: its second word is not base64url of 32 bytes"),
        (f"{OLD}\n{OLD}", "line 2: the key id old is used twice"),
    ],
)
def test_unusable_seal_keys_are_reported_by_line_without_the_key(text: str, message: str) -> None:
    with pytest.raises(SealKeyError, match=message) as caught:
        SealKeys.from_lines(text)

    assert "canary" not in str(caught.value)
    assert SHORT not in str(caught.value)
    assert SWAPPED.split()[0] not in str(caught.value)


def test_comments_and_empty_lines_are_ignored() -> None:
    keys = SealKeys.from_lines(f"# made in 2026\n\n{NEW}  # in use\n{OLD}\n")

    assert repr(keys) == "SealKeys(new, old)"


def test_generated_lines_can_be_used_and_differ() -> None:
    first, second = SealKeys.generate_line(), SealKeys.generate_line()

    assert first.split() != second.split()
    assert SealKeys.from_lines(f"{first}\n{second}").open
    assert SealKeys.generate_line("2026-q1").startswith("2026-q1 ")


@pytest.mark.parametrize("kid", ["", "a b", "x" * 65, "ü"])
def test_an_invalid_key_id_is_refused(kid: str) -> None:
    with pytest.raises(SealKeyError, match="a key id has"):
        SealKeys.generate_line(kid)


def test_without_sealing_tokens_are_bare_and_nothing_is_authenticated() -> None:
    bare = Unsealed()
    sealed = bare.seal(HERE, TOKEN)

    assert sealed == f"none:{TOKEN.reveal()}"
    assert bare.open(HERE, sealed) == TOKEN
    assert bare.mac("a text") == ""
    assert bare.mac_matches("a text", "anything")


def test_sealed_and_bare_tokens_are_not_mistaken_for_each_other() -> None:
    with pytest.raises(SealError, match="there is no key"):
        Unsealed().open(HERE, KEYS.seal(HERE, TOKEN))
    with pytest.raises(SealError):
        KEYS.open(HERE, Unsealed().seal(HERE, TOKEN))
