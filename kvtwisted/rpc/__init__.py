"""The gRPC codec, and the two transports that it is served on."""

import os

# grpcio's core would print to standard error what clients send it wrong. It looks at this when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
