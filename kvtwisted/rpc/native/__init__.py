"""gRPC on an HTTP/2 server of our own, as a Twisted protocol: it does what gRPC needs, and works by the chunk.

From the wire inwards: `frames` and `header_blocks` know the bytes, `sending` and `receiving` the flow control, `guard`
what a peer may do, `connection` puts them together. `requests` reads gRPC's headers, `unary` and `streaming` answer
calls, `server` listens.
"""
