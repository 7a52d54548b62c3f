"""Conditions, numbers, ttls and transactions over gRPC, as every transport must answer them."""

from __future__ import annotations

import threading
from typing import Any

import grpc
import pytest

from kvtwisted.commands.conditions import etag_of
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.methods import SERVICES
from tests.support.recorders import Recorded

from .support import CLASSES, MIB, Client, World

#: Says that these tests run over every backend at every change.
BACKENDS_DIFFER = True

#: Says that these tests run by the pool, too, at every change.
POOL_DIFFERS = True

ABSENT, PRESENT = kv.Condition(absent=True), kv.Condition(present=True)
FAILED = "the condition does not hold"
OTHER_ETAG = "0" * 32


def done(answer: Any) -> int:
    """The revision of a write that was done; there is nothing else in its answer."""
    assert answer.success, answer
    revision: int = answer.revision
    assert revision > 0
    answer.ClearField("revision")
    assert answer == type(answer)(success=True)
    return revision


@pytest.mark.parametrize("service", SERVICES)
def test_set_if(world: World, service: str) -> None:
    """Every condition, under both names: what is done has a revision, which grows; what is not tells the etag."""
    client = Client(world.channel, service)
    first = done(client.call("Set", key="a", value="1", condition=ABSENT))
    etag = etag_of(b"1")
    failed = kv.SetResponse(error=FAILED, condition_failed=True, etag=etag)
    for condition in (ABSENT, kv.Condition(value=b"2"), kv.Condition(value=b""), kv.Condition(etag=OTHER_ETAG)):
        assert client.call("Set", key="a", value="x", condition=condition) == failed
    assert world.stored() == {"a": "1"}
    for condition in (PRESENT, kv.Condition(value=b"1"), kv.Condition(etag=etag)):
        second = done(client.call("Set", key="a", value="1", condition=condition))
        assert second > first
        first = second
    nothing = kv.SetResponse(error=FAILED, condition_failed=True)
    for condition in (PRESENT, kv.Condition(value=b""), kv.Condition(etag=etag)):
        assert client.call("Set", key="b", value="x", condition=condition) == nothing
    assert world.stored() == {"a": "1"}


@pytest.mark.parametrize("value", [b"\xff\x00", b"", b"v" * MIB, b"\xff" * MIB])
def test_conditions_on_any_bytes(world: World, value: bytes) -> None:
    """Of every size: by the value itself, and by its etag."""
    client = world.client
    client.call("Set", key="a", data=value)
    assert client.call("Set", key="a", data=b"x", condition=kv.Condition(value=value[1:] + b"-")).condition_failed
    done(client.call("Set", key="a", data=value, condition=kv.Condition(value=value)))
    etag = client.call("Get", key="a", as_data=True, with_etag=True).etag
    done(client.call("Set", key="a", data=b"2", condition=kv.Condition(etag=etag)))
    assert client.call("Get", key="a", as_data=True).data == b"2"
    refused = client.call("Set", key="a", data=b"3", condition=kv.Condition(value=b"v" * (MIB + 1)))
    assert refused.error.startswith("condition.value: too large: 1048577 bytes were sent")


def test_a_conditional_set_has_its_ttl(world: World) -> None:
    """It ends as any other; then the key is absent."""
    done(world.client.call("Set", key="lock", value="me", ttl=10, condition=ABSENT))
    assert world.client.call("Get", key="lock").ttl == 10
    assert world.client.call("Set", key="lock", value="you", ttl=10, condition=ABSENT).condition_failed
    world.time.advance(10_000)
    done(world.client.call("Set", key="lock", value="you", condition=ABSENT))
    assert world.client.call("Get", key="lock") == kv.GetResponse(value="you", found=True)


def test_delete_if(world: World) -> None:
    """A failed one leaves the key; one that holds removes it."""
    world.client.call("Set", key="a", value="1")
    failed = kv.DeleteResponse(error=FAILED, condition_failed=True, etag=etag_of(b"1"))
    assert world.client.call("Delete", key="a", condition=kv.Condition(value=b"2")) == failed
    assert world.stored() == {"a": "1"}
    done(world.client.call("Delete", key="a", condition=kv.Condition(value=b"1")))
    assert world.stored() == {}
    assert world.client.call("Delete", key="a", condition=PRESENT) == kv.DeleteResponse(
        error=FAILED, condition_failed=True
    )
    assert world.client.call("Delete", key="a") == kv.DeleteResponse(success=True)


