"""LSTM, GRU and RNN for the interpreter, with their default activations, from the equations of the ONNX standard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Attributes = dict[str, Any]
Cell = Callable[[Array, Array, Array, Array, Array], tuple[Array, Array]]


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def lstm(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> list[Array]:
    def cell(xw: Array, h: Array, c: Array, r: Array, br: Array) -> tuple[Array, Array]:
        i, o, f, g = np.split(xw + h @ r.T + br, 4, -1)
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        return _sigmoid(o) * np.tanh(c), c

    return _unrolled(attributes, inputs, count, cell)


def gru(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> list[Array]:
    def cell(xw: Array, h: Array, c: Array, r: Array, br: Array) -> tuple[Array, Array]:
        (xz, xr, xh), (rz, rr, rh), (bz, b_r, bh) = np.split(xw, 3, -1), np.split(r, 3), np.split(br, 3)
        z, reset = _sigmoid(xz + h @ rz.T + bz), _sigmoid(xr + h @ rr.T + b_r)
        if attributes.get("linear_before_reset"):
            new = np.tanh(xh + reset * (h @ rh.T + bh))
        else:
            new = np.tanh(xh + (reset * h) @ rh.T + bh)
        return (1 - z) * new + z * h, c

    return _unrolled(attributes, inputs, count, cell)


def rnn(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> list[Array]:
    def cell(xw: Array, h: Array, c: Array, r: Array, br: Array) -> tuple[Array, Array]:
        return np.tanh(xw + h @ r.T + br), c

    return _unrolled(attributes, inputs, count, cell)


def _unrolled(attributes: Attributes, inputs: list[Any], count: int, cell: Cell) -> list[Array]:
    """Of x (steps, batch, features), w (directions, rows, features), r (directions, rows, hidden), b (.., 2 rows)."""
    x, w, r, b = [*inputs, None][:4]
    if any(value is not None for value in inputs[4:]) or attributes.get("layout"):
        raise NotImplementedError("lengths, initial states or another layout")
    b = np.zeros((w.shape[0], 2 * w.shape[1])) if b is None else b
    direction = attributes.get("direction", b"forward").decode()
    outputs, last = [], []
    for d in range(w.shape[0]):
        backwards = direction == "reverse" or d == 1
        bias_w, bias_r = np.split(b[d], 2)
        h = c = np.zeros((x.shape[1], r.shape[-1]))
        states = []
        for step in x[::-1] if backwards else x:
            h, c = cell(step @ w[d].T + bias_w, h, c, r[d], bias_r)
            states.append(h)
        outputs.append(np.stack(states[::-1] if backwards else states))
        last.append(h)
    return [np.stack(outputs, 1), np.stack(last)][:count]
