"""What a search for failures learns of one case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from oracle import Judgement

from bnfold.results import Site


@dataclass
class Verdict:
    """What became of the case of a seed; `failures` is empty where all is well.

    `disputed` says what was not judged because other tools contradict each other, `unjudged` why nothing was. `about`
    is a word on the case, and `files` has, by name, what is worth saving of it.
    """

    seed: int
    failures: list[str] = field(default_factory=list)
    disputed: str = ""
    unjudged: str = ""
    sites: tuple[Site, ...] = ()
    about: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, seed: int, judgement: Judgement, files: Mapping[str, bytes], about: str = "") -> Verdict:
        """The verdict on an ONNX model whose fold was judged by two engines."""
        return cls(
            seed,
            judgement.failures,
            disputed="the reference and ONNX Runtime differ" if judgement.disputed else "",
            unjudged="ONNX Runtime does not run the model" if judgement.unjudged else "",
            sites=judgement.sites,
            about=about,
            files=files,
        )
