"""Coverage-guided fuzzing of what reads foreign bytes: `make fuzz`, or `python tests/fuzz.py TARGET SECONDS [FOLDER]`.

The targets begin with the corpora of `hostile`. A target may refuse an input with its own error only; any other
exception ends the fuzzer, which writes the input into FOLDER. atheris has no wheel for every platform, so only
`make fuzz` needs it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import atheris

with atheris.instrument_imports(include=["palette_sync"]):
    import orjson

    from palette_sync.core import memory_codec, snapshot_codec
    from palette_sync.core.documents import DocumentError
    from palette_sync.core.model import Secret
    from palette_sync.kube import objects
    from palette_sync.kube.errors import KubeError
    from palette_sync.kube.kubeconfig import KubeconfigError, parse, parse_server_only
    from palette_sync.palette import rows
    from palette_sync.palette.errors import Malformed

from hostile import BODIES, KUBECONFIGS
from strategies import full_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def refusing(error: type[Exception], *readers: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Call each reader; `error` is its way to refuse an input."""

    def read(value: Any) -> None:
        for reader in readers:
            try:
                reader(value)
            except error:
                continue

    return read


def kubeconfig(data: bytes) -> None:
    text = Secret(data.decode("utf-8", "replace"))
    refusing(KubeconfigError, parse, parse_server_only)(text)


def json_document(read: Callable[[Any], None]) -> Callable[[bytes], None]:
    def decoded(data: bytes) -> None:
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            return
        read(value)

    return decoded


def api_object(value: Any) -> None:
    if isinstance(value, dict):  # the transport hands on objects only
        refusing(
            KubeError,
            objects.namespace_of,
            objects.service_account_of,
            objects.secret_of,
            objects.role_of,
            objects.binding_of,
        )(value)


_BODIES = [body.encode() for body in BODIES.values()]
TARGETS: dict[str, tuple[Callable[[bytes], None], Iterable[bytes]]] = {
    "kubeconfig": (kubeconfig, [text.encode("utf-8", "surrogatepass") for text in KUBECONFIGS.values()]),
    "palette": (
        json_document(
            refusing(
                Malformed, rows.read_page, rows.read_project, rows.read_cluster, rows.read_oidc, rows.read_user_info
            )
        ),
        _BODIES,
    ),
    "kubernetes": (json_document(api_object), _BODIES),
    "redis": (
        refusing(
            DocumentError,
            snapshot_codec.decode_record,
            snapshot_codec.decode_credential,
            memory_codec.decode_memory,
            memory_codec.decode_issuer,
            memory_codec.decode_scope,
        ),
        [orjson.dumps(full_record()), *_BODIES],
    ),
}


def main(target: str, seconds: str, folder: str = "build/fuzz") -> None:
    """Fuzz one target for so many seconds. Does not return."""
    run, seeds = TARGETS[target]
    found = Path(folder)
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds):
            (Path(corpus) / f"{number:03}").write_bytes(seed)
        options = [f"-max_total_time={seconds}", "-max_len=65536", "-print_final_stats=1", f"-artifact_prefix={found}/"]
        atheris.Setup([sys.argv[0], *options, corpus], run)
        atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python tests/fuzz.py {{{','.join(TARGETS)}}} SECONDS [FOLDER]")
    main(*sys.argv[1:])
