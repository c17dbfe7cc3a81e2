"""A button at a task that opens the page which the task has made."""

from typing import Any

from airflow.sdk import BaseOperatorLink

from components.runners.home import project_home

# Where `plugins/pages.py` serves the pages of `runs/`.
PAGES_PREFIX = "/pages"
RUNS_FOLDER = "runs"


class PageLink(BaseOperatorLink):
    """Opens the report or the Data Docs of a run."""

    @property
    def name(self) -> str:
        """The text of the button."""
        return "Open page"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The page's address under this server, or its file if the server cannot show it."""
        page = operator.path(operator.page)
        runs = project_home() / RUNS_FOLDER
        if page.is_relative_to(runs):
            return f"{PAGES_PREFIX}/{page.relative_to(runs)}"
        return str(page.as_uri())
