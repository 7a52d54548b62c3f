"""The OpenAPI document against the server: the same routes, parameters, codes, and answers of the documented form."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from kvtwisted.commands.command import ANONYMOUS, Actor
from kvtwisted.core import limits
from kvtwisted.core.errors import KvError, Overloaded, StorageError, StorageFull
from kvtwisted.core.strict_json import InvalidJson
from kvtwisted.http import urls
from kvtwisted.http.application import make_app
from kvtwisted.http.deadlines import LOOK_SECONDS, ByteLimits, Patience
from kvtwisted.http.encodings import MAX_CHARACTERS
from kvtwisted.http.errors import TABLE
from kvtwisted.http.fields import Hosts
from kvtwisted.http.routes import OPENAPI, ROUTES, make_routes
from kvtwisted.sessions import tokens
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.audit import Audit
from kvtwisted.sessions.authority import Authority
from kvtwisted.sessions.connections import Connections
from kvtwisted.sessions.door import Door
from kvtwisted.sessions.entries import TokenEntry
from kvtwisted.sessions.gate import Gate
from kvtwisted.sessions.grants import Grant

from ..support.configuration import FakeConfiguration
from .support import Reply, Wire, World, request_bytes

DOCUMENT = json.loads(OPENAPI)

#: Routes that everybody may use.
PUBLIC = {"GET/api/v1/health"}
#: What any request may be answered, whatever its route: before it is whole, before the route is looked at, by a defect.
ANYWHERE = {"400", "401", "405", "408", "413", "421", "429", "500", "503"}
#: What some are not answered: a body of any length is not too long, and once it is read all is told in the answer.
NOT_OF = {"import": {"413", "500"}}
#: Statuses that are in no error's row.
OTHER_STATUSES = {200, 201, 304, 404, 405, 408, 412, 421}
#: Codes of errors that are no KvError.
OTHER_CODES = {
    *("not_found", "key_not_found", "method_not_allowed", "malformed_request", "request_timeout"),
    *("too_many_connections", "unknown_host", "condition_failed"),
}


class Sample(NamedTuple):
    """A good request of one operation, and a bad one if there can be one."""

    target: str
    body: str | None = None
    bad_target: str | None = None
    bad_body: str | None = None
    #: Further good ones, with a target, a body and headers of their own, for other answers.
    more: Sequence[tuple[str, str | None, Mapping[str, str]]] = ()
    content_type: str = "application/json"


SAMPLES = {
    "set": Sample("/api/v1/set", '{"key":"k","value":"v","ttl":5}', bad_body="{}", more=[
        ("/api/v1/set", '{"key":"old","value":"YQ==","condition":{"present":true},"encoding":"base64"}', {}),
        ("/api/v1/set", '{"key":"old","value":"v","condition":{"absent":true}}', {}),
        ("/api/v1/set", '{"key":"none","value":"v","condition":{"value":"x"}}', {}),
    ]),
    "get": Sample("/api/v1/get/old", bad_target="/api/v1/get/%", more=[
        ("/api/v1/get/bytes", None, {}), ("/api/v1/get/bytes?encoding=base64&etag=true", None, {}),
    ]),
    "delete": Sample("/api/v1/delete/old", bad_target="/api/v1/delete/%", more=[
        ("/api/v1/delete/none", None, {"if_match": "*"}), ("/api/v1/delete/old", None, {"if_match": "*"}),
    ]),
    "scan": Sample("/api/v1/scan?limit=1", bad_target="/api/v1/scan?limit=0", more=[
        ("/api/v1/scan", None, {}), ("/api/v1/scan?encoding=base64", None, {}),
        ("/api/v1/scan?count_only=true", None, {}), ("/api/v1/scan?reverse=true&keys_only=true", None, {}),
        ("/api/v1/scan?delimiter=t&start=a&end=z", None, {}),
    ]),
    "export": Sample("/api/v1/export", bad_target="/api/v1/export?limit=-1", more=[("/api/v1/export", None, {})]),
    "import": Sample(
        "/api/v1/import", '{"key":"k","value":"v"}', bad_target="/api/v1/import?x=1",
        content_type="application/x-ndjson",
    ),
    "watch": Sample("/api/v1/watch", bad_target="/api/v1/watch?x=1", more=[("/api/v1/watch", None, {})]),
    "mset": Sample("/api/v1/mset", '{"key_values":{"k":"v"}}', bad_body="[]", more=[
        ("/api/v1/mset", '{"key_values":{"k":"/w=="},"encoding":"base64"}', {}),
    ]),
    "mget": Sample("/api/v1/mget", '{"keys":["old"]}', bad_body='{"keys":[1]}', more=[
        ("/api/v1/mget", '{"keys":["old","bytes"]}', {}),
        ("/api/v1/mget", '{"keys":["old","bytes"],"encoding":"base64"}', {}),
    ]),
    "increment": Sample("/api/v1/increment", '{"key":"number","delta":-5}', bad_body="{}", more=[
        ("/api/v1/increment", '{"key":"new","delta":9223372036854775807}', {}),
        ("/api/v1/increment", '{"key":"old","delta":1}', {}),
        ("/api/v1/increment", '{"key":"number","delta":9223372036854775807}', {}),
    ]),
    "touch": Sample("/api/v1/touch", '{"key":"old","ttl":9}', bad_body='{"key":""}', more=[
        ("/api/v1/touch", '{"key":"none"}', {}),
        ("/api/v1/touch", '{"key":"old","condition":{"etag":"%s"}}' % ("0" * 32), {}),
    ]),
    "transact": Sample(
        "/api/v1/transact", '{"checks":[{"key":"old","condition":{"value":"v"}}],"mutations":['
        '{"set":{"key":"k","value":"1"}},{"touch":{"key":"k","ttl":5}},{"increment":{"key":"k","delta":1}},'
        '{"delete":{"key":"old"}}]}', bad_body='{"checks":{}}', more=[
        ("/api/v1/transact", '{"checks":[{"key":"none","condition":{"present":true}}]}', {}),
        ("/api/v1/transact", '{"mutations":[{"increment":{"key":"old","delta":1}}]}', {}),
    ]),
    "delete_range": Sample("/api/v1/delete_range", '{"prefix":"o"}', bad_body="{}", more=[
        ("/api/v1/delete_range", '{"all":true,"dry_run":true}', {}),
    ]),
    "get_raw": Sample("/api/v1/raw/old", bad_target="/api/v1/raw/%", more=[
        ("/api/v1/raw/bytes", None, {}), ("/api/v1/raw/old", None, {"if_none_match": "*"}),
        ("/api/v1/raw/old", None, {"if_match": '"x"'}),
    ]),
    "put_raw": Sample("/api/v1/raw/k?ttl=5", "v", bad_target="/api/v1/raw/k?ttl=x", more=[
        ("/api/v1/raw/new", "v", {"if_none_match": "*"}), ("/api/v1/raw/old", "v", {"if_none_match": "*"}),
        ("/api/v1/raw/old", "v", {"if_match": "*"}), ("/api/v1/raw/old", "v", {"content_encoding": "gzip"}),
    ]),
    "delete_raw": Sample("/api/v1/raw/old", bad_target="/api/v1/raw/%", more=[
        ("/api/v1/raw/none", None, {"if_match": "*"}), ("/api/v1/raw/old", None, {"if_match": "*"}),
    ]),
    "mdelete": Sample("/api/v1/mdelete", '{"keys":["old"]}', bad_body='{"keys":[""]}'),
    "get_config": Sample("/api/v1/config"),
    "update_config": Sample("/api/v1/config", '{"http.port":1}', bad_body='{"x":1}'),
    "admin_backup": Sample("/api/v1/admin/backup", '{"name":"monday"}', bad_body='{"name":".."}'),
    "admin_backups": Sample("/api/v1/admin/backups"),
    "admin_eviction": Sample("/api/v1/admin/eviction"),
    "admin_orphans": Sample("/api/v1/admin/orphans", "{}", bad_body='{"force":true}'),
    "openapi": Sample("/api/v1/openapi.json"),
    "health": Sample("/api/v1/health"),
    "metrics": Sample("/metrics"),
}  # fmt: skip


class FailingConfiguration(FakeConfiguration):
    """A configuration whose file cannot be read, if `unreadable`, or written."""

    def __init__(self, error: KvError, unreadable: bool) -> None:
        super().__init__({})
        self._error = error
        self._unreadable = unreadable

    def show(self) -> str:
        """Fails, if it is to."""
        if self._unreadable:
            raise self._error
        return super().show()

    def update(self, document: Mapping[str, object], actor: Actor = ANONYMOUS) -> list[str]:
        """Fails."""
        raise self._error


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and description of each operation in the document."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    """`node`, or what it refers to."""
    reference = node.get("$ref")
    if reference is None:
        return node
    target = DOCUMENT
    for name in reference[2:].split("/"):
        target = target[name]
    return target


def check_answer(operation: dict[str, Any], reply: Reply) -> None:
    """Status, content type, headers and body are as the document says."""
    assert str(reply.status) in operation["responses"], f"{operation['operationId']}: undocumented {reply.status}"
    response = resolve(operation["responses"][str(reply.status)])
    if "content" not in response:
        assert (reply.body, "content-type" in reply.headers, "content-length" in reply.headers) == (b"", False, False)
        return
    media_type = reply.headers["content-type"].partition(";")[0]
    schema = response["content"][media_type]["schema"]
    value = reply.json() if media_type == "application/json" else reply.body.decode("latin-1")
    # The document around it is there for the references.
    jsonschema.Draft202012Validator({**DOCUMENT, **schema}).validate(value)
    for name in response.get("headers", {}):
        assert name.lower() in reply.headers


def fill(world: World) -> None:
    """Store a text, bytes and a number."""
    for key, value, ttl in ((b"old", b"v", 5), (b"bytes", b"\xff\x00", 0), (b"number", b"5", 0)):
        world.storage.store.set(key, value, ttl)


def failing(error: KvError, *methods: str) -> World:
    """A world in which these methods of the engine, the configuration and the metrics fail."""
    world = World(
        configuration=FailingConfiguration(error, unreadable="get" in methods),
        metrics_text=lambda: ("text/plain", b"%d" % (1 // 0)),
    )
    fill(world)
    for method in methods:
        world.engine.fail(method, error)
    world.tasks.error = error
    return world


def busy() -> World:
    """A world that has enough to do."""
    world = World(capacity=0)
    world.tasks.error = Overloaded("x")
    return world


TOKEN, DIGEST = tokens.make("elsewhere")
READER, READER_DIGEST = tokens.make("reader")


def closed(door: Door, admission: Admission) -> Gate:
    """A gate that knows two tokens, which may do little, and allows one failed login."""
    authority = Authority(failed_logins=1)
    grants = (Grant(frozenset(("get", "set", "delete", "scan")), b"elsewhere/"),)
    reads = (Grant(frozenset(("config_read",))),)
    authority.replace([TokenEntry("elsewhere", DIGEST, grants), TokenEntry("reader", READER_DIGEST, reads)])
    return Gate(door, admission, authority, Audit(lambda line: None))


def refusals(method: str, sample: Sample) -> Iterator[Reply]:
    """What the gate and the grants refuse: no token, no rights here or at all, a wrong token, and one more of those."""
    body = None if sample.body is None else sample.body.encode()
    world = World(make_gate=closed)
    for headers in ({}, *[{"authorization": f"Bearer {one}"} for one in (TOKEN, READER, "x", "x")]):
        yield world.request(method, sample.target, body, **headers)


def refused_early(method: str, sample: Sample) -> Iterator[Reply]:
    """What a connection answers by itself, whatever the route."""
    yield World().request(method, sample.target, host="no host")
    yield World(max_body_bytes=10).request(method, sample.target, content_length="11")
    yield World(hosts=Hosts([])).request(method, sample.target, host="evil.example")
    slow = World(patience=Patience(head=1))
    wire = slow.wire()
    wire.send(f"{method} {sample.target} HTTP/1.1\r\nHost".encode())
    slow.reactor.advance(1 + 2 * LOOK_SECONDS)
    yield from wire.replies()
    # Somebody unknown announces more than is read of them: no token, a wrong one, and one more of those.
    world, large = World(make_gate=closed), str(ByteLimits().unauthenticated_body + 1)
    for headers in ({}, *[{"authorization": "Bearer x"}] * 2):
        yield world.request(method, sample.target, content_length=large, **headers)
    wire = World().wire()
    wire.send(request_bytes(method, sample.target, content_length=large))
    wire.channel.make_room()
    yield from wire.replies()
    yield from Wire(World(connections=Connections(lambda: 0, lambda: 0, 0))).replies()
    # A defect outside of every handler.
    broken = World(fast_lane=False)
    broken.site.resource = None  # type: ignore[assignment]  # whoever asks it fails
    yield broken.request(method, sample.target, b"{}" if method in ("POST", "PUT") else None)


def stopping() -> World:
    """A world that takes no more requests."""
    world = World()
    world.admission.close()
    world.server.stop()
    world.health.fail("server", "the server is stopping")
    return world


def filled(**options: Any) -> World:
    """A world with something in it."""
    world = World(**options)
    fill(world)
    return world


def replies_to(method: str, sample: Sample) -> Iterator[Reply]:
    """What the server answers to the sample in good and in bad days."""
    body = None if sample.body is None else sample.body.encode()
    of_body = {} if body is None else {"content_type": sample.content_type}
    yield filled().request(method, sample.target, body, **of_body)
    for target, sent, headers in sample.more:
        for world in (filled(), filled(capabilities=frozenset())):
            yield world.request(method, target, None if sent is None else sent.encode(), **headers)
    yield World().request(method, sample.target, body, **of_body)
    yield World().request("TRACE", sample.target)
    if sample.bad_target or sample.bad_body:
        yield World().request(
            method, sample.bad_target or sample.target, (sample.bad_body or "").encode() or body, **of_body
        )
    if body is not None:
        yield World().request(method, sample.target, body, content_type="text/plain")
        yield World(max_body_bytes=1).request(method, sample.target, body, **of_body)
    broken = failing(StorageError("x"), "get", "multi_get", "scan", "write")
    full = failing(StorageFull("x"), "write")
    for world in (busy(), stopping(), broken, full, *([World(on_disk=False)] if "/admin/" in sample.target else [])):
        yield world.request(method, sample.target, body, **of_body)
    if method + sample.target not in PUBLIC:
        yield from refusals(method, sample)
    yield from refused_early(method, sample)


def test_the_document_is_valid() -> None:
    """By the OpenAPI initiative's own schema."""
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_the_document_is_served() -> None:
    """As it ships."""
    reply = World().request("GET", "/api/v1/openapi.json")
    assert (reply.status, reply.headers["content-type"], reply.body) == (200, "application/json", OPENAPI)


