"""Airflow plugin: shows reports and Data Docs of `runs/` at /pages/.

`make airflow` loads it by AIRFLOW__CORE__PLUGINS_FOLDER. It is meant for a server that listens on
this machine alone: like all apps of plugins, it asks for no login.
"""

import stat
from pathlib import Path
from typing import Any

from airflow.plugins_manager import AirflowPlugin
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from components.orchestration.airflow.operators import PAGES_PREFIX, RUNS_FOLDER
from components.orchestration.home import project_home

SHOWN_SUFFIXES = {".html", ".css", ".js", ".svg", ".png", ".jpg", ".woff2"}
# The pages hold captions from the web: without an origin they cannot act in Airflow's name.
HEADERS = [
    (b"content-security-policy", b"sandbox allow-scripts allow-popups"),
    (b"x-content-type-options", b"nosniff"),
]


class Pages(StaticFiles):
    """Files that make up pages; tables, shards and databases are not served."""

    def lookup_path(self, path: str) -> Any:
        """The file behind a path, or a 404."""
        full_path, status = super().lookup_path(path)
        is_page = Path(path).suffix in SHOWN_SUFFIXES
        if status and stat.S_ISREG(status.st_mode) and not is_page:
            raise HTTPException(404)
        return full_path, status


class SandboxHeaders:
    """Adds the headers that keep a page to itself."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on and add the headers to its answer."""

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        await self.app(scope, receive, send_with_headers)


def pages_app(folder: Path) -> Starlette:
    """An app that serves the pages below a folder."""
    files = Pages(directory=folder, html=True, check_dir=False)
    return Starlette(routes=[Mount("/", app=files)], middleware=[Middleware(SandboxHeaders)])


class PagesPlugin(AirflowPlugin):
    """What Airflow loads."""

    name = "pixclip_pages"
    fastapi_apps = [  # noqa: RUF012
        {
            "app": pages_app(project_home() / RUNS_FOLDER),
            "url_prefix": PAGES_PREFIX,
            "name": "Reports and Data Docs",
        }
    ]
