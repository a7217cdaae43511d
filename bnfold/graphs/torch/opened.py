"""A PyTorch model that is ready to be converted: its program, the model itself to compare with, and what to call it.

Decisions. A module in training mode is refused rather than converted: what it computes depends on the batch. With
`assume_eval` a copy of it is put into evaluation mode. The program is what is folded or exported; the reference is the
model as it was given, run by PyTorch without any trace of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, SymIntArgument, TensorArgument
from torch.nn.modules.dropout import _DropoutNd

from bnfold.errors import ModelError, UsageError
from bnfold.graphs.families import factory_name
from bnfold.graphs.torch.copies import deep_copy
from bnfold.graphs.torch.dynamic import dynamic_axes
from bnfold.graphs.torch.eager import Function
from bnfold.graphs.torch.examples import Array, example_arguments, parameters
from bnfold.graphs.torch.exported import evaluated, functional, in_training, trains
from bnfold.graphs.torch.fold import attempt
from bnfold.graphs.torch.onnx_export import to_onnx
from bnfold.graphs.torch.reading import branching, has_autocast, written_parameters
from bnfold.graphs.torch.scripts import program_of_script
from bnfold.graphs.torch.sources import read
from bnfold.graphs.torch.tracing import arguments, check, traced
from bnfold.graphs.torch.weights import load_weights

FRAMEWORK = f"PyTorch {torch.__version__}"
_MOST_NAMED = 3
_NORMS = ("BatchNorm", "SyncBatchNorm")
Shape = tuple[int | None, ...]
Signature = tuple[str, str, Shape]


@dataclass(frozen=True)
class Request:
    """What a caller says of a model beside where it is.

    Attributes:
        weights: a file of weights for a module.
        trust_pickle: whether code in a pickled module may run.
        example_inputs: what a module is traced on: a tensor, a tuple of arguments or a mapping of named ones.
        input_shapes: in place of those, shapes by parameter of the forward ("" for the first).
        input_types: names of their types, where these are not those of the weights.
        arrays: test data, by parameter of the forward; values for these inputs, and shapes where no others are given.
        dynamic_shapes: as torch.export takes it; a string in place of an axis names it, None stands for no name.
        assume_eval: whether a model in training mode is taken in evaluation mode.
    """

    weights: Path | None = None
    trust_pickle: bool = False
    example_inputs: Any = None
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)
    input_types: Mapping[str, str] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)
    dynamic_shapes: Any = None
    assume_eval: bool = False


@dataclass(frozen=True)
class Place:
    """What to call a model, what its caller named it by (None if in memory), and the file that it was read from."""

    name: str
    text: str | None = None
    path: Path | None = None


@dataclass(frozen=True, eq=False)
class Opened:
    """A program with the function that it stands for.

    Attributes:
        place: where it was found.
        is_stored: whether that file holds the program itself.
        is_traced_on_shapes: whether the caller's shapes are those of the trace.
        function: the model as it was given, on arrays.
        explicit: the program with the casts written out that `autocast` makes, which makes none in float64.
        widened: what is run in float64: the function, or the explicit program in place of one with `autocast`, or of
            TorchScript, whose constants cannot be widened.
        inputs, outputs: its tensors: name, type ("float32") and shape, with None for a size that is open.
        test_shapes: per input, sizes for test data; None where the first axis is free.
        notes: remarks for the user.
        dynamic_shapes, input_names: what the exporter needs to keep names.
    """

    place: Place
    program: ExportedProgram
    explicit: ExportedProgram
    function: Function
    widened: Function
    inputs: tuple[Signature, ...]
    outputs: tuple[Signature, ...]
    test_shapes: tuple[Shape, ...]
    is_stored: bool = False
    is_traced_on_shapes: bool = False
    notes: tuple[str, ...] = ()
    dynamic_shapes: Any = None
    input_names: list[str] | None = None

    @property
    def coarsest_step(self) -> float:
        """The relative step of the coarsest floating-point type that a value in the program has."""
        tensors = (node.meta.get("val") for node in self.program.graph.nodes)
        types = {tensor.dtype for tensor in tensors if isinstance(tensor, torch.Tensor)}
        return max((torch.finfo(dtype).eps for dtype in types if dtype.is_floating_point), default=0.0)

    def onnx(self) -> Any:
        """The model as a torch.onnx.ONNXProgram. Raises what `to_onnx` raises."""
        return to_onnx(self.program, self.place.name, self.dynamic_shapes, self.input_names)

    def function_of(self, program: ExportedProgram) -> Function:
        """Another program of the same inputs as a function. Raises ModelError if PyTorch cannot run it."""
        return replace(
            self.function, call=attempt(f"{self.place.name}: PyTorch cannot run the program", program.module)
        )


def open_source(source: Any, request: Request) -> Opened:
    """A module, a program, a path to a file of PyTorch's, or "package.module:factory", made ready.

    Raises:
        ModelError: if it cannot be read, made, loaded or traced, or is in training mode.
        UsageError: if example inputs are lacking, or something is given that does not go with the source.
    """
    notes: tuple[str, ...] = ()
    model, place = source, Place(f"the {type(source).__name__}")
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        place = Place(text, text, None if factory_name(source) else Path(text))
        model = read(source, trust_pickle=request.trust_pickle)
    if request.weights is not None:
        if place.path is not None or not isinstance(model, nn.Module):
            raise UsageError(f"weights are for package.module:factory; {place.name} has its own")
        if place.text is None:
            raise UsageError("weights are for package.module:factory; load them into the module with load_state_dict")
        notes += load_weights(model, request.weights)
    if isinstance(model, ExportedProgram):
        return _open_program(model, place, request)
    if isinstance(model, torch.jit.ScriptModule):
        script: Any = _in_evaluation(model, place.name, request)
        return _open_script(script, place, request)
    check(model)
    return _open_module(_in_evaluation(model, place.name, request), place, request, notes)


def _open_module(module: nn.Module, place: Place, request: Request, notes: tuple[str, ...]) -> Opened:
    args, kwargs = _arguments(module, request)
    names = [item.name for item in parameters(module)][: len(args)] + list(kwargs)
    axes = dynamic_axes(request.dynamic_shapes, names)
    program = axes.trace(lambda shapes: traced(module, args, kwargs, shapes))
    is_traced_on_shapes = request.example_inputs is None
    return _opened(
        place,
        program,
        module,
        notes=notes,
        dynamic_shapes=axes.labelled,
        is_traced_on_shapes=is_traced_on_shapes,
    )


def _open_script(script: torch.jit.ScriptModule, place: Place, request: Request) -> Opened:
    args, kwargs = _arguments(script, request)
    names = [item.name for item in parameters(script)]
    if kwargs:
        raise UsageError(f"{place.name}: TorchScript is converted on positional arguments; give the shapes of {names}")
    inputs = names[: len(args)]
    axes = dynamic_axes(request.dynamic_shapes, inputs)

    def positional(shapes: Any) -> Any:
        return tuple(shapes.values()) if isinstance(shapes, Mapping) else shapes

    program = axes.trace(lambda shapes: program_of_script(script, args, positional(shapes)))
    return _opened(
        place,
        program,
        script,
        dynamic_shapes=positional(axes.labelled),
        input_names=inputs,
        is_traced_on_shapes=request.example_inputs is None,
    )


def _open_program(program: ExportedProgram, place: Place, request: Request) -> Opened:
    if request.example_inputs is not None or request.dynamic_shapes is not None:
        raise UsageError(f"{place.name}: example inputs and dynamic axes are for a module; a program has its own")
    training = [node.name for node in program.graph.nodes if trains(node)]
    if training and not request.assume_eval:
        raise _in_training(place.name, training, "export it again after model.eval()")
    program, given = evaluated(program), program
    model = attempt(f"{place.name}: PyTorch cannot run it", program.module)
    return _opened(place, program, model, is_stored=place.path is not None and program is given)


def _opened(
    place: Place,
    program: ExportedProgram,
    model: nn.Module,
    **rest: Any,
) -> Opened:
    leaves: list[Any] = []
    inputs: list[Signature] = []
    shapes: list[Shape] = []
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    for spec in program.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            continue
        if isinstance(spec.arg, ConstantArgument):
            leaves.append(spec.arg.value)
        elif isinstance(spec.arg, TensorArgument):
            tensor: Any = values[spec.arg.name]
            leaves.append(tensor.dtype)
            inputs.append(_signature(spec.arg.name, tensor))
            shapes.append(_test_shape(tensor, program))
        else:
            raise ModelError(f"{place.name}: its input '{spec.arg.name}' is no tensor; bnfold feeds tensors only")
    spec = program.call_spec.in_spec
    if spec is None:
        raise ModelError(f"{place.name}: the program does not say how it is called; export it with torch.export.export")
    outputs = _results(program)
    kept = written_parameters(program), branching(program)
    function = Function(model, tuple(leaves), spec, tuple(outputs), place.name, *kept)
    explicit = functional(program) if has_autocast(program) else program
    loose = explicit is not program or isinstance(model, torch.jit.ScriptModule)
    widened = replace(function, call=explicit.module()) if loose else function
    return Opened(
        place, program, explicit, function, widened, tuple(inputs), tuple(outputs.values()), tuple(shapes), **rest
    )


def _results(program: ExportedProgram) -> dict[int, Signature]:
    """What a program hands to its user that is no constant, by its place among all that it hands out."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    specs = [spec.arg for spec in program.graph_signature.output_specs if spec.kind is OutputKind.USER_OUTPUT]
    found: dict[int, Signature] = {}
    for place, arg in enumerate(specs):
        if isinstance(arg, TensorArgument):
            tensor: Any = values[arg.name]
            found[place] = _signature(arg.name, tensor)
        elif isinstance(arg, SymIntArgument):
            found[place] = (arg.name, "int64", ())
    return found


