"""The command line: parse, call the public API, print what it returns, choose the exit code.

Nothing but click is imported until a command runs, so that `--help` and `--version` are instant.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import bnfold
from bnfold.cli_options import (
    FILE,
    VERBOSE,
    bench_options,
    check_options,
    data_options,
    dynamic_axes,
    print_options,
    shape_option,
    shaped_options,
    site_options,
    tolerance_options,
    torch_options,
)
from bnfold.cli_signals import Ended, ended_by_signals
from bnfold.errors import BnfoldError, EquivalenceError

if TYPE_CHECKING:
    from bnfold.results import Comparison, Report

EXIT_NOT_EQUIVALENT = 1
EXIT_INVALID = 2
EXIT_SITES_KEPT = 3
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

_EPILOG = """\b
Exit codes:
  0    done; BatchNorms that stay are listed, they are no failure
  1    the models are not equivalent; nothing was written
  2    bad usage, or a file that cannot be read, understood or written
  3    --require-all was given and a BatchNorm stays
  70   internal error: please report it
  130  interrupted; 143 terminated, 129 hung up
"""


class _Commands(click.Group):
    """The one place where an exception becomes one line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        _open_closed_streams()
        try:
            with ended_by_signals():
                result = super().invoke(ctx)
            # A reader that has gone away is noticed here and not while the interpreter shuts down.
            sys.stdout.flush()
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except EquivalenceError as error:
            _stop(ctx, EXIT_NOT_EQUIVALENT, str(error))
        except BnfoldError as error:
            _stop(ctx, EXIT_INVALID, str(error))
        except KeyboardInterrupt:
            _stop(ctx, EXIT_INTERRUPTED, "interrupted")
        except Ended as signal:
            _stop(ctx, signal.exit_code, str(signal))
        except BrokenPipeError:
            _drop_output()
            ctx.exit(EXIT_BROKEN_PIPE)
        except OSError as error:
            _stop(ctx, EXIT_INVALID, str(error))
        except MemoryError as error:
            _stop(ctx, EXIT_INVALID, f"out of memory: {error}")
        except Exception as error:
            _internal_error(ctx, error)
        return result


def _open_closed_streams() -> None:
    """Give streams that were closed when the process began (`>&-`) the null device.

    Python has none for them then, and the next file that is opened, a model perhaps, would take their number.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it takes the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", closefd=False))  # noqa: SIM115


def _drop_output() -> None:
    """Forget what stdout and stderr cannot take, or the interpreter would complain of it, and exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _stop(ctx: click.Context, exit_code: int, message: str) -> NoReturn:
    from bnfold.report.words import printable

    one_line = " ".join(line.strip() for line in message.splitlines())
    with contextlib.suppress(OSError):  # a terminal that is gone takes no message
        click.echo(f"Error: {printable(one_line)}", err=True)
    _drop_output()
    ctx.exit(exit_code)


def _internal_error(ctx: click.Context, error: Exception) -> NoReturn:
    advice = "please report this"
    if ctx.meta.get(VERBOSE):
        import traceback

        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    else:
        advice += "; --verbose shows the traceback"
    _stop(ctx, EXIT_INTERNAL, f"internal error: {type(error).__name__}: {error} ({advice})")


