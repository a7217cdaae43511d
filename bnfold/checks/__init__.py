"""The room of evidence: are two models the same function, and which one is faster.

Everything that runs a model goes through `session`, the only door to ONNX Runtime.
"""
