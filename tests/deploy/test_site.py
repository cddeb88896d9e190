"""The documentation builds as a site, strictly: no link and no anchor leads nowhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from deploy.places import ROOT


def test_the_site_builds_strictly_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    built = tmp_path / "site"

    ran = subprocess.run(
        [sys.executable, ROOT / "docs/build_site.py", tmp_path / "source", built],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )

    assert ran.returncode == 0, ran.stderr
    pages = list(built.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        assert not re.search(r'(src="|<link[^>]* href=")https?://', page.read_text()), page


def test_every_page_for_people_is_in_the_menu() -> None:
    menu = (ROOT / "docs/mkdocs.yml").read_text()

    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"docs/{page.name}" not in menu] == []
