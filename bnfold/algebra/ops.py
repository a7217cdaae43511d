"""The kinds of operator that the algebra understands, as frozen values without arrays of weights.

An adapter translates each node of its framework to one kind, whitelisting every attribute that it has read, and never
sees the rules. Positions are positions among the node's inputs. Everything not understood is `Opaque`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from bnfold.algebra.affine import Affine
from bnfold.algebra.axes import Shape, Step

Axes = tuple[str, ...]
Law = Literal["mean", "linear", "maximum"]


class Bias(NamedTuple):
    """The additive operand of a linear operator.

    `axis` is the axis of y that a bias vector runs along; None means that the bias broadcasts against y.
    `gain` multiplies it (Gemm's beta). `present` is False for an optional input that is left out.
    """

    position: int
    present: bool
    axis: int | None
    gain: float = 1.0


class Linear(NamedTuple):
    """`y = gain * sum(x * w) + bias`: a contraction with a weight, in Einstein notation.

    `x`, `w` and `y` say for every axis which indices it runs over, one letter each, outermost first; an axis may run
    over several, all of `w` (a grouped channel axis is "go": group, then output channel of the group), or over none
    ("" where it is broadcast). `sizes` holds the extent of every index of `w`. Letters of `w` that `y` lacks are
    summed over.

    Conv, group 2:   x = (n, gi, s), w = (go, i, k), y = (n, go, t).
    ConvTranspose:   x = (n, gi, s), w = (gi, o, k), y = (n, go, t).
    MatMul, batched: x = (b, m, k),  w = (b, k, n),  y = (b, m, n).

    `complete` says that every element of y sums over all taps of the weight: no padding, no border.
    """

    data: int
    weight: int
    bias: Bias | None
    x: Axes
    w: Axes
    y: Axes
    sizes: Mapping[str, int]
    gain: float = 1.0
    complete: bool = True
    incomplete_why: str = "the input is padded with zeros"


@dataclass(frozen=True)
class Recurrent:
    """A recurrent layer (LSTM, GRU, RNN), of which only the product with its input is linear: `x w^T + b_w`.

    x has rank 3 with its features on the last axis; w is (directions, rows, features); the bias is (directions, 2
    rows), b_w in its first half.
    """

    data: int
    weight: int
    bias: int
    present: bool
    directions: int
    rows: int


class Absorber(NamedTuple):
    """How an affine operator takes `a` into its own constants: per constant, which one it is and the axis it runs
    along.

    Positions are None where the operator has no such constant. `sign` multiplies the constant in the operator's output
    (-1 for the subtrahend), `inverse` says that it divides.
    """

    scale: int | None = None
    shift: int | None = None
    axis: int | None = None
    sign: float = 1.0
    inverse: bool = False


@dataclass(frozen=True, eq=False)
class ConstAffine:
    """`y = scale * x + shift` with constant parameters: BatchNormalization; Mul, Add, Sub, Div, Neg by constants.

    x has y's shape, so that the operator can be left out when its affine goes elsewhere. `factors` is how many factors
    its constant spells, equal or not: more than one make it a normalisation rather than a rescaling.
    """

    data: int
    affine: Affine
    absorber: Absorber
    factors: int = 1


@dataclass(frozen=True)
class Pass:
    """y is x: Identity, Dropout in inference, Cast between floating types."""

    data: int = 0


@dataclass(frozen=True)
class IndexMap:
    """y has elements of x in other places: the steps lead from x to y, one list per output."""

    steps: tuple[tuple[Step, ...], ...]
    data: int = 0


@dataclass(frozen=True)
class Sum:
    """`y = sum(sign_i * x_i)`, broadcasting: Add, Sub, Sum. Shapes are those of the operands and of y."""

    signs: tuple[float, ...]
    shapes: tuple[Shape, ...]
    y_shape: Shape


@dataclass(frozen=True)
class Concat:
    """y is the operands laid end to end along an axis, on which they have these sizes."""

    axis: int
    sizes: tuple[int | None, ...]


@dataclass(frozen=True)
class Gate:
    """`y = x_0 * x_1` (or `x_0 / x_1`) of computed operands, broadcasting; `open` are those that may take a scale."""

    open: tuple[int, ...]
    shapes: tuple[Shape, ...]
    y_shape: Shape


@dataclass(frozen=True)
class Aggregate:
    """Each element of y is computed from elements of x along `axes` alone.

    mean: a weighted mean, weights summing to one (pooling, interpolation, mirrored padding): every affine commutes.
    linear: any other weighted sum (zero padding counted in): only a scale commutes.
    maximum: the largest or smallest of them: only a scale >= 0 commutes.
    """

    axes: tuple[int, ...]
    law: Law
    keepdims: bool = True
    what: str = "pooling"


@dataclass(frozen=True)
class Homogeneous:
    """`f(s * x) = s * f(x)` for every s > 0, elementwise: ReLU, LeakyReLU, PReLU, Abs."""

    what: str = "ReLU"


@dataclass(frozen=True)
class Scaled:
    """`y = scale * f(x) + shift` with a scale and a shift of its own: InstanceNormalization and its like.

    Nothing passes f, but what comes behind it can go into the constants at the positions `scale` and `shift`. These run
    over `axes` of y, on which y has `sizes`; an element of them stands for `each` neighbours of y. `shift` is None
    where the operator knows none, `present` False where it is left out.
    """

    scale: int
    shift: int | None
    present: bool
    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    each: int = 1
    what: str = "LayerNormalization"


@dataclass(frozen=True)
class Opaque:
    """An operator, or a use of one, that is not understood or does not commute; it refuses with this reason."""

    reason: str
    detail: str


Kind = (
    Linear | Recurrent | ConstAffine | Pass | IndexMap | Sum | Concat | Gate | Aggregate | Homogeneous | Scaled | Opaque
)
