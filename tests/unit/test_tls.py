"""Keys and certificates of unknown origin are judged before OpenSSL computes anything with them."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from palette_sync.core.model import Secret, Server, ca_data_of
from palette_sync.core.reasons import Reason
from palette_sync.kube.kubeconfig import ClientCertificate, KubeconfigError
from palette_sync.kube.transport import tls_context
from palette_sync.tls import LONGEST_PEM, MOST_CERTIFICATES, certificates_problem, key_problem

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def pem_of(key: Any) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@lru_cache
def made(kind: str) -> Any:
    return {
        "RSA 1024": lambda: rsa.generate_private_key(65537, 1024),
        "RSA 2048": lambda: rsa.generate_private_key(65537, 2048),
        "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
        "K-256": lambda: ec.generate_private_key(ec.SECP256K1()),
        "Ed25519": ed25519.Ed25519PrivateKey.generate,
        "Ed448": ed448.Ed448PrivateKey.generate,
        "DSA": lambda: dsa.generate_private_key(1024),
    }[kind]()


def certificate_of(kind: str) -> str:
    key = made(kind)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1))
    signs = made("P-256")
    return builder.sign(signs, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def huge_rsa_key(bits: int) -> str:
    """An RSA key of so many bits that was never generated: nothing but its size is right."""
    number = (1 << bits) - 1
    body = b"".join(_der_integer(one) for one in (0, number, 65537, number, 3, 5, 7, 11, 13))
    der = b"\x30" + _der_length(len(body)) + body
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN RSA PRIVATE KEY-----\n{text}-----END RSA PRIVATE KEY-----\n"


def _der_length(length: int) -> bytes:
    if length < 128:
        return bytes([length])
    raw = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(raw)]) + raw


def _der_integer(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return b"\x02" + _der_length(len(raw)) + raw


@pytest.mark.parametrize("kind", ["RSA 2048", "P-256", "P-384", "P-521", "Ed25519"])
def test_keys_that_kubernetes_uses_are_accepted(kind: str) -> None:
    assert key_problem(pem_of(made(kind))) is None
    assert certificates_problem(certificate_of(kind)) is None


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("RSA 1024", "1024 bits"),
        ("K-256", "on a curve other than"),
        ("Ed448", "neither RSA, nor ECDSA, nor Ed25519"),
        ("DSA", "neither RSA, nor ECDSA, nor Ed25519"),
    ],
)
def test_other_keys_are_refused(kind: str, problem: str) -> None:
    assert problem in (key_problem(pem_of(made(kind))) or "")
    assert problem in (certificates_problem(certificate_of(kind)) or "")


@pytest.mark.parametrize("bits", [16_384, 65_536])
def test_a_key_that_would_hold_up_the_event_loop_is_never_used(bits: int) -> None:
    problem = key_problem(huge_rsa_key(bits))

    assert problem is not None
    credential = ClientCertificate(certificate_of("P-256"), Secret(huge_rsa_key(bits)))
    with pytest.raises(KubeconfigError) as refused:
        tls_context(Server("https://example", ca_data_of(certificate_of("P-256"))), credential)
    assert refused.value.reason is Reason.BAD_CREDENTIAL
    assert problem in str(refused.value)


def test_an_encrypted_or_broken_key_is_refused_without_quoting_it() -> None:
    locked = made("P-256").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()

    assert key_problem(locked) == "is encrypted"
    assert key_problem("-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n") == "cannot be read"
    assert key_problem("x" * (LONGEST_PEM + 1)) == f"is longer than {LONGEST_PEM} characters"


def test_a_bundle_has_bounds() -> None:
    one = certificate_of("P-256")

    assert certificates_problem(one * MOST_CERTIFICATES) is None
    assert certificates_problem(one * (MOST_CERTIFICATES + 1)) == f"holds more than {MOST_CERTIFICATES} certificates"
    weak = Server("https://example", ca_data_of(one + certificate_of("RSA 1024")))
    with pytest.raises(KubeconfigError, match="RSA keys of 2048 to 8192 bits") as refused:
        tls_context(weak, None)
    assert refused.value.reason is Reason.BAD_CA
