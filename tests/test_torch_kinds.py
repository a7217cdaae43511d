"""Every operator that the adapter reads, between a convolution and a BatchNorm: crossed rightly, or refused."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim
from torch_networks import Code, calibrated, difference, verdicts

from bnfold.graphs.account import FoldOptions
from bnfold.graphs.torch.exported import fold_exported
from bnfold.graphs.torch.kinds import TABLE
from bnfold.graphs.torch.reading import index_program

ALL = FoldOptions()
BACK, NOT, OFF, DYNAMIC = "backward", "not-equivariant", "off-channel", "dynamic-shape"


@dataclass(frozen=True, eq=False)
class Row:
    """What stands between the convolution and the norm, of how many channels that norm is, and what becomes of it.

    `shift` and `negative` say whether the norm has a shift and factors below zero.
    """

    id: str
    body: Callable[[Tensor], Tensor]
    verdict: str = BACK
    channels: int = 4
    shift: bool = True
    negative: bool = True
    rtol: float = 1e-9


def laid(y: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H W, C)."""
    return y.flatten(2).transpose(1, 2)


def padded(y: Tensor, kind: str, rank: int) -> Tensor:
    if rank != 2:
        y = y.flatten(2) if rank == 1 else y.unsqueeze(4).expand(-1, -1, -1, -1, 3)
    return getattr(torch.ops.aten, f"{kind}_pad{rank}d")(y, [1, 2] * rank)


