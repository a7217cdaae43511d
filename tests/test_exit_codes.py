"""What a user sees when something is wrong: one line on stderr, an exit code, and no file that was not there before."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from graphs import weights
from numpy.typing import NDArray
from saved import NO_BATCH_NORM, TWO_BATCH_NORMS, names, save, save_external

import bnfold
from bnfold import conversion
from bnfold.checks.session import Session
from bnfold.cli import main
from bnfold.graphs.account import FoldOptions
from bnfold.graphs.onnx import wire
from bnfold.graphs.onnx.document import Computed, Document
from bnfold.graphs.onnx.fold import fold_document

QUICK = ("--no-verify", "--no-bench")


def in_this_process(*args: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, args)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def in_a_process(*args: str, prelude: str = "") -> tuple[int, str, str]:
    root = str(Path(bnfold.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    how = (
        ["-c", f"{prelude}\nimport runpy; runpy.run_module('bnfold', run_name='__main__')"]
        if prelude
        else ["-m", "bnfold"]
    )
    done = subprocess.run([sys.executable, *how, *args], capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, with a good model and bad ones, that must look the same in the end."""
    monkeypatch.chdir(tmp_path)
    good = save(tmp_path / "good.onnx").SerializeToString()
    save_external(tmp_path / "json.onnx", location="w.md")
    (tmp_path / "json.onnx").rename(tmp_path / "json.json")
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("a model, in words\n" * 100)
    (tmp_path / "zip.onnx").write_bytes(b"PK\x03\x04 as torch.save writes it")
    (tmp_path / "cut.onnx").write_bytes(good[: len(good) // 2])
    (tmp_path / "folder.onnx").mkdir()
    dangling = onnx.ModelProto.FromString(good)
    dangling.graph.node[0].input[0] = "nobody"
    (tmp_path / "dangling.onnx").write_bytes(dangling.SerializeToString())
    (tmp_path / "old.onnx").write_bytes(b"old")
    before = {path: path.stat() for path in tmp_path.rglob("*")}
    yield tmp_path
    after = {path: path.stat() for path in tmp_path.rglob("*")}
    assert after.keys() == before.keys()
    assert all(after[path].st_mtime_ns == before[path].st_mtime_ns for path in before if path.is_file())


BAD_FILES = {
    "missing.onnx": "missing.onnx: no such file",
    "no/where.onnx": "no/where.onnx: no such file",
    "good.onnx/in.onnx": "good.onnx/in.onnx: cannot be read: Not a directory",
    "empty.onnx": "empty.onnx: the file is empty; export the model again",
    "text.onnx": "text.onnx: not a valid ONNX file: it holds no graph; export the model again",
    "zip.onnx": "zip.onnx: not a valid ONNX file: the data are cut off or of another format; export or copy it again",
    "cut.onnx": "cut.onnx: not a valid ONNX file: the data are cut off or of another format; export or copy it again",
    "folder.onnx": "folder.onnx: this is a directory; name the .onnx file in it",
    "dangling.onnx": "dangling.onnx: invalid graph: node 'c' (Conv) reads 'nobody', which nothing makes; "
    "export it again",
}
BAD_USES = {
    "convert good.onnx -o good.onnx": "good.onnx: this is the input; choose another name, or --force to overwrite it",
    "convert good.onnx -o ./good.onnx": "good.onnx: this is the input; choose another name, or --force to overwrite it",
    "convert good.onnx -o old.onnx": "old.onnx: the file exists; choose another name, or --force to overwrite it",
    "convert good.onnx -o folder.onnx": "folder.onnx: this is a directory; name the file to write",
    "convert good.onnx -o no/out.onnx": "no/out.onnx: the folder 'no' does not exist; make it first",
    "convert good.onnx -o old.onnx/out.onnx": "old.onnx/out.onnx: the folder 'old.onnx' does not exist; make it first",
    **{
        f"convert good.onnx -o {name} --force": f"{name}: the suffix says what to write: .onnx, or .pt2 for a program "
        "of PyTorch's"
        for name in ("out", "out.pt", "out.onnx.data", "text.txt", ".onnx", "good.onnx.json")
    },
    "convert good.onnx -o out.pt2": "out.pt2: an ONNX model cannot be made a program of PyTorch's; write it as .onnx",
    "convert good.onnx --report good.onnx": "--report good.onnx: the suffix '.onnx' names no report format; use .json, "
    ".md or .html",
    "convert good.onnx -o out.onnx --report out.onnx": "--report out.onnx: the suffix '.onnx' names no report format",
    "convert good.onnx -o out.onnx --report out.onnx.data": "--report out.onnx.data: the suffix '.data' names no ",
    **{
        f"{command} --report {report}": f"--report {Path(report)}: this is a file that the command reads; name"
        for command in ("convert json.json -o out.onnx", "inspect json.json", "verify good.onnx json.json")
        for report in ("json.json", "./json.json", "w.md")
    },
    "bench good.onnx json.json --report w.md": "--report w.md: this is a file that the command reads",
    "convert good.onnx --providers abacus": "execution provider 'abacus' is not available here",
    "verify good.onnx good.onnx --providers abacus": "execution provider 'abacus' is not available here",
    "bench good.onnx good.onnx --providers cpu,abacus": "execution provider 'abacus' is not available here",
    "bench good.onnx good.onnx --provider-option cuda:use_tf32=0": "provider options for 'cuda', which is not among "
    "the providers to run on: name it there",
    "bench good.onnx good.onnx --input-shape 3,8,4,4 --batch-sizes 2": "batch size 2: the first axis of input 'x' is "
    "fixed at 3; export the model with a free batch",
    "convert good.onnx --input-shape 1x": "cannot read the input shape '1x': write it as x:1,3,224,224 or 1x3x224x224",
    "convert good.onnx --input-shape x:1,-3": "cannot read the input shape 'x:1,-3'",
    "convert good.onnx --input-shape 99999999999999999999,8,4,4": "input shape 99999999999999999999,8,4,4: no memory "
    "holds an input of that size",
    "convert .": ".: this is a directory; name the .onnx file in it",
    "convert folder.onnx/..": "folder.onnx/..: this is a directory; name the .onnx file in it",
    "convert good.onnx --input-shape z:1,8,4,4": "input shape given for 'z', which is no input: the model has x",
    "convert good.onnx --input-shape 1x8x4": "the shape given for input 'x' is 1x8x4, the model has Nx8x4x4",
}


COMMANDS = (
    "convert {} -o out.onnx",
    "convert {}",
    "inspect {}",
    "verify {} good.onnx",
    "verify good.onnx {}",
    "bench {} good.onnx",
)


@pytest.mark.parametrize(
    ("command", "name"),
    # Without -o, a file in a folder that is not there would be refused as the output.
    [(command, name) for command in COMMANDS for name in BAD_FILES if "/" not in name or command != "convert {}"],
)
def test_a_file_that_is_no_model_is_one_line(command: str, name: str, folder: Path) -> None:
    assert in_this_process(*command.format(name).split()) == (2, "", f"Error: {BAD_FILES[name]}\n")


@pytest.mark.parametrize("command", BAD_USES)
def test_bad_usage_is_one_line(command: str, folder: Path) -> None:
    code, out, errors = in_this_process(*command.split())
    assert (code, out) == (2, "")
    assert errors.startswith(f"Error: {BAD_USES[command]}")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    "name", ["missing.onnx", "empty.onnx", "text.onnx", "cut.onnx", "folder.onnx", "dangling.onnx"]
)
def test_the_same_of_a_process_for_a_file_that_is_no_model(name: str, folder: Path) -> None:
    assert in_a_process("convert", name, "-o", "out.onnx", *QUICK) == (2, "", f"Error: {BAD_FILES[name]}\n")


@pytest.mark.parametrize(
    "command",
    ["convert good.onnx -o good.onnx", "convert good.onnx --providers abacus", "convert good.onnx --input-shape 1x"],
)
def test_the_same_of_a_process_for_bad_usage(command: str, folder: Path) -> None:
    code, out, errors = in_a_process(*command.split())
    assert (code, out) == (2, "")
    assert errors.startswith(f"Error: {BAD_USES[command]}")
    assert errors.count("\n") == 1


ODD_MODELS = {
    "a scalar input": (
        "(T[N,4] x, T s) => (T[N,4] y) <T[4,4] w, bn[4]> { c = MatMul(x, w) b = BN(c) y = Mul(b, s) }",
        0,
    ),
    "a weight of NaN": (
        "(T[N,2] x) => (T[N,2] y) <T[2,2] w, T[2] k = {1.0, 2.0}, bn[2]> { e = Neg(k) l = Log(e) v = Mul(w, l) "
        "c = MatMul(x, v) y = BN(c) }",
        0,
    ),
    "names of several lines": ("(T[N,4] x) => (T[N,4] y) <T[4,4] w, bn[4]> { c = MatMul(x, w) y = BN(c) }", 0),
    "no output": ("(T[N,4] x) => () <T[4,4] w, bn[4]> { c = MatMul(x, w) y = BN(c) }", 1),
    "no rank": ("(T x) => (T[N,4,h,w] y) <T[4,2,3,3] w, bn[4]> { c = Conv(x, w) y = BN(c) }", 2),
    "a batch of nothing": ("(T[0,4] x) => (T[0,4] y) <T[4,4] w, bn[4]> { c = MatMul(x, w) y = BN(c) }", 1),
    "an operator of nobody's": (
        "(T[N,4] x) => (T[N,4] y) <T[4,4] w, bn[4]> { c = MatMul(x, w) y = BN(c) z = local.Magic(y) }",
        2,
    ),
}
SAID = {
    "no output": "the folded model is not the same function: it has no outputs to compare; out.onnx was not written",
    "no rank": "ONNX Runtime cannot run the original: .*; the sizes of x a scalar were guessed: give yours with "
    "--input-shape",
    "a batch of nothing": ".*: the original gives no finite value, or none at all, on any input tried, which proves "
    "nothing: .*",
    "an operator of nobody's": "ONNX Runtime cannot load the original: .*Magic.*; nothing here can run Magic, so "
    "nothing can be compared or measured: to fold the model all the same, convert it with --no-verify --no-bench",
}


@pytest.mark.parametrize("name", ODD_MODELS)
def test_odd_models_are_converted_or_refused_in_one_line(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    text, expected = ODD_MODELS[name]
    model = save(tmp_path / "odd.onnx", text)
    if name == "names of several lines":
        for node in model.graph.node:
            node.name = f"\x1b[31m名前\n{node.op_type}\r"
        model.graph.node[0].output[0] = model.graph.node[1].input[0] = "出力\n[bold]"
    if name == "no rank":
        model.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "odd.onnx")
    code, out, errors = in_this_process("convert", "odd.onnx", "-o", "out.onnx", "--no-bench")
    assert code == expected
    assert errors.count("\n") == (1 if expected else 0)
    assert re.fullmatch(f"Error: {SAID[name]}\n" if expected else "", errors)
    assert names(tmp_path) == ({"odd.onnx"} if expected else {"odd.onnx", "out.onnx"})
    assert "\x1b" not in out
    assert "\r" not in out


def test_what_nobody_can_run_is_folded_on_request(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "odd.onnx", ODD_MODELS["an operator of nobody's"][0])
    code, _, errors = in_this_process("convert", "odd.onnx", "-o", "out.onnx", "--no-verify", "--no-bench")
    assert (code, errors) == (0, "")
    assert [node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node] == ["MatMul", "Add", "Magic"]


@pytest.mark.parametrize("order", ["good.onnx odd.onnx", "odd.onnx good.onnx"])
def test_a_bench_says_which_of_the_two_does_not_run(order: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "good.onnx")
    save(tmp_path / "odd.onnx", ODD_MODELS["an operator of nobody's"][0])
    code, out, errors = in_this_process("bench", *order.split(), "--no-memory")
    assert (code, out) == (2, "")
    assert re.fullmatch(r"Error: ONNX Runtime cannot load odd\.onnx: .*Magic.*\n", errors)


# The disk.


def test_a_full_disk_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def attach(skeleton: bytes, _: object, file: BinaryIO) -> int:
        file.write(skeleton)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(wire, "attach", attach)
    message = "Error: out.onnx: cannot be written: No space left on device; nothing was left there\n"
    assert in_this_process("convert", "good.onnx", "-o", "out.onnx") == (2, "", message)
    message = message.replace("out.onnx", "old.onnx")
    assert in_this_process("convert", "good.onnx", "-o", "old.onnx", "--force") == (2, "", message)


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_a_write_that_the_system_refuses_half_way_is_one_line(folder: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
    done = in_a_process("convert", "good.onnx", "-o", "out.onnx", *QUICK, prelude=limit)
    assert done == (2, "", "Error: out.onnx: cannot be written: File too large; nothing was left there\n")


def test_a_full_disk_of_a_process_is_one_line(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    disk = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", disk], capture_output=True, check=False)  # noqa: S607
    if mounted.returncode != 0:
        pytest.skip("a file system of a few kilobytes cannot be mounted here")
    try:
        done = in_a_process("convert", "good.onnx", "-o", f"{disk}/out.onnx", *QUICK)
        assert names(disk) == set()
    finally:
        subprocess.run(["umount", disk], check=True)  # noqa: S607
    message = f"Error: {disk}/out.onnx: cannot be written: No space left on device; nothing was left there\n"
    assert done == (2, "", message)


def test_a_folder_that_cannot_be_written_to_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", closed)
    message = "Error: out.onnx: the folder '.' cannot be written to: Permission denied\n"
    assert in_this_process("convert", "good.onnx", "-o", "out.onnx") == (2, "", message)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder is known to be closed to everybody")
def test_a_folder_that_is_closed_to_everybody_is_one_line(folder: Path) -> None:
    code, out, errors = in_a_process("convert", "good.onnx", "-o", "/proc/out.onnx", *QUICK)
    assert (code, out) == (2, "")
    assert errors.startswith("Error: /proc/out.onnx: the folder '/proc' cannot be written to: ")
    assert errors.count("\n") == 1


# Not the same function.


@pytest.mark.parametrize("survives", [0, 5, 20], ids=["at once", "while warming up", "while measuring"])
def test_a_provider_that_dies_in_a_measurement_is_one_line(
    survives: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = 0

    def dies(self: Session, feeds: object) -> Callable[[], object]:
        def run() -> None:
            nonlocal runs
            runs += 1
            if runs > survives:
                raise RuntimeError("CUDA failure 700: an illegal memory access\nwas encountered")

        return run

    monkeypatch.setattr(Session, "_host_runner", dies)
    result = CliRunner().invoke(
        main, ["convert", "good.onnx", "-o", "out.onnx", "--no-verify", "--bench-seconds", "0.2"]
    )
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(
        r"Error: ONNX Runtime cannot run the (original|folded model): CUDA failure 700: .*\n", result.stderr
    )
    assert runs == survives + 1


def test_two_models_that_differ_are_exit_code_1(tmp_path: Path) -> None:
    model = save(tmp_path / "a.onnx")
    scaled = onnx.numpy_helper.from_array((weights(model)["w"] * 1.01).astype(np.float32), "w")
    model.graph.initializer[0].CopyFrom(scaled)
    onnx.save(model, tmp_path / "b.onnx")
    a, b = str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx")
    code, out, errors = in_this_process("verify", a, b)
    assert code == 1
    assert "NOT verified: the two models are not the same function" in out
    assert errors == f"Error: {a} and {b} are not the same function within tolerance\n"
    assert in_this_process("verify", a, a)[0] == 0


@pytest.fixture
def sabotage(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[set[str]], set[str]]], None]:
    """Make folds wrong: of the weights that folds made, those that a function picks by name are off by 1 %."""

    def install(picks: Callable[[set[str]], set[str]]) -> None:
        def wrong(document: Document, where: str, options: FoldOptions) -> tuple[bnfold.Site, ...]:
            sites = fold_document(document, where, options)
            made = {name: payload for name, payload in document.payloads.items() if isinstance(payload, Computed)}
            for name in picks(set(made)):
                payload = made[name]

                def off(payload: Computed = payload) -> NDArray[np.float32]:
                    return (payload.array() * 1.01).astype(np.float32)

                document.payloads[name] = Computed(payload.nbytes, off)
            return sites

        monkeypatch.setattr(conversion, "fold_document", wrong)

    return install


Sabotage = Callable[[Callable[[set[str]], set[str]]], None]


@pytest.mark.parametrize(("culprit", "kept", "left"), [("v", "y", "w"), ("w", "b", "v")])
def test_a_fold_that_is_wrong_is_taken_back_and_the_rest_kept(
    culprit: str, kept: str, left: str, sabotage: Sabotage, tmp_path: Path
) -> None:
    save(tmp_path / "a.onnx", TWO_BATCH_NORMS)
    sabotage(lambda made: made & {f"{culprit}.folded"})
    report = bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx", bench=False)
    assert {site.name: site.folded for site in report.sites} == {"b": kept != "b", "y": kept != "y"}
    (site,) = report.kept
    assert (site.name, site.reason) == (kept, "taken-back")
    assert report.verification is not None
    assert report.verification.passed
    assert report.verification.taken_back == (kept,)
    written = onnx.load(tmp_path / "b.onnx")
    assert [node.op_type for node in written.graph.node].count("BatchNormalization") == 1
    assert {f"{left}.folded", culprit} <= set(weights(written))
    assert names(tmp_path) == {"a.onnx", "b.onnx"}
    assert bnfold.verify(tmp_path / "a.onnx", tmp_path / "b.onnx").passed


THREE_BATCH_NORMS = """(T[N,16,4,4] x) => (T[N,16,4,4] y)
    <T[16,16,3,3] u, T[16,16,3,3] v, T[16,16,3,3] w, bn[16], bn2[16], bn3[16]> {
        c = Conv<pads=[1,1,1,1]>(x, u) b = BN(c) r = Relu(b)
        c2 = Conv<pads=[1,1,1,1]>(r, v) b2 = BN2(c2) r2 = Relu(b2)
        c3 = Conv<pads=[1,1,1,1]>(r2, w) y = BN3(c3)
    }"""


@pytest.mark.parametrize(("wrong", "kept"), [("u w", "b y"), ("u v", "b b2"), ("v w", "b2 y")])
def test_every_fold_that_is_wrong_is_taken_back(wrong: str, kept: str, sabotage: Sabotage, tmp_path: Path) -> None:
    save(tmp_path / "a.onnx", THREE_BATCH_NORMS)
    sabotage(lambda made: made & {f"{name}.folded" for name in wrong.split()})
    report = bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx", bench=False)
    assert [site.name for site in report.kept] == kept.split()
    assert report.verification is not None
    assert report.verification.taken_back == tuple(kept.split())
    assert bnfold.verify(tmp_path / "a.onnx", tmp_path / "b.onnx").passed


def test_the_command_names_the_fold_that_was_taken_back(sabotage: Sabotage, tmp_path: Path) -> None:
    save(tmp_path / "a.onnx", TWO_BATCH_NORMS)
    sabotage(lambda made: made & {"v.folded"})
    args = ("convert", str(tmp_path / "a.onnx"), "-o", str(tmp_path / "b.onnx"), "--no-bench")
    code, out, _ = in_this_process(*args)
    assert code == 0
    assert "1 of 2 BatchNorms folded" in out
    assert "taken back, because the outputs differed with them: y\n" in out
    assert in_this_process(*args, "--force", "--require-all")[0] == 3


@pytest.mark.parametrize(
    "picks",
    [
        pytest.param(lambda made: made, id="each fold is wrong"),
        pytest.param(lambda made: made if len(made) == 2 else set(), id="only their sum is wrong"),
    ],
)
def test_nothing_is_written_where_nothing_passes(
    picks: Callable[[set[str]], set[str]], sabotage: Sabotage, tmp_path: Path
) -> None:
    save(tmp_path / "a.onnx", TWO_BATCH_NORMS)
    (tmp_path / "b.onnx").write_bytes(b"old")
    sabotage(picks)
    target = tmp_path / "b.onnx"
    code, out, errors = in_this_process("convert", str(tmp_path / "a.onnx"), "-o", str(target), "--force")
    assert code == 1
    assert "NOT verified: the folded model is not the same function" in out
    assert errors.startswith("Error: the folded model is not the same function: output 'y': ")
    assert errors.endswith(f"; {target} was not written\n")
    assert errors.count("\n") == 1
    assert names(tmp_path) == {"a.onnx", "b.onnx"}
    assert target.read_bytes() == b"old"


# Done, with or without BatchNorms that stay.


def test_a_model_without_batch_norm_says_so_and_is_copied(tmp_path: Path) -> None:
    save(tmp_path / "a.onnx", NO_BATCH_NORM)
    code, out, errors = in_this_process("convert", str(tmp_path / "a.onnx"), "-o", str(tmp_path / "b.onnx"))
    assert (code, errors) == (0, "")
    assert "no BatchNorm found" in out
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "a.onnx").read_bytes()


STAYS = "(T[N,4,H,W] x) => (T[N,4,H,W] y) <bn[4]> { r = Relu(x) y = BN(r) }"


@pytest.mark.parametrize(("text", "code"), [(STAYS, 3), (TWO_BATCH_NORMS, 0)])
def test_require_all_is_exit_code_3_where_one_stays(text: str, code: int, tmp_path: Path) -> None:
    save(tmp_path / "a.onnx", text)
    source, target = str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx")
    written = f"; {target} is written all the same"
    for args, more in (("inspect", source), ""), (("convert", source, "-o", target, *QUICK), written):
        message = f"Error: --require-all: 1 of 1 BatchNorms stay{more}\n" if code else ""
        assert in_this_process(*args, "--require-all")[::2] == (code, message)
        (tmp_path / "b.onnx").unlink(missing_ok=True)
        assert in_this_process(*args)[::2] == (0, "")
