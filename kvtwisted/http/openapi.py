"""The OpenAPI 3.1 description of the HTTP interface, as it ships with the package."""

from __future__ import annotations

from importlib.resources import files

#: UTF-8 JSON. It names the default paths of metrics and health, which the configuration may change.
OPENAPI: bytes = files(__package__).joinpath("openapi.json").read_bytes()
