"""Models of the onnx_ir package: in and out without copying weights, and the fold as one of its passes.

The model is cloned (tensors stay shared), its large weights are replaced by place-holders, and the small message that
serialising gives is folded like any other. Afterwards every weight that no fold named is the caller's own tensor object
again, and a folded one is an array that was computed once.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from bnfold.graphs.onnx import wire
from bnfold.graphs.onnx.document import EXTERNAL, Computed, Document, Stored
from bnfold.graphs.onnx.fold import FoldOptions, fold_document
from bnfold.results import Site

Tensors = dict[str, ir.TensorProtocol]


def document_of(model: ir.Model) -> tuple[Document, Tensors]:
    """A document over the caller's model, which is not changed, and the tensors that it shares with it, by name."""
    skeleton = model.clone()
    shared: Tensors = {}
    for name, value in skeleton.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes >= wire.LARGE_BYTES and tensor.dtype.itemsize >= 1:
            shared[name] = tensor
            shape = ir.Shape(tensor.shape.numpy())
            value.const_value = ir.ExternalTensor("", None, None, tensor.dtype, shape=shape, name=name)
    document = Document(ir.to_proto(skeleton))
    for stub in document.model.graph.initializer:
        if stub.name in shared:
            stub.ClearField("data_location")
            stub.ClearField("external_data")
            document.payloads[stub.name] = Stored(shared[stub.name].nbytes, shared[stub.name].tobytes)
    return document, shared


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

    After `result = FoldBatchNorms()(model)`, `result.model` is the new model, `result.modified` says whether any site
    folded, and the pass's `sites` hold the account of its last call. The options are those of `bnfold.fold`.

    Raises ModelError (wrapped by the pass infrastructure) for a graph that contradicts itself.
    """

    def __init__(
        self,
        *,
        only: Sequence[str] = (),
        skip: Sequence[str] = (),
        freeze_initializers: bool = False,
        assume_eval: bool = False,
    ) -> None:
        self.options = FoldOptions(tuple(only), tuple(skip), freeze_initializers, assume_eval)
        self.sites: tuple[Site, ...] = ()

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        document, shared = document_of(model)
        self.sites = fold_document(document, model.graph.name or "the model", self.options)
        return ir.passes.PassResult(model_of(document, shared), any(site.folded for site in self.sites))
