"""The options of the commands, each worded once, and their way into `CheckOptions`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from bnfold.checks.options import (
    BENCH_SECONDS,
    BENCH_SECONDS_IN_CONVERSION,
    CheckOptions,
    parse_counts,
    parse_input_shape,
    parse_numbers,
    parse_provider_option,
    parse_range,
    parse_tolerance,
)
from bnfold.errors import UsageError

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Value = TypeVar("_Value")

FILE = click.Path(path_type=Path)
VERBOSE = f"{__name__}.verbose"  # where click's context keeps whether --verbose was given
_DEFAULTS = CheckOptions()
_DYNAMIC = re.compile(r"(?:(?P<name>.+):)?(?P<axis>\d{1,3})(?:=(?P<label>\w+))?")


def _options(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Several options as one decorator, so that each is worded once and stands in `--help` in this order."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _remember_verbose(ctx: click.Context, _: click.Parameter, verbose: bool) -> bool:
    ctx.meta[VERBOSE] = verbose
    return verbose


def _check_reports(_: click.Context, __: click.Parameter, paths: tuple[Path, ...]) -> tuple[Path, ...]:
    if paths:
        from bnfold.report.write import check_report_paths

        check_report_paths(paths)
    return paths


site_options = _options(
    click.option("--only", multiple=True, metavar="PATTERN", help="Fold only sites whose name matches; repeatable."),
    click.option("--skip", multiple=True, metavar="PATTERN", help="Leave sites whose name matches; repeatable."),
    click.option(
        "--freeze-initializers", is_flag=True, help="Initializers that are also graph inputs count as constants."
    ),
    click.option("--assume-eval", is_flag=True, help="Take BatchNorms in training mode as inference ones."),
    click.option("--require-all", is_flag=True, help="Exit with 3 when a BatchNorm stays."),
)
_INPUT_SHAPE = click.option(
    "--input-shape",
    multiple=True,
    metavar="[NAME:][TYPE:]SHAPE",
    help="Shape of the test data, never of the model: x:1,3,224,224 or 1x3x224x224; repeatable.  A PyTorch module "
    "is traced on inputs of these shapes, of its weights' type or of another one: ids:int64:1,128.",
)
data_options = _options(
    _INPUT_SHAPE,
    click.option(
        "--input-data",
        type=FILE,
        metavar="FILE",
        help="Test data: .npy, .npz, or a folder of images.  A PyTorch module is traced on the arrays.",
    ),
    click.option("--mean", metavar="M,..", help="Of pictures, one number or one per channel: (x / 255 - mean) / std."),
    click.option("--std", metavar="S,..", help="The same for the divisor."),
    click.option("--val-range", metavar="LOW,HIGH", help="Range of generated test data."),
    click.option("--seed", type=int, default=_DEFAULTS.seed, show_default=True, help="Seed of everything random."),
    click.option(
        "--providers",
        metavar="NAMES",
        default=",".join(_DEFAULTS.providers),
        show_default=True,
        help="Where to run, separated by commas: cpu, cuda or names of ONNX Runtime's.",
    ),
    click.option(
        "--intra-op-num-threads",
        metavar="N[,N]",
        help="Threads per operator; of several, each is measured, the first is verified with.  "
        "[default: ONNX Runtime's choice]",
    ),
)
shape_option = _options(_INPUT_SHAPE)
torch_options = _options(
    click.option(
        "--weights", type=FILE, metavar="FILE", help="Weights for module:factory: .safetensors, or a state dict."
    ),
    click.option(
        "--dynamic",
        multiple=True,
        metavar="[NAME:]AXIS[=LABEL]",
        help="Leave an axis of a PyTorch module's input open, as in x:0=batch; repeatable.",
    ),
    click.option(
        "--trust-pickle",
        is_flag=True,
        help="Let code in IN run: a pickled module, TorchScript, a program with more in it than a plain one.",
    ),
)
tolerance_options = _options(
    click.option(
        "--exact-seconds",
        type=float,
        metavar="S",
        default=_DEFAULTS.exact_seconds,
        show_default=True,
        help="Seconds of running both models in float64 too, more on inputs that decide; 0 for none.",
    ),
    click.option(
        "--seconds",
        type=float,
        metavar="S",
        default=_DEFAULTS.seconds,
        show_default=True,
        help="Longest time for all of it; what is not done by then is left out and told.",
    ),
    click.option(
        "--check-n",
        type=int,
        metavar="N",
        default=_DEFAULTS.check_n,
        show_default=True,
        help="Number of generated inputs; 0 is allowed beside --input-data.",
    ),
    click.option(
        "--rtol",
        multiple=True,
        metavar="[NAME:]X",
        help="Relative tolerance of one output or of all; repeatable.  [default: by the output's type]",
    ),
    click.option(
        "--atol",
        multiple=True,
        metavar="[NAME:]X",
        help="Absolute tolerance of one output or of all; repeatable.  [default: by the output's type]",
    ),
)
bench_options = _options(
    click.option(
        "--bench-seconds",
        type=float,
        metavar="S",
        help="Most seconds of running models, per provider, optimisation level and batch size; fewer where 5 % of "
        f"difference can be told sooner.  [default: {BENCH_SECONDS:g}; in convert {BENCH_SECONDS_IN_CONVERSION:g}]",
    ),
    click.option(
        "--batch-sizes", metavar="N,N", help="Batch sizes to measure with.  [default: 1, or what the model fixes]"
    ),
    click.option(
        "--provider-option",
        multiple=True,
        metavar="NAME:KEY=VALUE",
        help="ONNX Runtime's option of a provider, for the measurement: cuda:use_tf32=0; repeatable.",
    ),
)
print_options = _options(
    click.option(
        "--report",
        "reports",
        type=FILE,
        multiple=True,
        metavar="FILE",
        callback=_check_reports,
        help="Write a report: .json, .md or .html; repeatable.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
    click.option("-v", "--verbose", is_flag=True, callback=_remember_verbose, help="Print every detail."),
)


def shaped_options(texts: Iterable[str]) -> CheckOptions:
    """Options with shapes and types by input name. Raises UsageError where one cannot be read, or is given twice."""
    given = _by_name("--input-shape", ((name, (shape, dtype)) for name, shape, dtype in map(parse_input_shape, texts)))
    shapes = {name: shape for name, (shape, _) in given.items()}
    return CheckOptions(input_shapes=shapes, input_types={name: dtype for name, (_, dtype) in given.items() if dtype})


def dynamic_axes(texts: Iterable[str]) -> dict[str, dict[int, str | None]] | None:
    """Axes to leave open, by input ("" for the first) and axis, with a label or None; None if there are none.

    Raises UsageError for what is not written as x:0, x:0=batch, or either without the name.
    """
    axes: dict[str, dict[int, str | None]] = {}
    for text in texts:
        match = _DYNAMIC.fullmatch(text)
        if match is None or (match["label"] or "_").isidentifier() is False:
            raise UsageError(f"--dynamic {text}: write it as x:0, or x:0=batch to give the axis a label")
        of_input = axes.setdefault(match["name"] or "", {})
        if int(match["axis"]) in of_input:
            raise UsageError(f"--dynamic {text}: this axis is given twice; give it once")
        of_input[int(match["axis"])] = match["label"]
    return axes or None


def check_options(
    *,
    input_shape: tuple[str, ...],
    input_data: Path | None,
    mean: str | None,
    std: str | None,
    val_range: str | None,
    seed: int,
    providers: str,
    intra_op_num_threads: str | None,
    check_n: int = _DEFAULTS.check_n,
    rtol: tuple[str, ...] = (),
    atol: tuple[str, ...] = (),
    exact_seconds: float = _DEFAULTS.exact_seconds,
    seconds: float = _DEFAULTS.seconds,
    bench_seconds: float | None = None,
    batch_sizes: str | None = None,
    provider_option: tuple[str, ...] = (),
) -> CheckOptions:
    """The options of the checks as one value; a command passes those that it has."""
    output_rtol = _by_name("--rtol", map(parse_tolerance, rtol))
    output_atol = _by_name("--atol", map(parse_tolerance, atol))
    threads = () if intra_op_num_threads is None else parse_counts(intra_op_num_threads, "numbers of threads")
    provider_options: dict[str, dict[str, str]] = {}
    for provider, key, value in map(parse_provider_option, provider_option):
        provider_options.setdefault(provider, {})[key] = value
    return replace(
        shaped_options(input_shape),
        input_data=input_data,
        mean=None if mean is None else parse_numbers(mean),
        std=None if std is None else parse_numbers(std),
        val_range=None if val_range is None else parse_range(val_range),
        seed=seed,
        check_n=check_n,
        rtol=output_rtol.pop("", None),
        atol=output_atol.pop("", None),
        output_rtol=output_rtol,
        output_atol=output_atol,
        providers=tuple(name.strip() for name in providers.split(",")),
        intra_op_num_threads=threads[0] if threads else None,
        bench_threads=threads if len(threads) > 1 else (),
        exact_seconds=exact_seconds,
        seconds=seconds,
        bench_seconds=bench_seconds,
        batch_sizes=() if batch_sizes is None else parse_counts(batch_sizes, "batch sizes"),
        provider_options=provider_options,
    )


def _by_name(option: str, pairs: Iterable[tuple[str, _Value]]) -> dict[str, _Value]:
    values: dict[str, _Value] = {}
    for name, value in pairs:
        if name in values:
            raise UsageError(f"{option} is given twice for {name or 'every name'}; give it once")
        values[name] = value
    return values
