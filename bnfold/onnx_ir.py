"""The fold as a pass of the onnx_ir package, which comes with the extra `ir`.

from bnfold.onnx_ir import FoldBatchNorms

result = onnx_ir.passes.Sequential(FoldBatchNorms(), ...)(model)
"""

from __future__ import annotations

try:
    from bnfold.graphs.onnx.ir import FoldBatchNorms
except ModuleNotFoundError as error:
    if error.name != "onnx_ir":
        raise
    raise ImportError('bnfold.onnx_ir needs the package onnx_ir: pip install "bnfold[ir]"') from None

__all__ = ["FoldBatchNorms"]