def test_increment(world: World) -> None:
    """It makes a number, adds to it, and keeps its ttl."""
    client = world.client
    first = client.call("Increment", key="n", delta=5, ttl=10)
    assert (first.success, first.value, first.created, first.error) == (True, 5, True, "")
    second = client.call("Increment", key="n", delta=-7, ttl=99)
    assert (second.success, second.value, second.created) == (True, -2, False)
    assert second.revision > first.revision > 0
    assert client.call("Get", key="n") == kv.GetResponse(value="-2", found=True, ttl=10)
    assert client.call("Increment", key="n", delta=2).value == 0
    assert world.client.call("Get", key="n").value == "0"
    world.time.advance(10_000)
    assert client.call("Increment", key="n", delta=1).created


@pytest.mark.parametrize(
    ("value", "delta", "error"),
    [
        ("x", 1, "key: the value is not a decimal number of 64 bits"),
        ("", 1, "key: the value is not a decimal number of 64 bits"),
        (str(2**63 - 1), 1, "delta: the sum would be beyond 64 bits"),
        (str(-(2**63)), -1, "delta: the sum would be beyond 64 bits"),
    ],
)
def test_what_cannot_be_incremented(world: World, value: str, delta: int, error: str) -> None:
    """It is said in the message, and nothing changes."""
    world.client.call("Set", key="n", value=value)
    answer = world.client.call("Increment", key="n", delta=delta)
    assert answer.error.startswith(error)
    assert answer == kv.IncrementResponse(error=answer.error)
    assert world.stored() == {"n": value}


def test_touch(world: World) -> None:
    """It moves the deadline, and leaves the value; what is not there is not made."""
    client = world.client
    client.call("Set", key="a", data=b"\xff", ttl=5)
    touched = client.call("Touch", key="a", ttl=60)
    assert (touched.success, touched.found, touched.error) == (True, True, "")
    assert touched.revision > 0
    assert client.call("Get", key="a", as_data=True) == kv.GetResponse(data=b"\xff", found=True, ttl=60)
    assert client.call("Touch", key="a").found
    assert client.call("Get", key="a", as_data=True).ttl == 0
    assert client.call("Touch", key="b", ttl=60) == kv.TouchResponse(success=True)
    failed = client.call("Touch", key="a", ttl=60, condition=kv.Condition(value=b"other"))
    assert failed == kv.TouchResponse(error=FAILED, condition_failed=True, etag=etag_of(b"\xff"))
    assert client.call("Touch", key="a", ttl=60, condition=kv.Condition(value=b"\xff")).found
    assert client.call("Touch", key="b", ttl=1, condition=PRESENT) == kv.TouchResponse(
        error=FAILED, condition_failed=True
    )


def test_transact(world: World) -> None:
    """All or nothing, in order, with a result of each; a check that fails is named, and so is a bad mutation."""
    client = world.client
    client.call("MSet", key_values={"from": "10", "to": "1", "gone": "x"})
    move = [
        kv.Mutation(increment=kv.IncrementRequest(key="from", delta=-3)),
        kv.Mutation(increment=kv.IncrementRequest(key="to", delta=3)),
        kv.Mutation(delete=kv.DeleteRequest(key="gone")),
        kv.Mutation(set=kv.SetRequest(key="log", data=b"\xff", ttl=10)),
        kv.Mutation(increment=kv.IncrementRequest(key="new", delta=7)),
        kv.Mutation(touch=kv.TouchRequest(key="missing", ttl=10)),
    ]
    checks = [kv.Check(key="log", condition=ABSENT), kv.Check(key="from", condition=kv.Condition(value=b"10"))]
    answer = client.call("Transact", checks=checks, mutations=move)
    assert (answer.success, answer.error, answer.failed_check, answer.etag) == (True, "", 0, "")
    assert answer.revision > 0
    assert list(answer.results) == [
        kv.MutationResult(found=True, value=7),
        kv.MutationResult(found=True, value=4),
        kv.MutationResult(found=True),
        kv.MutationResult(),
        kv.MutationResult(value=7, created=True),
        kv.MutationResult(),
    ]
    assert client.call("MGet", keys=["from", "to", "gone", "new"]).key_values == {"from": "7", "to": "4", "new": "7"}
    assert client.call("Get", key="log", as_data=True) == kv.GetResponse(data=b"\xff", found=True, ttl=10)
    failed = client.call("Transact", checks=[kv.Check(key="new", condition=PRESENT), checks[1]], mutations=move)
    assert failed == kv.TransactResponse(
        error="the condition of check 2 does not hold", failed_check=2, etag=etag_of(b"7")
    )
    bad = client.call("Transact", mutations=[move[0], kv.Mutation(increment=kv.IncrementRequest(key="log", delta=1))])
    assert bad.error.startswith("mutations[1].increment.key: the value is not a decimal number")
    assert bad == kv.TransactResponse(error=bad.error)
    assert client.call("Get", key="from").value == "7"
    assert client.call("Transact", checks=[kv.Check(key="new", condition=PRESENT)]) == kv.TransactResponse(success=True)
    assert client.call("Transact") == kv.TransactResponse(success=True)


