"""What files of PyTorch's and names of factories give: models, weights, or one line that says what to do instead."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch
from safetensors.torch import save_file
from torch import nn
from torch.export import ExportedProgram
from torch_networks import calibrated, lenet

import bnfold
from bnfold.errors import BnfoldError, MissingDependency, ModelError, UsageError
from bnfold.graphs.families import factory_name, is_of_torch
from bnfold.graphs.torch.archives import read_model
from bnfold.graphs.torch.examples import example_arguments
from bnfold.graphs.torch.factories import build
from bnfold.graphs.torch.opened import Request, open_source
from bnfold.graphs.torch.weights import load_weights

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript

FACTORIES = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, width, 3, bias=False), nn.BatchNorm2d(width)
        self.tied = self.conv

    def forward(self, image, scale=None):
        return self.norm(self.conv(image))

def trained():
    return Net().eval()

def fresh():
    return Net()

def wide():
    return Net(8)

class nets:
    small = trained

def tensor():
    return torch.zeros(3)

def needs(width):
    return Net(width)

def leaves():
    raise SystemExit("no data here\\nsecond line")

ready = Net().eval()
number = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, with factories in `factories.py`, which is not on Python's path."""
    import sys

    (tmp_path / "factories.py").write_text(FACTORIES)
    (tmp_path / "broken.py").write_text("import does_not_exist\n")
    (tmp_path / "wrong.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("factories", "broken", "wrong"):
        sys.modules.pop(name, None)


def line(error: pytest.ExceptionInfo[BnfoldError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# Names.


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("nets:make", ("nets", "make")),
        ("package.module:Class.method", ("package.module", "Class.method")),
        ("model.onnx", None),
        ("C:model.onnx", None),
        ("C:\\model", None),
        ("a:b.PT2", None),
        ("nets:", None),
        (":make", None),
        ("nets:make()", None),
        ("a b:c", None),
        ("../nets:make", None),
    ],
)
def test_a_factory_is_told_from_a_path(text: str, parts: tuple[str, str] | None) -> None:
    assert factory_name(text) == parts
    assert is_of_torch(text) is (parts is not None or text.lower().endswith(".pt2"))


def test_a_file_of_that_name_is_a_path(here: Path) -> None:
    (here / "nets:make").write_text("")
    assert factory_name("nets:make") is None


# Factories.


@pytest.mark.parametrize(
    ("name", "training"), [("trained", False), ("fresh", True), ("Net", False), ("nets.small", False), ("ready", False)]
)
def test_a_factory_gives_a_module_and_a_class_one_in_evaluation_mode(name: str, training: bool, here: Path) -> None:
    import sys

    path = list(sys.path)
    module = build("factories", name)
    assert (type(module).__name__, module.training) == ("Net", training)
    assert sys.path == path


@pytest.mark.parametrize(
    ("spelled", "said"),
    [
        ("nowhere:make", "there is no Python module 'nowhere', neither in the current directory nor installed"),
        ("factories.inner:make", "there is no Python module 'factories.inner', neither in the current directory nor"),
        ("broken:make", "importing broken failed: No module named 'does_not_exist'"),
        ("wrong:make", "importing wrong failed: ZeroDivisionError: division by zero"),
        ("factories:absent", "'factories' has no 'absent'"),
        ("factories:nets.absent", "'nets' has no 'absent'"),
        ("factories:number", "this is a int; name a function or class to call"),
        ("factories:tensor", "it gives a Tensor; it must give a torch.nn.Module"),
        ("factories:needs", "calling it without arguments failed: TypeError: needs() missing 1 required"),
        ("factories:leaves", "calling it without arguments failed: SystemExit: no data here"),
    ],
)
def test_a_factory_that_gives_no_module(spelled: str, said: str, here: Path) -> None:
    with pytest.raises(ModelError) as error:
        build(*spelled.split(":"))
    assert line(error).startswith(f"{spelled}: {said}")


# Files.


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return calibrated(lenet())


def test_what_is_in_a_file_is_told_by_its_content(module: nn.Module, tmp_path: Path) -> None:
    small = calibrated(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    torch.export.save(torch.export.export(small, (torch.randn(2, 3, 8, 8),)), tmp_path / "program.pt2")
    (tmp_path / "program.pt2").rename(tmp_path / "program.pt")
    assert isinstance(read_model(tmp_path / "program.pt"), ExportedProgram)
    torch.jit.save(torch.jit.script(module), tmp_path / "script.pth")
    assert isinstance(read_model(tmp_path / "script.pth", trust_pickle=True), torch.jit.ScriptModule)
    torch.save(module, tmp_path / "whole.bin")
    assert isinstance(read_model(tmp_path / "whole.bin", trust_pickle=True), nn.Sequential)
    torch.save(module, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert isinstance(read_model(tmp_path / "old.pt", trust_pickle=True), nn.Sequential)


def write_namespace(module: nn.Module, path: Path) -> None:
    torch.save({"state_dict": module.state_dict(), "args": argparse.Namespace(width=4)}, path)


PICKLED = "and unpickling runs whatever code is in the file: give --trust-pickle if you know who wrote it, or package."
WEIGHTS = "this holds weights (a state dict); the code of the network is not in it: give package.module:factory as the"


@pytest.mark.parametrize(
    ("name", "write", "trust", "said"),
    [
        ("m.pth", torch.save, False, f"it holds a pickled torch.nn.modules.container.Sequential, {PICKLED}"),
        ("s.pth", lambda module, path: torch.save(module.state_dict(), path), False, WEIGHTS),
        ("s.pth", lambda module, path: torch.save(module.state_dict(), path), True, WEIGHTS),
        ("s.bin", lambda module, path: torch.save({"model": module.state_dict()}, path), False, WEIGHTS),
        (
            "s.safetensors",
            lambda module, path: save_file(dict(module.state_dict()), path),
            False,
            "this holds weights",
        ),
        (
            "t.pth",
            lambda module, path: torch.save(module.conv1.weight, path),
            False,
            "this holds a Parameter, which is no",
        ),
        ("n.pth", write_namespace, False, f"it holds a pickled argparse.Namespace, {PICKLED}"),
        ("x.pth", lambda module, path: path.write_text("hello"), False, "this is no file that PyTorch"),
        ("x.pt2", lambda module, path: path.write_text("hello"), False, "this is no program that PyTorch"),
        ("e.pth", lambda module, path: path.write_bytes(b""), False, "this is no file that PyTorch"),
        ("d.pth", lambda module, path: path.mkdir(), False, "this is a directory; name a file"),
        ("a.pth", lambda module, path: None, False, "no such file"),
    ],
)
def test_a_file_that_holds_no_model(
    name: str, write: Callable[[Any, Path], None], trust: bool, said: str, module: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / name
    write(module, path)
    with pytest.raises(ModelError) as error:
        read_model(path, trust_pickle=trust)
    assert line(error).startswith(f"{path}: {said}")
    if not trust:
        with pytest.raises(ModelError) as again:
            bnfold.fold(path)
        assert line(again) == line(error)


def test_a_pickle_whose_code_is_gone(here: Path) -> None:
    import sys

    torch.save(build("factories", "trained"), here / "net.pth")
    assert type(read_model(here / "net.pth", trust_pickle=True)).__name__ == "Net"
    del sys.modules["factories"]
    (here / "factories.py").unlink()
    with pytest.raises(ModelError) as error:
        read_model(here / "net.pth", trust_pickle=True)
    assert line(error) == f"{here}/net.pth: the code of what is pickled in it is not here: No module named 'factories'"


# Weights.


def prefixed(prefix: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("wrap", "note"),
    [
        (dict, None),
        (OrderedDict, None),
        (prefixed("module."), None),
        (prefixed("_orig_mod."), None),
        (prefixed("module._orig_mod."), None),
        (lambda state: {"n_averaged": torch.tensor(7), **prefixed("module.")(state)}, None),
        (lambda state: {name: tensor for name, tensor in state.items() if "num_batches" not in name}, None),
        (lambda state: {name: tensor for name, tensor in state.items() if "tied" not in name}, None),
        (lambda state: {"state_dict": state, "epoch": 3}, "weights taken from 'state_dict' of {path}"),
        (lambda state: {"model": state}, "weights taken from 'model' of {path}"),
        (
            lambda state: {"model_state_dict": prefixed("module.")(state)},
            "weights taken from 'model_state_dict' of {path}",
        ),
        (lambda state: {"ema": state}, "weights taken from 'ema' of {path}"),
        (
            lambda state: {"model_ema": prefixed("module.")(state), "epoch": 1},
            "weights taken from 'model_ema' of {path}",
        ),
        (
            lambda state: {"state_dict_ema": {name: tensor + 1 for name, tensor in state.items()}, "state_dict": state},
            "weights taken from 'state_dict' of {path}; it also holds 'state_dict_ema'",
        ),
    ],
)
def test_weights_find_their_places(wrap: Callable[[Any], Any], note: str | None, here: Path) -> None:
    module, trained = build("factories", "fresh"), calibrated(build("factories", "fresh"))
    path = here / "weights.pth"
    torch.save(wrap(dict(trained.state_dict())), path)
    notes = load_weights(module, path)
    assert notes == (() if note is None else (note.format(path=path),))
    assert torch.equal(module.norm.running_mean, trained.norm.running_mean)
    assert torch.equal(module.tied.weight, trained.conv.weight)


def test_weights_from_safetensors(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, trained = build("factories", "fresh"), calibrated(build("factories", "fresh"))
    state = {name: tensor for name, tensor in trained.state_dict().items() if "tied" not in name}
    save_file(state, here / "w.safetensors")
    assert load_weights(module, here / "w.safetensors") == ()
    assert torch.equal(module.norm.weight, trained.norm.weight)
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(MissingDependency, match=r'reading it needs safetensors: pip install "bnfold\[torch\]"'):
        load_weights(module, here / "w.safetensors")


def without(state: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: tensor for name, tensor in state.items() if name not in names}


@pytest.mark.parametrize(
    ("factory", "change", "said"),
    [
        ("fresh", lambda s: without(s, "norm.bias"), "not the weights of the Net: missing: norm.bias"),
        ("fresh", lambda s: {"a.b": torch.zeros(1), **s}, "not the weights of the Net: not in the module: a.b"),
        (
            "fresh",
            lambda s: prefixed("net.")(s),
            "missing: conv.weight, norm.weight, norm.bias and 3 more; not in",
        ),
        (
            "wide",
            lambda s: s,
            "of another shape: conv.weight (4x3x3x3 instead of 8x3x3x3), norm.weight (4",
        ),
        (
            "fresh",
            lambda s: {"epoch": 3, "best": s},
            "no state dict in it (it holds 'epoch', 'best'); looked",
        ),
        ("fresh", lambda s: {}, "no state dict in it (it holds nothing)"),
        ("fresh", lambda s: [1, 2], "this holds a list, no state dict; save model.state_dict()"),
        (
            "fresh",
            lambda s: {"m": s, "a": argparse.Namespace()},
            "besides weights it holds a pickled argparse",
        ),
    ],
)
def test_weights_that_do_not_fit(factory: str, change: Callable[[Any], Any], said: str, here: Path) -> None:
    torch.save(change(dict(build("factories", "fresh").state_dict())), here / "w.pth")
    with pytest.raises(ModelError) as error:
        load_weights(build("factories", factory), here / "w.pth")
    assert line(error).startswith(f"{here}/w.pth: ")
    assert said in line(error)


def test_weights_for_what_has_its_own(module: nn.Module, here: Path) -> None:
    torch.save(module.state_dict(), here / "w.pth")
    torch.save(module, here / "m.pth")
    torch.jit.save(torch.jit.script(module), here / "s.pt")
    request = Request(weights=here / "w.pth", trust_pickle=True)
    for source in (here / "m.pth", here / "s.pt"):
        with pytest.raises(UsageError, match=r"weights are for package.module:factory; .* has its own"):
            open_source(source, request)
    with pytest.raises(UsageError, match="load them into the module with load_state_dict"):
        open_source(module, request)
    with pytest.raises(ModelError, match=r"s\.pt: this is TorchScript, code and weights together; give it"):
        load_weights(module, here / "s.pt")


# Example inputs.

LACKING = "a PyTorch module is traced on example inputs: the forward of the Net takes image, scale; give --input-shape"


def test_example_inputs_have_the_shapes_and_types_that_are_named(here: Path) -> None:
    net = build("factories", "trained").half()
    args, kwargs = example_arguments(net, {"": (1, 3, 8, 8)}, {}, {"": {0: None}}, {})
    assert ([tuple(item.shape) for item in args], kwargs) == ([(2, 3, 8, 8)], {})
    assert args[0].dtype is torch.float16
    args, kwargs = example_arguments(net, {"scale": (4,), "image": (1, 3, 8, 8)}, {"scale": "int64"}, {}, {})
    assert [tuple(item.shape) for item in args] == [(1, 3, 8, 8), (4,)]
    assert args[1].dtype is torch.int64


@pytest.mark.parametrize(
    ("shapes", "dynamic", "said"),
    [
        (
            {},
            {},
            LACKING,
        ),
        (
            {"scale": (1,)},
            {},
            LACKING,
        ),
        ({"images": (1, 3, 8, 8)}, {}, "'images' is no input: the forward of the Net takes image, scale"),
        (
            {"image": (1, 3, 8, 8)},
            {"picture": {0: None}},
            "'picture' is no input: the forward of the Net takes",
        ),
        (
            {"image": (1, 3, 8, 8)},
            {"image": {4: None}},
            "--dynamic image:4: the shape given for this input has",
        ),
    ],
)
def test_example_inputs_that_are_not_there(shapes: Any, dynamic: Any, said: str, here: Path) -> None:
    with pytest.raises(UsageError) as error:
        example_arguments(build("factories", "trained"), shapes, {}, dynamic, {})
    assert line(error).startswith(said)