# The value is (N, 4, 6, 4), its batch free.
OTHER = torch.rand(4, 1, 1, dtype=torch.float64)
FOUR, WHOLE = torch.rand(4, dtype=torch.float64), torch.rand(4, 6, 4, dtype=torch.float64)
ROWS = [
    Row("clone, contiguous", lambda y: y.clone().contiguous()),
    Row("alias", lambda y: torch.ops.aten.alias.default(y)),
    Row("detach", lambda y: y.detach()),
    Row("dropout", lambda y: F.dropout(y, 0.5, training=False)),
    Row("feature_dropout", lambda y: F.dropout2d(y, 0.5, training=False)),
    Row("alpha_dropout", lambda y: F.alpha_dropout(y, 0.5, training=False)),
    Row("feature_alpha_dropout", lambda y: F.feature_alpha_dropout(y, 0.5, training=False)),
    Row("dropout in training", lambda y: F.dropout(y, 0.0, training=True), "training-mode"),
    Row("casts", lambda y: y.to(torch.float32).to(torch.float64).type_as(y).double(), rtol=1e-6),
    Row("cast to integers", lambda y: y.to(torch.int32).to(torch.float64), NOT),
    Row("permute", lambda y: y.permute(0, 2, 3, 1).permute(0, 3, 1, -2)),
    Row("transpose", lambda y: y.transpose(2, -1).swapaxes(3, 2).swapdims(2, 3)),
    Row("transpose onto the channels", lambda y: y.transpose(1, 3), OFF),
    Row("movedim", lambda y: y.movedim(1, -1).moveaxis((3, 0), (1, 0))),
    Row("t", lambda y: y.amax((2, 3)).t().t(), negative=False),
    Row("numpy_T", lambda y: y.mean((2, 3)).T.T),
    Row("mT", lambda y: y.mT),
    Row("view", lambda y: y.view(y.shape[0], 2, 2, -1).view(y.shape[0], 4, 24)),
    Row("view that joins channels in pairs", lambda y: y.view(y.shape[0], 2, 48), channels=2),
    Row("reshape", lambda y: laid(y).reshape(y.shape[0], 24, 2, 2).reshape(-1, 4)),
    Row("flatten", lambda y: laid(y).flatten(0, 1)),
    Row("unflatten", lambda y: y.flatten(2).unflatten(1, (2, 2)).flatten(1, 2)),
    Row("view_as, reshape_as", lambda y: y.flatten(2).view_as(y).reshape_as(y)),
    Row("squeeze", lambda y: y.mean((2, 3), keepdim=True).squeeze(3).squeeze((-1,))),
    Row("squeeze of all", lambda y: y.mean((2, 3), keepdim=True).squeeze()),
    Row("unsqueeze", lambda y: y.unsqueeze(-1)),
    Row("slice", lambda y: y[:, 1:4, ::2, -3:], channels=3),
    Row("slice of steps", lambda y: y[:, ::2], channels=2),
    Row("narrow", lambda y: y.narrow(1, 1, 2).narrow(2, -4, 3), channels=2),
    Row("select", lambda y: y.unsqueeze(1).select(1, 0).select(-1, -1)),
    Row("select of a channel", lambda y: y[:, 2].unsqueeze(1), channels=1),
    Row("index_select", lambda y: y.index_select(1, torch.tensor([3, 0])), channels=2),
    Row("index_select, twice the same", lambda y: y.index_select(1, torch.tensor([3, 3])), "conflict", channels=2),
    Row("flip", lambda y: y.flip(1, -1)),
    Row("split", lambda y: y.split(1, 1)[2], channels=1),
    Row("split of sizes", lambda y: y.split([1, 3], 1)[1], channels=3),
    Row("chunk", lambda y: y.chunk(2, 1)[1], channels=2),
    Row("chunks exchanged", lambda y: torch.cat(y.chunk(2, 1)[::-1], 1), "conflict"),
    Row("unsafe_split", lambda y: y.unsafe_split(1, 1)[2], channels=1),
    Row("unsafe_chunk", lambda y: y.unsafe_chunk(2, 1)[1], channels=2),
    Row("tensor_split", lambda y: y.tensor_split(3, 1)[0], channels=2),
    Row("unbind", lambda y: y.unbind(3)[1]),
    Row("unbind of channels", lambda y: y.unbind(1)[1].unsqueeze(1), channels=1),
    Row("expand", lambda y: y.mean((2, 3), keepdim=True).expand(-1, -1, 3, 2)),
    Row("expand_as", lambda y: y.mean((2, 3), keepdim=True).expand_as(y)),
    Row("broadcast_to", lambda y: y.mean((2, 3), keepdim=True).broadcast_to(y.shape)),
    Row("repeat", lambda y: y.repeat(1, 1, 2, 1)),
    Row("repeat onto the channels", lambda y: y.repeat(1, 2, 1, 1), "conflict", channels=8),
    Row("tile", lambda y: y.tile(2)),
    Row("pixel_shuffle", lambda y: F.pixel_shuffle(y, 2), channels=1),
    Row("pixel_unshuffle", lambda y: F.pixel_unshuffle(y, 2), OFF, channels=16),
    Row("channel_shuffle", lambda y: F.channel_shuffle(y, 2)),
    Row("cat", lambda y: torch.concat([y[:, :1], torch.concatenate([y[:, 3:], y[:, 1:3]], 1)], 1), "shared-value"),
    Row("add", lambda y: y + 1.5),
    Row("sub", lambda y: torch.subtract(y - 0.5, OTHER)),
    Row("rsub", lambda y: 1.5 - y),
    Row("rsub of a tensor", lambda y: torch.rsub(y, OTHER)),
    Row("add, alpha", lambda y: torch.add(y, OTHER, alpha=2), "unsupported"),
    Row("mul", lambda y: torch.multiply(y * 2, OTHER)),
    Row("div", lambda y: torch.true_divide(torch.divide(y / 2, OTHER), 3)),
    Row("div, rounded", lambda y: torch.div(y, 2.0, rounding_mode="floor"), "unsupported"),
    Row("constant / value", lambda y: 1.0 / y, NOT),
    Row("neg", lambda y: torch.negative(-y)),
    Row("sum of values", lambda y: y + y.mean((2, 3), keepdim=True), "shared-value"),
    Row("gate", lambda y: y * y.mean((1, 2, 3), keepdim=True), NOT),
    Row("relu", lambda y: y.relu(), NOT),
    Row("relu, scale alone", lambda y: y.relu(), shift=False, negative=False),
    Row("relu, negative scale", lambda y: y.relu(), NOT, shift=False),
    Row("leaky_relu", lambda y: F.leaky_relu(y, 0.2), shift=False, negative=False),
    Row("prelu", lambda y: F.prelu(y, OTHER.flatten()), shift=False, negative=False),
    Row("abs", lambda y: y.abs(), shift=False, negative=False),
    Row("clamp", lambda y: y.clamp(min=0), shift=False, negative=False),
    Row("clamp_min", lambda y: y.clamp_min(0), shift=False, negative=False),
    Row("clamp between bounds", lambda y: y.clamp(0, 6), NOT, shift=False, negative=False),
    Row("relu6", F.relu6, NOT, shift=False, negative=False),
    Row("sigmoid", torch.sigmoid, NOT),
    Row("avg_pool1d", lambda y: F.avg_pool1d(y.flatten(2), 3)),
    Row("avg_pool2d", lambda y: F.avg_pool2d(y, 2, ceil_mode=True)),
    Row("avg_pool2d, padded", lambda y: F.avg_pool2d(y, 2, padding=1), NOT),
    Row("avg_pool2d, padded, not counted", lambda y: F.avg_pool2d(y, 2, padding=1, count_include_pad=False)),
    Row("avg_pool2d, padded, scale alone", lambda y: F.avg_pool2d(y, 2, padding=1), shift=False),
    Row("avg_pool2d, divisor", lambda y: F.avg_pool2d(y, 2, divisor_override=3), NOT),
    Row("avg_pool3d", lambda y: F.avg_pool3d(y.unsqueeze(4), (2, 2, 1))),
    Row("adaptive_avg_pool1d", lambda y: F.adaptive_avg_pool1d(y.flatten(2), 5)),
    Row("adaptive_avg_pool2d", lambda y: F.adaptive_avg_pool2d(y, (3, 1))),
    Row("adaptive_avg_pool3d", lambda y: F.adaptive_avg_pool3d(y.unsqueeze(4), 1)),
    Row("max_pool1d", lambda y: F.max_pool1d(y.flatten(2), 3), negative=False),
    Row("max_pool2d", lambda y: F.max_pool2d(y, 3, padding=1), negative=False),
    Row("max_pool1d of values", lambda y: F.max_pool1d(y.flatten(2), 3, return_indices=True)[0], negative=False),
    Row("max_pool3d of values", lambda y: F.max_pool3d(y.unsqueeze(4), 1, return_indices=True)[0], negative=False),
    Row("max_pool2d, negative scale", lambda y: F.max_pool2d(y, 2), NOT),
    Row("max_pool2d of indices", lambda y: F.max_pool2d(y, 2, return_indices=True)[1] * y.mean(), NOT),
    Row("max_pool3d", lambda y: F.max_pool3d(y.unsqueeze(4), (2, 2, 1)), negative=False),
    Row("adaptive_max_pool1d", lambda y: F.adaptive_max_pool1d(y.flatten(2), 5), negative=False),
    Row("adaptive_max_pool3d", lambda y: F.adaptive_max_pool3d(y.unsqueeze(4), 1), negative=False),
    Row("adaptive_max_pool2d", lambda y: F.adaptive_max_pool2d(y, 2), negative=False),
    Row("upsample_nearest1d", lambda y: F.interpolate(y.flatten(2), scale_factor=2)),
    Row("upsample_nearest2d", lambda y: F.interpolate(y, size=(9, 5))),
    Row("upsample_nearest3d", lambda y: F.interpolate(y.unsqueeze(4), scale_factor=2)),
    Row("_upsample_nearest_exact1d", lambda y: F.interpolate(y.flatten(2), size=(9,), mode="nearest-exact")),
    Row("_upsample_nearest_exact3d", lambda y: F.interpolate(y.unsqueeze(4), size=(9, 5, 2), mode="nearest-exact")),
    Row("_upsample_nearest_exact2d", lambda y: F.interpolate(y, size=(9, 5), mode="nearest-exact")),
    Row("upsample_linear1d", lambda y: F.interpolate(y.flatten(2), scale_factor=2, mode="linear")),
    Row("upsample_bilinear2d", lambda y: F.interpolate(y, size=(9, 5), mode="bilinear", align_corners=True)),
    Row("_upsample_bilinear2d_aa", lambda y: F.interpolate(y, size=(3, 5), mode="bilinear", antialias=True)),
    Row("upsample_bicubic2d", lambda y: F.interpolate(y, scale_factor=1.5, mode="bicubic")),
    Row("_upsample_bicubic2d_aa", lambda y: F.interpolate(y, size=(3, 5), mode="bicubic", antialias=True)),
    Row("upsample_trilinear3d", lambda y: F.interpolate(y.unsqueeze(4), scale_factor=2, mode="trilinear")),
    Row("mean", lambda y: y.mean((2, 3))),
    Row("mean of one axis", lambda y: y.mean(-1)),
    Row("mean over the axis of the norm", lambda y: y.mean(1, keepdim=True).expand(-1, 4, -1, -1), "conflict"),
    Row("sum", lambda y: y.sum((2, 3)), NOT),
    Row("sum, scale alone", lambda y: y.sum((2, 3)), shift=False),
    Row("amax, amin", lambda y: y.amax(2).amin(-1), negative=False),
    Row("max", lambda y: y.max(2).values.min(2)[0], negative=False),
    Row("max of two", lambda y: torch.max(y, y * 2), NOT),
    Row("zero padding", lambda y: F.pad(y, (1, 2)), NOT),
    Row("zero padding, scale alone", lambda y: F.pad(y, (1, 2)), shift=False),
    Row("padding with ones", lambda y: F.pad(y, (1, 2), value=1.0), NOT, shift=False),
    Row("padding of channels", lambda y: F.pad(y, (0, 0, 0, 0, 1, 0)), OFF, channels=5, shift=False),
    Row("reflection", lambda y: F.pad(y, (1, 2, 0, 1), mode="reflect")),
    Row("replication", lambda y: F.pad(y, (1, 2, 0, 1), mode="replicate")),
    *(
        Row(f"{kind}_pad{rank}d", lambda y, kind=kind, rank=rank: padded(y, kind, rank))
        for kind in ("reflection", "replication")
        for rank in (1, 2, 3)
    ),
    Row("circular", lambda y: F.pad(y, (1, 2, 0, 1), mode="circular")),
    Row("instance_norm", lambda y: F.instance_norm(y, weight=FOUR, bias=FOUR)),
    Row("group_norm", lambda y: F.group_norm(y, 2, FOUR, FOUR)),
    Row("native_group_norm", lambda y: torch.native_group_norm(y, FOUR, FOUR, y.shape[0], 4, 24, 2, 1e-5)[0]),
    Row("group_norm without a scale", lambda y: F.group_norm(y, 2), NOT),
    Row("layer_norm", lambda y: F.layer_norm(laid(y), [4], FOUR, FOUR).flatten(0, 1)),
    Row("layer_norm of whole images", lambda y: F.layer_norm(y, [4, 6, 4], WHOLE, WHOLE)),
    Row("layer_norm without a bias", lambda y: F.layer_norm(laid(y), [4], FOUR).flatten(0, 1)),
    Row("layer_norm beside the channels", lambda y: F.layer_norm(y, [4], FOUR, FOUR), OFF),
    Row("native_layer_norm", lambda y: torch.native_layer_norm(y, [4, 6, 4], WHOLE, WHOLE, 1e-5)[0]),
    Row("native_layer_norm, its means", lambda y: torch.native_layer_norm(y, [4], FOUR, FOUR, 1e-5)[1], NOT),
    Row("rms_norm", lambda y: F.rms_norm(laid(y), [4], FOUR).flatten(0, 1), shift=False),
    Row("rms_norm, shift", lambda y: F.rms_norm(laid(y), [4], FOUR).flatten(0, 1), NOT),
    Row("softmax", lambda y: y.softmax(1), NOT),
    Row("cumsum", lambda y: y.cumsum(2), NOT),
]


