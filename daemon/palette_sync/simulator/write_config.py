"""Writes the files with which other processes use the simulator: configuration, keys, and a list of its clusters."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from pathlib import Path

    from palette_sync.simulator.cluster import SimCluster, SimInstance
    from palette_sync.simulator.exchange import Json
    from palette_sync.simulator.world import World

_PRIVATE = 0o600
_PUBLIC = 0o644


def write_config(world: World, control_url: str, directory: Path, *, seal_keys_line: str, redis_url: str) -> None:
    """Write `config.toml`, `seal.keys`, `simulator.json`, and for each instance API key and CA into `directory`.

    Only their owner can read API keys and seal keys; `simulator.json` holds no secret.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    sections: list[str] = []
    for instance in world.instances.values():
        key_file, ca_file = directory / f"{instance.name}.api-key", directory / f"{instance.name}.ca.pem"
        _write(key_file, f"{instance.api_key}\n", _PRIVATE)
        _write(ca_file, instance.ca_pem, _PUBLIC)
        sections.append(_section(instance, key_file, ca_file))
    sections.append(f"[redis]\nurl = {_quoted(redis_url)}\n")
    # Everything that is simulated is on loopback, where no cluster of anybody else is.
    sections.append('[network]\nallow = ["127.0.0.0/8", "::1/128"]\n')
    sections.append(f"[seal]\nkeys_file = {_quoted(str(directory / 'seal.keys'))}\n")
    _write(directory / "seal.keys", f"{seal_keys_line.rstrip()}\n", _PRIVATE)
    _write(directory / "config.toml", "\n".join(sections), _PUBLIC)
    document = orjson.dumps({"control_url": control_url, **describe(world)}, option=orjson.OPT_INDENT_2)
    _write(directory / "simulator.json", document.decode() + "\n", _PUBLIC)


def describe(world: World) -> Json:
    """Return the instances with their projects and clusters, without secrets."""
    return {"instances": [_describe_instance(instance) for instance in world.instances.values()]}


def describe_cluster(cluster: SimCluster) -> Json:
    return {
        "uid": cluster.uid,
        "name": cluster.name,
        "project": cluster.project_uid,
        "url": cluster.url,
        "oidc": cluster.oidc,
        "admin_file": cluster.admin_file,
        "state": cluster.state,
        "health": cluster.health,
        "tags": cluster.tags,
    }


def _describe_instance(instance: SimInstance) -> Json:
    projects = [{"uid": project.uid, "name": project.name} for project in instance.projects.values()]
    clusters = [describe_cluster(cluster) for cluster in instance.clusters.values()]
    return {"name": instance.name, "url": instance.url, "projects": projects, "clusters": clusters}


def _section(instance: SimInstance, key_file: Path, ca_file: Path) -> str:
    return (
        f"[instances.{instance.name}]\n"
        f"url = {_quoted(instance.url)}\n"
        f"api_key_file = {_quoted(str(key_file))}\n"
        f"api_key_name = {_quoted(instance.api_key_name)}\n"
        f"ca_file = {_quoted(str(ca_file))}\n"
        f"[instances.{instance.name}.auth]\n"
        'mode = "service-account"\n'
        'rules = [{ tag = "auth:oidc", mode = "oidc" }]\n'
        # Tokens may be made to live for seconds here, so that renewal can be watched.
        f'[instances.{instance.name}.token]\nshortest = "1s"\n'
    )


def _quoted(text: str) -> str:
    """Quote as a TOML basic string, whose escapes are those of JSON."""
    return json.dumps(text)


def _write(path: Path, text: str, mode: int) -> None:
    """Write a file that never has wider permissions than `mode`, not even briefly."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
