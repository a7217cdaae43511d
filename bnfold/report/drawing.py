"""Small graphs as layered drawings: where each box stands and which way each edge runs, for the page to put into SVG.

A drawing is of a site's operators before the fold or after it. Operators stand on layers, every one below all that it
reads (longest path); an edge over several layers bends around the boxes between; the order within a layer comes from
sweeps over barycentres (Sugiyama, Tagawa and Toda, 1981). All lengths are in CSS pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bnfold.results import Role, Site

BOX_HEIGHT = 26
_LAYER_HEIGHT = 48
_STUB = 13
_GAP = 14
_SWEEPS = 4
_CHARACTER = 7.2  # of a 12 px sans-serif face, with room to spare
_PADDING = 34  # the number of the operator stands in the box too
_BEND_WIDTH = 8
_CORNER = 10
_NAMES = {"BatchNormalization": "BatchNorm"}


@dataclass(frozen=True)
class Vertex:
    """An operator to be drawn. `number` is its place in the list that stands beside the drawing, "+" for a new one."""

    number: str
    label: str
    style: Role | str
    reads: tuple[int, ...]
    from_outside: bool
    to_outside: bool


@dataclass(frozen=True)
class Box:
    """A rectangle with a label; its centre is at (x, y)."""

    x: float
    y: float
    width: float
    vertex: Vertex


@dataclass(frozen=True)
class Drawing:
    """A picture of `width` times `height`; `edges` are SVG paths, which all run downward."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    edges: tuple[str, ...]


def before(site: Site) -> tuple[Vertex, ...]:
    """The operators of a site as the fold found them."""
    styles = {"site": "goes"} if site.folded else {"site": "stays"}
    return tuple(
        Vertex(
            str(number),
            _NAMES.get(item.op, item.op),
            styles.get(item.role, "plain" if item.role == "absorbs" else item.role),
            item.reads,
            item.reads_outside > 0,
            item.readers_outside > 0,
        )
        for number, item in enumerate(site.operators, 1)
    )


def after(site: Site) -> tuple[Vertex, ...]:
    """The operators of a folded site after the fold: the site is gone, its readers read what it read."""
    made: list[Vertex] = []
    stands_for: dict[int, tuple[int, ...]] = {}  # what a reader of the operator at this place reads now
    enters: dict[int, bool] = {}
    for place, item in enumerate(site.operators):
        reads = tuple(dict.fromkeys(new for old in item.reads for new in stands_for[old]))
        entered = item.reads_outside > 0 or any(enters[old] for old in item.reads)
        if item.role == "site":
            stands_for[place], enters[place] = reads, entered
            if item.readers_outside:
                made = [_leaving(vertex) if at in reads else vertex for at, vertex in enumerate(made)]
            continue
        label = _NAMES.get(item.op, item.op)
        style = "absorbs" if item.role == "absorbs" else item.role
        leaves = item.readers_outside > 0
        enters[place] = False
        stands_for[place] = (len(made),)
        made.append(Vertex(str(place + 1), label, style, reads, entered, leaves and not item.gains_bias))
        if item.gains_bias:
            stands_for[place] = (len(made),)
            made.append(Vertex("+", "Add", "new", (len(made) - 1,), False, leaves))
    return tuple(made)


def _leaving(vertex: Vertex) -> Vertex:
    return Vertex(vertex.number, vertex.label, vertex.style, vertex.reads, vertex.from_outside, True)


def draw(vertices: Sequence[Vertex]) -> Drawing:
    """Lay out operators that are listed in topological order."""
    layers, parents = _layers(vertices)
    _sort(layers, parents)
    widths = {node: _width(vertices[node]) if node < len(vertices) else _BEND_WIDTH for row in layers for node in row}
    x = _columns(layers, widths, parents)
    left = min(x[node] - widths[node] / 2 for node in x)
    right = max(x[node] + widths[node] / 2 for node in x)
    place = {
        node: (x[node] - left + 1, _STUB + BOX_HEIGHT / 2 + depth * _LAYER_HEIGHT)
        for depth, row in enumerate(layers)
        for node in row
    }
    boxes = tuple(Box(*place[node], widths[node], vertex) for node, vertex in enumerate(vertices))
    height = 2 * _STUB + BOX_HEIGHT + (len(layers) - 1) * _LAYER_HEIGHT
    return Drawing(round(right - left + 2), height, boxes, _edges(vertices, parents, place))


def _width(vertex: Vertex) -> float:
    return round(len(vertex.label) * _CHARACTER + _PADDING)


