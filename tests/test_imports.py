"""Who may import whom, and what a run imports: held against the source, and against real processes."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from saved import save

import bnfold

PACKAGE = Path(bnfold.__file__).parent

# Per room, the other rooms that it may import from. Read from the bottom: every line uses only lines below it.
ROOMS = {
    "__main__": {"cli"},
    "cli": {"__init__", "api", "cli_options", "cli_signals", "report", "results", "errors"},
    "cli_options": {"report", "checks", "errors"},
    "cli_signals": set(),
    "__init__": {"api", "checks", "results", "errors", "version"},
    "onnx_ir": {"graphs"},
    "api": {"from_torch", "conversion", "certificates", "exactly", "checks", "graphs", "results", "errors", "version"},
    "from_torch": {"conversion", "exactly", "checks", "graphs", "results", "errors"},
    "conversion": {"certificates", "exactly", "checks", "graphs", "results", "errors"},
    "certificates": {"exactly", "checks", "graphs", "results", "errors"},
    "exactly": {"checks", "graphs", "errors"},
    "report": {"results", "errors"},
    "checks": {"dims", "slices", "results", "errors"},
    "graphs": {"algebra", "dims", "slices", "results", "errors"},
    "algebra": {"errors", "results"},
    "dims": set(),
    "slices": set(),
    "errors": {"results"},  # for a type
    "results": set(),
    "version": set(),
}
# Per third-party library, the only places that may import it.
DOORS = {
    "click": ("cli.py", "cli_options.py"),
    "rich": ("report/",),
    "numpy": ("algebra/", "graphs/", "checks/", "exactly.py", "slices.py"),
    "jinja2": ("report/as_html.py",),
    "markupsafe": ("report/as_html.py",),
    "matplotlib": ("report/charts.py",),
    "onnx": ("graphs/onnx/",),
    "google": ("graphs/onnx/",),
    "onnx_ir": ("graphs/onnx/ir.py",),
    "onnxsim": ("graphs/onnx/simplify.py",),
    "torch": ("graphs/torch/",),
    "safetensors": ("graphs/torch/",),
    "onnxruntime": ("checks/session.py",),
    "PIL": ("checks/images.py",),
}
# Those that are imported where they are used and not where a module begins.
LATE = {"PIL", "onnxruntime", "onnxsim", "rich.progress", "safetensors.torch", "bnfold.from_torch"}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """The modules that a file imports, and whether that is done when the file itself is imported."""
    tree = ast.parse(path.read_text("utf-8"))
    late = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node not in late
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            inner = node.module == "bnfold"
            for name in [f"bnfold.{alias.name}" for alias in node.names] if inner else [str(node.module)]:
                yield name, node not in late


def room_of(module: str) -> str:
    """The room that a module of this project belongs to; a name of the package itself belongs to `__init__`."""
    name = module.split(".")[1] if "." in module else "__init__"
    return name if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file() else "__init__"


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward_and_through_the_doors(path: Path) -> None:
    place = path.relative_to(PACKAGE).as_posix()
    room = place.split("/")[0].removesuffix(".py")
    for module, _ in imports(path):
        top = module.split(".")[0]
        if top == "bnfold":
            assert room_of(module) in {room, *ROOMS[room]}, f"{place} imports {module}"
        elif top not in sys.stdlib_module_names:
            assert place.startswith(DOORS[top]), f"{place} imports {module}"


def test_a_room_uses_only_rooms_below_it() -> None:
    above: set[str] = set()
    for room, used in ROOMS.items():
        assert not used & above, room
        above.add(room)
    assert set(ROOMS) == {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}


def test_what_is_optional_is_imported_only_when_it_is_used() -> None:
    at_once = {module for path in FILES for module, now in imports(path) if now}
    assert not at_once & LATE


def modules_after(*args: str, cwd: Path) -> set[str]:
    """The top-level modules that a process has imported after a command."""
    code = f"""
import json, sys
from bnfold.cli import main
try:
    main({args!r}, prog_name="bnfold")
except SystemExit as end:
    assert not end.code, end.code
print("\\n" + json.dumps(sorted({{name.split(".")[0] for name in sys.modules}})))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE.parent))
    save(tmp_path / "a.onnx")
    return tmp_path / "a.onnx"


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["convert", "--help"]])
def test_help_imports_nothing_that_takes_time(command: list[str], model: Path) -> None:
    found = modules_after(*command, cwd=model.parent)
    assert not found & {"numpy", "onnx", "onnx_ir", "onnxruntime", "torch", "rich", "google"}


@pytest.mark.parametrize(
    "command",
    [
        ["convert", "a.onnx", "-o", "b.onnx", "--no-verify", "--no-bench"],
        ["convert", "a.onnx", "-o", "b.onnx", "--no-verify", "--no-bench", "--quiet"],
        ["inspect", "a.onnx"],
    ],
)
def test_a_fold_imports_no_framework_and_no_runtime(command: list[str], model: Path) -> None:
    found = modules_after(*command, cwd=model.parent)
    assert {"numpy", "onnx"} <= found
    assert not found & {"torch", "onnx_ir", "sympy", "onnxruntime", "onnxscript", "onnxsim"}
    if "--quiet" in command:
        assert "rich" not in found


def test_verification_imports_the_runtime_and_no_framework(model: Path) -> None:
    found = modules_after("convert", "a.onnx", "-o", "b.onnx", "--no-bench", cwd=model.parent)
    assert "onnxruntime" in found
    assert not found & {"torch", "onnx_ir", "onnxscript", "onnxsim"}
