"""The package's pages in Airflow's web server: each is drawn, each link leads on, nothing else is shown."""

from __future__ import annotations

import asyncio
import posixpath
import re
import subprocess
import sys
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import httpx
import pytest

from pacifica_provider.get_provider_info import get_provider_info
from pacifica_provider.plugin import PREFIX, RUNBOOK, PacificaPages, page_files
from tests.support.airflow_line import AIRFLOW

BASE = "http://airflow.invalid/"
LINK = re.compile(r'(?:href|src)="([^"]+)"')


def fetch(path: str) -> httpx.Response:
    """Ask the application that Airflow mounts, by a path below where it is mounted."""

    async def aget() -> httpx.Response:
        (mounted,) = PacificaPages.fastapi_apps
        transport = httpx.ASGITransport(cast("Any", mounted["app"]))
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            return await client.get(f"/{path}")

    return asyncio.run(aget())


def test_airflow_mounts_it_under_a_name_of_its_own() -> None:
    """Loaded by Airflow's own class, and the names are what the link is made of."""
    assert PacificaPages.name == "pacifica"
    assert [each["url_prefix"] for each in PacificaPages.fastapi_apps] == [PREFIX] == ["/pacifica"]


def test_the_runbook_is_drawn() -> None:
    """Headings that can be linked to, tables and commands; no mark for the tests is left in it."""
    page = fetch(RUNBOOK)

    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<title>When it says UNKNOWN</title>" in page.text
    assert '<h2 id="2-decide">2. Decide</h2>' in page.text
    assert "<td>nothing moved, and every listed withdrawal is somebody else's</td>" in page.text
    assert "airflow pacifica case --dag-id" in page.text
    assert "not run:" not in page.text


@pytest.mark.parametrize("path", sorted(page_files()))
def test_every_page_is_shown_and_its_links_lead_on(path: str) -> None:
    """To another page, an anchor that is there, or a site; nothing may be loaded from elsewhere or run."""
    page = fetch(path)
    pages = {PREFIX.removeprefix("/") + "/" + each for each in page_files()}
    wrong = []
    for link in LINK.findall(page.text) if path.endswith(".md") else ():
        parts = urlsplit(link)
        if parts.scheme in {"http", "https"}:
            continue
        target = posixpath.normpath(posixpath.join(PREFIX, posixpath.dirname(path), unquote(parts.path)))
        anchored = fetch(target.removeprefix(f"{PREFIX}/")).text if parts.path else page.text
        if (parts.path and target.removeprefix("/") not in pages) or (
            parts.fragment and f'id="{parts.fragment}"' not in anchored
        ):
            wrong.append(link)

    assert page.status_code == 200
    assert wrong == []
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in page.text


def test_the_guides_and_the_logo_of_the_provider_info_are_shown() -> None:
    """Their paths are those in the source tree, so below the mount they lead to the same files."""
    (pacifica,) = get_provider_info()["integrations"]
    types = [fetch(path[1:]).headers["content-type"].partition(";")[0] for path in pacifica["how-to-guide"]]

    assert types == ["text/html"] * len(types) != []
    assert fetch(pacifica["logo"][1:]).headers["content-type"] == "image/svg+xml"


@pytest.mark.parametrize(
    "path", ["", "docs", "docs/", "pyproject.toml", "docs/../pyproject.toml", "..%2fpyproject.toml", "docs/none.md"]
)
def test_nothing_else_is_shown(path: str) -> None:
    """What is no page is not looked for on the disk."""
    page = fetch(path)

    assert (page.status_code, page.text) == (404, "There is no such page.")


def test_a_task_pays_little_for_it() -> None:
    """Airflow imports the module in every task: what draws a page is not imported with it."""
    loader = "airflow.sdk.plugins_manager" if AIRFLOW >= (3, 2) else "airflow.plugins_manager"
    program = (
        f"import {loader}, sys\n"
        "before = set(sys.modules)\n"
        "import pacifica_provider.plugin\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print('new:', *sorted(new))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.splitlines()[-1].split() == ["new:", "airflow", "pacifica_provider"]
