"""Over a backend whose answers come later, in any order, and which fails now and then."""

from __future__ import annotations

from typing import Callable

import pytest
from grpc import StatusCode

from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from .support import PATIENCE, World
from .test_access import PIPELINE
from .test_pipeline import get, set_

pytestmark = pytest.mark.late_backend


def test_the_storage_fails_now_and_then(world: World) -> None:
    """Every call ends, well or as UNAVAILABLE; what ended well was done, and nothing counts any longer."""
    world.backend.failing = 0.3
    calls = [
        (key, world.client.start("Set", key=key, value="v"), world.client.start("Get", key="none"))
        for key in map(str, range(20))
    ]
    codes = []
    for key, write, read in calls:
        codes += [write.code(), read.code()]
        assert write.code() is not StatusCode.OK or world.stored()[key] == "v"
    assert set(codes) == {StatusCode.OK, StatusCode.UNAVAILABLE}
    assert world.admission.in_flight == 0


def test_operations_of_a_pipeline_that_fail(make_world: Callable[..., World]) -> None:
    """Each is answered for itself, and those on one key in their order."""
    world = make_world()
    world.backend.failing = 0.3
    stub = world.channel.stream_stream(PIPELINE, kv.PipelineRequest.SerializeToString, kv.PipelineResponse.FromString)
    operations = []
    for number in range(100):
        key = f"k{number % 7}"
        operations += [set_(2 * number, key, f"{number}"), get(2 * number + 1, key)]
    answers = {answer.id: answer for answer in stub(iter(operations), timeout=PATIENCE)}
    assert len(answers) == len(operations)
    for number in range(100):
        written, read = answers[2 * number], answers[2 * number + 1]
        assert written.code in (0, StatusCode.UNAVAILABLE.value[0])
        if written.code == read.code == 0:
            assert read.get.value == f"{number}"
    assert {answer.code for answer in answers.values()} == {0, StatusCode.UNAVAILABLE.value[0]}