@pytest.mark.parametrize(
    ("method", "fields", "error"),
    [
        ("Set", {"key": "good", "value": "1", "condition": kv.Condition()}, "condition: must have one of absent, "),
        ("Set", {"key": "good", "condition": kv.Condition(absent=False)}, "condition.absent: must be true"),
        ("Delete", {"key": "good", "condition": kv.Condition(present=False)}, "condition.present: must be true"),
        ("Set", {"key": "good", "condition": kv.Condition(etag="x")}, "condition.etag: must be 32 hexadecimal digits"),
        ("Touch", {"key": "good", "ttl": -1}, "ttl: must not be negative"),
        ("Increment", {"key": "", "delta": 1}, "key: must not be empty"),
        ("Increment", {"key": "n", "delta": 1, "ttl": -1}, "ttl: must not be negative"),
        ("Transact", {"checks": [kv.Check(key="a")]}, "checks[0].condition: must have one of absent, "),
        ("Transact", {"mutations": [kv.Mutation()]}, "mutations[0].change: must be one of set, "),
        (
            "Transact",
            {"mutations": [kv.Mutation(delete=kv.DeleteRequest(key="good")), kv.Mutation(set=kv.SetRequest())]},
            "mutations[1].set.key: must not be empty",
        ),
        (
            "Transact",
            {"checks": [kv.Check(key="a", condition=ABSENT)] * 10_001},
            "checks and mutations: too many: 10001 keys were sent, limits.max_batch_keys is 10000",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_answered_in_the_message(world: World, method: str, fields: dict[str, Any], error: str) -> None:
    """And nothing is done; it counts as a failure once."""
    world.client.call("Set", key="good", value="old")
    answer = world.client.call(method, **fields)
    assert answer.error.startswith(error)
    assert answer == CLASSES[method][1](error=answer.error)
    assert world.stored() == {"good": "old"}
    name = "delete" if method == "Delete" else "set"
    assert [(each.name, each.failed) for each in world.recorder.operations[1:]] == [(name, True)]


def test_compressed(client: Client) -> None:
    """What comes compressed is decoded in a thread, and means the same."""
    gzip: Any = {"compression": grpc.Compression.Gzip}
    done(client.call("Set", key="a", data=b"\xff" * MIB, condition=ABSENT, **gzip))
    assert client.call("Set", key="a", value="x", condition=kv.Condition(), **gzip).error.startswith("condition: ")
    assert client.call("Set", key="a", value="x", condition=ABSENT, **gzip).condition_failed
    assert client.call("Increment", key="n", delta=3, **gzip).value == 3
    assert client.call("Touch", key="n", ttl=3, **gzip).found
    mutations = [kv.Mutation(increment=kv.IncrementRequest(key="n", delta=1))] * 3
    assert [each.value for each in client.call("Transact", mutations=mutations, **gzip).results] == [4, 5, 6]


def test_counters_of_many_clients(world: World) -> None:
    """No addition is lost, and each has a revision of its own."""
    revisions: list[int] = []

    def add() -> None:
        client = Client(world.connect())
        asked = [client.start("Increment", key="n", delta=1) for _ in range(15)]
        revisions.extend(call.result().revision for call in asked)
        client.channel.close()

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert world.client.call("Get", key="n").value == "60"
    assert len(set(revisions)) == 60


def test_every_write_is_counted_once(world: World) -> None:
    """As what it is: sets, and deletes; one whose condition failed has not failed."""
    client = world.client
    client.call("Set", key="a", value="1", condition=ABSENT)
    client.call("Set", key="a", value="1", condition=ABSENT)
    client.call("Delete", key="a", condition=PRESENT)
    client.call("Increment", key="n", delta=1)
    client.call("Touch", key="n", ttl=9)
    client.call("Transact", checks=[kv.Check(key="n", condition=PRESENT)], mutations=[])
    client.call("Increment", key="n", delta=2**63 - 1)
    assert world.recorder.operations == [
        Recorded("set", 1, False),
        Recorded("set", 1, False),
        Recorded("delete", 1, False),
        Recorded("set", 1, False),
        Recorded("set", 1, False),
        Recorded("set", 1, False),
        Recorded("set", 1, True),
    ]
