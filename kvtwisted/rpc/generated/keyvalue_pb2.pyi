from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Condition(_message.Message):
    __slots__ = ("absent", "present", "value", "etag")
    ABSENT_FIELD_NUMBER: _ClassVar[int]
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    absent: bool
    present: bool
    value: bytes
    etag: str
    def __init__(self, absent: bool = ..., present: bool = ..., value: _Optional[bytes] = ..., etag: _Optional[str] = ...) -> None: ...

class SetRequest(_message.Message):
    __slots__ = ("key", "value", "ttl", "data", "condition")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    ttl: int
    data: bytes
    condition: Condition
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ..., ttl: _Optional[int] = ..., data: _Optional[bytes] = ..., condition: _Optional[_Union[Condition, _Mapping]] = ...) -> None: ...

class SetResponse(_message.Message):
    __slots__ = ("success", "error", "condition_failed", "etag", "revision")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FAILED_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    success: bool
    error: str
    condition_failed: bool
    etag: str
    revision: int
    def __init__(self, success: bool = ..., error: _Optional[str] = ..., condition_failed: bool = ..., etag: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("key", "as_data", "with_etag")
    KEY_FIELD_NUMBER: _ClassVar[int]
    AS_DATA_FIELD_NUMBER: _ClassVar[int]
    WITH_ETAG_FIELD_NUMBER: _ClassVar[int]
    key: str
    as_data: bool
    with_etag: bool
    def __init__(self, key: _Optional[str] = ..., as_data: bool = ..., with_etag: bool = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("value", "found", "error", "ttl", "data", "etag")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    value: str
    found: bool
    error: str
    ttl: int
    data: bytes
    etag: str
    def __init__(self, value: _Optional[str] = ..., found: bool = ..., error: _Optional[str] = ..., ttl: _Optional[int] = ..., data: _Optional[bytes] = ..., etag: _Optional[str] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("key", "condition")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    key: str
    condition: Condition
    def __init__(self, key: _Optional[str] = ..., condition: _Optional[_Union[Condition, _Mapping]] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("success", "error", "condition_failed", "etag", "revision")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FAILED_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    success: bool
    error: str
    condition_failed: bool
    etag: str
    revision: int
    def __init__(self, success: bool = ..., error: _Optional[str] = ..., condition_failed: bool = ..., etag: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class ScanRequest(_message.Message):
    __slots__ = ("prefix", "limit", "cursor", "start", "end", "reverse", "count_only", "delimiter", "as_data")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    REVERSE_FIELD_NUMBER: _ClassVar[int]
    COUNT_ONLY_FIELD_NUMBER: _ClassVar[int]
    DELIMITER_FIELD_NUMBER: _ClassVar[int]
    AS_DATA_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    limit: int
    cursor: str
    start: str
    end: str
    reverse: bool
    count_only: bool
    delimiter: str
    as_data: bool
    def __init__(self, prefix: _Optional[str] = ..., limit: _Optional[int] = ..., cursor: _Optional[str] = ..., start: _Optional[str] = ..., end: _Optional[str] = ..., reverse: bool = ..., count_only: bool = ..., delimiter: _Optional[str] = ..., as_data: bool = ...) -> None: ...

class ScanKeysResponse(_message.Message):
    __slots__ = ("keys", "error", "next_cursor", "count", "prefixes", "revision")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    PREFIXES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[str]
    error: str
    next_cursor: str
    count: int
    prefixes: _containers.RepeatedScalarFieldContainer[str]
    revision: int
    def __init__(self, keys: _Optional[_Iterable[str]] = ..., error: _Optional[str] = ..., next_cursor: _Optional[str] = ..., count: _Optional[int] = ..., prefixes: _Optional[_Iterable[str]] = ..., revision: _Optional[int] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("key", "data", "expires_at_ms")
    KEY_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_MS_FIELD_NUMBER: _ClassVar[int]
    key: str
    data: bytes
    expires_at_ms: int
    def __init__(self, key: _Optional[str] = ..., data: _Optional[bytes] = ..., expires_at_ms: _Optional[int] = ...) -> None: ...

class ScanKeyValuesResponse(_message.Message):
    __slots__ = ("key_values", "error", "next_cursor", "count", "prefixes", "entries", "not_text", "revision")
    class KeyValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KEY_VALUES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    PREFIXES_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NOT_TEXT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    key_values: _containers.ScalarMap[str, str]
    error: str
    next_cursor: str
    count: int
    prefixes: _containers.RepeatedScalarFieldContainer[str]
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    not_text: _containers.RepeatedScalarFieldContainer[str]
    revision: int
    def __init__(self, key_values: _Optional[_Mapping[str, str]] = ..., error: _Optional[str] = ..., next_cursor: _Optional[str] = ..., count: _Optional[int] = ..., prefixes: _Optional[_Iterable[str]] = ..., entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., not_text: _Optional[_Iterable[str]] = ..., revision: _Optional[int] = ...) -> None: ...

class MSetRequest(_message.Message):
    __slots__ = ("key_values", "ttl", "data")
    class KeyValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class DataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    KEY_VALUES_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    key_values: _containers.ScalarMap[str, str]
    ttl: int
    data: _containers.ScalarMap[str, bytes]
    def __init__(self, key_values: _Optional[_Mapping[str, str]] = ..., ttl: _Optional[int] = ..., data: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class MSetResponse(_message.Message):
    __slots__ = ("success", "error")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    success: bool
    error: str
    def __init__(self, success: bool = ..., error: _Optional[str] = ...) -> None: ...

class MGetRequest(_message.Message):
    __slots__ = ("keys", "as_data")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    AS_DATA_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[str]
    as_data: bool
    def __init__(self, keys: _Optional[_Iterable[str]] = ..., as_data: bool = ...) -> None: ...

class MGetResponse(_message.Message):
    __slots__ = ("key_values", "error", "data", "not_text")
    class KeyValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class DataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    KEY_VALUES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    NOT_TEXT_FIELD_NUMBER: _ClassVar[int]
    key_values: _containers.ScalarMap[str, str]
    error: str
    data: _containers.ScalarMap[str, bytes]
    not_text: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, key_values: _Optional[_Mapping[str, str]] = ..., error: _Optional[str] = ..., data: _Optional[_Mapping[str, bytes]] = ..., not_text: _Optional[_Iterable[str]] = ...) -> None: ...

class MDeleteRequest(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, keys: _Optional[_Iterable[str]] = ...) -> None: ...

class MDeleteResponse(_message.Message):
    __slots__ = ("success", "error")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    success: bool
    error: str
    def __init__(self, success: bool = ..., error: _Optional[str] = ...) -> None: ...

class GetConfigRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetConfigResponse(_message.Message):
    __slots__ = ("config", "error")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    config: str
    error: str
    def __init__(self, config: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class UpdateConfigRequest(_message.Message):
    __slots__ = ("config",)
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    config: str
    def __init__(self, config: _Optional[str] = ...) -> None: ...

class UpdateConfigResponse(_message.Message):
    __slots__ = ("success", "error")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    success: bool
    error: str
    def __init__(self, success: bool = ..., error: _Optional[str] = ...) -> None: ...

class PipelineRequest(_message.Message):
    __slots__ = ("id", "set", "get", "delete", "increment", "touch")
    ID_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    GET_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    INCREMENT_FIELD_NUMBER: _ClassVar[int]
    TOUCH_FIELD_NUMBER: _ClassVar[int]
    id: int
    set: SetRequest
    get: GetRequest
    delete: DeleteRequest
    increment: IncrementRequest
    touch: TouchRequest
    def __init__(self, id: _Optional[int] = ..., set: _Optional[_Union[SetRequest, _Mapping]] = ..., get: _Optional[_Union[GetRequest, _Mapping]] = ..., delete: _Optional[_Union[DeleteRequest, _Mapping]] = ..., increment: _Optional[_Union[IncrementRequest, _Mapping]] = ..., touch: _Optional[_Union[TouchRequest, _Mapping]] = ...) -> None: ...

class PipelineResponse(_message.Message):
    __slots__ = ("id", "set", "get", "delete", "increment", "touch", "code", "message")
    ID_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    GET_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    INCREMENT_FIELD_NUMBER: _ClassVar[int]
    TOUCH_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    id: int
    set: SetResponse
    get: GetResponse
    delete: DeleteResponse
    increment: IncrementResponse
    touch: TouchResponse
    code: int
    message: str
    def __init__(self, id: _Optional[int] = ..., set: _Optional[_Union[SetResponse, _Mapping]] = ..., get: _Optional[_Union[GetResponse, _Mapping]] = ..., delete: _Optional[_Union[DeleteResponse, _Mapping]] = ..., increment: _Optional[_Union[IncrementResponse, _Mapping]] = ..., touch: _Optional[_Union[TouchResponse, _Mapping]] = ..., code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class IncrementRequest(_message.Message):
    __slots__ = ("key", "delta", "ttl")
    KEY_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    key: str
    delta: int
    ttl: int
    def __init__(self, key: _Optional[str] = ..., delta: _Optional[int] = ..., ttl: _Optional[int] = ...) -> None: ...

class IncrementResponse(_message.Message):
    __slots__ = ("success", "error", "value", "created", "revision")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    success: bool
    error: str
    value: int
    created: bool
    revision: int
    def __init__(self, success: bool = ..., error: _Optional[str] = ..., value: _Optional[int] = ..., created: bool = ..., revision: _Optional[int] = ...) -> None: ...

class TouchRequest(_message.Message):
    __slots__ = ("key", "ttl", "condition")
    KEY_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    key: str
    ttl: int
    condition: Condition
    def __init__(self, key: _Optional[str] = ..., ttl: _Optional[int] = ..., condition: _Optional[_Union[Condition, _Mapping]] = ...) -> None: ...

class TouchResponse(_message.Message):
    __slots__ = ("success", "error", "found", "condition_failed", "etag", "revision")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FAILED_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    success: bool
    error: str
    found: bool
    condition_failed: bool
    etag: str
    revision: int
    def __init__(self, success: bool = ..., error: _Optional[str] = ..., found: bool = ..., condition_failed: bool = ..., etag: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class DeleteRangeRequest(_message.Message):
    __slots__ = ("prefix", "start", "end", "all", "dry_run")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    start: str
    end: str
    all: bool
    dry_run: bool
    def __init__(self, prefix: _Optional[str] = ..., start: _Optional[str] = ..., end: _Optional[str] = ..., all: bool = ..., dry_run: bool = ...) -> None: ...

class DeleteRangeResponse(_message.Message):
    __slots__ = ("success", "error", "deleted", "revision")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    success: bool
    error: str
    deleted: int
    revision: int
    def __init__(self, success: bool = ..., error: _Optional[str] = ..., deleted: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class Check(_message.Message):
    __slots__ = ("key", "condition")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    key: str
    condition: Condition
    def __init__(self, key: _Optional[str] = ..., condition: _Optional[_Union[Condition, _Mapping]] = ...) -> None: ...

class Mutation(_message.Message):
    __slots__ = ("set", "delete", "touch", "increment")
    SET_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    TOUCH_FIELD_NUMBER: _ClassVar[int]
    INCREMENT_FIELD_NUMBER: _ClassVar[int]
    set: SetRequest
    delete: DeleteRequest
    touch: TouchRequest
    increment: IncrementRequest
    def __init__(self, set: _Optional[_Union[SetRequest, _Mapping]] = ..., delete: _Optional[_Union[DeleteRequest, _Mapping]] = ..., touch: _Optional[_Union[TouchRequest, _Mapping]] = ..., increment: _Optional[_Union[IncrementRequest, _Mapping]] = ...) -> None: ...

class MutationResult(_message.Message):
    __slots__ = ("found", "value", "created")
    FOUND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    found: bool
    value: int
    created: bool
    def __init__(self, found: bool = ..., value: _Optional[int] = ..., created: bool = ...) -> None: ...

class TransactRequest(_message.Message):
    __slots__ = ("checks", "mutations")
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    MUTATIONS_FIELD_NUMBER: _ClassVar[int]
    checks: _containers.RepeatedCompositeFieldContainer[Check]
    mutations: _containers.RepeatedCompositeFieldContainer[Mutation]
    def __init__(self, checks: _Optional[_Iterable[_Union[Check, _Mapping]]] = ..., mutations: _Optional[_Iterable[_Union[Mutation, _Mapping]]] = ...) -> None: ...

class TransactResponse(_message.Message):
    __slots__ = ("success", "error", "failed_check", "results", "revision", "etag")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FAILED_CHECK_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    success: bool
    error: str
    failed_check: int
    results: _containers.RepeatedCompositeFieldContainer[MutationResult]
    revision: int
    etag: str
    def __init__(self, success: bool = ..., error: _Optional[str] = ..., failed_check: _Optional[int] = ..., results: _Optional[_Iterable[_Union[MutationResult, _Mapping]]] = ..., revision: _Optional[int] = ..., etag: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("key", "prefix", "after_revision", "with_values")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    WITH_VALUES_FIELD_NUMBER: _ClassVar[int]
    key: str
    prefix: str
    after_revision: int
    with_values: bool
    def __init__(self, key: _Optional[str] = ..., prefix: _Optional[str] = ..., after_revision: _Optional[int] = ..., with_values: bool = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("type", "key", "end", "data", "expires_at_ms")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[Event.Type]
        SET: _ClassVar[Event.Type]
        DELETE: _ClassVar[Event.Type]
        EXPIRE: _ClassVar[Event.Type]
        EVICT: _ClassVar[Event.Type]
        DELETE_RANGE: _ClassVar[Event.Type]
    UNKNOWN: Event.Type
    SET: Event.Type
    DELETE: Event.Type
    EXPIRE: Event.Type
    EVICT: Event.Type
    DELETE_RANGE: Event.Type
    TYPE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_MS_FIELD_NUMBER: _ClassVar[int]
    type: Event.Type
    key: str
    end: str
    data: bytes
    expires_at_ms: int
    def __init__(self, type: _Optional[_Union[Event.Type, str]] = ..., key: _Optional[str] = ..., end: _Optional[str] = ..., data: _Optional[bytes] = ..., expires_at_ms: _Optional[int] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("revision", "events", "end", "compacted")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    COMPACTED_FIELD_NUMBER: _ClassVar[int]
    revision: int
    events: _containers.RepeatedCompositeFieldContainer[Event]
    end: bool
    compacted: bool
    def __init__(self, revision: _Optional[int] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., end: bool = ..., compacted: bool = ...) -> None: ...
