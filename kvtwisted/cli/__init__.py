"""The commands that a person types."""

from .client import main

__all__ = ["main"]
