"""`palette-sync kubeconfig CLUSTER`: a kubeconfig with the published read-only token, for who holds the seal key."""

from __future__ import annotations

import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from palette_sync.cli.ask import without_seal_key
from palette_sync.cli.console import print_json, print_problems
from palette_sync.cli.diagnosis import Where, run_diagnosis
from palette_sync.cli.exits import Exit
from palette_sync.cli.one_cluster import find_one
from palette_sync.core.durations import time_for_people
from palette_sync.core.kubeconfig_file import kubeconfig_document, kubeconfig_problem
from palette_sync.core.text import visible

if TYPE_CHECKING:
    from palette_sync.assembly.diagnosis import Diagnosis
    from palette_sync.cli.one_cluster import OneCluster
    from palette_sync.core.model import SealedCredential, Secret

STDOUT = "-"


def run(where: Where, cluster: str, *, output: str, instances: list[str] | None, as_json: bool) -> Exit:
    """Exit 0: written; 1: there is no token for the cluster, it does not open, no such cluster, or the file exists;
    78: it is unknown where Redis is, or there is no seal key.
    """

    async def work(diagnosis: Diagnosis) -> Exit:
        if not diagnosis.verifies:
            return without_seal_key(diagnosis)
        found = await find_one(diagnosis, cluster, instances)
        if found is None:
            return Exit.FAILED
        name, now = visible(found.record.name), datetime.now(UTC)
        credential = found.state.credentials.get(found.record.uid)
        problem = kubeconfig_problem(found.record, credential, now)
        if not found.state.trusted:
            problem = "the snapshot in Redis does not verify, so neither its servers nor its tokens are used"
        if problem or credential is None:
            print_problems([f"{name}: {problem}"], title="no kubeconfig was written")
            return Exit.FAILED
        token = _opened(diagnosis, found, credential)
        if token is None:
            problem = f"{name}: no seal key of this configuration opens its token"
            print_problems([problem], title="no kubeconfig was written")
            return Exit.FAILED
        return _write(found, token, credential, output=output, as_json=as_json)

    return run_diagnosis(where, work)


def _opened(diagnosis: Diagnosis, found: OneCluster, credential: SealedCredential) -> Secret | None:
    from palette_sync.core.snapshot_codec import sealed_for
    from palette_sync.store.seal import SealError

    try:
        target = sealed_for(diagnosis.store.keys.prefix, found.record, credential)
        return diagnosis.sealer.open(target, credential.sealed)
    except SealError:
        return None


def _write(found: OneCluster, token: Secret, credential: SealedCredential, *, output: str, as_json: bool) -> Exit:
    import yaml

    text = yaml.dump(kubeconfig_document(found.record, token), Dumper=yaml.CSafeDumper, sort_keys=False)
    name = visible(found.record.name)
    if output == STDOUT:
        sys.stdout.write(text)
    else:
        path = Path(output or f"{re.sub(r'[^A-Za-z0-9._-]', '_', found.record.name)}.kubeconfig")
        try:
            _write_new(path, text)
        except OSError as error:
            hint = "; choose another one with --output" if isinstance(error, FileExistsError) else ""
            print_problems([f"{path}: {error.strerror}{hint}"], title="no kubeconfig was written")
            return Exit.FAILED
        if as_json:
            print_json({"cluster": found.record.name, "file": str(path), "expires_at": credential.expires_at})
    end = f"until {time_for_people(credential.expires_at)}" if credential.expires_at else "until it is revoked"
    where = "standard output" if output == STDOUT else str(path)
    warning = f"{where} holds the token of {name} in the clear: everybody who can read it can read the cluster {end}"
    print_problems(
        [warning, f"`palette-sync rotate {name} --revoke` ends it"], title="keep this secret", style="bold yellow"
    )
    return Exit.OK


def _write_new(path: Path, text: str) -> None:
    """Write a file that did not exist, for its owner alone. Raises OSError; FileExistsError also for a link."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        file.write(text)
