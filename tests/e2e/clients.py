"""Plain clients of both interfaces."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import grpc
from prometheus_client.parser import text_string_to_metric_families

from kvtwisted.rpc.generated import keyvalue_pb2

#: Seconds for one call.
TIMEOUT = 30.0

_SERVICE = keyvalue_pb2.DESCRIPTOR.services_by_name["KeyValueService"]


class Answer(NamedTuple):
    """An HTTP answer: its status, its headers in lower case, and the JSON of its body (else its text)."""

    status: int
    headers: dict[str, str]
    body: Any


class Http:
    """One keep-alive connection. A context manager, not for several threads."""

    def __init__(self, address: str, token: str | None = None) -> None:
        self.address = address
        #: What is sent in Authorization.
        self.token = token
        self._connection = http.client.HTTPConnection(address, timeout=TIMEOUT)

    def __enter__(self) -> Http:
        """Ready at once; the connection is made by the first call."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the connection."""
        self.close()

    def metric(self, name: str, **labels: str) -> float:
        """The value of one sample of /metrics; 0 when there is none."""
        return self.metrics().get((name, frozenset(labels.items())), 0)

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """All samples of /metrics by name and labels."""
        families = text_string_to_metric_families(self.get("/metrics").body)
        samples = [sample for family in families for sample in family.samples]
        return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}

    def close(self) -> None:
        """Close the connection; a later call makes another."""
        self._connection.close()

    def get(self, path: str) -> Answer:
        """GET."""
        return self.call("GET", path)

    def post(self, path: str, document: object) -> Answer:
        """POST a JSON document."""
        return self.call("POST", path, json.dumps(document).encode("utf-8"))

    def call(self, method: str, path: str, body: bytes | None = None, content_type: str = "application/json") -> Answer:
        """Any request."""
        headers = {"Content-Type": content_type} if body is not None else {}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        text = answer.read().decode("utf-8")
        fields = {name.lower(): value for name, value in answer.getheaders()}
        is_json = fields.get("content-type", "").startswith("application/json")
        return Answer(answer.status, fields, json.loads(text) if is_json else text)


class Grpc:
    """One channel, with default options unless some are given. A context manager; for any thread."""

    def __init__(self, address: str, token: str | None = None, options: Sequence[tuple[str, int]] = ()) -> None:
        self._metadata = None if token is None else (("authorization", f"Bearer {token}"),)
        self.channel = grpc.insecure_channel(address, list(options))
        self._methods = {
            method.name: self.channel.unary_unary(
                f"/{_SERVICE.full_name}/{method.name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=getattr(keyvalue_pb2, method.output_type.name).FromString,
            )
            for method in _SERVICE.methods
        }
        self._requests = {method.name: getattr(keyvalue_pb2, method.input_type.name) for method in _SERVICE.methods}

    def __enter__(self) -> Grpc:
        """Ready at once; the connection is made by the first call."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the channel."""
        self.channel.close()

    def call(self, method: str, **fields: Any) -> Any:
        """The answer to a method by its name, such as `call("Set", key="a", value="b")`."""
        return self.send(method, self._requests[method](**fields))

    def send(self, method: str, request: Any) -> Any:
        """The answer to a message."""
        return self._methods[method](request, timeout=TIMEOUT, metadata=self._metadata)

    def start(self, method: str, **fields: Any) -> Any:
        """The same as a future."""
        request = self._requests[method](**fields)
        return self._methods[method].future(request, timeout=TIMEOUT, metadata=self._metadata)
