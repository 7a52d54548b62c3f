"""A persistent key-value server: RocksDB underneath, gRPC and HTTP/JSON in front, one Twisted process.

Start it with `twistd -n kvtwisted`. This module imports nothing, so that the build can read the version from it.
"""

__version__ = "0.1.0"
