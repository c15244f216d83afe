"""Protobuf schemas of msgspec structs: a field a field, numbered by its place, so that the struct is the one truth.

Integers become int64, floats double, `wire.Array` a FloatArray (shape and float data, which keep every bit but a NaN's
payload), tuples repeated fields, dicts maps, and what may be None is optional. The schema is embedded in the log: what
was written by an older version is read by its own schema, and fields that it lacks take the struct's defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from msgspec import inspect

from deploy import wire
from robonav.errors import LogError, explain

PACKAGE = "robonav"
ARRAY = "FloatArray"
_Proto = descriptor_pb2.FieldDescriptorProto
_SCALARS: dict[type[Any], int] = {
    inspect.IntType: _Proto.TYPE_INT64,
    inspect.FloatType: _Proto.TYPE_DOUBLE,
    inspect.BoolType: _Proto.TYPE_BOOL,
    inspect.StrType: _Proto.TYPE_STRING,
    inspect.BytesType: _Proto.TYPE_BYTES,
}


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a struct. `many`: "", "list" or "map"; `scalar` is protobuf's type, None for an array."""

    name: str
    scalar: int | None
    many: str
    optional: bool


class StructSchema:
    """A struct's protobuf message.

    Args:
        kind: the struct, of scalars, `wire.Array`, tuples and dicts of these.

    Raises:
        LogError: a field of another type.
    """

    def __init__(self, kind: type[Any]) -> None:
        self.kind = kind
        self.name = f"{PACKAGE}.{kind.__name__.removesuffix('Msg')}"
        self._fields = tuple(_field(kind, f.name, f.type) for f in inspect.type_info(kind).fields)  # type: ignore[attr-defined]
        file = _file(self.name, self._fields)
        self.data = descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()
        pool = descriptor_pool.DescriptorPool()
        pool.Add(file)
        self._class = message_factory.GetMessageClass(pool.FindMessageTypeByName(self.name))

    def encode(self, value: Any) -> bytes:
        """A struct as protobuf."""
        message = self._class()
        for field in self._fields:
            _put(message, field, getattr(value, field.name))
        return bytes(message.SerializeToString())

    def decode(self, message: Any) -> Any:
        """The struct of a protobuf message, which may be of another version: fields are matched by name.

        Raises:
            LogError: the message lacks a field that has no default.
        """
        known = message.DESCRIPTOR.fields_by_name
        values = {f.name: _get(message, f) for f in self._fields if f.name in known}
        try:
            return self.kind(**values)
        except TypeError as error:
            do = "read it with the version of robonav that wrote it"
            raise LogError(explain(self.name, "the fields of this version", str(error), do)) from None


def _field(kind: type[Any], name: str, what: Any) -> _Field:
    optional = isinstance(what, inspect.UnionType)
    if optional:
        rest = [t for t in what.types if not isinstance(t, inspect.NoneType)]
        what = rest[0] if len(rest) == 1 and len(rest) < len(what.types) else what
    many, inner = "", what
    if isinstance(what, inspect.DictType) and isinstance(what.key_type, inspect.StrType):
        many, inner = "map", what.value_type
    elif isinstance(what, inspect.VarTupleType | inspect.ListType):
        many, inner = "list", what.item_type
    elif isinstance(what, inspect.TupleType) and len({type(t) for t in what.item_types}) == 1:
        many, inner = "list", what.item_types[0]
    if isinstance(inner, inspect.StructType) and inner.cls is wire.Array:
        return _Field(name, None, many, optional)
    if type(inner) not in _SCALARS or (many and optional):
        want = "a number, bool, str, bytes or Array, or a tuple or dict of these"
        raise LogError(explain(f"{kind.__name__}.{name}", want, type(inner).__name__))
    return _Field(name, _SCALARS[type(inner)], many, optional)


def _file(full_name: str, fields: tuple[_Field, ...]) -> Any:
    """The descriptor of a struct's message."""
    name = full_name.removeprefix(f"{PACKAGE}.")
    file = descriptor_pb2.FileDescriptorProto(name=f"{PACKAGE}/{name}.proto", package=PACKAGE, syntax="proto3")
    message = file.message_type.add(name=name)
    if any(f.scalar is None for f in fields):
        array = message.nested_type.add(name=ARRAY)
        array.field.add(name="shape", number=1, type=_Proto.TYPE_INT64, label=_Proto.LABEL_REPEATED)
        array.field.add(name="data", number=2, type=_Proto.TYPE_FLOAT, label=_Proto.LABEL_REPEATED)
    for number, field in enumerate(fields, 1):
        proto = message.field.add(name=field.name, number=number, label=_Proto.LABEL_OPTIONAL)
        if field.many:
            proto.label = _Proto.LABEL_REPEATED
        if field.many == "map":
            _set_type(proto, f".{full_name}.{_add_entry(message, full_name, field)}", None)
        else:
            _set_type(proto, f".{full_name}.{ARRAY}", field.scalar)
        if field.optional and field.scalar is not None:  # presence of a scalar, as proto3's `optional` gives it
            message.oneof_decl.add(name=f"_{field.name}")
            proto.oneof_index, proto.proto3_optional = len(message.oneof_decl) - 1, True
    return file


def _add_entry(message: Any, full_name: str, field: _Field) -> str:
    name = "".join(word.capitalize() for word in field.name.split("_")) + "Entry"
    entry = message.nested_type.add(name=name)
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_Proto.TYPE_STRING, label=_Proto.LABEL_OPTIONAL)
    value = entry.field.add(name="value", number=2, label=_Proto.LABEL_OPTIONAL)
    _set_type(value, f".{full_name}.{ARRAY}", field.scalar)
    return name


def _set_type(proto: Any, type_name: str, scalar: int | None) -> None:
    proto.type = _Proto.TYPE_MESSAGE if scalar is None else scalar
    if scalar is None:
        proto.type_name = type_name


def _put(message: Any, field: _Field, value: Any) -> None:
    if value is None:
        return
    if field.scalar is not None:
        if not field.many:
            setattr(message, field.name, value)
        elif field.many == "list":
            getattr(message, field.name).extend(value)
        else:
            getattr(message, field.name).update(value)
        return
    there = getattr(message, field.name)
    if not field.many:
        there.SetInParent()
        _put_array(there, value)
    elif field.many == "list":
        for array in value:
            _put_array(there.add(), array)
    else:
        for key, array in value.items():
            _put_array(there[key], array)


def _get(message: Any, field: _Field) -> Any:
    if field.optional and not message.HasField(field.name):
        return None
    there = getattr(message, field.name)
    take: Callable[[Any], Any] = _get_array if field.scalar is None else lambda value: value
    if field.many == "list":
        return tuple(take(value) for value in there)
    if field.many == "map":
        return {key: take(there[key]) for key in there}
    return take(there)


def _put_array(message: Any, array: wire.Array) -> None:
    message.shape.extend(array.shape)
    message.data.extend(np.frombuffer(array.data, "<f4").tolist())


def _get_array(message: Any) -> wire.Array:
    return wire.Array(tuple(message.shape), np.array(message.data, "<f4").tobytes())


def struct_schema(kind: type[Any]) -> StructSchema:
    """The schema of a struct, made once."""
    if kind not in _MADE:
        _MADE[kind] = StructSchema(kind)
    return _MADE[kind]


_MADE: dict[type[msgspec.Struct], StructSchema] = {}
