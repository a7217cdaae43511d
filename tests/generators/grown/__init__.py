"""Random ONNX graphs that run while they grow: every node is evaluated on data as it is added."""
