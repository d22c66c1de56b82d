from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ControlType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SyncMultiLoRAs: _ClassVar[ControlType]
    PullMetrics: _ClassVar[ControlType]
    HealthCheck: _ClassVar[ControlType]
    SetExpectedStatus: _ClassVar[ControlType]
    GetStatus: _ClassVar[ControlType]
    SetMetrics: _ClassVar[ControlType]
SyncMultiLoRAs: ControlType
PullMetrics: ControlType
HealthCheck: ControlType
SetExpectedStatus: ControlType
GetStatus: ControlType
SetMetrics: ControlType

class FloatList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class Int64List(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, values: _Optional[_Iterable[int]] = ...) -> None: ...

class BytesList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, values: _Optional[_Iterable[bytes]] = ...) -> None: ...

class StringList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class Struct(_message.Message):
    __slots__ = ("fields",)
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    fields: _containers.MessageMap[str, Value]
    def __init__(self, fields: _Optional[_Mapping[str, Value]] = ...) -> None: ...

class ValueList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, values: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Int64Dict(_message.Message):
    __slots__ = ("fields",)
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: Value
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    fields: _containers.MessageMap[int, Value]
    def __init__(self, fields: _Optional[_Mapping[int, Value]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("float_list", "int64_list", "bytes_list", "float_", "int64_", "bytes_", "string_list", "string_", "struct_", "value_list", "int64_dict", "bool_")
    FLOAT_LIST_FIELD_NUMBER: _ClassVar[int]
    INT64_LIST_FIELD_NUMBER: _ClassVar[int]
    BYTES_LIST_FIELD_NUMBER: _ClassVar[int]
    FLOAT__FIELD_NUMBER: _ClassVar[int]
    INT64__FIELD_NUMBER: _ClassVar[int]
    BYTES__FIELD_NUMBER: _ClassVar[int]
    STRING_LIST_FIELD_NUMBER: _ClassVar[int]
    STRING__FIELD_NUMBER: _ClassVar[int]
    STRUCT__FIELD_NUMBER: _ClassVar[int]
    VALUE_LIST_FIELD_NUMBER: _ClassVar[int]
    INT64_DICT_FIELD_NUMBER: _ClassVar[int]
    BOOL__FIELD_NUMBER: _ClassVar[int]
    float_list: FloatList
    int64_list: Int64List
    bytes_list: BytesList
    float_: float
    int64_: int
    bytes_: bytes
    string_list: StringList
    string_: str
    struct_: Struct
    value_list: ValueList
    int64_dict: Int64Dict
    bool_: bool
    def __init__(self, float_list: _Optional[_Union[FloatList, _Mapping]] = ..., int64_list: _Optional[_Union[Int64List, _Mapping]] = ..., bytes_list: _Optional[_Union[BytesList, _Mapping]] = ..., float_: _Optional[float] = ..., int64_: _Optional[int] = ..., bytes_: _Optional[bytes] = ..., string_list: _Optional[_Union[StringList, _Mapping]] = ..., string_: _Optional[str] = ..., struct_: _Optional[_Union[Struct, _Mapping]] = ..., value_list: _Optional[_Union[ValueList, _Mapping]] = ..., int64_dict: _Optional[_Union[Int64Dict, _Mapping]] = ..., bool_: _Optional[bool] = ...) -> None: ...

class InferenceRequest(_message.Message):
    __slots__ = ("req_id", "model_name", "inputs", "method")
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    REQ_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    req_id: str
    model_name: str
    inputs: _containers.MessageMap[str, Value]
    method: str
    def __init__(self, req_id: _Optional[str] = ..., model_name: _Optional[str] = ..., inputs: _Optional[_Mapping[str, Value]] = ..., method: _Optional[str] = ...) -> None: ...

class InferenceResponse(_message.Message):
    __slots__ = ("req_id", "model_name", "outputs")
    class OutputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    REQ_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    req_id: str
    model_name: str
    outputs: _containers.MessageMap[str, Value]
    def __init__(self, req_id: _Optional[str] = ..., model_name: _Optional[str] = ..., outputs: _Optional[_Mapping[str, Value]] = ...) -> None: ...

class ControlRequest(_message.Message):
    __slots__ = ("req_id", "control_name", "control_type", "inputs")
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    REQ_ID_FIELD_NUMBER: _ClassVar[int]
    CONTROL_NAME_FIELD_NUMBER: _ClassVar[int]
    CONTROL_TYPE_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    req_id: str
    control_name: str
    control_type: ControlType
    inputs: _containers.MessageMap[str, Value]
    def __init__(self, req_id: _Optional[str] = ..., control_name: _Optional[str] = ..., control_type: _Optional[_Union[ControlType, str]] = ..., inputs: _Optional[_Mapping[str, Value]] = ...) -> None: ...

class ControlResponse(_message.Message):
    __slots__ = ("req_id", "control_name", "control_type", "outputs")
    class OutputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    REQ_ID_FIELD_NUMBER: _ClassVar[int]
    CONTROL_NAME_FIELD_NUMBER: _ClassVar[int]
    CONTROL_TYPE_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    req_id: str
    control_name: str
    control_type: ControlType
    outputs: _containers.MessageMap[str, Value]
    def __init__(self, req_id: _Optional[str] = ..., control_name: _Optional[str] = ..., control_type: _Optional[_Union[ControlType, str]] = ..., outputs: _Optional[_Mapping[str, Value]] = ...) -> None: ...
