"""Models of the onnx_ir package: in and out without copying weights, and the fold as one of its passes.

The model is cloned (tensors stay shared), its large weights are replaced by place-holders, and the small message that
serialising gives is folded like any other. Afterwards every weight that no fold named is the caller's own tensor object
again, and a folded one is an array that was computed once.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from bnfold.graphs.account import fold_options
from bnfold.graphs.onnx import wire
from bnfold.graphs.onnx.document import EXTERNAL, Computed, Document, Payload, Stored, weights_of
from bnfold.graphs.onnx.external import internalise
from bnfold.graphs.onnx.fold import fold_document
from bnfold.results import Site

Tensors = dict[Payload, ir.TensorProtocol]


def document_of(model: ir.Model) -> tuple[Document, Tensors]:
    """A document over the caller's model, which is not changed, and the tensors that it shares with it."""
    skeleton = model.clone()
    outside: dict[str, ir.TensorProtocol] = {}
    for name, value in skeleton.graph.initializers.items():
        if value.const_value is not None and _is_outside(value.const_value):
            outside[name] = value.const_value
            value.const_value = _place_holder(name, value.const_value)
    for name, node in _constants(skeleton).items():
        tensor = node.attributes["value"].as_tensor()
        if _is_outside(tensor):
            outside[name] = tensor
            node.attributes["value"] = ir.AttrTensor("value", _place_holder(tensor.name or "", tensor))
    _read_inner_tensors(skeleton)
    document = Document(ir.to_proto(skeleton))
    for name, stub in weights_of(document.model.graph):
        if name in outside:
            internalise(stub)
            document.payloads[name] = Stored(outside[name].nbytes, outside[name].tobytes)
    return document, {document.payloads[name]: tensor for name, tensor in outside.items()}


def _constants(model: ir.Model) -> dict[str, ir.Node]:
    """The Constant nodes of the main graph that may be weights, by the names of what they make."""
    return {
        str(node.outputs[0].name): node
        for node in model.graph
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and len(node.outputs) == 1
        if [*node.attributes] == ["value"] and node.attributes["value"].type == ir.AttributeType.TENSOR
    }


def _place_holder(name: str, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
    return ir.ExternalTensor("", None, None, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name)


def _is_outside(tensor: ir.TensorProtocol) -> bool:
    """Whether a weight stays out of the skeleton: it is large, or in a file whose folder only the tensor knows."""
    if isinstance(tensor, ir.ExternalTensor):
        return True
    return tensor.dtype != ir.DataType.STRING and tensor.nbytes >= wire.LARGE_BYTES


def _read_inner_tensors(model: ir.Model) -> None:
    """Bring weights of bodies and attributes that lie in files into memory; they are few and small."""
    weights = set(_constants(model).values())
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if graph is not model.graph and isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
        for node in graph:
            for name, attribute in node.attributes.items() if node not in weights else ():
                if isinstance(attribute.value, ir.ExternalTensor):
                    tensor = attribute.value
                    inner = ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
                    node.attributes[name] = ir.AttrTensor(name, inner)


def model_of(document: Document, shared: Tensors) -> ir.Model:
    """The model in a document whose unfolded large weights are the shared tensors."""
    for _, stub in document.detached():
        stub.data_location = EXTERNAL
    model = ir.from_proto(document.model)
    constants = _constants(model)
    for name, payload in document.payloads.items():
        tensor = ir.tensor(payload.array(), name=name) if isinstance(payload, Computed) else shared[payload]
        if name in model.graph.initializers:
            model.graph.initializers[name].const_value = tensor
        else:
            constants[name].attributes["value"] = ir.AttrTensor("value", tensor)
    return model


class FoldBatchNorms(ir.passes.FunctionalPass):
    """The fold as a pass: a new model in which every BatchNorm that algebra allows is folded.

    After `result = FoldBatchNorms()(model)`,

    1. `result.model` is a new model; the one that was given is not changed;
    2. a large weight that no fold named is the same tensor object in both;
    3. `result.modified` says whether the new model is another than the old one;
    4. `sites` of the pass holds the account of this call, one `bnfold.Site` each.

    The options are those of `bnfold.fold`.

    Raises:
        ModelError: for a graph that contradicts itself; `ir.passes.Sequential` wraps it in a PassError.
        UsageError: if `only` or `skip` is a single string.
    """

    def __init__(
        self,
        *,
        only: Iterable[str] = (),
        skip: Iterable[str] = (),
        freeze_initializers: bool = False,
        assume_eval: bool = False,
    ) -> None:
        self.options = fold_options(only, skip, freeze_initializers, assume_eval, drawn=True)
        self.sites: tuple[Site, ...] = ()

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        document, shared = document_of(model)
        untouched = document.model.SerializeToString()
        self.sites = fold_document(document, model.graph.name or "the model", self.options)
        modified = document.model.SerializeToString() != untouched
        return ir.passes.PassResult(model_of(document, shared), modified)
