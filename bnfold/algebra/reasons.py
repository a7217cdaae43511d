"""Why a site stays: every reason code, what it means, and what a user can do about it.

The README's reference is made from this table, so that it is complete by construction.
"""

from __future__ import annotations

from typing import NamedTuple


class Reason(NamedTuple):
    """A reason in one sentence, and what to do; `remedy` is empty where nothing helps but another model."""

    meaning: str
    remedy: str = ""


REASONS: dict[str, Reason] = {
    "shared-value": Reason(
        "A value that would have to change is read by another operator too.",
        "Nothing: in ResNet-like sums and DenseNet-like concatenations this is the network itself.",
    ),
    "graph-output": Reason(
        "A value that would have to change is an output of the graph.",
        "Remove the output if nobody needs it.",
    ),
    "graph-input": Reason(
        "Nothing that could absorb the BatchNorm stands between it and an input of the graph.",
        "Normalise the input once, outside of the model.",
    ),
    "not-equivariant": Reason(
        "An operator in between does not commute with the affine map: a ReLU with a shift or a negative factor, a "
        "sigmoid, padding with zeros.",
        "Train with the BatchNorm right behind the convolution.",
    ),
    "off-channel": Reason(
        "The BatchNorm varies along an axis that the weight or bias which would absorb it does not have.",
    ),
    "computed-weight": Reason(
        "The weight or bias that would absorb it is computed from an input.",
        "Export the model with its weights as constants.",
    ),
    "dynamic-parameters": Reason(
        "A parameter of the BatchNorm is computed from an input.",
        "Export the model with its BatchNorm parameters as constants.",
    ),
    "training-mode": Reason(
        "The BatchNorm normalises by the statistics of the batch, so it is no fixed map.",
        "Call `model.eval()` before the export, or give `--assume-eval`.",
    ),
    "padded-shift": Reason(
        "The linear operator below pads with zeros: at the border a shift would be missing.",
        "Nothing; a BatchNorm without shift folds there.",
    ),
    "conflict": Reason(
        "Two demands meet in one value or constant.",
    ),
    "non-finite": Reason(
        "The parameters, or the folded weights, are NaN or infinite: a negative variance, or zero without epsilon.",
        "Look at the training: such a BatchNorm is broken.",
    ),
    "range-overflow": Reason(
        "The folded weights pass the largest number of their type (65504 for float16).",
        "Convert the model to float16 after folding, not before.",
    ),
    "below-precision": Reason(
        "What a folded constant says would be lost in its type: a factor of 1 + 3e-8 is 1 in float32.",
    ),
    "dynamic-shape": Reason(
        "Where the channels go depends on sizes that are known only at run time.",
        "Export with fixed sizes, or with fewer symbolic ones.",
    ),
    "quantized": Reason(
        "The weight is stored as integers, or the value is rounded to integers in between.",
        "Fold before quantizing.",
    ),
    "overridable": Reason(
        "The weight is a default value of a graph input (an initializer that is listed as an input), which callers may "
        "override.",
        "Give `--freeze-initializers` if nobody does.",
    ),
    "too-large": Reason(
        "The fold is possible, but would add more parameters than it is worth.",
    ),
    "not-selected": Reason(
        "`--only` or `--skip` leaves it out.",
    ),
    "taken-back": Reason(
        "It was folded, failed verification, and was restored.",
        "Please report it with the model.",
    ),
    "unsupported": Reason(
        "An operator, attribute or opset that bnfold does not read; it is left alone rather than guessed at.",
        "Convert the model to a newer opset, or report the operator.",
    ),
}
