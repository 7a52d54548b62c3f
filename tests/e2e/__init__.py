"""Tests of the whole server: a real twistd process, asked over its sockets."""

import os

# grpcio, as a client in this process, may hang for ever when Python 3.9 forks to start a program. Said before its import.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
