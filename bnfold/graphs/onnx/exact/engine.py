"""A document run in float64, whatever floating-point types it declares.

Every weight and input is widened to float64, casts between floating-point types do nothing, and nothing is rounded in
between: two models run so differ by their functions and by the rounding of their stored weights alone. What is computed
from weights alone is a constant like these, rounded as the model says (`fixed`).

Decisions. Values are dropped after their last reader. A run is bounded: it looks at the clock between nodes, and
models with more than `MOST_PARAMETERS` are not begun. Model-local functions are written out first, and values inside
bodies go by their names from outside (see `paths`). What cannot be run raises `CannotRun` with the reason; a result in
less than float64 counts as that.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from bnfold.graphs.onnx.document import Document
from bnfold.graphs.onnx.exact.fixed import Fixed
from bnfold.graphs.onnx.exact.kernels import BORROWED, FLOATS, WRITTEN, CannotRun, unlike, widened
from bnfold.graphs.onnx.exact.rounding import Rounding
from bnfold.graphs.onnx.exact.steps import RELATIVE_STEP, coarsest
from bnfold.graphs.onnx.exact.windows import Array
from bnfold.graphs.onnx.functions import inlined
from bnfold.graphs.onnx.index import graphs_of, is_foreign
from bnfold.graphs.onnx.inferred import sizes_of
from bnfold.graphs.onnx.paths import spell_out_paths

MOST_PARAMETERS = 2**28

# Operators whose result jumps where an operand changes by the least: on floats, rounding can move it by a whole step.
_JUMPING = frozenset(
    {
        *("ArgMax", "ArgMin", "Ceil", "Equal", "Floor", "Greater", "GreaterOrEqual", "Hardmax", "Less", "LessOrEqual"),
        *("Mod", "NonZero", "OneHot", "Round", "Sign", "ThresholdedRelu", "TopK"),
    }
)

_INPUTS_MAY_HAVE_DEFAULTS = 4  # IR version; before, every weight is an input
_SIZED = ("Range", "Resize", "Upsample")  # their floating-point constants decide sizes

_HOLDING = frozenset({"If", "Loop", "Scan"})
_UNKNOWN = "this operator has no implementation in float64 here"

Values = dict[str, Any]
Declared = tuple[str, str, tuple[int | str | None, ...]]
"""Name, type and shape of an input or output."""
Watch = Callable[[str, Array], None]
"""Called with the name and the elements of a value as soon as it is computed."""


@dataclass(frozen=True)
class _Run:
    """What is the same for all nodes of a run; `inside` says whether values inside bodies are watched, too.

    `moved` are the values that were computed from `weights`.
    """

    deadline: float = math.inf
    weights: Mapping[str, Array] = field(default_factory=dict)
    watch: Watch | None = None
    inside: bool = False
    rounding: Rounding | None = None
    moved: set[str] = field(default_factory=set)

    def check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise CannotRun("the time set for it is over")


class Engine:
    """A model that is ready to run in float64.

    Attributes:
        document: what it runs, model-local functions written out.
        inputs, outputs: what the graph asks for and gives; the type of what is no tensor is in brackets.
        jumps: whether a run so far met an operator that is not continuous in floating-point operands.
        taken: of every If that a run came by, which of its branches it took.

    Raises:
        CannotRun: if the model is too large, or of a form that is not understood.
    """

    def __init__(self, document: Document) -> None:
        if document.model.functions:
            document = inlined(document) or document
        graph = document.model.graph
        if graph.sparse_initializer:
            raise CannotRun("a sparse weight")
        try:
            spell_out_paths(graph)
        except ValueError as error:
            raise CannotRun(str(error)) from None
        self.document = document
        self.jumps = False
        self.taken: dict[str, set[str]] = {}
        self._showing = 0
        self._tensors = {tensor.name: tensor for part in (graph, *bodies(graph.node)) for tensor in part.initializer}
        parameters = sum(math.prod(tensor.dims) for tensor in self._tensors.values())
        if parameters > MOST_PARAMETERS:
            raise CannotRun(f"{parameters / 1e6:.0f} million parameters are more than it holds in float64")
        self._weights: Values = {}
        opsets = {item.domain: item.version for item in document.model.opset_import}
        self._opset = opsets.get("", opsets.get("ai.onnx", 1))
        given = {info.name for info in graph.input} if document.model.ir_version >= _INPUTS_MAY_HAVE_DEFAULTS else set()
        self._fixed = Fixed(with_bodies(graph.node), self._tensors.keys() - given, self.stored, self._opset)
        try:
            self.inputs = tuple(_declared(info for info in graph.input if info.name not in self._tensors))
            self.outputs = tuple(_declared(graph.output))
        except KeyError:
            raise CannotRun("an input or output is of an element type that is not known") from None
        self._borrowed: dict[int, Any] = {}

    @property
    def foreign(self) -> str | None:
        """The type of the first operator in the main graph that is none of the standard; every run fails there."""
        return next((node.op_type for node in self.document.model.graph.node if is_foreign(node)), None)

    @cached_property
    def lacking(self) -> str | None:
        """The first node of the main graph that cannot be run, and why, if there is one; then no run is begun."""
        for node in self.document.model.graph.node:
            if is_foreign(node):
                return f"{_called(node)} is of the domain {node.domain}"
            if node.op_type not in WRITTEN and node.op_type not in BORROWED and node.op_type not in _HOLDING:
                return f"{_called(node)}: {_UNKNOWN}"
        return None

    def run(
        self,
        feeds: Mapping[str, Array],
        *,
        deadline: float = math.inf,
        weights: Mapping[str, Array] | None = None,
        watch: Watch | None = None,
        inside: bool = False,
        rounding: Rounding | None = None,
    ) -> dict[str, Array]:
        """The outputs by name; the elements of a sequence `s` are `s[0]`, `s[1]` and so on.

        `weights` are put in place of stored ones; `deadline` is a time of `time.monotonic()`. With `inside`, values of
        bodies are watched like those of the main graph, and bodies that this run has no use for are run, too. With
        `rounding`, inputs and all that is computed are moved by it.
        """
        if self.lacking is not None:
            raise CannotRun(self.lacking)
        graph = self.document.model.graph
        outputs = [info.name for info in graph.output]
        if rounding is not None:
            feeds = {name: rounding.moved(widened(value)) for name, value in feeds.items()}
        values = self._part(graph.node, outputs, feeds, _Run(deadline, weights or {}, watch, inside, rounding))
        result: dict[str, Array] = {}
        for name in outputs:
            if isinstance(values[name], list):
                result.update({f"{name}[{i}]": element for i, element in enumerate(values[name])})
            else:
                result[name] = values[name]
        return result

    def part(
        self,
        nodes: Sequence[onnx.NodeProto],
        wanted: Iterable[str],
        feeds: Mapping[str, Any],
        *,
        deadline: float = math.inf,
        weights: Mapping[str, Array] | None = None,
        watch: Watch | None = None,
    ) -> Values:
        """The wanted values, from these nodes, of the main graph or bodies, in this order and the values fed."""
        return self._part(nodes, list(wanted), feeds, _Run(deadline, weights or {}, watch))

    def _part(
        self, nodes: Sequence[onnx.NodeProto], wanted: Sequence[str], feeds: Mapping[str, Any], run: _Run
    ) -> Values:
        values: Values = {
            name: [widened(element) for element in value] if isinstance(value, list) else widened(value)
            for name, value in feeds.items()
        }
        left = Counter(name for node in nodes for name in needs(node))
        left.update(wanted)
        for node in nodes:
            run.check_time()
            names = needs(node)
            for name in names:
                if name not in values:
                    values[name] = self._weight(name, run.weights)
            for name, value in zip(node.output, self._results(node, values, run), strict=False):
                if name:
                    values[name] = value
                    _watched(run.watch, name, value)
            left.subtract(names)
            for name in (*names, *node.output):
                if not left[name]:
                    values.pop(name, None)
        return {name: values[name] if name in values else self._weight(name, run.weights) for name in wanted}

    def _weight(self, name: str, instead: Mapping[str, Array]) -> Array:
        if name in instead:
            return instead[name]
        if name not in self._weights:
            if name not in self._tensors and name not in self._fixed:
                raise CannotRun(f"the value '{name}' is not fed")
            value = self.stored(name) if name in self._tensors else self._fixed.get(name)
            if value is None:
                raise CannotRun(f"the constant '{name}' is computed in a way that is not understood")
            self._weights[name] = widened(value)
        return np.asarray(self._weights[name])

    def stored(self, name: str) -> Array:
        """A weight as it is stored."""
        tensor = self._tensors[name]
        payload = self.document.payloads.get(name)
        try:
            if payload is None:
                return onnx.numpy_helper.to_array(tensor)
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            return np.frombuffer(payload.read(), dtype).reshape(tuple(tensor.dims))
        except Exception:  # onnx raises what it likes on data of another size, segments, unknown types
            raise CannotRun(
                f"the weight '{name}' is stored in a packed form, or not as its type and shape say"
            ) from None

    def is_weight(self, name: str) -> bool:
        """Whether a value is a weight of the main graph or of a body."""
        return name in self._tensors

    def is_constant(self, name: str) -> bool:
        """Whether a value is a weight, or is computed from weights alone."""
        return name in self._tensors or name in self._fixed

    def constant(self, name: str) -> Array | None:
        """A constant in its own type; None where it cannot be computed."""
        return self.stored(name) if name in self._tensors else self._fixed.get(name)

    def makers(self, names: Iterable[str]) -> list[onnx.NodeProto]:
        """The nodes that compute these values from weights alone, as far as they are computed so, in order."""
        return self._fixed.makers(names)

    def elem_type(self, name: str) -> int:
        """The element type of a constant: that in which a weight is stored; 0 where it is not known."""
        if name in self._tensors:
            return self._tensors[name].data_type
        value = self._fixed.get(name)
        return 0 if value is None else onnx.helper.np_dtype_to_tensor_dtype(value.dtype)

    def coarser_than_outputs(self) -> set[str]:
        """The floating-point weights that are stored in a coarser type than an output has."""
        outputs = {info.type.tensor_type.elem_type for info in self.document.model.graph.output}
        finest = min((RELATIVE_STEP[kind] for kind in outputs & RELATIVE_STEP.keys()), default=math.inf)
        types = {name: tensor.data_type for name, tensor in self._tensors.items()}
        return {name for name, kind in types.items() if RELATIVE_STEP.get(kind, 0.0) > finest}

    def is_rounding(self, name: str, exact: Array) -> bool:
        """Whether a weight, as it is stored, is this one rounded to its type."""
        dtype = onnx.helper.tensor_dtype_to_np_dtype(self.elem_type(name))
        with np.errstate(over="ignore", invalid="ignore"):
            return np.array_equal(widened(self.stored(name)), widened(exact.astype(dtype)))

    def nudged(self, rng: np.random.Generator) -> Values:
        """The floating-point weights, each moved up or down by up to half a step of the type it is stored in.

        What says how large a result is stays: moved, a factor of 2 would make it smaller by one.
        """
        graph = self.document.model.graph
        nodes = [node for part in (graph, *bodies(graph.node)) for node in part.node]
        sizes = {name for node in nodes if node.op_type in _SIZED for name in node.input}
        out: Values = {}
        for name, tensor in self._tensors.items():
            if tensor.data_type in FLOATS and name not in sizes:
                weight = self._weight(name, {})
                step = RELATIVE_STEP[tensor.data_type]
                out[name] = weight * (1 + step / 2 * rng.uniform(-1, 1, weight.shape))
        return out

    def rounding(self, rng: np.random.Generator) -> Rounding:
        """Rounding to the coarsest floating-point type of the weights and inputs."""
        types = {tensor.data_type for tensor in self._tensors.values()}
        types |= {info.type.tensor_type.elem_type for info in self.document.model.graph.input}
        return Rounding(coarsest(types), rng)

    def _results(self, node: onnx.NodeProto, values: Values, run: _Run) -> list[Any]:
        if any(name in run.weights or name in run.moved for name in node.input):
            run.moved.update(node.output)
        elif node.output and node.output[0] in self._fixed and run.rounding is None:
            known = [self._fixed.get(name) if name else None for name in node.output]
            if all(value is not None or not name for name, value in zip(node.output, known, strict=True)):
                return [None if value is None else widened(value) for value in known]
        return self._node(node, values, run)

    def _node(self, node: onnx.NodeProto, values: Values, run: _Run) -> list[Any]:
        what = _called(node)
        if is_foreign(node):
            raise CannotRun(f"{what} is of the domain {node.domain}")
        try:
            with np.errstate(all="ignore"):
                results = self._computed(node, values, run)
        except CannotRun as error:
            raise CannotRun(f"{what}: {error}" if "node '" not in str(error) else str(error)) from None
        except Exception as error:  # implementations raise what they like; none of it is an answer
            reason = " ".join(str(error).split())[:200]
            raise CannotRun(f"{what}: {type(error).__name__}: {reason}") from error
        if run.rounding is not None:
            results = run.rounding.of(node, [values.get(name) for name in node.input], results)
        for result in results:
            if isinstance(result, np.ndarray | np.generic) and result.dtype.kind == "f" and result.dtype != np.float64:
                raise CannotRun(f"{what} is computed in {result.dtype} only")
        return results

    def _computed(self, node: onnx.NodeProto, values: Values, run: _Run) -> list[Any]:
        opset = self._opset
        inputs = [values[name] if name else None for name in node.input]
        self.jumps = self.jumps or _jumps(node, inputs)
        if node.op_type == "If":
            taken, other = ("then_branch", "else_branch") if inputs[0] else ("else_branch", "then_branch")
            if not self._showing:
                self.taken.setdefault(_called(node), set()).add(taken)
            self._show(_attribute(node, other), [], values, run)
            return self._body(_attribute(node, taken), [], values, run)
        if node.op_type == "Loop":
            return self._loop(_attribute(node, "body"), inputs, values, run)
        if node.op_type == "Scan" and opset >= 9:  # before, it had a batch
            return self._scan(node, inputs, values, run)
        if node.op_type in WRITTEN:
            attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            result = WRITTEN[node.op_type](attributes, inputs, opset, len(node.output))
            return result if isinstance(result, list) else [np.asarray(result)]
        if node.op_type in BORROWED:
            different = unlike(node.op_type, (item.name for item in node.attribute), inputs)
            if different is not None:
                raise CannotRun(f"{different}: this operator has no implementation in float64 here for that")
            return [_as_value(result) for result in self._reference(node, opset).run(*inputs)]
        raise CannotRun(_UNKNOWN)

    def _reference(self, node: onnx.NodeProto, opset: int) -> Any:
        """The implementation of a node that onnx has; kept, since making one reads the schema."""
        from onnx.reference.ops import load_op

        if id(node) not in self._borrowed:
            settings = {
                "log": lambda *_: None,
                "opsets": {"": opset},
                "verbose": 0,
                "new_ops": None,
                "evaluator_cls": None,
            }
            self._borrowed[id(node)] = (load_op("", node.op_type, opset)(node, settings), node)
        return self._borrowed[id(node)][0]

    def _body(self, graph: onnx.GraphProto, inputs: Sequence[Any], values: Values, run: _Run) -> list[Any]:
        scope = dict(values)
        watch = run.watch if run.inside else None
        for tensor in graph.initializer:
            scope[tensor.name] = self._weight(tensor.name, run.weights)
        for info, value in zip(graph.input, inputs, strict=True):
            scope[info.name] = value
            _watched(watch, info.name, value)
        for node in graph.node:
            run.check_time()
            for name, value in zip(node.output, self._results(node, scope, run), strict=False):
                scope[name] = value
                _watched(watch, name, value)
        return [scope[info.name] for info in graph.output]

    def _show(self, graph: onnx.GraphProto, inputs: Sequence[Any], values: Values, run: _Run) -> None:
        """Run a body for nobody but those who watch; one that does not run on these values shows no more of them."""
        if run.inside:
            self._showing += 1
            with contextlib.suppress(CannotRun):
                self._body(graph, inputs, values, run)
            self._showing -= 1

    def _loop(self, graph: onnx.GraphProto, inputs: list[Any], values: Values, run: _Run) -> list[Any]:
        trips, go_on, *carried = inputs
        state, scans = carried, [[] for _ in graph.output[1 + len(carried) :]]  # type: tuple[list[Any], list[list[Any]]]
        go_on, count = np.asarray(True) if go_on is None else go_on, 0
        while bool(go_on) and (trips is None or count < int(trips)):
            go_on, *made = self._body(graph, [np.asarray(count), np.asarray(go_on), *state], values, run)
            state = made[: len(state)]
            for column, value in zip(scans, made[len(state) :], strict=True):
                column.append(value)
            count += 1
        if not count:
            self._show(graph, [np.asarray(0), np.asarray(True), *state], values, run)
        return [*state, *(np.stack(column) for column in scans)]

    def _scan(self, node: onnx.NodeProto, inputs: list[Any], values: Values, run: _Run) -> list[Any]:
        body, given = _attribute(node, "body"), {item.name: item for item in node.attribute}
        count = given["num_scan_inputs"].i
        state, sequences = inputs[:-count], inputs[-count:]
        axes, back = _per_sequence(given, "input", count)
        out_axes, out_back = _per_sequence(given, "output", len(body.output) - len(state))
        scans: list[list[Any]] = [[] for _ in out_axes]
        (length,) = {array.shape[axis] for array, axis in zip(sequences, axes, strict=True)}
        for step in range(length):
            pieces = [
                np.take(array, length - 1 - step if reverse else step, axis)
                for array, axis, reverse in zip(sequences, axes, back, strict=True)
            ]
            made = self._body(body, [*state, *pieces], values, run)
            state = made[: len(state)]
            for column, value in zip(scans, made[len(state) :], strict=True):
                column.append(value)
        columns = [column[::-1] if reverse else column for column, reverse in zip(scans, out_back, strict=True)]
        return [*state, *(np.stack(column, axis) for column, axis in zip(columns, out_axes, strict=True))]


def _per_sequence(given: Mapping[str, onnx.AttributeProto], side: str, count: int) -> tuple[list[int], list[int]]:
    """The axes of what a Scan takes or gives piece by piece, and which of it runs backwards."""
    found = [given.get(f"scan_{side}_{what}") for what in ("axes", "directions")]
    axes, directions = ([0] * count if item is None else list(item.ints) for item in found)
    return axes, directions


def _declared(infos: Iterable[onnx.ValueInfoProto]) -> Iterator[Declared]:
    """What is said of inputs or outputs. Raises KeyError for an element type that onnx does not know."""
    for info in infos:
        kind = info.type.tensor_type
        if not info.type.HasField("tensor_type"):
            yield info.name, f"({info.type.WhichOneof('value')})", ()
            continue
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        yield info.name, "string" if dtype.kind in "OUS" else dtype.name, sizes_of(kind.shape)


def _watched(watch: Watch | None, name: str, value: Any) -> None:
    if watch is not None and isinstance(value, np.ndarray):
        watch(name, value)


def needs(node: onnx.NodeProto) -> list[str]:
    """What a node reads of the graph that holds it, its bodies included; each name once."""
    names = [name for name in node.input if name]
    for body in graphs_of(node):
        inner = {info.name for info in body.input} | {tensor.name for tensor in body.initializer}
        for deep in body.node:
            names += [name for name in needs(deep) if name not in inner]
            inner.update(deep.output)
        names += [info.name for info in body.output if info.name not in inner]
    return list(dict.fromkeys(names))


def bodies(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    """The bodies of these nodes, and those inside them."""
    for node in nodes:
        for body in graphs_of(node):
            yield body
            yield from bodies(body.node)


def with_bodies(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """These nodes, each after those of its bodies."""
    for node in nodes:
        for body in graphs_of(node):
            yield from with_bodies(body.node)
        yield node


def _called(node: onnx.NodeProto) -> str:
    return f"node '{node.name or next(iter(node.output), '')}' ({node.op_type})"


def _attribute(node: onnx.NodeProto, name: str) -> onnx.GraphProto:
    return next(item.g for item in node.attribute if item.name == name)


def _jumps(node: onnx.NodeProto, inputs: Sequence[Any]) -> bool:
    if not any(isinstance(value, np.ndarray) and value.dtype == np.float64 for value in inputs):
        return False
    to_integer = node.op_type == "Cast" and all(item.i not in FLOATS for item in node.attribute if item.name == "to")
    return to_integer or node.op_type in _JUMPING


def _as_value(result: Any) -> Any:
    return result if isinstance(result, list) else np.asarray(result)
