"""The tests: each folder mirrors a room of the package; e2e and docs run real servers."""

import os

# grpcio, as a client in this process, may hang for ever when Python 3.9 forks to start a program. It looks at this when
# it is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
