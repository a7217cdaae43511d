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
from bnfold.graphs.onnx.document import EXTERNAL, Computed, Document, Stored
from bnfold.graphs.onnx.external import internalise
from bnfold.graphs.onnx.fold import fold_document
from bnfold.results import Site

Tensors = dict[str, ir.TensorProtocol]


def document_of(model: ir.Model) -> tuple[Document, Tensors]:
    """A document over the caller's model, which is not changed, and the tensors that it shares with it, by name."""
    skeleton = model.clone()
    shared: Tensors = {}
    for name, value in skeleton.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and _is_outside(tensor):
            shared[name] = tensor
            shape = ir.Shape(tensor.shape.numpy())
            value.const_value = ir.ExternalTensor("", None, None, tensor.dtype, shape=shape, name=name)
    _read_inner_tensors(skeleton)
    document = Document(ir.to_proto(skeleton))
    for stub in document.model.graph.initializer:
        if stub.name in shared:
            internalise(stub)
            document.payloads[stub.name] = Stored(shared[stub.name].nbytes, shared[stub.name].tobytes)
    return document, shared


def _is_outside(tensor: ir.TensorProtocol) -> bool:
    """Whether a weight stays out of the skeleton: it is large, or in a file whose folder only the tensor knows."""
    if isinstance(tensor, ir.ExternalTensor):
        return True
    return tensor.dtype != ir.DataType.STRING and tensor.nbytes >= wire.LARGE_BYTES


def _read_inner_tensors(model: ir.Model) -> None:
    """Bring weights of bodies and attributes that lie in files into memory; they are few and small."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if graph is not model.graph and isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
        for node in graph:
            for name, attribute in node.attributes.items():
                if isinstance(attribute.value, ir.ExternalTensor):
                    tensor = attribute.value
                    inner = ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
                    node.attributes[name] = ir.AttrTensor(name, inner)


def model_of(document: Document, shared: Tensors) -> ir.Model:
    """The model in a document whose unfolded large weights are the shared tensors."""
    for stub in document.model.graph.initializer:
        if stub.name in document.payloads:
            stub.data_location = EXTERNAL
    model = ir.from_proto(document.model)
    for name, payload in document.payloads.items():
        value = model.graph.initializers[name]
        if isinstance(payload, Computed):
            value.const_value = ir.tensor(payload.array(), name=name)
        else:
            value.const_value = shared[name]
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
