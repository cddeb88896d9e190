"""Build the release, install each part into an empty environment, and run it there. `make release-check` calls it.

What is installed beside the parts comes from the registries that pip and npm are set to; nothing else of the network is
used. The environments are in a temporary folder, without this source tree on any path.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import helm_python as helm
import yaml

from release.artefacts import build
from release.places import DEPLOY, PACKAGE, REQUIREMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from release.artefacts import Artefacts

# What could lead a program back to this source tree, or to a configuration of this machine.
_DROPPED = ("PYTHON", "PALETTE_SYNC_", "VIRTUAL_ENV", "NODE_", "COVERAGE_", "COV_")
# With the locked one of the Backstage app: what a frontend package imports, only a bundler finds.
_ESBUILD = DEPLOY / "backstage-ui" / "node_modules" / ".bin" / "esbuild"
_LOADERS = [f"--loader:.{kind}=empty" for kind in ("svg", "png", "woff", "woff2", "ttf", "eot")]


class CheckError(Exception):
    """A part of the release does not do what it should."""


def main() -> int:
    started = time.monotonic()

    def say(text: str) -> None:
        sys.stdout.write(f"{time.monotonic() - started:5.0f} s  {text}\n")
        sys.stdout.flush()

    try:
        say("building the release into dist/")
        built = build()
        with tempfile.TemporaryDirectory(prefix="palette-sync-release-") as name:
            folder = Path(name)
            holds_the_package(built)
            say("ok  wheel and source distribution hold the files of the package and no others")
            for archive in (built.wheel, built.sdist):
                environment = python_environment(folder / archive.suffix.strip("."), archive)
                ran = runs(
                    environment, built.version, folder / f"world-{environment.name}", demo=archive == built.wheel
                )
                say(f"ok  {archive.name}: installed; ran {', '.join(ran)}")
            for package, archive in built.npm.items():
                entries = npm_entries(folder / f"npm-{package}", package, archive)
                say(f"ok  {archive.name}: installed; imported {', '.join(entries)}")
            objects = rendered(built)
            say(f"ok  {built.chart.name}: rendered {len(objects)} objects")
    except (CheckError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or getattr(error, "output", None) or ""
        sys.stderr.write(f"release-check: {error}\n{said}\n")
        return 1
    say("the release can be installed and runs")
    return 0


def holds_the_package(built: Artefacts) -> None:
    """Compare both archives with the files of the package, without what Python left beside them."""
    here = {
        str(one.relative_to(PACKAGE.parent))
        for one in PACKAGE.rglob("*")
        if one.is_file() and "__pycache__" not in one.parts
    }
    with zipfile.ZipFile(built.wheel) as wheel:
        in_wheel = {name for name in wheel.namelist() if name.startswith("palette_sync/")}
    prefix = f"palette_sync-{built.version}/daemon/"
    with tarfile.open(built.sdist) as sdist:
        in_sdist = {one.name.removeprefix(prefix) for one in sdist if one.isfile() and one.name.startswith(prefix)}
    for what, found in (("wheel", in_wheel), ("source distribution", in_sdist)):
        if found != here:
            raise CheckError(f"the {what} lacks {sorted(here - found)} and has besides {sorted(found - here)}")


def python_environment(folder: Path, archive: Path) -> Path:
    """Install an archive with what is locked, and the extra `embedded`, into a new environment; return its folder."""
    venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    pip = [str(folder / "bin" / "python"), "-I", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    locked = [part for name in ("build", "runtime", "embedded") for part in ("-r", str(REQUIREMENTS / f"{name}.txt"))]
    _run([*pip, "install", "--no-deps", "--require-hashes", *locked], folder)
    _run([*pip, "install", "--no-deps", "--no-index", "--no-build-isolation", str(archive)], folder)
    _run([*pip, "check"], folder)
    where = _run([str(folder / "bin" / "python"), "-c", "import palette_sync; print(palette_sync.__file__)"], folder)
    if not Path(where.strip()).is_relative_to(folder.resolve()):
        raise CheckError(f"palette_sync was imported from {where.strip()}, not from {folder}")
    return folder


def runs(environment: Path, version: str, world: Path, *, demo: bool) -> list[str]:
    """Run the installed command: its version, `check` in a simulated world, and the demo. Return what was run."""
    command = str(environment / "bin" / "palette-sync")
    world.mkdir()
    said = _run([command, "--version"], world).strip()
    if said != f"palette-sync {version}":
        raise CheckError(f"--version printed {said!r}")
    with _simulation(command, world):
        _run([command, "check", "--config", str(world / "config.toml")], world)
    if demo:
        _run([command, "demo"], world)
    return ["--version", "check", *(["demo"] if demo else [])]


@contextmanager
def _simulation(command: str, world: Path) -> Iterator[None]:
    """`palette-sync simulate`, whose configuration is the example that `check` reads."""
    arguments = [command, "simulate", "--out", str(world), "--redis-url", f"embedded://{world}/store"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=world, env=_environment()) as process:
        try:
            if process.stdout is None or not any(line.strip() == "ready" for line in process.stdout):
                raise CheckError("simulate ended before it was ready")
            yield
        finally:
            process.send_signal(signal.SIGTERM)


def npm_entries(folder: Path, package: str, archive: Path) -> list[str]:
    """Install a package into an empty project, import each of its entries, and return them.

    Raises CheckError for an entry that does not export the feature of Backstage that package.json declares for it.
    """
    folder.mkdir()
    (folder / "package.json").write_text('{"name": "empty", "version": "0.0.0", "private": true}\n')
    _run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", str(archive)], folder)
    manifest: dict[str, Any] = json.loads((folder / "node_modules" / package / "package.json").read_text())
    features: dict[str, str] = manifest["backstage"]["features"]
    entries = [one for one in manifest["exports"] if one != "./package.json"]
    for entry in entries:
        found = _imported(folder, package + entry.removeprefix("."), bundled=manifest.get("type") == "module")
        if found != features.get(entry):
            raise CheckError(f"{package}, entry {entry}: exports {found}, package.json declares {features.get(entry)}")
    return [package + one.removeprefix(".") for one in entries]


def _imported(folder: Path, name: str, *, bundled: bool) -> str | None:
    """Import an entry with Node, and return the kind of feature that its default export is; None where it has none."""
    text = (
        f'import * as whole from "{name}";\nconsole.log(JSON.stringify({{ kind: whole.default?.$$type ?? null }}));\n'
    )
    script = folder / "imports.mjs"
    if not bundled:
        # Node gives a CommonJS module as `default`; its own default export is below.
        text = text.replace("whole.default?.", "(whole.default?.default ?? whole.default)?.")
    script.write_text(text, encoding="utf-8")
    if bundled:
        whole = folder / "bundle.mjs"
        arguments = ["--bundle", "--format=esm", "--platform=browser", "--log-level=error", *_LOADERS]
        _run([str(_ESBUILD), str(script), *arguments, f"--outfile={whole}"], folder)
        script = whole
    found: dict[str, str | None] = json.loads(_run(["node", str(script)], folder))
    return found["kind"]


def rendered(built: Artefacts) -> list[dict[str, Any]]:
    """Render the packed chart with Helm's engine, and return its objects."""
    with helm.Chart.load(str(built.chart)) as chart:
        chart.validate_schema({})
        files = chart.render({}, name="palette-sync", namespace="tools")
    texts = [text for file, text in files.items() if file.endswith(".yaml")]
    objects = [one for text in texts for one in yaml.load_all(text, yaml.CSafeLoader) if one]
    images = [
        container["image"]
        for one in objects
        if one["kind"] == "Deployment"
        for container in one["spec"]["template"]["spec"]["containers"]
    ]
    if images != [f"palette-sync:{built.version}"]:
        raise CheckError(f"the chart runs {images}, not palette-sync:{built.version}")
    return objects


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_DROPPED)}


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=_environment(), capture_output=True, text=True, check=True, timeout=600
    )
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
