"""
The pages of this package in Airflow's own web server, so that a failed task can link to what to do.

They are the version's that is installed, need no login and hold nothing of the deployment. Airflow loads this module in
every task, so whatever draws a page is imported when the first one is asked for.
"""

from __future__ import annotations

import re
from functools import cache
from html import escape
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowPlugin

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

PREFIX = "/pacifica"
RUNBOOK = "docs/unknown.md"
_PAGES = ("*.md", "docs/*.md", "docs/images/*.png", "docs/images/*.svg", "dags_examples/*.py")
_MEDIA_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse }} td, th {{ border: 1px solid #8886; padding: .3rem .6rem; text-align: left }}
pre, code {{ font-family: ui-monospace, monospace; background: #8882 }} pre {{ padding: .8rem; overflow-x: auto }}
img {{ max-width: 100% }}
</style>{body}</html>"""


async def pages(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request for a page (ASGI)."""
    await _application()(scope, receive, send)


class PacificaPages(AirflowPlugin):
    """What Airflow mounts."""

    name = "pacifica"
    fastapi_apps = [{"app": pages, "url_prefix": PREFIX, "name": "Pacifica provider: documentation"}]  # noqa: RUF012 - as Airflow has it


@cache
def page_files() -> dict[str, Path]:
    """Return the files that are shown, by their path as the pages name them; none where they were not installed."""
    if (folder := _folder()) is None:
        return {}
    return {file.relative_to(folder).as_posix(): file for pattern in _PAGES for file in sorted(folder.glob(pattern))}


def _folder() -> Path | None:
    """Return where the pages are: beside the package in its source tree, else where the wheel put them."""
    tree = Path(__file__).parent.parent
    if (tree / RUNBOOK).is_file():
        return tree
    for file in metadata.files("airflow-provider-pacifica") or ():
        if file.as_posix().endswith(RUNBOOK):
            return Path(str(file.locate())).resolve().parent.parent
    return None


@cache
def _application() -> Starlette:
    from starlette.applications import Starlette
    from starlette.routing import Route

    return Starlette(routes=[Route("/{path:path}", _page)])


def _page(request: Request) -> Response:
    from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse

    file = page_files().get(request.path_params["path"])
    if file is None:
        return PlainTextResponse("There is no such page.", 404, _HEADERS)
    if file.suffix == ".md":
        return HTMLResponse(_html(file.read_text("utf-8")), headers=_HEADERS)
    return FileResponse(file, headers=_HEADERS, media_type=_MEDIA_TYPES.get(file.suffix, "text/plain"))


def _html(text: str) -> str:
    """Draw one of our own pages; its headings can be linked to, as forges do it."""
    from markdown_it import MarkdownIt

    drawn = MarkdownIt("commonmark").enable("table")
    tokens = drawn.parse(re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL))
    headings = [(token, after.content) for token, after in pairwise(tokens) if token.type == "heading_open"]
    for opening, heading in headings:
        opening.attrSet("id", re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
    title = escape(headings[0][1]) if headings else ""
    return _PAGE.format(title=title, body=drawn.renderer.render(tokens, drawn.options, {}))
