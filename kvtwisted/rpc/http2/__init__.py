"""gRPC on an HTTP/2 server of our own, as a Twisted protocol: it does what gRPC needs, and works by the chunk.

From the wire inwards, protocol state that knows of no socket:
- `frames`, `hpack_decoder`, `huffman`, `header_blocks` know the bytes;
- `chunk_reader` takes the frames of a chunk apart, `control` handles those that are no call on the shortest way;
- `streams` is what the peer's frames do to its streams, `responder` what goes out on them, `stream` one of them that
  has something to remember, `parked` the calls that must wait;
- `inbound` and `outbound` are the flow control of both directions;
- `lifetime` has the connection's deadlines and its goodbye, `flood_guard` what a peer may ask for nothing, `turns`,
  `header_turn` and `expanding` what may be done in one turn of the reactor.

`connection` gives a Twisted transport to these, and `server` listens. `requests` reads gRPC's headers, `route_tables`
has the methods of each session, `unary`, `streaming` and `pipelines` answer calls, `responses` makes frames of answers.
"""