def norm_of(rank: int, row: Row) -> nn.Module:
    layer = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[rank](row.channels)
    calibrated(layer)
    with torch.no_grad():
        if not row.shift:
            layer.running_mean.zero_()
            layer.bias.zero_()
        if row.negative:
            layer.weight[0] *= -1
    return layer


class Branches(nn.Module):
    """One branch for every row: a convolution, what the row says, a norm. All in one, because tracing takes long."""

    def __init__(self, rows: list[Row]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rows = rows
        self.convs = nn.ModuleList(nn.Conv2d(3, 4, 3) for _ in rows)
        like = torch.rand(2, 4, 6, 4, dtype=torch.float64)
        self.norms = nn.ModuleList(norm_of(row.body(like).dim(), row) for row in rows)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [norm(row.body(conv(x))) for row, conv, norm in zip(self.rows, self.convs, self.norms, strict=True)]


class Results(NamedTuple):
    """Per row what became of its norm and how far the folded program is from the module; the operators of all."""

    by_row: dict[str, tuple[str, float]]
    operators: set[str]


@pytest.fixture(scope="module")
def results() -> Results:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = Branches(ROWS).double().eval()
        x = torch.randn((2, 3, 8, 6), dtype=torch.float64)
        program = torch.export.export(module, (x,), dynamic_shapes={"x": {0: Dim.AUTO}})
        folded = fold_exported(program, ALL)
        verdict = dict(zip((site.name for site in folded.sites), verdicts(folded.sites), strict=True))
        pairs = list(zip(module(x), folded.model.module()(x), strict=True))
    by_row = {row.id: (verdict[f"norms.{at}"], difference(*pairs[at])) for at, row in enumerate(ROWS)}
    return Results(by_row, {node.op for node in index_program(program).nodes})


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_between_a_convolution_and_a_norm(row: Row, results: Results) -> None:
    verdict, error = results.by_row[row.id]
    assert verdict == row.verdict
    assert error < row.rtol


def spelled(op: str, *more: object) -> Callable[[Code, Tensor], Tensor]:
    """A norm by one of the operators of ATen that compute it."""
    function = getattr(torch.ops.aten, op).default
    return lambda m, x: function(m.conv(x), m.gamma, m.beta, m.mean, m.var, *more, 0.1, 1e-5)[0]


NORMS = {
    "native_batch_norm": (spelled("native_batch_norm", False), BACK),
    "_native_batch_norm_legit": (spelled("_native_batch_norm_legit", True), "training-mode"),
    "_native_batch_norm_legit_functional": (spelled("_native_batch_norm_legit_functional", True), "training-mode"),
    "_native_batch_norm_legit_no_training": (spelled("_native_batch_norm_legit_no_training"), BACK),
    "_batch_norm_no_update": (spelled("_batch_norm_no_update"), BACK),
    "_batch_norm_with_update": (spelled("_batch_norm_with_update"), "training-mode"),
    "_batch_norm_with_update_functional": (spelled("_batch_norm_with_update_functional"), "training-mode"),
}


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.parametrize("op", NORMS)
def test_spellings_of_a_norm(op: str) -> None:
    torch.manual_seed(0)
    body, expected = NORMS[op]
    module = Code(body, conv=nn.Conv2d(3, 4, 3), gamma=torch.rand(4), beta=torch.rand(4)).double()
    module.register_buffer("mean", torch.rand(4).double())
    module.register_buffer("var", torch.rand(4).double() + 0.5)
    x = torch.randn((2, 3, 8, 6), dtype=torch.float64)
    folded = fold_exported(torch.export.export(copy.deepcopy(module), (x,)), ALL)
    assert verdicts(folded.sites) == [expected]
    assert difference(module(x), folded.model.module()(x)) < 1e-9


# Read by the same functions as their like above, or held in `test_torch_module` and `test_torch_exported`.
HELD_ELSEWHERE = {
    *("linear", "addmm", "mm", "bmm", "mv", "matmul", "einsum", "convolution", "conv1d", "conv3d"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "batch_norm"),
    *("contiguous", "_to_copy", "_unsafe_view", "_prelu_kernel", "constant_pad_nd"),
    *("_adaptive_avg_pool1d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
}


def test_every_operator_that_is_read_has_a_row(results: Results) -> None:
    assert set(TABLE) - results.operators == {*HELD_ELSEWHERE, *NORMS} - results.operators
