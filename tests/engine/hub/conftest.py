"""The Hub for tests of models."""

from tests.hub_server import hub

__all__ = ["hub"]