@click.group(cls=_Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(bnfold.__version__, prog_name="bnfold")
def main() -> None:
    """Fold BatchNorm into the operators around it, prove that the model is the same function, measure the gain."""


@main.command()
@click.argument("source", metavar="IN", type=FILE)
@click.option(
    "-o", "--output", type=FILE, metavar="OUT", help="The file to write.  [default: IN's stem + .folded.onnx]"
)
@click.option("--force", is_flag=True, help="Overwrite OUT.")
@click.option("--no-verify", is_flag=True, help="Do not compare the folded model with the original.")
@click.option("--no-bench", is_flag=True, help="Do not measure latency.")
@click.option("--certify", is_flag=True, help="Prove every fold by itself in float64; certificates go into OUT too.")
@click.option("--simplify", is_flag=True, help="Run onnxsim first (extra: simplify).")
@click.option(
    "--save-as-external-data",
    is_flag=True,
    help="Put the weights beside OUT; automatic above 2 GB and where IN has them so.",
)
@torch_options
@site_options
@data_options
@tolerance_options
@bench_options
@print_options
def convert(
    source: Path,
    output: Path | None,
    force: bool,
    no_verify: bool,
    no_bench: bool,
    certify: bool,
    simplify: bool,
    save_as_external_data: bool,
    weights: Path | None,
    dynamic: tuple[str, ...],
    trust_pickle: bool,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    freeze_initializers: bool,
    assume_eval: bool,
    require_all: bool,
    reports: tuple[Path, ...],
    quiet: bool,
    verbose: bool,
    **checks: Any,
) -> None:
    """Fold IN, verify the result, measure it and write it to OUT.

    IN is an ONNX file, or PyTorch's: a program (.pt2), a TorchScript or pickled module, or package.module:factory, a
    function or class that gives a module. The suffix of OUT says what is written: .onnx or .pt2.
    """
    from bnfold.report.progress import progress_bar

    options = check_options(**checks)
    _spare_inputs(reports, source, weights=weights)
    try:
        with progress_bar(quiet=quiet) as progress:
            report = bnfold.convert(
                source,
                output,
                verify=not no_verify,
                bench=not no_bench,
                certify=certify,
                only=only,
                skip=skip,
                freeze_initializers=freeze_initializers,
                assume_eval=assume_eval,
                simplify=simplify,
                save_as_external_data=save_as_external_data or None,
                force=force,
                checksum=True if reports else None,
                depth=bool(reports),
                drawings=bool(reports),
                options=options,
                progress=progress,
                weights=weights,
                dynamic_shapes=dynamic_axes(dynamic),
                trust_pickle=trust_pickle,
            )
    except EquivalenceError as error:
        if error.report is not None:
            _publish(error.report, reports, quiet, verbose)
        raise
    _publish(report, reports, quiet, verbose)
    if require_all:
        _require_all(report)


@main.command()
@click.argument("source", metavar="IN", type=FILE)
@torch_options
@shape_option
@site_options
@print_options
def inspect(
    source: Path,
    weights: Path | None,
    dynamic: tuple[str, ...],
    trust_pickle: bool,
    input_shape: tuple[str, ...],
    only: tuple[str, ...],
    skip: tuple[str, ...],
    freeze_initializers: bool,
    assume_eval: bool,
    require_all: bool,
    reports: tuple[Path, ...],
    quiet: bool,
    verbose: bool,
) -> None:
    """List where every BatchNorm of IN would fold, or why it stays. IN is what `convert` takes."""
    _spare_inputs(reports, source, weights=weights)
    report = bnfold.inspect(
        source,
        only=only,
        skip=skip,
        freeze_initializers=freeze_initializers,
        assume_eval=assume_eval,
        checks=shaped_options(input_shape) if input_shape else None,
        weights=weights,
        dynamic_shapes=dynamic_axes(dynamic),
        trust_pickle=trust_pickle,
        drawings=bool(reports),
    )
    _publish(report, reports, quiet, verbose)
    if require_all:
        _require_all(report)


@main.command()
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@data_options
@tolerance_options
@print_options
def verify(a: Path, b: Path, reports: tuple[Path, ...], quiet: bool, verbose: bool, **checks: Any) -> None:
    """Find out whether A and B are the same function.

    A is the reference. Exit code 1 says that they are not.
    """
    from bnfold.report.progress import progress_bar
    from bnfold.results import Comparison

    options = check_options(**checks)
    _spare_inputs(reports, a, b)
    where = bnfold.environment()
    with progress_bar(quiet=quiet) as progress:
        verification = bnfold.verify(a, b, options=options, progress=progress)
    comparison = Comparison(bnfold.__version__, str(a), str(b), verification, environment=where)
    _publish(comparison, reports, quiet, verbose)
    if not verification.passed:
        raise EquivalenceError(f"{a} and {b} are not the same function within tolerance")


@main.command()
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option("--no-memory", is_flag=True, help="Do not measure how much memory A and B need.")
@data_options
@bench_options
@print_options
def bench(
    a: Path, b: Path, no_memory: bool, reports: tuple[Path, ...], quiet: bool, verbose: bool, **checks: Any
) -> None:
    """Measure whether A or B is faster, and whether that is real."""
    from bnfold.report.progress import progress_bar
    from bnfold.results import Comparison

    options = check_options(**checks)
    _spare_inputs(reports, a, b)
    where = bnfold.environment()
    with progress_bar(quiet=quiet) as progress:
        latency = bnfold.bench(a, b, memory=not no_memory, options=options, progress=progress)
    comparison = Comparison(bnfold.__version__, str(a), str(b), latency=latency, environment=where)
    _publish(comparison, reports, quiet, verbose)


def _spare_inputs(reports: tuple[Path, ...], *models: Path, weights: Path | None = None) -> None:
    """Raises OutputError for a report that would overwrite what the command reads."""
    if any(path.exists() for path in reports):
        from bnfold.api import files_read
        from bnfold.report.write import refuse_reports_over

        refuse_reports_over([*files_read(*models), *([weights] if weights else [])], reports)


def _publish(result: Report | Comparison, reports: tuple[Path, ...], quiet: bool, verbose: bool) -> None:
    """Print the result, unless quiet, and write it to every file asked for."""
    if not quiet:
        from bnfold.report.terminal import Screen, render

        click.echo(render(result, Screen.of(sys.stdout), verbose=verbose), nl=False)
    if reports:
        from bnfold.report.write import write_report

        for path in reports:
            write_report(path, result)


def _require_all(report: Report) -> None:
    kept = sum(not site.folded for site in report.batch_norms)
    if kept:
        written = f"; {report.output_path} is written all the same" if report.output_path else ""
        ctx = click.get_current_context()
        _stop(ctx, EXIT_SITES_KEPT, f"--require-all: {kept} of {len(report.batch_norms)} BatchNorms stay{written}")
