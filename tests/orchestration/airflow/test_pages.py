"""The Airflow plugin that shows pages, asked over HTTP as a browser asks."""

import pytest
from starlette.testclient import TestClient

from components.orchestration.airflow.plugins.pages import pages_app


@pytest.fixture
def client(tmp_path) -> TestClient:
    page = tmp_path / "runs" / "demo" / "longgrit" / "report.html"
    page.parent.mkdir(parents=True)
    page.write_text("<h1>Report</h1>")
    (page.parent / "manifest.parquet").write_text("PAR1")
    storage = tmp_path / "runs" / "demo" / "storage"
    storage.mkdir()
    (storage / "6f1c").write_text("a file of DVC's, which have no ending")
    (tmp_path / "secret.html").write_text("not below runs")
    (page.parent / "link.html").symlink_to(tmp_path / "secret.html")
    return TestClient(pages_app(tmp_path / "runs"))


def test_a_page_is_shown_but_cannot_act_in_airflow_s_name(client):
    answer = client.get("/demo/longgrit/report.html")
    assert answer.text == "<h1>Report</h1>"
    assert answer.headers["content-security-policy"] == "sandbox allow-scripts allow-popups"


@pytest.mark.parametrize(
    "path",
    [
        "/demo/longgrit/manifest.parquet",
        "/demo/storage/6f1c",
        "/demo/longgrit/link.html",
        "/../secret.html",
        "/..%2fsecret.html",
        "/demo/nothing.html",
    ],
)
def test_nothing_but_pages_below_the_folder_is_served(client, path):
    assert client.get(path).status_code == 404
