"""What the headers of a request ask for."""

from __future__ import annotations

import pytest
from hyperframe.frame import DataFrame

from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.http2.requests import Route, read_head

from ..support import World
from .peer import Peer, enveloped, request_fields

SET = "/kv.v1.KeyValueService/Set"


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [("2H", 7200), ("2M", 120), ("2S", 2), ("2m", 2e-3), ("2u", 2e-6), ("2n", 2e-9), ("99999999S", 99_999_999)],
)
def test_units_of_time(timeout: str, seconds: float) -> None:
    """Hours, minutes and seconds have capitals, the small ones have not."""
    fields = request_fields(SET, ("grpc-timeout", timeout))
    head = read_head(
        lambda path, authorization: {path: Route(SET)}, [(name.encode(), value.encode()) for name, value in fields]
    )
    assert head.refusal is None
    assert head.timeout == pytest.approx(seconds)


def test_a_call_ends_when_its_client_says_so(world: World) -> None:
    """Also one whose request has not come yet; one that came in time is carried out."""
    message = enveloped(kv.SetRequest(key="k", value="v").SerializeToString())
    with Peer(world.address) as peer:
        late, in_time = peer.next_stream(), peer.next_stream()
        peer.send(peer.headers(late, request_fields(SET, ("grpc-timeout", "50m"))))
        peer.send(peer.headers(in_time, request_fields(SET, ("grpc-timeout", "1H"))))
        assert peer.answer(late).status == "4"  # DEADLINE_EXCEEDED
        peer.send(DataFrame(in_time, message, flags=["END_STREAM"]))
        assert peer.answer(in_time).status == "0"
