"""From PyTorch to a file: every kind of source, to ONNX and to a program, run on ONNX Runtime and in PyTorch."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch
from click.testing import CliRunner, Result
from onnxruntime import InferenceSession
from saved import save
from torch import nn
from torch_networks import IMAGES, Code, calibrated, difference, lenet

import bnfold
from bnfold.checks.options import CheckOptions
from bnfold.cli import main
from bnfold.errors import EquivalenceError, MissingDependency, ModelError, OutputError, UsageError
from bnfold.graphs.torch import onnx_export
from bnfold.graphs.torch.exported import load_program
from bnfold.graphs.torch.opened import Request, open_source

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript

MAPS = (2, 3, 8, 8)
QUICK = CheckOptions(check_n=3, input_shapes={"x": MAPS})
FACTORY = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x)).relu()

def fresh():
    return Net()
"""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).relu()


@pytest.fixture
def net() -> nn.Module:
    return calibrated(Net())


@pytest.fixture
def here(tmp_path: Path, net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in with a factory and its weights."""
    (tmp_path / "nets.py").write_text(FACTORY)
    torch.save({"ema": net.state_dict()}, tmp_path / "weights.pth")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("nets", None)


def script(net: nn.Module) -> Path:
    torch.jit.save(torch.jit.script(net), "script.pt")
    return Path("script.pt")


def program(net: nn.Module) -> Path:
    torch.export.save(torch.export.export(net, (torch.randn(MAPS),)), "program.pt2")
    return Path("program.pt2")


def whole(net: nn.Module) -> Path:
    torch.save(net, "whole.pth")
    return Path("whole.pth")


def factory(net: nn.Module) -> str:
    return "nets:Net"


def itself(net: nn.Module) -> nn.Module:
    return net


def exported(net: nn.Module) -> Any:
    return torch.export.export(net, (torch.randn(MAPS),))


SOURCES: list[tuple[Callable[[nn.Module], Any], dict[str, Any]]] = [
    (script, {"trust_pickle": True}),
    (program, {}),
    (whole, {"trust_pickle": True}),
    (factory, {"weights": "weights.pth"}),
    (itself, {"example_inputs": torch.zeros(MAPS)}),
    (exported, {}),
]


def answer(path: Path, x: torch.Tensor) -> torch.Tensor:
    """What a written file gives."""
    if path.suffix == ".pt2":
        result: torch.Tensor = load_program(path, trusted=False).module()(x)
        return result
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"__pycache__"}


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize(("make", "arguments"), SOURCES, ids=lambda item: getattr(item, "__name__", ""))
def test_every_source_becomes_what_the_suffix_says(
    make: Callable[[nn.Module], Any], arguments: dict[str, Any], suffix: str, net: nn.Module, here: Path
) -> None:
    source, target = make(net), here / f"out{suffix}"
    options = CheckOptions(check_n=3) if make in (program, exported, itself) else QUICK
    weight = net.conv.weight.detach().clone()
    report = bnfold.convert(source, target, bench=False, options=options, **arguments)
    assert [(site.op, site.status) for site in report.sites] == [("BatchNormalization", "folded")]
    assert (report.before.batch_norms, report.after.batch_norms) == (1, 0)
    assert report.after.file_bytes == target.stat().st_size
    assert report.source.path == (str(source) if isinstance(source, str | Path) else None)
    assert (report.source.sha256 is not None) is isinstance(source, Path)
    assert (report.source.opset is not None) is (suffix == ".onnx")
    assert report.notes == (("weights taken from 'ema' of weights.pth",) if make is factory else ())
    x = torch.randn(MAPS)
    assert difference(net(x), answer(target, x)) < 1e-5
    assert torch.equal(net.conv.weight, weight)
    border = report.verification.border
    assert (report.verification.passed, border.passed, len(report.verification.inputs)) == (True, True, 3)
    assert border.forms == (
        "PyTorch",
        *(f"{kind} {'ONNX' if suffix == '.onnx' else 'program'}" for kind in ("exported", "folded")),
    )
    assert border.reference == f"PyTorch {torch.__version__} in float64"
    (output,) = border.outputs
    assert 0 < output.eager < 1e-5
    assert 0 < output.folded < 1e-5
    assert output.export_error <= output.tolerance
    if suffix == ".onnx":
        model = onnx.load(target)
        assert [info.name for info in model.graph.input] == ["x"]
        assert "conv.weight.folded" in {tensor.name for tensor in model.graph.initializer}
        assert [node.op_type for node in model.graph.node] == ["Conv", "Relu"]


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


# The command line.


def test_a_factory_from_the_current_directory_in_a_process_of_its_own(here: Path, net: nn.Module) -> None:
    root = Path(bnfold.__file__).parent.parent
    command = "-m bnfold convert nets:Net --weights weights.pth --input-shape x:1,3,8,8 --dynamic x:0=batch --no-bench"
    done = subprocess.run(
        [sys.executable, *command.split(), "--check-n", "4", "--report", "r.json", "--report", "r.md"],
        env={"PYTHONPATH": str(root), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert names(here) == {"nets.py", "weights.pth", "Net.folded.onnx", "r.json", "r.md"}
    session = InferenceSession("Net.folded.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, 8, 8]
    for batch in (1, 5):
        x = torch.randn(batch, 3, 8, 8)
        (y,) = session.run(None, {"x": x.numpy()})
        assert y.shape == (batch, 4, 6, 6)
        assert difference(net(x), torch.from_numpy(y)) < 1e-5
    report = json.loads(Path("r.json").read_text())
    border = report["verification"]["border"]
    assert report["source"]["path"] == "nets:Net"
    assert report["notes"] == ["weights taken from 'ema' of weights.pth"]
    assert report["batch_norms"] == {"found": 1, "folded": 1, "kept": 0}
    assert {text.rpartition("batch ")[2] for text in report["verification"]["inputs"]} == {"1", "2", "3"}
    assert (border["passed"], border["forms"]) == (True, ["PyTorch", "exported ONNX", "folded ONNX"])
    assert all(0 < border["outputs"][0][form] < 1e-5 for form in ("eager", "exported", "folded"))
    for text in (done.stdout, Path("r.md").read_text()):
        assert "exporter's error" in text
        assert "the exported ONNX computes what PyTorch does" in text


def test_bnlenet_as_a_pickled_module_and_as_its_state_dict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = calibrated(lenet())
    torch.save(module, "whole.pth")
    torch.save(module.state_dict(), "state.pth")
    common = ("--input-shape", "input:2,1,28,28", "--no-bench", "--check-n", "3", "--require-all", "--quiet")
    whole = run("convert", "whole.pth", "--trust-pickle", *common)
    assert (whole.exit_code, whole.stderr) == (0, "")
    state = run("convert", "torch_networks:lenet", "--weights", "state.pth", "--assume-eval", *common)
    assert (state.exit_code, state.stderr) == (0, "")
    x = torch.randn(IMAGES)
    expected = answer(tmp_path / "whole.folded.onnx", x)
    assert torch.equal(answer(tmp_path / "lenet.folded.onnx", x), expected)
    assert difference(module(x), expected) < 1e-5


SHAPE = ("--input-shape", "x:2,3,8,8", "--no-bench")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["nets:Net"],
            "a PyTorch module is traced on example inputs: the forward of the Net takes x; give --input",
        ),
        (
            ["nets:fresh", *SHAPE],
            "nets:fresh is in training mode, with 1 BatchNorm (norm): call eval() on it, or",
        ),
        (
            ["nets:Net", "-o", "out.bin", *SHAPE],
            "out.bin: the suffix says what to write: .onnx, or .pt2 for a program of",
        ),
        (["nets:Net", "-o", "o.pt2", "--simplify", *SHAPE], "--simplify is for an ONNX target; o.pt2 is a program of"),
        (
            ["nets:Net", "-o", "o.pt2", "--save-as-external-data", *SHAPE],
            "--save-as-external-data is for an ONNX",
        ),
        (
            ["nets:Net", "-o", "o.pt2", "--providers", "cuda", *SHAPE],
            "--providers are ONNX Runtime's; a program",
        ),
        (
            ["nets:Net", "-o", "o.pt2", "--intra-op-num-threads", "2", *SHAPE],
            "--intra-op-num-threads is ONNX Runtime's; set OMP_NUM_THREADS for a program",
        ),
        (["nets:Net", "--dynamic", "y:0", *SHAPE], "'y' is no input: the forward of the Net takes x"),
        (
            ["nets:Net", "--dynamic", "x:1", *SHAPE],
            "torch.export cannot trace the Net: UserError: Constraints",
        ),
        (
            ["state.pth"],
            "state.pth: this holds weights (a state dict); the code of the network is",
        ),
        (
            ["whole.pth", *SHAPE],
            "whole.pth: it holds a pickled nets.Net, and unpickling runs whatever",
        ),
        (
            ["program.pt2", "--dynamic", "x:0"],
            "program.pt2: example inputs and dynamic axes are for a module",
        ),
        (["program.pt2", "--weights", "state.pth"], "weights are for package.module:factory; program.pt2 has its own"),
        (
            ["a.onnx", "-o", "out.pt2"],
            "out.pt2: an ONNX model cannot be made a program of",
        ),
        (["a.onnx", "--weights", "state.pth"], "weights is for a PyTorch module; the model is of another kind"),
        (
            ["a.onnx", "--dynamic", "x:0"],
            "dynamic_shapes (--dynamic) is for a PyTorch module; the",
        ),
        (
            ["a.onnx", "--trust-pickle"],
            "trust_pickle (--trust-pickle) is for a PyTorch module;",
        ),
    ],
)
def test_what_cannot_be_converted_is_refused_in_one_line(
    args: list[str], said: str, here: Path, net: nn.Module
) -> None:
    from bnfold.graphs.torch.factories import build

    torch.save(net.state_dict(), "state.pth")
    torch.save(build("nets", "Net"), "whole.pth")
    save(here / "a.onnx")
    if "program.pt2" in args:
        program(net)
    before = names(here)
    result = run("convert", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: {said}")
    assert result.stderr.count("\n") == 1
    assert names(here) == before


def test_inspection_of_a_factory_and_of_files(here: Path, net: nn.Module) -> None:
    before = names(here)
    result = run("inspect", "nets:Net", "--weights", "weights.pth", "--input-shape", "x:1,3,8,8", "--dynamic", "0")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "norm: backward into conv" in result.stdout
    assert "note: weights taken from 'ema' of weights.pth" in result.stdout
    assert names(here) == before
    result = run("inspect", script(net), "--trust-pickle", "--input-shape", "x:1,3,8,8", "--skip", "*", "--require-all")
    assert result.exit_code == 3
    result = run("inspect", "nets:Net")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(
        "Error: a PyTorch module is traced on example inputs: the forward of the Net takes x;"
    )
    result = run("inspect", program(net), "--weights", "weights.pth")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: weights are for package.module:factory; this model has its own\n"


def test_labelled_axes_take_every_size_that_the_code_allows(net: nn.Module, here: Path) -> None:
    dynamic = {"x": {0: None, 2: "h", 3: "w"}}
    x = torch.zeros(MAPS)
    options = CheckOptions(check_n=2)
    bnfold.convert(net, "out.onnx", bench=False, options=options, example_inputs=x, dynamic_shapes=dynamic)
    session = InferenceSession("out.onnx", providers=["CPUExecutionProvider"])
    batch, *sizes = session.get_inputs()[0].shape
    assert isinstance(batch, str)
    assert sizes == [3, "h", "w"]
    for shape in ((1, 3, 9, 9), (3, 3, 7, 5)):
        x = torch.randn(shape)
        assert difference(net(x), answer(Path("out.onnx"), x)) < 1e-5


def test_types_that_onnx_runtime_lacks_are_no_fault_of_the_exporter(net: nn.Module, here: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), calibrated(nn.BatchNorm2d(4))).eval().bfloat16()
    x = torch.zeros(MAPS, dtype=torch.bfloat16)
    for target in ("out.onnx", "out.pt2"):
        options = CheckOptions(check_n=2)
        report = bnfold.convert(module, target, bench=False, options=options, example_inputs=x)
        (output,) = report.verification.border.outputs
        assert report.verification.passed
        assert 1e-5 < output.eager < 0.2
        assert output.export_error <= output.tolerance


# Modes.


@pytest.mark.parametrize("kind", ["module", "script", "program"])
def test_training_mode_is_refused_or_assumed_away(kind: str, net: nn.Module, here: Path) -> None:
    x = torch.randn(MAPS)
    expected, trained = net(x), copy.deepcopy(net)
    trained.norm.train()
    source: Any = trained
    if kind == "script":
        source = script(trained)
    elif kind == "program":
        source = torch.export.export(trained, (x,))
    arguments: dict[str, Any] = {} if kind == "program" else {"example_inputs": x}
    if kind == "script":
        arguments["trust_pickle"] = True
    with pytest.raises(ModelError, match=r"is in training mode, with 1 BatchNorm \(\w+\): .* or give --assume-eval"):
        bnfold.convert(source, "out.onnx", options=QUICK, **arguments)
    bnfold.convert(source, "out.onnx", bench=False, options=QUICK, assume_eval=True, **arguments)
    assert difference(expected, answer(Path("out.onnx"), x)) < 1e-5
    assert trained.norm.training


# The exporter.


def test_the_exporter_leaves_the_batch_norms_to_the_account(net: nn.Module) -> None:
    trace = torch.export.export(calibrated(lenet()), (torch.randn(IMAGES),))
    model = onnx_export.to_onnx(trace, "it", None, None).model
    assert [node.op_type for node in model.graph].count("BatchNormalization") == 4


def test_an_error_of_the_exporter_is_not_put_down_to_the_fold(
    net: nn.Module, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = torch.onnx.export

    def careless(*args: Any, **kwargs: Any) -> Any:
        """An exporter that gets one weight wrong by a thousandth."""
        result = export(*args, **kwargs)
        weight = result.model.graph.initializers["conv.weight"]
        weight.const_value = type(weight.const_value)(torch.from_numpy(weight.const_value.numpy() * 1.001), weight.name)
        return result

    monkeypatch.setattr(torch.onnx, "export", careless)
    before = names(here)
    result = run("convert", "nets:Net", "--weights", "weights.pth", *SHAPE)
    assert result.exit_code == 1
    said = result.stderr.strip()
    assert said.startswith(
        "Error: torch's exporter, not the fold: what it made of the model is not the same function, out"
    )
    assert said.endswith("; Net.folded.onnx was not written")
    assert "verified: the folded model is the same function" in result.stdout
    assert "the exported ONNX does NOT compute what PyTorch does, which is the exporter's doing" in result.stdout
    assert names(here) == before
    with pytest.raises(EquivalenceError, match="torch's exporter, not the fold") as caught:
        bnfold.convert(net, "out.onnx", example_inputs=torch.zeros(MAPS), options=QUICK)
    verification = caught.value.report.verification
    assert (verification.passed, verification.border.passed) == (False, False)
    assert all(output.passed for output in verification.outputs)
    (output,) = verification.border.outputs
    assert output.export_error > output.tolerance
    assert output.exported > 100 * output.eager


def test_a_fold_that_is_wrong_in_a_program_is_not_put_down_to_the_exporter(
    net: nn.Module, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bnfold import from_torch

    fold = from_torch.fold_exported

    def careless(*args: Any) -> Any:
        folded = fold(*args)
        if folded.sites[0].folded:
            with torch.no_grad():
                for tensor in folded.model.state_dict.values():
                    tensor.mul_(1.001)
        return folded

    monkeypatch.setattr(from_torch, "fold_exported", careless)
    with pytest.raises(EquivalenceError, match=r"^the folded model is not the same function: output 'relu': in"):
        bnfold.convert(net, "out.pt2", example_inputs=torch.zeros(MAPS), options=CheckOptions(check_n=2))
    assert "out.pt2" not in names(here)


# Latency.


def test_a_program_is_timed_as_pytorch_runs_it(net: nn.Module, here: Path) -> None:
    options = CheckOptions(check_n=2, bench_seconds=0.1)
    report = bnfold.convert(net, "out.pt2", example_inputs=torch.zeros(MAPS), options=options)
    (row,) = report.latency
    assert (row.provider, row.opt_level) == (f"PyTorch {torch.__version__}", "eager")
    assert row.runs > 0
    assert min(row.before_ms, row.after_ms, row.init_before_ms, row.init_after_ms) > 0
    assert (row.file_after_bytes, row.sleeping_workers, row.clock) == (Path("out.pt2").stat().st_size, False, "wall")
    assert row.bench_seconds == 0.1


def test_the_latency_of_a_program_is_printed_and_by_batch(net: nn.Module, here: Path) -> None:
    free = torch.export.export(net, (torch.zeros(MAPS),), dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
    torch.export.save(free, "free.pt2")
    options = ("--input-shape", "x:4,3,8,8", "--batch-sizes", "4", "--bench-seconds", "0.1", "--no-verify")
    result = run("convert", "free.pt2", "-o", "out.pt2", *options, "--report", "r.json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"PyTorch {torch.__version__}, eager, batch 4" in result.stdout
    (row,) = json.loads(Path("r.json").read_text())["latency"]
    assert (row["opt_level"], row["batch_size"]) == ("eager", 4)


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_two_files_to_compare_are_onnx(command: str, net: nn.Module, here: Path) -> None:
    path = program(net)
    result = run(command, str(path), str(path))
    said = "verify and bench take ONNX models; convert compares and times those of PyTorch"
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"Error: {path}: {said}\n")
    with pytest.raises(UsageError, match=f"the Net: {said}"):
        getattr(bnfold, command)(net, net)


def test_what_is_timed_has_weights_of_its_own_and_says_what_is_wrong_in_one_line(net: nn.Module) -> None:
    opened = open_source(net, Request(example_inputs=torch.zeros(MAPS)))
    copied = opened.function.copied()
    assert next(copied.call.parameters()).data_ptr() != net.conv.weight.data_ptr()
    x = np.ones(MAPS, np.float32)
    torch.testing.assert_close(copied.prepared([x])(), net(torch.from_numpy(x)))
    with pytest.raises(ModelError, match=r"^PyTorch .* cannot run the Net: .*channels.*$"):
        copied.prepared([x[:, :2]])()


def test_an_operator_that_the_exporter_does_not_know(here: Path) -> None:
    module = Code(lambda self, x: torch.special.bessel_j0(self.norm(x)), norm=nn.BatchNorm2d(3)).eval()
    with pytest.raises(ModelError) as error:
        bnfold.convert(module, "out.onnx", example_inputs=torch.zeros(MAPS))
    assert str(error.value).startswith(f"the Code: the ONNX exporter of PyTorch {torch.__version__} fails")
    assert "bessel_j0" in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(here.glob("out*"))
    assert not list(here.glob(".bnfold*"))


def test_an_exporter_without_its_parts(net: nn.Module, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r'needs onnxscript: pip install "bnfold\[torch\]"$'):
        bnfold.convert(net, "out.onnx", example_inputs=torch.zeros(MAPS))
    bnfold.convert(net, "out.pt2", bench=False, example_inputs=torch.zeros(MAPS), options=CheckOptions(check_n=2))


def test_without_torch_there_is_one_line(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bnfold.from_torch", raising=False)
    monkeypatch.setitem(sys.modules, "bnfold.graphs.torch.opened", None)
    result = run("convert", "nets:Net", *SHAPE)
    assert (result.exit_code, result.stderr) == (
        2,
        'Error: folding a PyTorch model needs torch: pip install "bnfold[torch]"\n',
    )


# Targets.


def test_a_program_in_which_nothing_folds_is_copied(here: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    source = program(module)
    report = bnfold.convert(source, "out.pt2", options=CheckOptions(check_n=2))
    assert Path("out.pt2").read_bytes() == source.read_bytes()
    assert report.verification.reference == "nothing folded: the output is the program as it was"
    assert report.verification.border.passed
    report = bnfold.convert(source, "out.onnx", bench=False, options=CheckOptions(check_n=2))
    assert report.verification.reference == "nothing folded: the output is what torch's exporter wrote"
    assert report.verification.border.passed


def test_sites_are_chosen_by_name_and_required(net: nn.Module, here: Path) -> None:
    source = program(net)
    common = ("--no-verify", "--no-bench", "--quiet")
    assert run("convert", source, "-o", "a.pt2", "--skip", "nor*", "--require-all", *common).exit_code == 3
    assert run("convert", source, "-o", "b.pt2", "--only", "norm", "--require-all", *common).exit_code == 0
    assert run("convert", source, "-o", "b.pt2", *common).stderr.startswith("Error: b.pt2: the file exists;")
    with pytest.raises(OutputError, match="the folder 'nowhere' does not exist"):
        bnfold.convert(source, "nowhere/out.pt2")
    with pytest.raises(UsageError, match="a model that is given in memory needs an output path"):
        bnfold.convert(net, example_inputs=torch.zeros(MAPS))


def test_a_fold_that_fails_in_a_program_is_taken_back(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bnfold import from_torch

    module = calibrated(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))
    )
    fold = from_torch.fold_exported

    def careless(*args: Any) -> Any:
        folded = fold(*args)
        if folded.sites[0].folded:
            with torch.no_grad():
                folded.model.state_dict["0.weight"].mul_(1.01)
        return folded

    monkeypatch.setattr(from_torch, "fold_exported", careless)
    report = bnfold.convert(module, "out.pt2", example_inputs=torch.zeros(MAPS), options=CheckOptions(check_n=2))
    assert report.verification.taken_back == ("1",)
    assert [site.reason for site in report.sites] == ["taken-back", None]
    x = torch.randn(MAPS)
    assert difference(module(x), answer(Path("out.pt2"), x)) < 1e-5


def test_inputs_of_other_kinds_and_several_outputs(here: Path) -> None:
    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.linear, self.norm = nn.Embedding(7, 6), nn.Linear(6, 4), nn.BatchNorm1d(4)

        def forward(self, ids: torch.Tensor, scale: torch.Tensor | None = None, *, shift: torch.Tensor) -> Any:
            y = self.norm(self.linear(self.embed(ids))) + shift
            return {"y": y if scale is None else y * scale, "nothing": None, "ids": ids + 1}

    np.savez("data.npz", ids=np.arange(6), shift=np.ones((6, 4), np.float32))
    module = calibrated(Embedded())
    options = CheckOptions(check_n=2, input_data=Path("data.npz"), input_shapes={"ids": (6,), "shift": (6, 4)})
    for target in ("out.onnx", "out.pt2"):
        report = bnfold.convert(module, target, bench=False, options=options)
        assert [site.status for site in report.sites] == ["folded"]
        assert len(report.verification.border.outputs) == 2
        assert report.verification.inputs[0] == "file data.npz"
    session = InferenceSession("out.onnx", providers=["CPUExecutionProvider"])
    assert [(info.name, info.type) for info in session.get_inputs()] == [
        ("ids", "tensor(int64)"),
        ("shift", "tensor(float)"),
    ]
