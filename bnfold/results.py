"""What a run found, as plain values: the types that `api` returns and `report` prints.

All are frozen and hold nothing but strings, numbers and tuples, so that they can be kept, compared and
serialised without the model. Units stand in the names: `_ms` milliseconds, `_bytes` bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Direction = Literal["backward", "forward", "split", "merged", "shortened"]
Role = Literal["site", "absorbs", "crossed", "blocks", "beside"]


@dataclass(frozen=True)
class Operator:
    """One operator of the part of a graph that a site is about, as the fold found it; `reads` are the places, in that
    part, of the operators whose values it reads.

    `site`: a node of the site, which goes if it folds, as does every other node that the fold takes along. `absorbs`:
    its constants change. `crossed`: the fold passes through it. `blocks`: it, or whoever sees its value, is in the
    way. `reads_outside` and `readers_outside` count computed inputs and readers that are not in that part, an output
    of the graph being a reader. `gains_bias` says that the fold puts an addition behind it.
    """

    name: str
    op: str
    role: Role
    reads: tuple[int, ...] = ()
    reads_outside: int = 0
    readers_outside: int = 0
    gains_bias: bool = False


@dataclass(frozen=True)
class Explanation:
    """What a reason for which sites stay means, and what helps; `remedy` is empty where nothing does."""

    reason: str
    meaning: str
    remedy: str = ""


@dataclass(frozen=True)
class Certificate:
    """Whether one fold, apart from everything else in the model, is the same function apart from rounding.

    The operators between the site and what absorbed it are cut out of the original and of the folded model and both
    are run in float64 on random inputs, with the folded constants as they were before they were rounded. `error` is the
    largest difference, relative to the largest value; `rounding` is the largest relative difference between a folded
    constant in the file and that constant unrounded. `operators` are the types of operator in the cut-out, `together`
    the other sites that fold inside it. A cut-out that cannot be run is "not run", with the reason in `detail`.
    """

    status: Literal["proven", "failed", "not run"]
    error: float | None = None
    rounding: float | None = None
    operators: tuple[str, ...] = ()
    together: tuple[str, ...] = ()
    detail: str | None = None


@dataclass(frozen=True)
class Site:
    """One BatchNorm, or one chain of operators that spells the same affine map, and what became of it.

    `op` is "BatchNormalization", or "affine" for a chain spelled otherwise. A folded site names the nodes that
    absorbed it (`into`) and the operator types between (`through`); a chain that could only be "shortened" names its
    own nodes that are left. A kept site has a `reason` (a code that the README explains), the node that blocked it and
    one sentence of detail. `added_bytes` is at most how much larger the model became: copies of constants that others
    still read, and new biases. `certificate` is there on request.
    `operators` is the part of the graph that this is about, in topological order; empty where it is too large to be
    drawn, and where drawings were declined.
    """

    name: str
    op: Literal["BatchNormalization", "affine"]
    status: Literal["folded", "kept"]
    direction: Direction | None = None
    into: tuple[str, ...] = ()
    through: tuple[str, ...] = ()
    reason: str | None = None
    blocker: str | None = None
    detail: str | None = None
    added_bytes: int = 0
    certificate: Certificate | None = None
    operators: tuple[Operator, ...] = ()

    @property
    def folded(self) -> bool:
        return self.status == "folded"


@dataclass(frozen=True)
class Source:
    """The file that was read. `sha256` is None for a model that was given in memory.

    `opset` and `ir_version` are those of the ONNX graph that was folded; None for a PyTorch model that is folded as it
    is.
    """

    path: str | None
    sha256: str | None
    opset: int | None
    ir_version: int | None


@dataclass(frozen=True)
class Counts:
    """What a graph holds, subgraphs and functions included; `linears` are Gemm and MatMul nodes."""

    batch_norms: int
    convs: int
    linears: int
    nodes: int
    file_bytes: int | None = None


@dataclass(frozen=True)
class Quantiles:
    """Of a set of errors: half of them are at most `p50`, 90 % at most `p90`, 99 % at most `p99`, 99.9 % `p999`."""

    p50: float
    p90: float
    p99: float
    p999: float


@dataclass(frozen=True)
class OutputDifference:
    """How far one output of the folded model is from the original's, over all inputs tried.

    `input` is the input on which the output came nearest to a bound, or went furthest past it. `max_abs` is the largest
    difference there between the runtime's two answers, and `tolerance` is the bound for the whole output,
    `atol + rtol * max|reference|`. Every channel, and every place along another short axis, has a bound of its own;
    `place` is where it was nearest (None for the whole), with the error and the bound there. `decided_by` says whose
    errors those are: "float64" where the runtime's own rounding passes the bound and float64 says that the functions
    agree, or do not. The quantiles are those of the same input: `abs_error` of `|error|`, `rel_error` of
    `|error| / |reference|` entry by entry. `max_rel` is the
    largest error over all inputs, relative to `max|reference|`; `cosine` and `snr_db` are the smallest over all inputs
    (`snr_db` is None where there is no error at all). `noise_floor` is the same absolute error between the original at
    full optimisation and the original with none: what the runtime itself changes. `smallest_rtol` is the smallest
    relative tolerance that would pass with the given `atol`. `top1_agreement` and `top5_agreement` are fractions, for
    outputs of shape (N, classes) only: of rows with the same largest class, and of the five largest classes that are
    the same.

    Where both models were run in float64: `exact_before` and `exact_after` are the largest distance of the original's
    and the folded model's own answer from the original's in float64, `exact_difference` that of the folded model in
    float64: what is left of the difference when no rounding but that of the weights takes part.
    """

    name: str
    max_abs: float
    max_rel: float
    tolerance: float
    passed: bool
    decided_by: Literal["runtime", "float64"] = "runtime"
    place: str | None = None
    place_error: float | None = None
    place_tolerance: float | None = None
    noise_floor: float | None = None
    cosine: float | None = None
    top1_agreement: float | None = None
    smallest_rtol: float | None = None
    detail: str | None = None
    input: str | None = None
    abs_error: Quantiles | None = None
    rel_error: Quantiles | None = None
    snr_db: float | None = None
    top5_agreement: float | None = None
    exact_before: float | None = None
    exact_after: float | None = None
    exact_difference: float | None = None


@dataclass(frozen=True)
class Accuracy:
    """Top-1 hits of one output on labelled data, before and after."""

    output: str
    correct_before: int
    correct_after: int
    total: int


@dataclass(frozen=True)
class Culprit:
    """A fold with which the outputs differed.

    `error` is the relative error that the fold makes on its own, in float64; None where that could not be run.
    `growth` follows the error through the graph: pairs of a value and its error relative to the value's largest
    entry, from the first value that is not what it was to the outputs.
    """

    site: str
    error: float | None = None
    growth: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class BorderOutput:
    """One output on both sides of the border between PyTorch and what was made of it.

    `export_error` is the largest difference between the exported model and PyTorch in the model's own types, the
    exporter's doing, held to `tolerance`; `input` names the input on which it came nearest to that (or furthest past
    it). `eager`, `exported` and `folded` are the errors of PyTorch in the model's own types, of the exported model and
    of the folded one, on that input.
    """

    name: str
    passed: bool
    tolerance: float
    export_error: float
    eager: float
    exported: float
    folded: float
    input: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Border:
    """What came over the border between PyTorch and a file, so that no error of an exporter is put down to the fold.

    `reference` says against what errors are measured. `forms` names the forms of the model that were run, in the order
    of the errors in `outputs`.
    """

    passed: bool
    reference: str
    forms: tuple[str, ...]
    outputs: tuple[BorderOutput, ...]


@dataclass(frozen=True)
class Proof:
    """The parts in which two models differ, each run by itself in float64 on inputs of its own; what is not in them is
    the same in both, byte for byte.

    Of `parts`, `proven` are the same function: `error` is the largest difference seen, relative to the size of the
    channel (or other slice) that it is in. `wrong` and `open` name the others by the value that they compute, with the
    reason; what is open could not be run, or not told from rounding.
    """

    parts: int
    proven: int
    error: float
    wrong: tuple[tuple[str, str], ...] = ()
    open: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Verification:
    """The verdict on equality. `reference` and `inputs` say in words what was compared and on what.

    `exact` says on what both models were run in float64 beside that, or why they were not; `proof` has the parts in
    which they differ, judged one by one, where that can be done. `notes` are remarks that
    decide nothing. `taken_back` are the sites whose folds were undone, `culprits` what is known of them. `border` is
    there for a model that came from PyTorch. `depth` follows the error from value to value down the graph, on one
    input: pairs of a value that must be the same in both models and its error relative to the value's largest entry.
    """

    passed: bool
    reference: str
    outputs: tuple[OutputDifference, ...]
    inputs: tuple[str, ...] = ()
    accuracy: tuple[Accuracy, ...] = ()
    taken_back: tuple[str, ...] = ()
    exact: str | None = None
    proof: Proof | None = None
    notes: tuple[str, ...] = ()
    culprits: tuple[Culprit, ...] = ()
    border: Border | None = None
    depth: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Latency:
    """Original and folded model timed side by side on one provider at one optimisation level.

    A program of PyTorch's is timed as PyTorch runs it, which is the level "eager"; a session is a copy of it then.

    `ratio` is before / after (above 1: the folded model is faster), the median of paired ratios, and
    `ci95` its bootstrap 95 % interval. `control_ratio` and `control_ci95` are the same of the original
    against itself: what this machine calls a difference where there is none. `minimum_effect` is the smallest
    relative difference (0.03 is 3 %) that such a measurement finds four times in five; None where it can tell nothing.

    `clock` is what all of these and the `_ms` of runs are times of: "wall", or, where other programs kept taking the
    cores, "cpu", the processor time of all threads together. `wall_ratio` and `wall_ci95` are by the wall clock always.
    `disturbed_segments` of `segments` were dropped because of other programs; with `sleeping_workers`, ONNX Runtime's
    threads slept while they waited, because of the same, and did not spin as they do by default. Sessions were opened
    `openings` times; the runs took `seconds`.

    `init_*_ms` is the creation of a session, `first_run_*_ms` its first run. `memory_*_bytes` is what a process that
    opens one session and runs it a few times needs at its peak, beyond what it held before; None where that is unknown.
    `file_*_bytes` is the size on disk, with weights that lie in files of their own; None for a model in memory.
    `batch_size` is the one asked for, None for that of the model or of the user's data. `provider_options` are what
    the provider was set to, `bench_seconds` and `seed` are the settings of the measurement.
    The `quantiles_ms` are those of single runs at 0, 1, ... 100 %.
    """

    provider: str
    opt_level: Literal["disable", "all", "eager"]
    before_ms: float
    after_ms: float
    ratio: float
    ci95: tuple[float, float]
    init_before_ms: float
    init_after_ms: float
    verdict: Literal["faster", "slower", "no measurable difference"]
    control_ratio: float
    control_ci95: tuple[float, float]
    before_p90_ms: float
    before_p99_ms: float
    after_p90_ms: float
    after_p99_ms: float
    runs: int
    clock: Literal["wall", "cpu"] = "wall"
    minimum_effect: float | None = None
    wall_ratio: float | None = None
    wall_ci95: tuple[float, float] | None = None
    segments: int = 0
    disturbed_segments: int = 0
    sleeping_workers: bool = False
    openings: int = 1
    seconds: float = 0.0
    first_run_before_ms: float | None = None
    first_run_after_ms: float | None = None
    memory_before_bytes: int | None = None
    memory_after_bytes: int | None = None
    file_before_bytes: int | None = None
    file_after_bytes: int | None = None
    batch_size: int | None = None
    intra_op_num_threads: int | None = None
    provider_options: tuple[tuple[str, str], ...] = ()
    bench_seconds: float | None = None
    seed: int | None = None
    before_quantiles_ms: tuple[float, ...] = ()
    after_quantiles_ms: tuple[float, ...] = ()


@dataclass(frozen=True)
class Environment:
    """Where a run took place and with what. `load` is the operating system's average of the last minute before.

    `cores` are those that the process may use.
    """

    os: str
    cpu: str
    cores: int
    load: float | None
    python: str
    numpy: str
    onnxruntime: str


@dataclass(frozen=True)
class Report:
    """The account of one run of `convert` or `inspect`; `reasons` explains those for which its sites stay.

    A conversion that verifies or measures took `seconds`, of `seconds_allowed`.
    """

    version: str
    source: Source
    sites: tuple[Site, ...]
    before: Counts
    after: Counts | None = None
    output_path: str | None = None
    verification: Verification | None = None
    latency: tuple[Latency, ...] = ()
    notes: tuple[str, ...] = ()
    environment: Environment | None = None
    reasons: tuple[Explanation, ...] = ()
    seconds: float | None = None
    seconds_allowed: float | None = None

    @property
    def batch_norms(self) -> tuple[Site, ...]:
        return tuple(site for site in self.sites if site.op == "BatchNormalization")

    @property
    def kept(self) -> tuple[Site, ...]:
        return tuple(site for site in self.sites if not site.folded)

    def with_(self, **changes: object) -> Report:
        """A copy with some fields replaced."""
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Comparison:
    """The account of one run of `verify` or `bench` on two files, `original` and `other`, as they were named."""

    version: str
    original: str
    other: str
    verification: Verification | None = None
    latency: tuple[Latency, ...] = ()
    environment: Environment | None = None
