"""Uses of whole layers: normalisations with parameters, recurrent layers, attention, losses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from generators.sandwich.use import Draft, Maker, Operand, given, index

IMAGES = ((2, 3, 4, 5), (3, 3, 3, 3), (2, 3), (2, 3, 4), (1, 2, 2, 3, 2))


def normalisations(m: Maker) -> Iterator[Draft]:
    """BatchNormalization, InstanceNormalization, GroupNormalization, LayerNormalization, RMSNormalization, Dropout."""
    for shape in IMAGES:
        c = shape[1]
        inputs = (m.x(*shape), m.w(c), m.w(c), m.w(c), m.w(c, low=0.5, high=2.0))
        for setting in ({}, {"epsilon": 0.01}, {"momentum": 0.5, "epsilon": 0.1}):
            yield Draft("BatchNormalization", inputs, setting)
        yield Draft("BatchNormalization", inputs, {"spatial": 1})
        if len(shape) > 2:
            yield Draft("InstanceNormalization", (m.x(*shape), m.w(c), m.w(c)))
            yield Draft("InstanceNormalization", (m.x(*shape), m.w(c), m.w(c)), {"epsilon": 0.1})
    line = (m.x(4), m.w(1), m.w(1), m.w(1), m.w(1, low=0.5, high=2.0))
    yield Draft("BatchNormalization", line)  # of one channel
    inputs = (m.x(2, 3, 4, 5), m.w(3), m.w(3), m.w(3), m.w(3, low=0.5, high=2.0))
    yield Draft("BatchNormalization", inputs, {"training_mode": 1}, (True, True, True))
    yield Draft("BatchNormalization", inputs, {}, (True, True, True, True, True))
    flat = (m.x(2, 3, 2), m.w(3, 2), m.w(3, 2), m.w(3, 2), m.w(3, 2, low=0.5, high=2.0))
    yield Draft("BatchNormalization", flat, {"spatial": 0})
    for shape, groups in (((2, 4, 3, 2), 2), ((2, 4, 3, 2), 4), ((2, 4, 3, 2), 1), ((4, 4, 4), 2), ((2, 6), 3)):
        for setting in ({}, {"epsilon": 0.1}):
            inputs = (m.x(*shape), m.w(shape[1]), m.w(shape[1]))
            yield Draft("GroupNormalization", inputs, {"num_groups": groups, **setting}, since=21)
            inputs = (m.x(*shape), m.w(groups), m.w(groups))
            yield Draft("GroupNormalization", inputs, {"num_groups": groups, **setting}, until=20)
    for shape in ((2, 3, 4), (3, 3, 3), (2, 3, 4, 5)):
        for axis in range(-len(shape), len(shape)):
            held = shape[axis:]
            for setting in ({"axis": axis}, {"axis": axis, "epsilon": 0.1}):
                yield Draft("LayerNormalization", (m.x(*shape), m.w(*held)), setting)
                yield Draft("LayerNormalization", (m.x(*shape), m.w(*held), m.w(*held)), setting)
                yield Draft("RMSNormalization", (m.x(*shape), m.w(*held)), setting)
        yield Draft("LayerNormalization", (m.x(*shape), m.w(shape[-1]), m.w(shape[-1])))
        yield Draft("RMSNormalization", (m.x(*shape), m.w(shape[-1])))
        yield Draft("LayerNormalization", (m.x(*shape), m.w(1), m.w(1)))
        yield Draft("LayerNormalization", (m.x(*shape), m.w(shape[-1])), {"axis": 1})
        everything = (m.x(*shape), m.w(shape[-1]), m.w(shape[-1]))
        yield Draft("LayerNormalization", everything, {}, (True, True, True))
    for shape in ((2, 3, 4, 5), (3, 3), ()):
        yield Draft("Dropout", (m.x(*shape),))
        yield Draft("Dropout", (m.x(*shape),), {"ratio": 0.3})
        yield Draft("Dropout", (m.x(*shape),), {"ratio": 0.3}, (True, True))
        yield Draft("Dropout", (m.x(*shape), given(0.7, role="index")))
        yield Draft("Dropout", (m.x(*shape), given(0.7, role="index")), {}, (True, True))
        yield Draft("Dropout", (m.x(*shape), given(0.7, role="index"), given(False, bool, "index")))
        yield Draft("Dropout", (m.x(*shape), given(0.0, role="index"), given(True, bool, "index")))
        yield Draft("Dropout", (m.x(*shape), None, given(False, bool, "index")), {"seed": 3})


def recurrent(m: Maker) -> Iterator[Draft]:
    """RNN, GRU and LSTM."""
    three = (True, True, True)
    for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        outputs = three[: 3 if op == "LSTM" else 2]
        for hidden, width, steps, batch in ((4, 3, 5, 2), (3, 3, 3, 3)):
            for direction in ("forward", "reverse", "bidirectional"):
                d = 2 if direction == "bidirectional" else 1
                setting: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
                weights = (m.w(d, gates * hidden, width), m.w(d, gates * hidden, hidden))
                bias = m.w(d, 2 * gates * hidden)
                lengths = index([steps - at % 2 for at in range(batch)], np.int32)
                state = (m.w(d, batch, hidden), *((m.w(d, batch, hidden),) if op == "LSTM" else ()))
                x = m.x(steps, batch, width)
                yield Draft(op, (x, *weights), setting, outputs)
                yield Draft(op, (x, *weights, bias), setting, outputs)
                yield Draft(op, (x, *weights, bias, lengths), setting, outputs)
                yield Draft(op, (x, *weights, None, None, *state), setting, outputs)
                yield Draft(op, (x, *weights, bias), {**setting, "clip": 0.5}, outputs)
                if op == "GRU":
                    yield Draft(op, (x, *weights, bias), {**setting, "linear_before_reset": 1}, outputs)
                if op == "LSTM":
                    yield Draft(op, (x, *weights, bias), {**setting, "input_forget": 1}, outputs)
                    peephole = m.w(d, 3 * hidden)
                    yield Draft(op, (x, *weights, bias, None, *state, peephole), setting, outputs)
                names = {"RNN": ["Relu"], "GRU": ["HardSigmoid", "Softsign"], "LSTM": ["Sigmoid", "Relu", "Tanh"]}[op]
                yield Draft(op, (x, *weights, bias), {**setting, "activations": names * d}, outputs)
                if direction == "forward":
                    turned = m.x(batch, steps, width)
                    yield Draft(op, (turned, *weights, bias), {**setting, "layout": 1}, outputs)
                    yield Draft(op, (x, *weights, bias), {"hidden_size": hidden}, (True,))
                    yield Draft(op, (x, *weights, bias), {"hidden_size": hidden}, (False, True))


def attention(m: Maker) -> Iterator[Draft]:
    """Attention, LinearAttention and RotaryEmbedding."""

    def heads(q: int, kv: int, length: int, total: int, width: int, last: int) -> tuple[Operand, Operand, Operand]:
        return m.x(2, q, length, width), m.w(2, kv, total, width), m.w(2, kv, total, last)

    settings: tuple[dict[str, Any], ...] = (
        {},
        {"scale": 0.1},
        {"is_causal": 1},
        {"softcap": 2.0},
        {"qk_matmul_output_mode": 1},
        {"softmax_precision": 1},
        {"left_window_size": 1, "right_window_size": 0},
    )
    for setting in settings:
        yield Draft("Attention", heads(3, 3, 4, 4, 4, 4), setting)
        yield Draft("Attention", heads(4, 2, 3, 5, 4, 6), setting)
        query, key, value = heads(3, 3, 4, 4, 4, 4)
        yield Draft("Attention", (key, query, value), setting)
        yield Draft("Attention", (key, value, query), setting)
        yield Draft("Attention", (query, key, value, m.w(4, 4)), setting)
        yield Draft("Attention", (query, key, value, m.bools(4, 4, role="weight")), setting)
        flat = (m.x(2, 3, 8), m.w(2, 4, 8), m.w(2, 4, 6))
        yield Draft("Attention", flat, {"q_num_heads": 2, "kv_num_heads": 2, **setting})
    query, key, value = heads(2, 2, 3, 3, 4, 4)
    past = (m.w(2, 2, 2, 4), m.w(2, 2, 2, 4))
    yield Draft("Attention", (query, key, value, m.w(3, 5), *past), {}, (True, True, True))
    yield Draft("Attention", (query, key, value, None, *past), {}, (True, True, True, True))
    yield Draft("Attention", (m.w(2, 2, 3, 4), m.w(2, 2, 3, 4), m.x(2, 2, 3, 4)))
    for rule in ("linear", "gated", "delta", "gated_delta"):
        q, k, v = m.x(2, 3, 8), m.w(2, 3, 8, low=-0.3, high=0.3), m.w(2, 3, 8)
        decay, beta = m.w(2, 3, 2, low=-1, high=0), m.w(2, 3, 2, low=0, high=1)
        tail = {"linear": (), "gated": (None, decay), "delta": (None, None, beta), "gated_delta": (None, decay, beta)}
        setting = {"q_num_heads": 2, "kv_num_heads": 2, "update_rule": rule}
        yield Draft("LinearAttention", (q, k, v, *tail[rule]), setting, (True, True))
    for setting in ({}, {"interleaved": 1}, {"rotary_embedding_dim": 2}, {"interleaved": 1, "rotary_embedding_dim": 2}):
        half = setting.get("rotary_embedding_dim", 4) // 2
        tables = (m.w(6, half, low=-1, high=1), m.w(6, half, low=-1, high=1))
        places = index([[0, 1, 2], [3, 4, 5]])
        yield Draft("RotaryEmbedding", (m.x(2, 2, 3, 4), *tables, places), setting)
        yield Draft("RotaryEmbedding", (m.x(2, 3, 8), *tables, places), {**setting, "num_heads": 2})
        lined = (m.w(2, 3, half, low=-1, high=1), m.w(2, 3, half, low=-1, high=1))
        yield Draft("RotaryEmbedding", (m.x(2, 2, 3, 4), *lined), setting)


def losses(m: Maker) -> Iterator[Draft]:
    """NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss."""
    for op in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"):
        for reduction in ("none", "mean", "sum"):
            for setting in ({}, {"ignore_index": 1}):
                both = {"reduction": reduction, **setting}
                yield Draft(op, (m.x(2, 3), index([0, 2])), both)
                yield Draft(op, (m.x(2, 3, 2), index([[0, 1], [2, 1]]), m.w(3)), both)
    yield Draft("SoftmaxCrossEntropyLoss", (m.x(2, 3), index([0, 2])), {"reduction": "none"}, (True, True))
