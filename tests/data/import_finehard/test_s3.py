"""Annotations and images below S3 prefixes, on a real server."""

import boto3
import pytest

from components.core.errors import InputError
from tests.finehard_source import write_finehard
from tests.s3_server import s3_server


@pytest.fixture(scope="module")
def store():
    with s3_server() as endpoint:
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="data")
        yield endpoint, client


def test_an_import_from_s3_is_that_of_the_folder_but_for_the_addresses(tmp_path, run, store):
    endpoint, client = store
    annotations, images = write_finehard(tmp_path, 6)
    for folder in (annotations, images):
        for path in folder.rglob("*.*"):
            key = f"fine/{path.relative_to(tmp_path)}"
            client.upload_file(str(path), "data", key)
    client.delete_object(Bucket="data", Key="fine/grit-12m/coyo_image_0/00000/000000002.jpg")
    (images / "coyo_image_0/00000/000000002.jpg").unlink()
    here = run(annotations, images, name="here")
    place = "s3://data/fine/FineHARD/jsonfiles", "s3://data/fine/grit-12m/"
    there = run(*place, name="there", endpoint_url=endpoint)
    assert there.metrics == here.metrics
    assert there.metrics["quarantined.image_missing"] == 4
    assert [row["url"] for row in there.rows] == [
        row["url"].replace("file:///", "s3://data/fine/grit-12m/") for row in here.rows
    ]
    strip = {"url": ""}
    assert [row | strip for row in there.rows] == [row | strip for row in here.rows]


def test_a_prefix_without_annotations_is_refused(tmp_path, run, store):
    endpoint, _ = store
    with pytest.raises(InputError, match=r"s3://data/other holds no \.json"):
        run("s3://data/other", "s3://data/fine/grit-12m", endpoint_url=endpoint)
