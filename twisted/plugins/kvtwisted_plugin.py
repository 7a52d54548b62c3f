"""Tells twistd of `twistd kvtwisted`.

There must never be an `__init__.py` in `twisted/` or `twisted/plugins/`: it would hide Twisted itself.
"""

from twisted.application.service import ServiceMaker

kvtwisted = ServiceMaker(
    "kvtwisted",
    "kvtwisted.tap",
    "Persistent key-value server: RocksDB behind gRPC and HTTP.",
    "kvtwisted",
)
