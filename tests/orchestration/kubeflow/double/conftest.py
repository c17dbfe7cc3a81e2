"""A Docker engine for the double's pods."""

from tests.engine import build_module, docker_client

__all__ = ["build_module", "docker_client"]