def _layers(vertices: Sequence[Vertex]) -> tuple[list[list[int]], dict[int, list[int]]]:
    """Who stands on which layer, and who is right above whom; numbers past the vertices are bends of long edges."""
    depth: dict[int, int] = {}
    for node, vertex in enumerate(vertices):
        depth[node] = 1 + max((depth[read] for read in vertex.reads), default=-1)
    for node in reversed(range(len(vertices))):  # what reads nothing stands right above its first reader
        readers = [depth[other] for other, vertex in enumerate(vertices) if node in vertex.reads]
        if not vertices[node].reads and readers:
            depth[node] = min(readers) - 1
    layers: list[list[int]] = [[] for _ in range(1 + max(depth.values()))]
    for node in range(len(vertices)):
        layers[depth[node]].append(node)
    parents: dict[int, list[int]] = {node: [] for node in range(len(vertices))}
    for node, vertex in enumerate(vertices):
        for read in vertex.reads:
            above = read
            for level in range(depth[read] + 1, depth[node]):
                bend = len(parents)
                parents[bend] = [above]
                layers[level].append(bend)
                above = bend
            parents[node].append(above)
    return layers, parents


def _children(parents: dict[int, list[int]]) -> dict[int, list[int]]:
    children: dict[int, list[int]] = {node: [] for node in parents}
    for node, above in parents.items():
        for parent in above:
            children[parent].append(node)
    return children


def _sort(layers: list[list[int]], parents: dict[int, list[int]]) -> None:
    """Order every layer by the mean place of its neighbours, downward and upward in turns."""
    children = _children(parents)
    for sweep in range(_SWEEPS):
        neighbours, rows = (parents, layers) if sweep % 2 == 0 else (children, layers[::-1])
        for fixed, row in pairwise(rows):
            place = {node: at / len(fixed) for at, node in enumerate(fixed)}
            middle = {
                node: _mean([place[other] for other in neighbours[node] if other in place], at / len(row))
                for at, node in enumerate(row)
            }
            row.sort(key=middle.__getitem__)


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _columns(layers: list[list[int]], widths: dict[int, float], parents: dict[int, list[int]]) -> dict[int, float]:
    """Every box near the middle of its neighbours, those above and those below in turns, and apart from others."""
    x: dict[int, float] = {}
    for row in layers:
        _spread(row, [0.0] * len(row), widths, x)
    children = _children(parents)
    for sweep in range(_SWEEPS):
        neighbours, rows = (children, layers[::-1]) if sweep % 2 == 0 else (parents, layers)
        for row in rows[1:]:
            _spread(row, [_mean([x[other] for other in neighbours[node]], x[node]) for node in row], widths, x)
    return x


def _spread(row: list[int], wanted: list[float], widths: dict[int, float], x: dict[int, float]) -> None:
    """Place a row from left to right, nobody nearer than the gap, then move it as a whole to where it is wanted."""
    edge = -math.inf
    for node, middle in zip(row, wanted, strict=True):
        x[node] = max(middle, edge + widths[node] / 2)
        edge = x[node] + widths[node] / 2 + _GAP
    off = _mean([middle - x[node] for node, middle in zip(row, wanted, strict=True)], 0.0)
    for node in row:
        x[node] += off


def _edges(
    vertices: Sequence[Vertex], parents: dict[int, list[int]], place: dict[int, tuple[float, float]]
) -> tuple[str, ...]:
    half = BOX_HEIGHT / 2
    edges = []
    for node, vertex in enumerate(vertices):
        x, y = place[node]
        for parent in parents[node]:
            points = [(x, y - half)]
            while parent >= len(vertices):
                bend_x, bend_y = place[parent]
                points += [(bend_x, bend_y + half), (bend_x, bend_y - half)]
                (parent,) = parents[parent]
            points.append((place[parent][0], place[parent][1] + half))
            edges.append(_path(points[::-1]))
        left, right = x - _width(vertex) / 2 + _CORNER, x + _width(vertex) / 2 - _CORNER
        if vertex.from_outside:
            at = left if vertex.reads else x
            edges.append(_path([(at, y - half - _STUB), (at, y - half)]))
        if vertex.to_outside:
            at = right if any(node in above for above in parents.values()) else x
            edges.append(_path([(at, y + half), (at, y + half + _STUB)]))
    return tuple(edges)


def _path(points: Sequence[tuple[float, float]]) -> str:
    """A smooth line through points, vertical at each of them."""
    (x, y), *rest = points
    path = f"M{x:g} {y:g}"
    for to_x, to_y in rest:
        middle = (y + to_y) / 2
        path += f"V{to_y:g}" if to_x == x else f"C{x:g} {middle:g} {to_x:g} {middle:g} {to_x:g} {to_y:g}"
        x, y = to_x, to_y
    return path
