"""From a program to the ONNX model that torch's exporter makes of it.

Decisions. `optimize=False`: with it on, the exporter folds BatchNorms on its own, and the account of this conversion
would begin after that (a test holds it). Names of inputs and of dynamic axes are handed on. For a convolution over
volumes that has no bias, the exporter writes one of zeros with an axis too many, which no runtime takes; it goes.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

import torch
from torch.export import ExportedProgram

from bnfold.errors import MissingDependency, ModelError
from bnfold.graphs.torch.fold import first_line, quietly

_NODE = re.compile(r"translating node %(\w+)")


def to_onnx(program: ExportedProgram, what: str, dynamic_shapes: Any, input_names: list[str] | None) -> Any:
    """The torch.onnx.ONNXProgram of a program; `dynamic_shapes` are those that it was traced with, for their names.

    Raises ModelError where the exporter fails, MissingDependency without the onnxscript that it needs.
    """
    check_exporter()
    try:
        with quietly():
            exported: Any = torch.onnx.export(
                program,
                dynamo=True,
                optimize=False,
                verbose=False,
                dynamic_shapes=dynamic_shapes,
                input_names=input_names,
            )
            _drop_misshapen_biases(exported.model.graph)
            return exported
    except Exception as error:  # the exporter wraps whatever its parts raise, with advice on how to report it
        chain = _causes(error)
        node = next((found[1] for item in chain if (found := _NODE.search(str(item)))), None)
        at = f" at node '{node}'" if node else ""
        raise ModelError(
            f"{what}: the ONNX exporter of PyTorch {torch.__version__} fails{at}: "
            f"{type(chain[-1]).__name__}: {first_line(chain[-1])}"
        ) from error


def _drop_misshapen_biases(graph: Any) -> None:
    for node in list(graph.all_nodes()):
        bias = node.inputs[2] if node.op_type == "Conv" and len(node.inputs) > 2 else None
        if bias is None or not _is_misshapen(bias.producer()):
            continue
        node.resize_inputs(2)
        waiting = [bias.producer()]
        while waiting:
            maker = waiting.pop()
            if maker is not None and maker.graph is not None and not any(value.uses() for value in maker.outputs):
                waiting += [value.producer() for value in maker.inputs if value is not None]
                maker.graph.remove(maker, safe=True)


def _is_misshapen(bias: Any) -> bool:
    """Whether a bias is one number, spread over the concatenation of several sizes."""
    if bias is None or bias.op_type != "Expand":
        return False
    number, sizes = (value.producer() for value in bias.inputs)
    return number is not None and number.op_type == "CastLike" and sizes is not None and sizes.op_type == "Concat"


def check_exporter() -> None:
    """Raises MissingDependency where the exporter lacks the package that it is written with."""
    if find_spec("onnxscript") is None:
        raise MissingDependency('writing a PyTorch model as ONNX needs onnxscript: pip install "bnfold[torch]"')


def _causes(error: BaseException) -> list[BaseException]:
    """An error, what caused it, and so on."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain
