"""The sites of a model: its BatchNorms, and the chains of operators that spell the same affine map.

A chain is a maximal run of Mul, Add, Sub, Div and Neg of a computed value by constants, each read by the next alone,
in which at least one constant factor has several elements: a bias, a scalar rescaling or the offset of an activation
is no normalisation. A bias behind a MatMul belongs to the MatMul. Where a factor would enlarge what a linear operator
makes, the site is listed and refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bnfold.algebra import ops
from bnfold.algebra.affine import Refusal
from bnfold.algebra.plan import Site
from bnfold.graphs.onnx.index import Node, Scope
from bnfold.graphs.onnx.kinds.affines import is_enlarging
from bnfold.graphs.onnx.kinds.facts import Facts

BATCH_NORM = "BatchNormalization"
CHAIN = "affine"
_LINKS = ("Mul", "Add", "Sub", "Div", "Neg")
_FACTORS = ("Mul", "Div")


def find_sites(scopes: list[Scope], kind: Callable[[Node], ops.Kind], facts: Facts) -> list[Site]:
    """All sites in topological order, those of a body right before the node that holds it."""
    return [site for scope in scopes for site in _in_scope(scope, kind, facts)]


def scales(kind: ops.Kind) -> bool:
    """Whether an affine node has a factor per channel, say."""
    return isinstance(kind, ops.ConstAffine) and kind.factors > 1


def _in_scope(scope: Scope, kind: Callable[[Node], ops.Kind], facts: Facts) -> Iterator[Site]:
    bodies: dict[Node, list[Scope]] = {}
    for body in scope.bodies:
        if body.owner is not None:
            bodies.setdefault(body.owner, []).append(body)
    chained: set[Node] = set()
    for node in scope.nodes:
        for body in bodies.get(node, ()):
            yield from _in_scope(body, kind, facts)
        if node.op == BATCH_NORM and not node.domain:
            yield _batch_norm(node, kind(node))
        elif node not in chained and node.op in _LINKS and not node.domain and not facts.known(node.outputs[0]):
            chain = _chain(node, kind)
            chained.update(chain)
            if any(scales(kind(link)) for link in chain):
                yield Site(_name(chain), CHAIN, chain)
            elif node.op in _FACTORS and not chain:
                yield from _refused(node, kind, facts)


def _batch_norm(node: Node, kind: ops.Kind) -> Site:
    if isinstance(kind, ops.ConstAffine):
        return Site(node.name, BATCH_NORM, (node,))
    if isinstance(kind, ops.Opaque):
        refusal = Refusal(kind.reason, kind.detail, node.name)
        if node.opset < 7:
            refusal = _of_old_opset(node) or refusal
        return Site(node.name, BATCH_NORM, (node,), refusal)
    raise TypeError(f"a BatchNormalization was read as {type(kind).__name__}")


def _of_old_opset(node: Node) -> Refusal | None:
    """Before opset 7 a BatchNormalization is in training mode unless is_test says otherwise."""
    if any(item.name == "is_test" and item.i for item in node.proto.attribute):
        return None
    return Refusal("training-mode", "it lacks is_test=1 (opset 6 and older); export in eval mode", node.name)


def _chain(first: Node, kind: Callable[[Node], ops.Kind]) -> tuple[Node, ...]:
    """The run of affine nodes that begins here; empty if the node is none, or in the middle of one."""
    if not isinstance(kind(first), ops.ConstAffine):
        return ()
    chain = [first]
    while True:
        value = chain[-1].outputs[0]
        if value is None or value.is_output or len(value.readers) != 1:
            break
        node, position = next(iter(value.readers))
        following = kind(node)
        if node.op not in _LINKS or node.domain or node.scope is not first.scope:
            break
        if not isinstance(following, ops.ConstAffine) or following.data != position:
            break
        chain.append(node)
    head = kind(chain[0])
    source = chain[0].inputs[head.data] if isinstance(head, ops.ConstAffine) else None
    is_bias = chain[0].op == "Add" and source is not None and source.producer is not None
    if is_bias and source is not None and source.producer is not None and source.producer.op == "MatMul":
        chain = chain[1:]
    return tuple(chain)


def _refused(node: Node, kind: Callable[[Node], ops.Kind], facts: Facts) -> Iterator[Site]:
    value = is_enlarging(node, facts)
    if value is None or value.producer is None or not isinstance(kind(value.producer), ops.Linear):
        return
    refusal = Refusal("off-channel", "its constant factor gives the value another shape", node.name)
    yield Site(node.name, CHAIN, (node,), refusal)


def _name(chain: tuple[Node, ...]) -> str:
    return chain[0].name if len(chain) == 1 else f"{chain[0].name}..{chain[-1].name}"
