"""gRPC on an HTTP/2 server of our own, as a Twisted protocol: it does what gRPC needs, and works by the chunk.

From the wire inwards: `frames` and `header_blocks` know the bytes, `sending` and `receiving` the flow control, `guard`
what a peer may do. `streams` and `answering` are what has begun and what is sent, `control` and `lifetime` the
connection's own frames and its end, `connection` puts them together. `requests` reads gRPC's headers, `responses` makes
its answers; `unary`, `streaming` and `pipelines` answer calls; `server` listens.
"""
