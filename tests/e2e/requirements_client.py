"""A client that knows the requirements' own proto text and nothing of this package.

Run as a program with the folder of the modules generated from `requirements.proto` and the server's address. It does
all ten operations under /KeyValueService/ and prints what it was answered, as one JSON object. With a prefix as third
argument it reads what is there, which need not be text.
"""

from __future__ import annotations

import importlib
import json
import sys

import grpc


def main(folder: str, address: str) -> None:
    """Do and print."""
    sys.path.insert(0, folder)
    pb = importlib.import_module("requirements_pb2")
    service = importlib.import_module("requirements_pb2_grpc")
    with grpc.insecure_channel(address) as channel:
        kv = service.KeyValueServiceStub(channel)
        answers = {
            "set": _done(kv.Set(pb.SetRequest(key="req/a", value="1"))),
            "mset": _done(kv.MSet(pb.MSetRequest(key_values={"req/b": "2", "req/c": "3"}))),
            "get": _found(kv.Get(pb.GetRequest(key="req/a"))),
            "get missing": _found(kv.Get(pb.GetRequest(key="req/missing"))),
            "mget": dict(kv.MGet(pb.MGetRequest(keys=["req/c", "req/missing", "req/a"])).key_values),
            "scan keys": list(kv.ScanKeys(pb.ScanRequest(prefix="req/")).keys),
            "scan": dict(kv.ScanKeyValues(pb.ScanRequest(prefix="req/")).key_values),
            "delete": _done(kv.Delete(pb.DeleteRequest(key="req/a"))),
            "mdelete": _done(kv.MDelete(pb.MDeleteRequest(keys=["req/b", "req/missing"]))),
            "left": list(kv.ScanKeys(pb.ScanRequest(prefix="req/")).keys),
            "refused": _done(kv.Set(pb.SetRequest(key="", value="1"))),
            "update": _done(kv.UpdateConfig(pb.UpdateConfigRequest(config='{"eviction": {"batch_size": 7}}'))),
            "config": json.loads(kv.GetConfig(pb.GetConfigRequest()).config)["eviction"]["batch_size"],
        }
    print(json.dumps(answers))


def read(folder: str, address: str, prefix: str) -> None:
    """Read what is under a prefix, where "a" is text and "b" is not; then overwrite that."""
    sys.path.insert(0, folder)
    pb = importlib.import_module("requirements_pb2")
    service = importlib.import_module("requirements_pb2_grpc")
    with grpc.insecure_channel(address) as channel:
        kv = service.KeyValueServiceStub(channel)
        odd = kv.Get.future(pb.GetRequest(key=prefix + "b"))
        many = kv.MGet(pb.MGetRequest(keys=[prefix + "a", prefix + "b"]))
        page = kv.ScanKeyValues(pb.ScanRequest(prefix=prefix))
        answers = {
            "get": _found(kv.Get(pb.GetRequest(key=prefix + "a"))),
            "get odd": odd.code().name,
            "mget": [dict(many.key_values), many.error],
            "scan keys": list(kv.ScanKeys(pb.ScanRequest(prefix=prefix)).keys),
            "scan": [dict(page.key_values), page.error],
            "overwritten": _done(kv.Set(pb.SetRequest(key=prefix + "b", value="text"))),
        }
    print(json.dumps(answers))


def _done(answer: object) -> list[object]:
    return [answer.success, answer.error]


def _found(answer: object) -> list[object]:
    return [answer.found, answer.value, answer.error]


if __name__ == "__main__":
    (main if len(sys.argv) == 3 else read)(*sys.argv[1:])
