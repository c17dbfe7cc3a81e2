"""A Docker engine for the tests of images."""

from tests.engine import build_module, docker_client

__all__ = ["build_module", "docker_client"]