def test_every_route_is_a_command_or_something_else() -> None:
    """Not both; only commands come to the fast lane, or have large bodies."""
    for route in ROUTES:
        assert [route.read is None, route.handle is None, not route.takes_lines].count(False) == 1
        assert route.read is not None or not (route.done or route.is_fast or route.may_be_large)
    assert len({route.name for route in ROUTES}) == len(ROUTES)


def test_the_document_has_the_routes_of_the_server() -> None:
    """Each path and method of Klein's map, under the same name, and no other; HEAD goes with GET."""
    nothing: Any = None
    routes = make_routes("/metrics", "/api/v1/health")
    app = make_app(routes, nothing, nothing, nothing)
    served = {
        (rule.rule.replace("<tail:tail>", "{key}"), method, rule.endpoint)
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method != "HEAD"
    }
    assert served == {(path, method, operation["operationId"]) for path, method, operation in operations()}
    assert {name for _, _, name in served} == SAMPLES.keys()


def test_the_document_has_the_parameters_of_scan() -> None:
    """Names, default and bounds."""
    parameters = DOCUMENT["paths"]["/api/v1/scan"]["get"]["parameters"]
    schemas = {parameter["name"]: parameter["schema"] for parameter in parameters}
    assert schemas.keys() == set(urls.ScanArguments._fields)
    limit = schemas["limit"]
    assert (limit["minimum"], limit["maximum"], limit["default"]) == (1, urls.MAX_SCAN_LIMIT, urls.DEFAULT_SCAN_LIMIT)


