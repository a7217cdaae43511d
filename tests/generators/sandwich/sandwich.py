"""Models in which a use of an operator stands between two partners that a fold would like to bring together.

`make(seed)` is one of `count()` cases. Either data runs through the use, from a BatchNorm, a chain or a linear operator
to another; or all of its inputs are constants, and what it computes becomes a factor, a weight, a parameter or a shape.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import oracle

from generators.sandwich import flow, wrappers
from generators.sandwich.build import Build, Value, finished
from generators.sandwich.use import Array, Use, words

STYLES = ("fixed",) * 12 + ("batch",) * 6 + ("named", "shared", "unnamed", "mixed") * 2 + ("minus",)
# What an affine or its scale may pass, or go into: these stand between partners more often than the others.
PASSED = words(
    "Resize Upsample Pad AveragePool MaxPool GlobalAveragePool GlobalMaxPool Reshape Flatten Squeeze Unsqueeze "
    "Transpose Slice Split Gather GatherND GatherElements Concat Expand Tile DepthToSpace SpaceToDepth Identity "
    "Dropout Where Compress ReverseSequence Trilu CumSum ReduceMean ReduceSum ReduceMax ReduceMin Conv ConvTranspose "
    "Gemm MatMul Einsum LSTM GRU RNN InstanceNormalization GroupNormalization LayerNormalization RMSNormalization "
    "BatchNormalization LRN LpPool Relu LeakyRelu PRelu Abs Neg Add Sub Mul Div Sum Mean Max Min Clip ScatterElements "
    "ScatterND CenterCropPad Col2Im GridSample RoiAlign DeformConv RotaryEmbedding Attention TopK MaxUnpool"
)
OFTEN, SELDOM = 5, 2
NEWEST_IR = 14


@cache
def places() -> tuple[Use, ...]:
    """The use of every seed: the first rounds have all of them, the later ones those that a fold may pass."""
    out: list[Use] = []
    for turn in range(OFTEN):
        out += [use for use in flow.all_uses() if turn < (OFTEN if use.op in PASSED else SELDOM)]
    return tuple(out)


def count() -> int:
    """How many distinct cases there are."""
    return len(places())


def make(seed: int) -> oracle.Case:
    """The case of a seed. Seeds beyond `count()` come back to the same uses with other random numbers."""
    use = places()[seed % count()]
    rng = np.random.default_rng((seed, 20))
    opset = use.opset if rng.random() < 0.5 else int(rng.integers(use.opset, use.last + 1))
    build = Build(rng, opset, _dtype(use, rng), named=bool(rng.random() < 0.7))
    flowing = [place for place, operand in enumerate(use.inputs) if flow.flows(use, operand)]
    running = bool(flowing) and rng.random() < (0.75 if use.op in PASSED else 0.4)
    end, node = flow.flowed(build, use, flowing) if running else flow.constant(build, use)
    if build.chance(0.35):
        end = _afterwards(build, end)
    build.outputs.append(end.name)
    if build.chance(0.04) and build.constants:
        build.outputs.append(build.pick(sorted(build.constants)))  # a weight that is read from outside, too
    style = build.pick(STYLES)
    wrapped = _wrapped(build, node)
    if wrapped and build.chance(0.2):
        wrapped += "".join(f" in a {kind}" for kind in [_wrapped(build, None)] if kind)
    model = finished(build, style, _ir_version(build, wrapped))
    if build.chance(0.12) and style != "minus":
        model = annotated(model)
    if build.chance(0.02):
        for entry in model.opset_import:
            entry.domain = entry.domain or "ai.onnx"  # the other name of the standard domain
    feeds = _feeds(build)
    if style in ("batch", "named", "unnamed") and not wrapped and build.chance(0.4):
        feeds += _resized(build, model)
    text = f"{seed}: {use.text()} at {opset}, {'data' if running else 'constant'}, {style}, {wrapped or 'flat'}"
    return oracle.Case(model, tuple(feeds), text)


def _dtype(use: Use, rng: np.random.Generator) -> np.dtype[np.generic]:
    """The type of the partners: that of the use, but float32 where few runtimes have it."""
    kinds = [o.array.dtype for o in use.inputs if o is not None and o.array.dtype.name in flow.FLOATS]
    kind = kinds[0] if kinds else np.dtype("float32")
    if kind.name == "float64":
        return kind if rng.random() < 0.5 else np.dtype("float32")
    return np.dtype("float32") if kind.name == "bfloat16" else kind


def annotated(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the shapes that inference tells, as many exporters leave them in the file."""
    try:
        return onnx.shape_inference.infer_shapes(model)
    except onnx.shape_inference.InferenceError:
        return model


def _afterwards(build: Build, end: Value) -> Value:
    """One more operator, so that the last partner is not the output itself."""
    build.part = "back"
    op = "Relu" if end.dtype.name in flow.FLOATS and build.chance(0.5) else "Identity"
    return build.add(op, [end], end.shape, end.dtype)


def _wrapped(build: Build, node: onnx.NodeProto | None) -> str:
    """Move the use, and what stands beside it, into a body; what kind of body it was. No node: move a body as well."""
    kinds = ("branch", "branch", "loop", "scan", "function", "function", "function")
    kind = build.pick(("",) * 13 + kinds if node is not None else kinds)
    parts = build.pick(
        (("use",), ("use", "back"), ("back",), ("front", "use"), ("front", "use", "back"), ("use", "back"))
    )
    oldest = {"loop": 8, "scan": 9}.get(kind, 0)
    if not kind or build.opset < oldest or any(name not in build.values for name in build.outputs):
        return ""
    if node is None:
        parts = (*parts, "body")
    taken = wrappers.cut(build, parts)
    if taken is None:
        return ""
    if kind == "branch":
        wrappers.in_branch(build, taken)
    elif kind == "loop":
        wrappers.in_loop(build, taken)
    elif kind == "scan":
        wrappers.in_scan(build, taken)
    else:
        wrappers.in_function(build, taken, node if node is not None and "use" in parts else None)
    return f"{kind} of {'+'.join(parts)}"


def _ir_version(build: Build, wrapped: str) -> int:
    """A version of the file format that may hold the model; before the fourth, initializers are inputs."""
    oldest = 8 if build.functions or build.opset >= 15 else 4 if build.opset >= 9 or wrapped else 3
    if any(array.dtype.name == "bfloat16" for array in build.constants.values()):
        oldest = 8
    return oldest if build.chance(0.15) else int(build.rng.integers(oldest, NEWEST_IR + 1))


def _feeds(build: Build) -> list[dict[str, Array]]:
    """Two sets of inputs: the numbers differ, and so do the conditions."""
    first, second = {}, {}
    for name, array in build.inputs.items():
        first[name] = second[name] = array
        if array.dtype.kind == "b" and array.ndim == 0:
            second[name] = np.array(not array)
        elif array.dtype.name in flow.FLOATS and name.startswith("x"):
            second[name] = (3 * build.rng.normal(size=array.shape)).astype(array.dtype)
    return [first, second]


def _resized(build: Build, model: onnx.ModelProto) -> list[dict[str, Array]]:
    """Inputs of another batch size, where the model takes such."""
    batch = build.between(1, 4)
    feeds = dict(build.inputs)
    for name, array in build.inputs.items():
        if name.startswith("x") and array.ndim:
            feeds[name] = build.data(batch, *array.shape[1:]).astype(array.dtype)
    return [] if isinstance(oracle.run_on_runtime(model, feeds), str) else [feeds]
