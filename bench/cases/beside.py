"""Redis and etcd beside ours, in the same rounds: `--beside redis,etcd`. How the lines compare: docs/performance.md."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Callable, NamedTuple, TypeVar

from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from .. import client, messages
from ..client import Shape
from ..messages import Messages
from ..others import Etcd, EtcdLoad, Redis, RedisLoad, random_key
from ..plan import Group, Plan, start_servers
from ..rounds import Probe
from ..server import KEY, name
from . import grpc
from .batches import BATCH, BATCHES, LARGE, LARGE_KEYS, LARGE_PREFIX, LARGE_VALUE
from .pipeline import PIPELINES

T = TypeVar("T")
#: What may stand beside ours, the programs that it needs, and the package that has them.
OTHERS = {
    "redis": ((Redis.PROGRAM, RedisLoad.PROGRAM), "redis-server"),
    "etcd": ((Etcd.PROGRAM,), "etcd-server"),
}
#: The forms say what an answered write has waited for; each with the server's options. Ratios are to the first.
OURS = "kvtwisted, no fsync"
_OURS = {OURS: (), "kvtwisted, fsync": ("--rocksdb-options-sync", "true")}
_LOG = ("--save", "", "--appendonly", "yes", "--appendfsync")
_REDIS = {
    "Redis, memory alone": ("--save", "", "--appendonly", "no"),
    "Redis, fsync each second": (*_LOG, "everysec"),
    "Redis, fsync": (*_LOG, "always"),
}
_UNSAFE = "--unsafe-no-fsync"
_ETCD = {"etcd, fsync": (), "etcd, no fsync": (_UNSAFE,)}
#: Bytes of an etcd's answer besides key and value, at most: its header, and the numbers of a key.
_HEADER, _NUMBERS = 60, 60
#: Words of a Redis command that stand for a random key and the value.
_KEY, _VALUE = "KEY", "VALUE"


class Case(NamedTuple):
    """One line: what ours is sent, in which shape; the command and shape for Redis; the method for etcd, if any."""

    ours: Callable[[Plan], Messages]
    shape: Shape
    redis: Sequence[str]
    redis_shape: Shape
    etcd: str = ""
    write: bool = True


def _get(plan: Plan) -> Messages:
    return messages.get(plan.keys, plan.value)


def _put(plan: Plan) -> Messages:
    return messages.put(plan.keys, plan.value)


_GET, _SET = ("GET", _KEY), ("SET", _KEY, _VALUE)
# As many under way in all: ours on few connections with many each, Redis's on one connection each.
_MANY, _ONE, _SIXTEEN = Shape(64, 1), Shape(1, 1), Shape(16, 1)
_STREAMS, _PIPELINES = PIPELINES["pipeline, 4 streams"], Shape(64, 16)
_LARGE_SET = "Set of 64 KiB"
CASES: Mapping[str, Case] = {
    "Get, 64 at once": Case(_get, grpc.MANY, _GET, _MANY, "Range", write=False),
    "Set, 64 at once": Case(_put, grpc.MANY, _SET, _MANY, "Put"),
    "Get, one at a time": Case(_get, _ONE, _GET, _ONE, "Range", write=False),
    "Set, one at a time": Case(_put, _ONE, _SET, _ONE, "Put"),
    "Get, pipelines": Case(
        lambda plan: messages.pipeline_get(plan.keys, plan.value), _STREAMS, _GET, _PIPELINES, write=False
    ),
    "Set, pipelines": Case(lambda plan: messages.pipeline_put(plan.keys, plan.value), _STREAMS, _SET, _PIPELINES),
    f"MGet of {BATCH}": Case(
        BATCHES[f"MGet of {BATCH}"], Shape(1, 16), ("MGET", *[_KEY] * BATCH), _SIXTEEN, write=False
    ),
    f"MSet of {BATCH}": Case(BATCHES[f"MSet of {BATCH}"], Shape(1, 16), ("MSET", *[_KEY, _VALUE] * BATCH), _SIXTEEN),
    _LARGE_SET: Case(LARGE[_LARGE_SET], Shape(1, 16), _SET, _SIXTEEN),
}


def wanted(forms: Mapping[str, T], writes: bool) -> dict[str, T]:
    """All forms for writes; reads do not depend on them, so that the first one does."""
    return dict(list(forms.items())[: None if writes else 1])


def redis_load(server: Redis, case: str, plan: Plan) -> RedisLoad:
    """The load of a case."""
    large = case == _LARGE_SET
    value = LARGE_VALUE if large else plan.value
    key = random_key(LARGE_PREFIX if large else KEY)
    words = [{_KEY: key, _VALUE: value}.get(word, word) for word in CASES[case].redis]
    return RedisLoad(server, words, CASES[case].redis_shape, LARGE_KEYS if large else plan.keys, plan.seconds)


def etcd_load(server: Etcd, case: str, plan: Plan) -> EtcdLoad:
    """The load of a case. The fields of Range and Put are those of our Get and Set."""
    method = CASES[case].etcd
    file = client.write(server.folder / f"{method}.messages", CASES[case].ours(plan).encoded)
    pair = len(name(0)) + len(plan.value)
    least, most = (0, _HEADER) if method == "Put" else (pair, pair + _HEADER + _NUMBERS)
    call = client.Call(f"/etcdserverpb.KV/{method}", file, least, most)
    return EtcdLoad(server, client.build(plan.folder), call, CASES[case].shape, plan.seconds)


def open_redis(stack: ExitStack, plan: Plan, forms: Mapping[str, Sequence[str]]) -> dict[str, Redis]:
    """A filled Redis for each form."""
    servers = {}
    for number, (form, options) in enumerate(forms.items()):
        servers[form] = server = Redis(plan.folder / f"redis-{number}", *options)
        stack.enter_context(server)
        server.fill(plan.keys, plan.value, KEY)
    return servers


def open_etcd(stack: ExitStack, plan: Plan, forms: Mapping[str, Sequence[str]]) -> dict[str, Etcd]:
    """A filled etcd for each form that it knows."""
    servers = {}
    command = [Etcd.PROGRAM, "--help"]
    known = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 - stands above
    for number, (form, options) in enumerate(forms.items()):
        if any(option not in known for option in options):
            plan.leave_out(f"beside, {form}: this etcd has no {_UNSAFE}")
            continue
        servers[form] = server = Etcd(plan.folder / f"etcd-{number}", *options)
        stack.enter_context(server)
        server.fill([kv.SetRequest(key=name(key), value=plan.value).SerializeToString() for key in range(plan.keys)])
    return servers


def there(plan: Plan) -> set[str]:
    """Which of the others that are asked for are installed; the rest is left out with a line."""
    found = set()
    for other in plan.beside:
        programs, package = OTHERS[other]
        lacking = [program for program in programs if shutil.which(program) is None]
        if lacking:
            plan.leave_out(f"beside, {other}: {lacking[0]} is not installed (apt-get install {package})")
        else:
            found.add(other)
    return found


def open_beside(stack: ExitStack, plan: Plan, cases: Sequence[str]) -> list[Probe]:
    """A server for each form, which all cases share."""
    writes = any(CASES[case].write for case in cases)
    others = there(plan)
    servers = start_servers(stack, plan, "beside", wanted(_OURS, writes))
    ours = {form: server for (form, _), server in servers.items()}
    redis = open_redis(stack, plan, wanted(_REDIS, writes)) if "redis" in others else {}
    with_etcd = "etcd" in others and any(CASES[case].etcd for case in cases)
    etcd = open_etcd(stack, plan, wanted(_ETCD, writes)) if with_etcd else {}
    probes = []
    for case in cases:
        writing = CASES[case].write
        loads: dict[str, grpc.Load | RedisLoad | EtcdLoad] = {}
        for form in wanted(_OURS, writing):
            loads[form] = grpc.Load(ours[form], CASES[case].ours(plan), CASES[case].shape, plan)
        for form in wanted(redis, writing):
            loads[form] = redis_load(redis[form], case, plan)
        for form in wanted(etcd, writing) if CASES[case].etcd else ():
            loads[form] = etcd_load(etcd[form], case, plan)
        for form, load in loads.items():
            against = None if form == OURS else OURS
            probes.append(Probe("beside", case, form, "now", load.warm_up, load.run, "calls/s", against=against))
    return probes


GROUP = Group("beside", dict.fromkeys(CASES, client.PROGRAM), open_beside)
