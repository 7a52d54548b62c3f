"""The gRPC transport: decode, call the threaded store, encode."""

import os

# grpcio's core would print to standard error what clients send it wrong. It looks at this when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
