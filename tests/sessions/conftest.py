"""Fixtures of the tests of sessions."""

from ..core.conftest import open_folder

__all__ = ["open_folder"]
