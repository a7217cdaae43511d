"""Random models: folded they give what they gave before, and everything else that must hold does.

`scripts/fuzz.py` does the same for as many models as wanted.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
from fuzzing import RTOL, check, differences, judge, passes_full_check
from generators.verdict import Verdict
from graph_builder import BFLOAT, DOUBLE, FLOAT, HALF
from random_extras import FOREIGN
from random_graphs import RandomModel, random_model, reordered

import bnfold
from bnfold.graphs.onnx.fold import all_nodes, strip_empty_outputs

CHUNK = 25


def judged(seeds: range, elem_type: int) -> list[Verdict]:
    verdicts = [judge(seed, elem_type) for seed in seeds]
    assert [(verdict.seed, verdict.failures) for verdict in verdicts if verdict.failures] == []
    return verdicts


@pytest.mark.parametrize("start", range(0, 300, CHUNK))
def test_float64_models_stay_the_same_function_to_1e_9(start: int) -> None:
    assert RTOL[DOUBLE] == 1e-9
    verdicts = judged(range(start, start + CHUNK), DOUBLE)
    assert sum(site.folded for verdict in verdicts for site in verdict.sites) >= CHUNK // 2, "hardly anything folded"


@pytest.mark.parametrize("elem_type", [FLOAT, HALF, BFLOAT], ids=["float32", "float16", "bfloat16"])
def test_models_of_coarser_types_stay_the_same_function_up_to_their_rounding(elem_type: int) -> None:
    judged(range(1000, 1030), elem_type)


@pytest.mark.parametrize(
    ("seed", "elem_type"),
    [
        (40001358, HALF),  # a chain that is shortened makes room for the BatchNorm above it
        (40002296, DOUBLE),  # a chain before a function can be shortened, or fold whole into what the function holds
        (40013642, DOUBLE),  # the same, where it merges
        (85001790, FLOAT),  # a chain within a function is seen to be one once the chain above it has folded
    ],
)
def test_a_second_fold_finds_nothing_that_the_first_left(seed: int, elem_type: int) -> None:
    verdict = Verdict(seed)
    check(random_model(seed, elem_type, extras=False), verdict)
    assert verdict.failures == []


def test_random_models_are_of_all_sorts() -> None:
    """Folds in every direction, bodies, symbolic batches, many operators, opsets, IR versions, what exporters add."""
    ops, directions, opsets, versions = Counter[str](), Counter[str | None](), set[int](), set[int]()
    symbolic = foreign = constants = shapes = 0
    for seed in range(2000, 2150):
        case = random_model(seed, DOUBLE)
        ops.update(node.op_type for node in all_nodes(case.model))
        directions.update(site.direction for site in bnfold.fold(case.model).sites)
        opsets.add(case.model.opset_import[0].version)
        versions.add(case.model.ir_version)
        graph = case.model.graph
        foreign += any(node.domain == FOREIGN for node in graph.node)
        constants += bool({tensor.name for tensor in graph.initializer} & {info.name for info in graph.output})
        shapes += any(info.type.tensor_type.elem_type == onnx.TensorProto.INT64 for info in graph.output)
        symbolic += any(dim.dim_param for item in case.model.graph.input for dim in item.type.tensor_type.shape.dim)
    assert {"backward", "forward", "merged", "shortened"} <= set(directions)
    assert {"If", "Loop", "Scan", "Concat", "Split", "Resize", "LSTM", "ConvTranspose", "Gemm", "Einsum"} <= set(ops)
    assert len(ops) > 55
    assert len(opsets) > 15
    assert {3, onnx.IR_VERSION} <= versions
    assert 50 < symbolic < 150
    assert min(foreign, constants, shapes) > 5


# The comparison itself.


def folded_cases() -> Iterator[tuple[RandomModel, onnx.ModelProto]]:
    """Cases in which a convolution has absorbed a BatchNorm."""
    for seed in itertools.count(3000):
        case = random_model(seed, DOUBLE)
        result = bnfold.fold(case.model)
        convs = {node.name for node in result.model.graph.node if node.op_type == "Conv"}
        if any(convs.intersection(site.into) for site in result.sites if site.folded):
            yield case, result.model


def test_a_weight_that_is_off_by_a_millionth_is_noticed() -> None:
    noticed = 0
    for case, folded in itertools.islice(folded_cases(), 20):
        assert differences(folded, case) == []
        weights = {node.input[1] for node in folded.graph.node if node.op_type == "Conv"}
        for tensor in folded.graph.initializer:
            if tensor.name in weights and tensor.name.endswith(".folded"):
                array = onnx.numpy_helper.to_array(tensor) * (1 + 1e-6)
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        noticed += bool(differences(folded, case))
    assert noticed >= 15, "of the rest, the outputs do not depend on the weight"


def test_a_node_that_goes_missing_and_a_lost_site_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    case, folded = next(folded_cases())
    monkeypatch.setattr(bnfold, "fold", lambda model, **options: bnfold.FoldResult(folded, (), None, None))
    verdict = Verdict(case.seed)
    check(case, verdict)
    assert any("accounted for" in failure for failure in verdict.failures)
    assert any("the model has changed" in failure for failure in verdict.failures)


def test_reordering_moves_nodes_and_keeps_the_model_valid() -> None:
    moved = 0
    for seed in range(30):
        model = random_model(seed, DOUBLE).model
        other = reordered(model, seed)
        onnx.checker.check_model(other)
        assert sorted(node.output[0] for node in other.graph.node) == sorted(n.output[0] for n in model.graph.node)
        moved += [node.output[0] for node in other.graph.node] != [node.output[0] for node in model.graph.node]
    assert moved > 15


def test_the_interpreter_agrees_with_onnx_runtime() -> None:
    """In float32, wherever ONNX Runtime can run the model."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    compared = 0
    for seed in range(120):
        case = random_model(seed, FLOAT, newest_opset=21)
        training = any(item.name == "training_mode" and item.i for n in all_nodes(case.model) for item in n.attribute)
        if training or not passes_full_check(case.model):  # in training ONNX Runtime overwrites shared statistics
            continue
        strip_empty_outputs(case.model)  # with which it crashes
        case.model.ir_version = min(case.model.ir_version, 10)
        try:
            session = onnxruntime.InferenceSession(case.model.SerializeToString(), options)
            found = [session.run(None, _narrowed(feeds)) for feeds in case.feeds]
        except Exception:  # noqa: S112 (an operator, or an attribute, that it does not implement)
            continue
        for arrays, expected in zip(found, case.expected, strict=True):
            for array, want in zip(arrays, expected.values(), strict=True):
                assert array.shape == want.shape
                np.testing.assert_allclose(array, want, rtol=0, atol=1e-4 * np.abs(want).max(initial=0) + 1e-5)
                compared += 1
    assert compared > 200


def _narrowed(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in feeds.items()}
