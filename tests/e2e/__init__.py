"""Tests of the whole server: a real twistd process, asked over its sockets."""

import os

# Said before grpcio is imported: with it, its client may hang for ever when Python 3.9 forks to start a program.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
