"""The small networks of the network's own tests."""

from tests.network.conftest import build, cache

__all__ = ["build", "cache"]
