"""What must hold of the fold of any PyTorch module: `judged(seed)` makes one and tells which laws its fold breaks.

The laws are about the module form, the program form, their agreement, the account, the files, and errors. A module that
torch.export cannot trace by itself is `unjudged`; of it only the kind of the error is judged.
"""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import torch

import bnfold
from generators.modules.cases import make
from generators.modules.court import Court, again, told
from generators.modules.laws import module_laws
from generators.modules.laws_program import agreement, decomposed_laws, file_laws, program_laws
from generators.verdict import Verdict

# One case of so many is held to the laws that take longer.
THOROUGH, CONVERTED = 8, 20


def judged(seed: int) -> Verdict:
    """The verdict on the module of a seed."""
    verdict, threads = Verdict(seed), torch.get_num_threads()
    silence = io.StringIO()  # for what torch prints of a graph that it cannot export
    with warnings.catch_warnings(), redirect_stdout(silence), redirect_stderr(silence):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        torch.set_num_threads(1)
        try:
            _judge(verdict)
        except Exception as error:  # of a kind that no law foresees
            verdict.failures.append(f"judge: {told(error)}")
        finally:
            torch.set_num_threads(threads)
            logging.disable(logging.NOTSET)
    return verdict


def _judge(out: Verdict) -> None:
    case = make(out.seed)
    out.about = case.origin
    thorough, court = out.seed % THOROUGH == 0, Court(case, out)
    try:
        court.hear()
    except Exception as error:
        out.unjudged = f"does not run: {type(error).__name__}"
        court.told(lambda: bnfold.fold(case.model, example_inputs=court.arguments()), "fold", may_fail=True)
        return
    program: Any = None
    try:
        program = again(case.model, case.example)
        court.agrees = court.torch_agrees(program)
        if not court.agrees:
            out.disputed = "torch.export makes another function of it"
    except Exception as error:
        out.unjudged = f"no export: {type(error).__name__}"
    module = module_laws(court, program is None, thorough)
    if program is None:
        return
    folded = program_laws(court, program, thorough)
    if module is not None and folded is not None:
        agreement(court, module, folded)
    if thorough:
        decomposed_laws(court)
    if out.seed % CONVERTED == 0 and not court.named:
        file_laws(court)
