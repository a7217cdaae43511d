"""A model of ONNX with one change that its messages allow, and that may contradict everything around it."""

from __future__ import annotations

import random
from typing import Any

import onnx
from google.protobuf.message import DecodeError, Message

OPERATORS = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "Constant", "ConstantOfShape", "If", "Loop"),
    *("Scan", "Reshape", "Transpose", "Concat", "Split", "Pad", "Slice", "Gather", "Expand", "Identity", "Cast", "Add"),
    *("Mul", "Einsum", "Resize", "AveragePool", "ReduceMean", "LSTM", "Shape", "Unsqueeze", "Tile", "SequenceMap"),
)
INTEGERS = (*range(-3, 25), 99, 255, 2**20, 2**31 - 1, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63))
WORDS = (
    *("", "x", "\x00", "a\x00b", "../w", "/etc/passwd", ".envrc", "sub/w", "w.bin", "out.onnx", "location", "offset"),
    *("length", "value", "axis", "perm", "pads", "group", "epsilon", "to", "ai.onnx", "local", "\u202e", "é" * 300),
    *("-1", "9" * 400, "1e999", "%s", "a\nb", "ij,jk->ik", "...i->i", "SAME_UPPER", "checksum", "value_ints"),
)
_KINDS = {
    **dict.fromkeys(("TYPE_INT32", "TYPE_INT64", "TYPE_ENUM"), "integer"),
    **dict.fromkeys(("TYPE_UINT64",), "count"),
    **dict.fromkeys(("TYPE_FLOAT", "TYPE_DOUBLE"), "real"),
}
_MOST = 4000


def change_model(content: bytes, rng: random.Random) -> bytes:
    """The serialised model with one to three changes. Raises ValueError if it is none."""
    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError:
        raise ValueError("no model") from None
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _change(model, rng)
    return model.SerializeToString()


def _change(model: onnx.ModelProto, rng: random.Random) -> None:
    messages = _messages(model)
    # Fields of the model, and what it has few of, are changed as often as the many fields of its nodes.
    kinds: dict[str, list[Message]] = {}
    for message in messages:
        kinds.setdefault(message.DESCRIPTOR.name, []).append(message)
    message = rng.choice(kinds[rng.choice(sorted(kinds))])
    field = rng.choice(message.DESCRIPTOR.fields)
    if field.message_type is not None:
        same = kinds.get(field.message_type.name, [])
        _change_messages(message, field, same, rng)
    else:
        _change_values(message, field, _names(messages), rng)


def _messages(model: onnx.ModelProto) -> list[Message]:
    found: list[Message] = [model]
    for message in found:  # grows meanwhile
        for field, value in message.ListFields():
            if field.message_type is not None and len(found) < _MOST:
                found.extend([value] if isinstance(value, Message) else value)
    return found


def _names(messages: list[Message]) -> list[str]:
    """The names of values, nodes and functions that the model has."""
    names: list[str] = []
    for message in messages:
        if isinstance(message, onnx.NodeProto):
            names += [*message.input, *message.output]
        names.append(getattr(message, "name", ""))
    return [name for name in names if isinstance(name, str)]


def _change_messages(message: Any, field: Any, same: list[Message], rng: random.Random) -> None:
    held = getattr(message, field.name)
    if isinstance(held, Message):
        how = rng.randrange(3)
        if how == 0:
            message.ClearField(field.name)
        elif how == 1 or not same:
            held.SetInParent()
        else:
            held.CopyFrom(_copy_of(rng.choice(same)))
        return
    how = rng.randrange(5)
    if how == 0 and held:
        del held[rng.randrange(len(held))]
    elif how == 1 and held:
        held.append(_copy_of(rng.choice(held)))
    elif how == 2 and len(held) > 1:
        first, second = rng.sample(range(len(held)), 2)
        kept = _copy_of(held[first])
        held[first].CopyFrom(_copy_of(held[second]))
        held[second].CopyFrom(kept)
    elif how == 3 and same:
        held.append(_copy_of(rng.choice(same)))
    else:
        held.add()


def _copy_of(message: Message) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _change_values(message: Any, field: Any, names: list[str], rng: random.Random) -> None:
    held = getattr(message, field.name)
    values = [item for item in dir(field) if item.startswith("TYPE_") and getattr(field, item) == field.type]
    kind = _KINDS.get(values[0], "text")
    if isinstance(held, str | bytes | int | float):
        if rng.random() < 0.2:
            message.ClearField(field.name)
        else:
            setattr(message, field.name, _value(kind, field, held, names, rng))
        return
    how = rng.randrange(5)
    if how == 0 and held:
        del held[rng.randrange(len(held))]
    elif how == 1 and held:
        held.append(rng.choice(held))
    elif how == 2 and held:
        held[rng.randrange(len(held))] = _value(kind, field, b"" if field.type == field.TYPE_BYTES else "", names, rng)
    elif how == 3:
        held.extend([_value(kind, field, b"" if field.type == field.TYPE_BYTES else "", names, rng)])
    else:
        del held[:]


def _value(kind: str, field: Any, held: Any, names: list[str], rng: random.Random) -> Any:
    if kind == "integer":
        number = rng.choice(INTEGERS)
        return number if field.type == field.TYPE_INT64 else (number + 2**31) % 2**32 - 2**31
    if kind == "count":
        return abs(rng.choice(INTEGERS))
    if kind == "real":
        return rng.choice((0.0, -0.0, 1.0, -1.0, 1e-45, 3e38, float("inf"), float("nan")))
    if field.type == field.TYPE_BYTES:
        return rng.choice(
            (b"", b"\xff", b"\x00" * 7, held[:-1], held * 2, rng.randbytes(64), *(w.encode() for w in WORDS))
        )
    return rng.choice((rng.choice(names or [""]), rng.choice(WORDS), rng.choice(OPERATORS)))
