"""Export a network of `models/networks.py`, as PyTorch's exporter writes it.

    python scripts/torch_export.py NAME.onnx OUT.onnx

Writes to OUT what the exporter, with its own optimisations, makes of the network that NAME.onnx was exported from:
`NETWORKS[NAME]` of the file `networks.py` beside it, with the weights of `NAME.safetensors`. Needs the extra `torch`
and the dependency group `bench`.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings
from collections.abc import MutableSequence
from pathlib import Path

import onnx
import torch
from torch import nn

IMAGE_SIZE = 28  # as in models/networks.py
OPSET = 20


def main() -> None:
    source, out = map(Path, sys.argv[1:])
    import safetensors.torch

    spec = importlib.util.spec_from_file_location("networks", source.with_name("networks.py"))
    if spec is None or spec.loader is None:
        sys.exit(f"{source}: no networks.py beside it")
    networks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(networks)
    network = networks.NETWORKS[source.stem]().eval()
    network.load_state_dict(safetensors.torch.load_file(source.with_suffix(".safetensors")))
    onnx.save(export(network, optimize=True), out)


def export(network: nn.Module, *, optimize: bool) -> onnx.ModelProto:
    """The network as PyTorch's exporter writes it, with or without its optimisations; input `x`, output `logits`."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # the exporter reports that torchvision is absent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # raised inside the exporter by its own older parts
        program = torch.onnx.export(
            network,
            (torch.zeros(2, 1, IMAGE_SIZE, IMAGE_SIZE),),
            input_names=["x"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),
            opset_version=OPSET,
            dynamo=True,
            optimize=optimize,
            verbose=False,
        )
    model = program.model_proto
    for node in model.graph.node:
        drop_stack_trace(node.metadata_props)
    onnx.checker.check_model(model, full_check=True)
    return model


def drop_stack_trace(properties: MutableSequence[onnx.StringStringEntryProto]) -> None:
    """Take out the exporter's note of the source line, which holds this machine's folder names."""
    kept = [entry for entry in properties if entry.key != "pkg.torch.onnx.stack_trace"]
    del properties[:]
    properties.extend(kept)


if __name__ == "__main__":
    main()