def test_the_document_has_the_limits_of_the_contract() -> None:
    """Keys, values and ttl."""
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["Key"]["maxLength"] == limits.MAX_KEY_BYTES
    assert schemas["Value"]["maxLength"] == MAX_CHARACTERS
    assert schemas["Ttl"]["maximum"] == limits.MAX_TTL_SECONDS


def test_the_document_has_every_error_code() -> None:
    """Those of the table, and those that are no exceptions."""
    codes = {cls.code for cls in TABLE if issubclass(cls, KvError)} | {InvalidJson.code} | OTHER_CODES
    assert set(DOCUMENT["components"]["schemas"]["Error"]["properties"]["code"]["enum"]) == codes


def test_what_any_request_may_be_answered_is_with_every_route() -> None:
    """And no route has a status that the server never gives."""
    given = {str(status) for status in OTHER_STATUSES | {row.status for row in TABLE.values()}}
    for _, _, operation in operations():
        assert operation["responses"].keys() >= ANYWHERE - NOT_OF.get(operation["operationId"], set())
        assert operation["responses"].keys() <= given
    early = {str(reply.status) for reply in refused_early("GET", Sample("/nowhere"))}
    assert early == ANYWHERE - {"405"}


@pytest.mark.parametrize(
    ("path", "method", "operation"), list(operations()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_answers_are_as_documented(path: str, method: str, operation: dict[str, Any]) -> None:
    """Every answer has a documented form, and every documented status is really given."""
    seen = set()
    for reply in replies_to(method, SAMPLES[operation["operationId"]]):
        check_answer(operation, reply)
        seen.add(str(reply.status))
    assert seen == operation["responses"].keys()


def test_check_answer_notices_deviations() -> None:
    """The check itself: an unknown status, a missing field, an unknown field, a missing header."""
    operation = DOCUMENT["paths"]["/api/v1/get/{key}"]["get"]
    headers = {"content-type": "application/json"}
    check_answer(operation, Reply(200, headers, b'{"key":"k","value":"v"}'))
    with pytest.raises(AssertionError, match="undocumented 201"):
        check_answer(operation, Reply(201, headers, b"{}"))
    for body in (b'{"key":"k"}', b'{"key":"k","value":"v","x":1}', b'{"key":"k","value":1}'):
        with pytest.raises(jsonschema.ValidationError):
            check_answer(operation, Reply(200, headers, body))
    with pytest.raises(AssertionError, match="retry-after"):
        check_answer(operation, Reply(429, headers, b'{"success":false,"error":"x","code":"overloaded"}'))
