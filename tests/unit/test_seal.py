"""Sealing: a token opens for its cluster and with a known key only; keys rotate; errors hold no secret."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import tomllib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import assume, given
from hypothesis import strategies as st

from palette_sync.core.model import Secret
from palette_sync.store.seal import SealError, SealKeyError, SealKeys, Unsealed

OLD = "old " + base64.urlsafe_b64encode(bytes(range(32))).decode()
NEW = "new " + base64.urlsafe_b64encode(bytes(range(32, 64))).decode().rstrip("=")
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
    assert KEYS.open("alpha", "u1", KEYS.seal("alpha", "u1", Secret(token))) == Secret(token)


def test_the_header_names_key_instance_and_cluster_and_reveals_nothing_of_the_token() -> None:
    sealed = KEYS.seal("alpha", "u1", TOKEN)

    assert header_of(sealed) == {"alg": "dir", "enc": "A256GCM", "kid": "new", "instance": "alpha", "uid": "u1"}
    assert sealed.split(".")[1] == ""
    assert TOKEN.reveal() not in sealed


def test_the_same_token_is_sealed_differently_each_time() -> None:
    assert KEYS.seal("alpha", "u1", TOKEN) != KEYS.seal("alpha", "u1", TOKEN)


@pytest.mark.parametrize(("instance", "uid"), [("alpha", "u2"), ("bravo", "u1")])
def test_a_token_moved_to_another_cluster_does_not_open(instance: str, uid: str) -> None:
    with pytest.raises(SealError, match="another cluster"):
        KEYS.open(instance, uid, KEYS.seal("alpha", "u1", TOKEN))


def test_a_moved_token_with_a_rewritten_header_does_not_open() -> None:
    sealed = KEYS.seal("alpha", "u1", TOKEN)
    forged = base64.urlsafe_b64encode(json.dumps(header_of(sealed) | {"uid": "u2"}).encode()).decode().rstrip("=")

    with pytest.raises(SealError, match="does not open with the key new"):
        KEYS.open("alpha", "u2", ".".join([forged, *sealed.split(".")[1:]]))


def test_keys_rotate_without_a_gap() -> None:
    before = SealKeys.from_lines(OLD)
    sealed_before = before.seal("alpha", "u1", TOKEN)
    mac_before = before.mac("alpha", 1, 2, "d")

    assert KEYS.open("alpha", "u1", sealed_before) == TOKEN
    assert KEYS.mac_matches("alpha", 1, 2, "d", mac_before)
    assert header_of(KEYS.seal("alpha", "u1", TOKEN))["kid"] == "new"

    after = SealKeys.from_lines(NEW)
    with pytest.raises(SealError, match=r"the key old is not among the seal keys \(new\)"):
        after.open("alpha", "u1", sealed_before)
    assert not after.mac_matches("alpha", 1, 2, "d", mac_before)


def test_the_key_of_the_example_is_refused() -> None:
    example = tomllib.loads((Path(__file__).parents[2] / "config.example.toml").read_text())

    with pytest.raises(SealKeyError, match=r"line 1: the key example is the public one of config\.example\.toml"):
        SealKeys.from_lines(example["seal"]["keys"])


def test_the_same_kid_with_another_key_does_not_open() -> None:
    other = SealKeys.from_lines(SealKeys.generate_line("new"))

    with pytest.raises(SealError, match="does not open with the key new"):
        other.open("alpha", "u1", KEYS.seal("alpha", "u1", TOKEN))


def test_a_jwe_made_by_another_library_opens() -> None:
    header = {"alg": "dir", "enc": "A256GCM", "kid": "old", "instance": "alpha", "uid": "u1"}

    assert KEYS.open("alpha", "u1", jwe(header, bytes(range(32)), b"hello")) == Secret("hello")


@pytest.mark.parametrize(
    "change", [{"enc": "A128GCM"}, {"alg": "A256KW"}, {"zip": "DEF"}, {"crit": ["x"]}, {"x": "y"}, {"instance": 1}]
)
def test_a_jwe_of_another_kind_is_refused_although_its_key_is_right(change: dict[str, object]) -> None:
    header = {"alg": "dir", "enc": "A256GCM", "kid": "old", "instance": "alpha", "uid": "u1"} | change

    with pytest.raises(SealError):
        KEYS.open("alpha", "u1", jwe(header, bytes(range(32)), b"hello"))


def test_a_token_that_is_not_utf8_is_refused() -> None:
    header = {"alg": "dir", "enc": "A256GCM", "kid": "old", "instance": "alpha", "uid": "u1"}

    with pytest.raises(SealError):
        KEYS.open("alpha", "u1", jwe(header, bytes(range(32)), b"\xff"))


@given(st.text(max_size=80))
def test_anything_else_is_refused_with_a_seal_error(sealed: str) -> None:
    with pytest.raises(SealError):
        KEYS.open("alpha", "u1", sealed)


def test_a_deeply_nested_header_is_refused_with_a_seal_error() -> None:
    deep = base64.urlsafe_b64encode(b'{"kid":' * 100_000).decode() + "..a.b.c"

    with pytest.raises(SealError):
        KEYS.open("alpha", "u1", deep)
    assert not KEYS.current(deep)


@given(st.integers(0, 300), st.sampled_from("Aa0-_.!"))
def test_a_changed_token_does_not_open_and_is_not_quoted(position: int, letter: str) -> None:
    sealed = KEYS.seal("alpha", "u1", TOKEN)
    position %= len(sealed)
    changed = sealed[:position] + letter + sealed[position + 1 :]
    # The last letter of a part carries bits that base64 ignores.
    assume(changed != sealed and sealed[position + 1 : position + 2] not in {"", "."})

    with pytest.raises(SealError) as caught:
        KEYS.open("alpha", "u1", changed)

    assert changed.split(".")[-1] not in str(caught.value)


def test_the_mac_is_the_hmac_of_the_contract() -> None:
    key = bytes(range(32, 64))
    pseudorandom = hmac.digest(bytes(32), key, "sha256")
    derived = hmac.digest(pseudorandom, b"palette-sync/mac/1\x01", "sha256")

    assert KEYS.mac("alpha", 17, 4, "d1") == hmac.new(derived, b"1|alpha|17|4|d1", hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    "changed", [("bravo", 1, 2, "d"), ("alpha", 2, 2, "d"), ("alpha", 1, 3, "d"), ("alpha", 1, 2, "e")]
)
def test_the_mac_covers_instance_epoch_version_and_digest(changed: tuple[str, int, int, str]) -> None:
    mac = KEYS.mac("alpha", 1, 2, "d")

    assert KEYS.mac_matches("alpha", 1, 2, "d", mac)
    assert not KEYS.mac_matches(*changed, mac)


@pytest.mark.parametrize("mac", ["", "0" * 64, "ü"])
def test_a_malformed_mac_does_not_match(mac: str) -> None:
    assert not KEYS.mac_matches("alpha", 1, 2, "d", mac)


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
    sealed = bare.seal("alpha", "u1", TOKEN)

    assert sealed == f"none:{TOKEN.reveal()}"
    assert bare.open("alpha", "u1", sealed) == TOKEN
    assert bare.mac("alpha", 1, 2, "d") == ""
    assert bare.mac_matches("alpha", 1, 2, "d", "anything")


def test_sealed_and_bare_tokens_are_not_mistaken_for_each_other() -> None:
    with pytest.raises(SealError, match="there is no key"):
        Unsealed().open("alpha", "u1", KEYS.seal("alpha", "u1", TOKEN))
    with pytest.raises(SealError):
        KEYS.open("alpha", "u1", Unsealed().seal("alpha", "u1", TOKEN))
