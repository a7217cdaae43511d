"""Uses of single operators: every operator that a BatchNorm may meet, in every version of its schema from opset 7 on.

The settings are written down here, family by family, and completed by those of ONNX's own tests of its operators.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from generators.sandwich import (
    uses_elementwise,
    uses_index,
    uses_layer,
    uses_linear,
    uses_reduce,
    uses_sample,
    uses_shape,
    uses_sizes,
    uses_window,
)
from generators.sandwich.use import Draft, Maker, Operand, Use, spread, versions, words

Family = Callable[[Maker], Iterator[Draft]]

FAMILIES: tuple[Family, ...] = (
    uses_elementwise.unary,
    uses_elementwise.binary,
    uses_elementwise.integers,
    uses_elementwise.chosen,
    uses_elementwise.casts,
    uses_shape.reshapes,
    uses_shape.squeezes,
    uses_shape.joins,
    uses_shape.slices,
    uses_shape.spreads,
    uses_sizes.sizes,
    uses_index.gathers,
    uses_index.scatters,
    uses_index.orders,
    uses_index.running,
    uses_reduce.reductions,
    uses_reduce.softmaxes,
    uses_window.pools,
    uses_window.paddings,
    uses_window.neighbourhoods,
    uses_sample.upsamples,
    uses_sample.resizes,
    uses_sample.grids,
    uses_linear.convolutions,
    uses_linear.transposed,
    uses_linear.products,
    uses_linear.sums,
    uses_linear.quantised,
    uses_layer.normalisations,
    uses_layer.recurrent,
    uses_layer.attention,
    uses_layer.losses,
)

# What these give is random, a sequence, a string or an image, or they hold graphs.
OUT_OF_SCOPE = words(
    "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike ImageDecoder If Loop Scan "
    "Optional OptionalGetElement OptionalHasElement RegexFullMatch StringConcat StringNormalizer StringSplit "
    "TfIdfVectorizer SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength "
    "SequenceMap SplitToSequence ConcatFromSequence"
)
LARGEST = 3000


def uses() -> Iterator[Use]:
    """All uses, in an order that stays."""
    for place, family in enumerate(FAMILIES):
        for draft in family(Maker(place)):
            yield from spread(draft)
    for draft in tests_of_onnx():
        yield from spread(draft)


@cache
def tests_of_onnx() -> tuple[Draft, ...]:
    """The settings in ONNX's tests of single operators, with values of our own for the floats where that is safe."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    drafts, seen = [], set()
    for case in cases:
        if case.model is None or len(case.model.graph.node) != 1 or not case.data_sets:
            continue
        node = case.model.graph.node[0]
        if node.domain not in ("", "ai.onnx") or node.op_type in OUT_OF_SCOPE or "training" in case.name:
            continue
        draft = _draft(case.model, node, case.data_sets[0][0])
        if draft is not None and (key := _key(draft)) not in seen:
            seen.add(key)
            drafts.append(draft)
    return tuple(drafts)


def _draft(model: onnx.ModelProto, node: onnx.NodeProto, arrays: list[object]) -> Draft | None:
    """The node of a test as a draft, from the opset of the test on and before, as far as the attributes go."""
    fed = dict(zip((info.name for info in model.graph.input), arrays, strict=False))
    inputs: list[Operand | None] = []
    for place, name in enumerate(node.input):
        array = fed.get(name)
        if name and not isinstance(array, np.ndarray | np.generic):
            return None
        if name:
            array = np.asarray(array)
            if array.size > LARGEST or array.dtype.kind not in "fiub":
                return None
            role = "data" if place == 0 else "weight" if array.dtype.kind == "f" else "index"
        inputs.append(Operand(np.asarray(array), role) if name else None)
    attributes = {}
    for item in node.attribute:
        value = helper.get_attribute_value(item)
        value = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
        attributes[item.name] = value.decode() if isinstance(value, bytes) else value
    held = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    since = max(s.since_version for s in versions(node.op_type) if s.since_version <= held[0])
    outputs = tuple(bool(name) for name in node.output)
    negative = any(np.any(np.asarray(v) < 0) for k, v in attributes.items() if k in ("axis", "axes"))
    first = 7
    if node.op_type in ("Cast", "CastLike"):
        first = since  # what it may cast to came bit by bit
    elif negative or node.op_type == "OneHot":
        first = min(since, 11)
    return Draft(node.op_type, tuple(inputs), attributes, outputs, since=first)


def _key(draft: Draft) -> tuple[object, ...]:
    shapes = tuple(None if o is None else (o.array.shape, str(o.array.dtype)) for o in draft.inputs)
    settings = tuple(sorted((key, str(value)) for key, value in draft.attributes.items()))
    ints = tuple(o.array.tobytes() for o in draft.inputs if o is not None and o.array.dtype.kind != "f")
    return draft.op, shapes, settings, ints, draft.outputs
