"""The second gRPC transport: grpcio, on threads of its own."""
