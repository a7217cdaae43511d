"""The kinds of random cases, and their verdicts, each case in a process that can be killed.

A kind is a module with a function `judged(seed) -> Verdict`.
"""

from __future__ import annotations

import importlib
import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent import futures

from pebble import ProcessExpired, ProcessPool

from generators.verdict import Verdict

KINDS = {
    "graphs": "generators.graphs",
    "grown": "generators.grown.judging",
    "modules": "generators.modules.judge",
    "operators": "generators.operators",
    "loaders": "generators.loaders.judging",
    "sandwich": "generators.sandwich.judging",
}
MOST_CASES = 200  # of one process, so that what libraries keep of old cases does not fill the memory


def verdicts(
    module: str, seeds: Iterable[int], jobs: int, seconds: float, arguments: tuple[str, ...] = ()
) -> Iterator[Verdict]:
    """The verdicts on seeds, in their order. A case that takes longer than `seconds`, or that dies, is a failure."""
    context = multiprocessing.get_context("spawn")
    with ProcessPool(jobs, MOST_CASES, importlib.import_module, [module], context) as pool:
        try:
            tasks = deque((seed, pool.schedule(_judged, (module, seed, *arguments), timeout=seconds)) for seed in seeds)
            while tasks:
                seed, task = tasks.popleft()
                try:
                    yield task.result()
                except futures.TimeoutError:  # another one than Python's in 3.10
                    yield Verdict(seed, [f"killed: {seconds:g} s have passed"])
                except ProcessExpired as error:
                    yield Verdict(seed, [f"died: {error}, exit code {error.exitcode}"])
                except Exception as error:
                    yield Verdict(seed, [f"crash: {type(error).__name__}: {error}"])
        finally:
            pool.stop()


def _judged(module: str, seed: int, *arguments: str) -> Verdict:
    verdict: Verdict = importlib.import_module(module).judged(seed, *arguments)
    return verdict