def _signature(name: str, tensor: torch.Tensor) -> Signature:
    sizes = tuple(size if isinstance(size, int) else None for size in tensor.shape)
    return name, str(tensor.dtype).removeprefix("torch."), sizes


def _test_shape(tensor: torch.Tensor, program: ExportedProgram) -> Shape:
    """Sizes for test data: those of the trace, and None for a first axis that may have any size from 1 to 3."""
    shape: list[int | None] = []
    for axis, size in enumerate(tensor.shape):
        if isinstance(size, int):
            shape.append(size)
            continue
        inner: Any = size
        bounds = program.range_constraints.get(inner.node.expr)
        free = axis == 0 and bounds is not None and bounds.lower <= 1 and bounds.upper >= 3
        shape.append(None if free else int(inner.node.hint))
    return tuple(shape)


def _arguments(module: nn.Module, request: Request) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if request.example_inputs is not None:
        return arguments(request.example_inputs)
    open_axes = request.dynamic_shapes if isinstance(request.dynamic_shapes, Mapping) else {}
    dynamic = {name: axes for name, axes in open_axes.items() if isinstance(axes, Mapping)}
    return example_arguments(module, request.input_shapes, request.input_types, dynamic, request.arrays)


def _in_evaluation(module: nn.Module, name: str, request: Request) -> nn.Module:
    """The module, or a copy of it in evaluation mode on request; ModelError if it is in training mode otherwise."""
    if not _is_training(module):
        return module
    if not request.assume_eval:
        layers = [(path, layer) for path, layer in module.named_modules() if _kind(layer).startswith(_NORMS)]
        norms = [path for path, layer in layers if _is_training(layer)]
        raise _in_training(name, norms, "call eval() on it")
    return deep_copy(module, name).eval()


def _is_training(module: nn.Module) -> bool:
    """Whether a module, or a layer in it whose mode matters, is in training mode."""
    if isinstance(module, fx.GraphModule):
        return in_training(module)
    layers = [module, *(layer for layer in module.modules() if _kind(layer).startswith((*_NORMS, "Dropout")))]
    return any(getattr(layer, "training", False) for layer in layers)


def _kind(layer: nn.Module) -> str:
    """The name of a layer's class, of the scripted one in TorchScript."""
    if isinstance(layer, _DropoutNd):
        return "Dropout"
    return str(getattr(layer, "original_name", type(layer).__name__))


def _in_training(name: str, norms: Sequence[str], advice: str) -> ModelError:
    named = ", ".join(norms[:_MOST_NAMED]) + (", ..." if len(norms) > _MOST_NAMED else "")
    which = f", with {len(norms)} BatchNorm{'s' * (len(norms) != 1)} ({named})" if norms else ""
    return ModelError(
        f"{name} is in training mode{which}: {advice}, or give --assume-eval (assume_eval=True) to convert it as "
        "if that had been done"
    )
