"""The measurement: what it claims, what it does not, and how it spends its time. Clocks are simulated."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from bnfold.checks import bench as bench_module
from bnfold.checks import contest, turns
from bnfold.checks.bench import bench
from bnfold.checks.bench_feed import bench_feed
from bnfold.checks.contest import Contest
from bnfold.checks.feed import Feed
from bnfold.checks.finding import Finding, clocks_of, find
from bnfold.checks.memory import peak_growth
from bnfold.checks.options import CheckOptions
from bnfold.checks.session import Session, open_session
from bnfold.checks.stats import RatioEstimate, median_ratio, minimum_effect, verdict
from bnfold.checks.turns import ROLES, Role, Segment
from bnfold.errors import ModelError, UsageError

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def network(width: int = 8, batch: str = "N") -> bytes:
    proto = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]>\nf (float[{batch}, {width}] x) => (float[{batch}, {width}] y) '
        "{ y = MatMul(x, w) }"
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.eye(width, dtype=np.float32), "w"))
    return proto.SerializeToString()


Drawn = Callable[[random.Random], float]


class Machine:
    """Clocks that only running models and opening sessions move, and sessions whose processor times are drawn.

    By the wall clock a run takes `stretch` times as long, which is drawn for each: what others take of the cores.
    """

    def __init__(
        self, ms: dict[Role, Drawn], open_ms: float = 1.0, seed: int = 0, stretch: Drawn = lambda _: 1.0
    ) -> None:
        self.ms, self.open_ms, self.stretch = ms, open_ms, stretch
        self.now_ns = self.cpu_ns = 0
        self.random = random.Random(seed)  # noqa: S311 - plays a noisy machine
        self.switches = 0
        self.switch_rate = 0.0  # per second
        self.spinning: list[bool] = []
        self.alive: weakref.WeakSet[Any] = weakref.WeakSet()
        self.most_alive = 0
        self.collected_while_running = False

    def perf_counter(self) -> float:
        return self.now_ns / 1e9

    def monotonic(self) -> float:
        return self.now_ns / 1e9

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def process_time_ns(self) -> int:
        return self.cpu_ns

    def spend(self, ms: float) -> None:
        self.cpu_ns += round(ms * 1e6)
        self.now_ns += round(ms * 1e6 * self.stretch(self.random))
        self.switches = int(self.switch_rate * self.perf_counter())

    def open(self, role: Role, *, spinning: bool) -> Any:
        self.spend(self.open_ms)
        self.spinning.append(spinning)

        def run() -> None:
            self.collected_while_running |= gc.isenabled()
            self.spend(self.ms[role](self.random))

        opened = SimpleSession(init_ms=self.open_ms, runner=lambda values: run)
        self.alive.add(opened)
        self.most_alive = max(self.most_alive, len(self.alive))
        return opened

    def contest(
        self,
        monkeypatch: pytest.MonkeyPatch,
        seconds: float = 2.0,
        seed: int = 0,
        precise: Callable[[Any, bool], bool] = lambda *_: False,
    ) -> Contest:
        monkeypatch.setattr(contest, "time", self)
        monkeypatch.setattr(turns, "time", self)
        monkeypatch.setattr(turns, "_involuntary_switches", lambda: self.switches)
        monkeypatch.setattr(turns, "usable_cores", lambda: 2)
        return Contest(self.open, lambda session: Feed("", {}), precise, seconds, seed)

    def finding(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 2.0, seed: int = 0) -> Finding:
        """What `bench` would find on this machine."""

        def examine(segments: list[Segment], spinning: bool) -> Finding:
            clocks = turns.CLOCKS[:1] if spinning else turns.CLOCKS
            return find(segments, clocks, np.random.default_rng(seed))

        entry = self.contest(monkeypatch, seconds, seed, lambda *state: examine(*state).precise)
        segments = entry.run(lambda _: None)
        return examine(segments, entry.spinning)


class SimpleSession(SimpleNamespace):
    __hash__ = object.__hash__


def steady(ms: float, spread: float = 0.05) -> Drawn:
    return lambda rng: ms * rng.lognormvariate(0, spread)


def same(ms: float, spread: float = 0.05) -> dict[Role, Drawn]:
    return {role: steady(ms, spread) for role in ROLES}


# Claims


def bursty(ms: float) -> Callable[[random.Random], float]:
    """One run in seven takes up to three times as long: a neighbour at work."""
    return lambda rng: ms * rng.lognormvariate(0, 0.05) * (rng.uniform(1, 3) if rng.random() < 1 / 7 else 1)


@pytest.mark.parametrize("times", [steady, bursty])
@pytest.mark.parametrize(("factor", "expected"), [(1.0, "no measurable difference"), (1.1, "slower"), (0.9, "faster")])
def test_claims_are_true_and_differences_are_found(
    times: Callable[[float], Any], factor: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = []
    for seed in range(20):
        ms: dict[Role, Drawn] = {"original": times(5.0), "control": times(5.0), "folded": times(5.0 * factor)}
        claims.append(Machine(ms, seed=seed).finding(monkeypatch, seed=seed).verdict)
    assert claims.count(expected) >= 19


def crowded(rng: random.Random) -> float:
    """Two runs in three lose their core to somebody else, for as long as they run and longer."""
    return rng.uniform(1.5, 6) if rng.random() < 2 / 3 else 1.0


@pytest.mark.parametrize(("factor", "expected"), [(1.0, "no measurable difference"), (1.1, "slower"), (0.9, "faster")])
def test_on_a_crowded_machine_the_claims_are_by_processor_time(
    factor: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = []
    for seed in range(20):
        ms: dict[Role, Drawn] = {**same(15.0), "folded": steady(15.0 * factor)}
        machine = Machine(ms, open_ms=100.0, seed=seed, stretch=crowded)
        machine.switch_rate = 200.0
        finding = machine.finding(monkeypatch, seconds=10.0, seed=seed)
        claims.append(finding.verdict)
        assert finding.clock == "cpu"
        assert finding.wall.high / finding.wall.low > finding.ratio.high / finding.ratio.low
    assert claims.count(expected) >= 19


def test_a_clock_that_is_precise_is_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(same(5.0), stretch=lambda rng: rng.uniform(1, 1.1))
    machine.switch_rate = 200.0
    assert machine.finding(monkeypatch).clock == "wall"
    assert False in machine.spinning


def test_processor_time_of_a_gpu_or_of_spinning_threads_says_nothing() -> None:
    assert clocks_of("CPUExecutionProvider", spinning=False) == ("wall", "cpu")
    assert clocks_of("CPUExecutionProvider", spinning=True) == ("wall",)
    assert clocks_of("CUDAExecutionProvider", spinning=False) == ("wall",)


@pytest.mark.parametrize("open_ms", [1.0, 400.0], ids=["four openings", "one opening"])
def test_the_luck_of_a_session_is_not_taken_for_a_difference(open_ms: float, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lucky(Machine):
        """Every opening of a session is faster or slower than the next by a per cent or so, for good."""

        def open(self, role: Role, *, spinning: bool) -> Any:
            self.ms = {**self.ms, role: steady(5.0 * self.random.lognormvariate(0, 0.01))}
            return super().open(role, spinning=spinning)

    claims = []
    for seed in range(20):
        machine = Lucky(same(5.0), open_ms=open_ms, seed=seed)
        claims.append(machine.finding(monkeypatch, seed=seed).verdict)
    assert claims.count("no measurable difference") >= 19


@pytest.mark.parametrize(
    ("ratio", "control", "expected"),
    [
        ((1.10, 1.05, 1.15), (1.0, 0.99, 1.01), "faster"),
        ((0.90, 0.85, 0.95), (1.0, 0.99, 1.01), "slower"),
        ((1.10, 0.99, 1.15), (1.0, 0.99, 1.01), "no measurable difference"),
        ((0.90, 0.85, 1.01), (1.0, 0.99, 1.01), "no measurable difference"),
        ((1.015, 1.01, 1.02), (1.0, 1.0, 1.0), "no measurable difference"),
        ((0.985, 0.98, 0.99), (1.0, 1.0, 1.0), "no measurable difference"),
        ((1.10, 1.05, 1.15), (1.06, 1.02, 1.10), "no measurable difference"),
        ((1.10, 1.05, 1.15), (0.94, 0.90, 0.98), "no measurable difference"),
        ((0.90, 0.85, 0.95), (0.94, 0.90, 0.98), "no measurable difference"),
        ((0.90, 0.85, 0.95), (1.06, 1.02, 1.10), "no measurable difference"),
        ((0.90, 0.85, 0.95), (0.97, 0.80, 1.20), "slower"),
    ],
)
def test_the_rule(ratio: tuple[float, ...], control: tuple[float, ...], expected: str) -> None:
    assert verdict(RatioEstimate(*ratio, 24, 4), RatioEstimate(*control, 24, 4), shared=False) == expected


def test_with_one_opening_or_on_a_shared_machine_a_larger_difference_is_asked_for() -> None:
    control = RatioEstimate(1.0, 1.0, 1.0, 24, 1)
    cases = ((1, False), (4, False), (4, True))
    ratio = RatioEstimate(1.03, 1.02, 1.04, 24, 4)
    claims = [verdict(replace(ratio, openings=openings), control, shared=shared) for openings, shared in cases]
    assert claims == ["no measurable difference", "faster", "no measurable difference"]


def test_a_handful_of_rounds_proves_nothing() -> None:
    few = median_ratio([np.full(5, 2.0)], np.random.default_rng(0))
    enough = median_ratio([np.full(6, 2.0)], np.random.default_rng(0))
    control = RatioEstimate(1.0, 1.0, 1.0, blocks=24, openings=1)
    assert verdict(few, control, shared=False) == "no measurable difference"
    assert verdict(enough, control, shared=False) == "faster"


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        drift = np.repeat(rng.normal(0, 0.03, (4, 6)), 20, axis=1)  # neighbouring rounds are alike
        ratios = np.exp(np.log(1.2) + drift + rng.normal(0, 0.05, drift.shape))
        estimate = median_ratio(list(ratios), rng)
        assert estimate.low <= estimate.value <= estimate.high
        covered += estimate.low <= 1.2 <= estimate.high
    assert covered >= 180


def test_an_opening_of_a_few_rounds_leaves_the_interval_as_narrow_as_it_is() -> None:
    rng = np.random.default_rng(11)
    half = {}
    for sizes in ((120, 120), (118, 2, 118, 2), (114, 2, 2, 2, 114, 2, 2, 2)):
        noise = np.split(rng.normal(0, 0.1, 240), np.cumsum(sizes)[:-1])
        estimate = median_ratio([np.exp(part + (0.3 if len(part) == 2 else 0)) for part in noise], rng)
        half[len(sizes)] = np.log(estimate.high / estimate.low) / 2
    assert max(half.values()) < 1.5 * half[2]


def test_four_openings_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(12)
    noise = rng.normal(0, 0.02, (4, 60))
    even = median_ratio(list(np.exp(noise)), rng)
    uneven = median_ratio(list(np.exp(noise + np.array([[0.1], [-0.1], [0.05], [-0.05]]))), rng)
    assert np.log(uneven.high / uneven.low) > 3 * np.log(even.high / even.low)


def test_the_minimum_effect_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(5)

    def rounds(effect: float) -> tuple[RatioEstimate, RatioEstimate]:
        before, after, control = rng.normal(0, 0.15, (3, 4, 60)) + np.array([0, effect, 0])[:, None, None]
        ratios = np.exp(np.stack([before - after, control - after], axis=-1))
        return median_ratio(list(ratios), rng), median_ratio(list(np.exp(before - control)), rng)

    without = [minimum_effect(*rounds(0.0), shared=True) for _ in range(50)]
    effects = [effect for effect in without if effect is not None]
    assert len(effects) == 50
    effect = float(np.median(effects))
    assert 0.03 < effect < 0.1
    found = sum(verdict(*rounds(np.log1p(effect)), shared=True) == "slower" for _ in range(200)) / 200
    assert 0.65 < found < 0.95


def test_the_minimum_effect_is_what_the_rule_asks_for_and_a_little_more() -> None:
    exact = RatioEstimate(1.3, 1.3, 1.3, 24, 4)
    even = replace(exact, value=1.0, low=1.0, high=1.0)
    assert minimum_effect(exact, even, shared=False) == pytest.approx(0.0175)
    assert minimum_effect(exact, even, shared=True) == pytest.approx(0.035)
    assert minimum_effect(exact, replace(even, value=0.9), shared=False) == pytest.approx(1 / 0.9 - 1)
    wide = RatioEstimate(1.0, 1 / 1.1, 1.1, 24, 4)
    assert minimum_effect(wide, exact, shared=False) > 1.3 * 1.1 - 1
    assert minimum_effect(replace(wide, blocks=5), exact, shared=False) is None


# The contest


def test_time_is_spent_as_agreed(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(same(5.0), open_ms=20.0)
    fractions: list[float] = []
    segments = machine.contest(monkeypatch, seconds=2.0).run(fractions.append)
    assert machine.perf_counter() < 2.0 + 0.3 + 0.1
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] < fractions[-1] <= 1
    runs = {role: sum(len(segment.runs_ms[role]) for segment in segments) for role in ROLES}
    assert len(set(runs.values())) == 1
    assert runs["original"] * 3 * 5.0 > 1200


def test_it_stops_where_it_is_precise_and_goes_on_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    took = {}
    for spread in (0.02, 0.6):
        machine = Machine(same(5.0, spread))
        machine.finding(monkeypatch, seconds=10.0)
        took[spread] = machine.perf_counter()
    assert took[0.02] < 3.0
    assert 10.0 <= took[0.6] < 10.0 * 1.25 + 0.2


def test_cheap_sessions_are_opened_again_and_dear_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for open_ms, openings in ((5.0, 4), (100.0, 2), (400.0, 1)):
        machine = Machine(same(5.0), open_ms=open_ms)
        entry = machine.contest(monkeypatch)
        segments = entry.run(lambda _: None)
        assert len({segment.opening for segment in segments}) == openings
        for times in (entry.init_ms, entry.first_run_ms):
            assert {role: len(ms) for role, ms in times.items()} == dict.fromkeys(ROLES, openings)
        assert machine.most_alive <= 3


def test_a_model_slower_than_the_budget_is_run_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(same(10_000.0))
    (segment,) = machine.contest(monkeypatch, seconds=1.0).run(lambda _: None)
    assert len(segment.turns_ms) == 1
    assert machine.perf_counter() < 3 * 10 * 5


def test_a_fast_model_runs_several_times_a_turn_and_the_first_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def after_another(rng: random.Random) -> float:
        cold = machine.perf_counter_ns() != machine.warm_until
        machine.warm_until = machine.perf_counter_ns() + (300_000 if cold else 100_000)
        return 0.3 if cold else 0.1

    machine = Machine(dict.fromkeys(ROLES, after_another))
    machine.warm_until = -1
    segments = machine.contest(monkeypatch, seconds=0.2).run(lambda _: None)
    assert {clock: set(turns.runs_ms(segments, "folded", clock)) for clock in turns.CLOCKS} == {
        "wall": {0.1},
        "cpu": {0.1},
    }


def test_turns_are_in_random_order_and_without_garbage_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def noted(role: str) -> Callable[[random.Random], float]:
        def ms(rng: random.Random) -> float:
            order.append(role)
            return 5.0

        return ms

    machine = Machine({role: noted(role) for role in contest.ROLES}, open_ms=900.0)
    entry = machine.contest(monkeypatch, seconds=1.0)
    machine.collected_while_running = False
    segments = entry.run(lambda _: machine.__setattr__("collected_while_running", False))
    assert not machine.collected_while_running
    assert gc.isenabled()
    timed = order[-3 * sum(len(segment.turns_ms) for segment in segments) :]
    rounds = {tuple(timed[i : i + 3]) for i in range(0, len(timed) - 9, 3)}
    assert len(rounds) >= 4


def test_garbage_collection_is_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(rng: random.Random) -> float:
        if machine.perf_counter() > 1:
            raise ModelError("gone")
        return 5.0

    machine = Machine({**same(5.0), "folded": breaks})
    with pytest.raises(ModelError, match="gone"):
        machine.contest(monkeypatch).run(lambda _: None)
    assert gc.isenabled()


# Machines that others use too


def test_on_a_quiet_machine_workers_spin_as_they_do_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(same(5.0))
    machine.switch_rate = 10.0
    entry = machine.contest(monkeypatch)
    entry.run(lambda _: None)
    assert set(machine.spinning) == {True}
    assert (entry.spinning, entry.dropped) == (True, 0)


@pytest.mark.parametrize("sign", ["switches", "scatter"])
def test_on_a_shared_machine_workers_sleep_and_the_first_segment_is_dropped(
    sign: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(same(5.0, spread=0.3 if sign == "scatter" else 0.05))
    machine.switch_rate = 200.0 if sign == "switches" else 0.0
    entry = machine.contest(monkeypatch)
    segments = entry.run(lambda _: None)
    assert machine.spinning == [True] * 3 + [False] * 12
    assert [segment.opening for segment in segments] == [1, 2, 3, 4]
    assert (entry.spinning, entry.dropped) == (False, 1)
    assert machine.perf_counter() < 2.0 * 1.25 + 0.2


def test_workers_that_cannot_sleep_cost_the_segments_in_which_they_are_disturbed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def disturbed(rng: random.Random) -> float:
        return 5.0 * rng.lognormvariate(0, 0.6 if machine.perf_counter() < 0.5 else 0.02)

    machine = Machine(dict.fromkeys(ROLES, disturbed))
    entry = replace(machine.contest(monkeypatch), may_sleep=False)
    segments = entry.run(lambda _: None)
    assert set(machine.spinning) == {True}
    assert (entry.spinning, entry.dropped, len(segments)) == (True, 1, 3)


def test_a_disturbance_later_on_costs_its_segment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def disturbed(rng: random.Random) -> float:
        return 5.0 * rng.lognormvariate(0, 0.6 if 0.7 < machine.perf_counter() < 1.1 else 0.02)

    machine = Machine(dict.fromkeys(ROLES, disturbed))
    entry = machine.contest(monkeypatch)
    segments = entry.run(lambda _: None)
    assert set(machine.spinning) == {True}
    assert [segment.opening for segment in segments] == [0, 2, 3]
    assert entry.dropped == 1


def test_early_disturbances_that_outweigh_the_rest_put_the_workers_to_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    def disturbed(rng: random.Random) -> float:
        return 5.0 * rng.lognormvariate(0, 0.6 if 0.6 < machine.perf_counter() < 1.5 else 0.02)

    machine = Machine(dict.fromkeys(ROLES, disturbed))
    entry = machine.contest(monkeypatch, seconds=8.0)
    segments = entry.run(lambda _: None)
    assert (entry.spinning, entry.dropped) == (False, 2)
    assert segments[0].opening == 2
    assert machine.perf_counter() < 8.0 * 1.25 + 0.2


# With ONNX Runtime


@pytest.mark.parametrize("source", ["bytes", "path"])
def test_a_bench_of_a_model_against_itself(source: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(network())
    model = path if source == "path" else network()
    seen: list[float] = []
    results = bench(model, model, CheckOptions(bench_seconds=0.05), progress=lambda _, done: seen.append(done))
    assert [(result.provider, result.opt_level) for result in results] == [
        ("CPUExecutionProvider", "disable"),
        ("CPUExecutionProvider", "all"),
    ]
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    for result in results:
        assert result.runs > 0
        assert 0 < result.before_ms <= result.before_p90_ms <= result.before_p99_ms
        assert 0 < result.after_ms <= result.after_p90_ms <= result.after_p99_ms
        assert result.ci95[0] <= result.ratio <= result.ci95[1]
        assert result.control_ci95[0] <= result.control_ratio <= result.control_ci95[1]
        assert result.init_before_ms > 0
        assert result.init_after_ms > 0


def test_memory_is_measured_of_each_model_alone(tmp_path: Path) -> None:
    (tmp_path / "large.onnx").write_bytes(network(2048))  # 16 MiB of weights
    text = "f (float[N, 2048] x) => (float[N, 2048] y) { y = Identity(x) }"
    small = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}').SerializeToString()
    rows = bench(small, tmp_path / "large.onnx", CheckOptions(bench_seconds=0.02), memory=True)
    assert len(rows) == 2
    for row in rows:
        assert row.memory_before_bytes is not None
        assert row.memory_after_bytes is not None
        assert row.memory_after_bytes - row.memory_before_bytes > 0.9 * 2**24


def test_memory_of_a_model_that_cannot_be_run_alone_is_unknown() -> None:
    asked = {"intra_op_num_threads": None, "provider_options": {}}
    assert peak_growth(b"rubbish", "CPUExecutionProvider", "all", {}, **asked) is None


def test_a_model_that_does_a_hundred_times_the_work_is_slower() -> None:
    results = bench(network(width=16, batch="1"), _squares(16, 400), CheckOptions(bench_seconds=0.3))
    assert [result.after_ms > result.before_ms for result in results] == [True, True]
    assert [result.ratio < 1 for result in results] == [True, True]


def _squares(width: int, times: int) -> bytes:
    proto = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]>\nf (float[1, {width}] x) => (float[1, {width}] y) {{ '
        + "v0 = MatMul(x, w) "
        + " ".join(f"v{i + 1} = MatMul(v{i}, w)" for i in range(times))
        + f" y = Identity(v{times}) }}"
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.eye(width, dtype=np.float32), "w"))
    return proto.SerializeToString()


def test_sessions_are_opened_as_the_user_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def noting(*args: Any, **kwargs: Any) -> Session:
        asked.append(kwargs)
        return open_session(*args, **kwargs)

    monkeypatch.setattr(bench_module, "open_session", noting)
    bench(network(), network(), CheckOptions(bench_seconds=0.02, intra_op_num_threads=1))
    assert {entry["intra_op_num_threads"] for entry in asked} == {1}
    assert {entry["tf32"] for entry in asked} == {True}
    assert {entry["deterministic"] for entry in asked} == {False}


def test_every_batch_size_is_measured_on_its_own() -> None:
    rows = bench(network(), network(), CheckOptions(bench_seconds=0.02, batch_sizes=(1, 5)))
    assert [(row.batch_size, row.opt_level) for row in rows] == [(1, "disable"), (1, "all"), (5, "disable"), (5, "all")]


def test_every_number_of_threads_is_measured_on_its_own() -> None:
    options = CheckOptions(bench_seconds=0.02, intra_op_num_threads=1, bench_threads=(1, 2))
    rows = bench(network(), network(), options, levels=("all",))
    assert [row.intra_op_num_threads for row in rows] == [1, 2]


@pytest.mark.parametrize(
    ("model", "options", "sizes"),
    [
        (network(), {}, {None: 1, 3: 3}),
        (network(batch="4"), {}, {None: 4, 4: 4}),
        (network(), {"input_shapes": {"x": (6, 8)}}, {None: 6, 6: 6}),
    ],
)
def test_the_batch_is_the_one_asked_for(model: bytes, options: dict[str, Any], sizes: dict[Any, int]) -> None:
    session = open_session(model)
    for batch, rows in sizes.items():
        assert bench_feed(session, CheckOptions(**options), batch).values["x"].shape == (rows, 8)


def test_a_batch_that_is_fixed_cannot_be_another() -> None:
    with pytest.raises(UsageError, match="batch size 2: the first axis of input 'x' is fixed at 4"):
        bench(network(batch="4"), network(batch="4"), CheckOptions(bench_seconds=0.02, batch_sizes=(2,)))
    with pytest.raises(UsageError, match="fixed at 6"):
        bench_feed(open_session(network()), CheckOptions(input_shapes={"x": (6, 8)}), 2)


def test_inputs_that_cannot_be_made_up_come_from_the_user(tmp_path: Path) -> None:
    text = "f (string[2] x) => (string[2] y) { y = Identity(x) }"
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}').SerializeToString()
    with pytest.raises(UsageError, match="string"):
        bench(model, model, CheckOptions(bench_seconds=0.02))
    np.save(tmp_path / "x.npy", np.array(["a", "b"]))
    results = bench(model, model, CheckOptions(bench_seconds=0.02, input_data=tmp_path / "x.npy"))
    assert len(results) == 2


@pytest.mark.parametrize(
    ("original", "folded", "reason"),
    [(b"rubbish", network(), "load the original"), (network(), b"rubbish", "load the folded model")],
)
def test_models_that_cannot_be_loaded(original: bytes, folded: bytes, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        bench(original, folded, CheckOptions(bench_seconds=0.02))


def test_a_provider_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="abacus"):
        bench(network(), network(), CheckOptions(providers=("abacus",)))


@pytest.mark.skipif(not HAS_CUDA, reason="CUDAExecutionProvider is not available here")
def test_a_bench_on_cuda() -> None:
    results = bench(network(256), network(256), CheckOptions(bench_seconds=0.3, providers=("cuda",)))
    assert {result.provider for result in results} == {"CUDAExecutionProvider"}
    assert {result.verdict for result in results} == {"no measurable difference"}
