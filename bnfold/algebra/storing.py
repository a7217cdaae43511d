"""What a constant of an affine operator says once it is stored.

Maps are composed in float64, and what stays is rounded when it is stored. `x * c / c` composes to a factor of 1 or
1 - 2^-53, which varies along the axes of c; stored in float32 it is 1 everywhere. Whoever reads the file finds an
identity, and a second fold would do what the first one did not. Decisions:

- Where float64's own rounding is all that a parameter says more than its stored form does, it is taken without: the
  bytes are the same. To say less is to vary along fewer axes, to be 0, 1 or -1 throughout, or to have a zero more.
  What may be float64's rounding is known from the sizes of the terms that were summed (`NOISE` times these).
- Where the type itself rounds away what is said (`x * c * d` with d as near to 1/c as float32 can tell, a factor of
  1 + 3e-8), no operator gets such a factor: a fold is the same function in float64, and this would be another one.
  Nor where the type is but `STEPS` from doing so: constants that were rounded in between would compose to either.
- In float64 nothing is rounded, so that nothing is taken for what it is not, and `x * c / c` stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bnfold.algebra.affine import Affine, Array, compact, varying
from bnfold.algebra.edits import Node
from bnfold.algebra.graph import Graph
from bnfold.algebra.ops import ConstAffine

NOISE = 2.0**-48  # of float64, in as many as thirty operations
STEPS = 3  # of a type, as many as the rounding of a few constants that are composed
_NEUTRAL = (0.0, 1.0, -1.0)


def says_less(stored: Array, exact: Array) -> bool:
    """Whether a fold could do with `stored` what it cannot do with `exact`."""
    if np.array_equal(stored, exact):
        return False
    less, more = compact(stored), compact(exact)
    if less.shape != more.shape or bool(((stored == 0) & (exact != 0)).any()):
        return True
    return less.size == 1 and less.item() in _NEUTRAL


def is_lost(exact: Array, stored: Array, step: float) -> bool:
    """Whether a parameter that says less than this one is so near that rounding decides; `step` is that of its type."""
    if says_less(stored, exact):
        return True
    more = compact(exact)
    for axis in varying(more) if more.size else ():
        if _is_near(more, more.take([0], axis), step):
            return True
    return more.size == 1 and any(more.item() != number and _is_near(more, number, step) for number in _NEUTRAL)


def _is_near(parameter: Array, other: Array | float, step: float) -> bool:
    return bool((np.abs(parameter - other) <= STEPS * step * np.abs(other)).all())


def settled(exact: Array, stored: Array, size: Array) -> Array:
    """A parameter, or what says less, has the same bytes and differs from it by the rounding of float64 alone.

    `size` is the sum of the magnitudes of the terms that it is made of.
    """

    def is_noise(other: Array | float) -> bool:
        return bool((np.abs(exact - other) <= NOISE * size).all())

    if not says_less(stored, exact):
        return exact
    for number in _NEUTRAL:
        if bool((stored == number).all()) and is_noise(number):
            return np.full(exact.shape, number)
    least = exact
    for axis in varying(exact) if exact.size else ():
        even = np.broadcast_to(least.take([0], axis), exact.shape)
        if bool((stored == stored.take([0], axis)).all()) and is_noise(even):
            least = even
    return least


def as_read(exact: Array, stored: Array, plain: Array, affine: Affine) -> Array:
    """What to take `exact`, which is `affine(plain)`, for; `stored` is the same as it will be read afresh."""
    return settled(exact, stored, _magnitudes(affine)(np.abs(plain)))


def composed(graph: Graph, nodes: Sequence[Node]) -> Affine:
    """The map of affine operators that run one after the other, in the type of their constants."""
    links = [kind for kind in map(graph.kind, nodes) if isinstance(kind, ConstAffine)]
    whole, sizes = links[0].affine, _magnitudes(links[0].affine)
    for link in links[1:]:
        whole, sizes = link.affine.after(whole), _magnitudes(link.affine).after(sizes)
    for node, link in zip(nodes, links, strict=True) if len(links) > 1 else ():
        like = link.absorber.shift if link.absorber.scale is None else link.absorber.scale
        if like is not None:
            scale, shift = (graph.stored(parameter, node, like) for parameter in (whole.scale, whole.shift))
            taken = settled(whole.scale, scale, sizes.scale), settled(whole.shift, shift, sizes.shift)
            return Affine(*map(compact, taken))
    return whole


def _magnitudes(affine: Affine) -> Affine:
    return Affine(np.abs(affine.scale), np.abs(affine.shift))
