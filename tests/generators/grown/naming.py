"""Names of values and nodes: plain ones, odd ones, and ones that a tool may invent for its own values."""

from __future__ import annotations

from generators.grown.dice import Dice

SUFFIXES = (
    ".folded",
    ".folded",
    ".folded_1",
    ".bias.folded",
    ".unbiased",
    ".bias_add",
    "_1",
    "__1",
    "_2",
    "_folded",
    ".bias",
    ".weight",
    "_scale",
    "/Reshape",
    ":0",
)
ODD = (
    "a b",
    "x/y",
    "/",
    "'",
    '"',
    "größe",
    "层",
    "a.b.c",
    "%1",
    "-",
    "#",
    "{}",
    "\\n",
    "😀",
    "T",
    "X",
    "0",
    "if",
    "None",
)
PLAIN = ("x", "y", "t", "v", "h", "z")


class Namer:
    """Gives fresh names, in a style drawn once per model."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.used: set[str] = {""}
        self.nodes: set[str] = set()
        self.style = dice.weighted([("plain", 5), ("odd", 2), ("invented", 2)])
        self.node_style = dice.weighted([("plain", 4), ("empty", 2), ("mixed", 2), ("same", 0.08)])
        self.counter = 0

    def fresh(self, stem: str = "") -> str:
        """A name that no value of the model has."""
        while True:
            self.counter += 1
            name = self._candidate(stem)
            if name not in self.used:
                self.used.add(name)
                return name

    def _candidate(self, stem: str) -> str:
        plain = f"{stem or self.dice.pick(PLAIN)}{self.counter}"
        if self.style == "odd" and self.dice.chance(0.5):
            return self.dice.pick(ODD) if self.dice.chance(0.5) else self.dice.pick(ODD) + plain
        if self.style == "invented" and len(self.used) > 1 and self.dice.chance(0.5):
            return self.dice.pick(sorted(self.used - {""})) + self.dice.pick(SUFFIXES)
        return plain

    def node(self, op: str) -> str:
        """A name of a node; names of nodes need not be unique."""
        if self.node_style == "empty" or (self.node_style == "mixed" and self.dice.chance(0.3)):
            return ""
        if self.node_style == "same":
            return self.dice.pick(("node", "bn", op))
        if self.node_style == "mixed" and self.dice.chance(0.2):
            taken = self.dice.pick(sorted(self.used))
            if taken not in self.nodes:
                self.nodes.add(taken)
                return taken
        self.counter += 1
        return f"{op}_{self.counter}"
