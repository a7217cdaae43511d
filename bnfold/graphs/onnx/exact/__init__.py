"""Running a model in float64: the reference against which rounding is told from a fault.

`engine` runs a document node by node; `windows` and `kernels` hold operators written for speed and float64, `borrowed`
names those of onnx's own reference implementation that are trusted. What is in neither is not run, with a reason.
"""
