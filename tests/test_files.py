"""Files: what is read, and that what is written is whole or not there at all."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import onnx
import pytest
from graphs import parse
from saved import NO_BATCH_NORM, folded_weight, names, save, save_external

import bnfold
from bnfold.errors import ModelError, OutputError
from bnfold.graphs.onnx import staging, wire

posix_only = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and permissions")


def convert(source: Path, target: Path, **options: bool) -> bnfold.Report:
    return bnfold.convert(source, target, verify=False, bench=False, **options)


def test_the_target_is_folded_and_the_source_is_as_before(tmp_path: Path) -> None:
    save(tmp_path / "a.onnx")
    before = (tmp_path / "a.onnx").read_bytes()
    report = convert(tmp_path / "a.onnx", tmp_path / "b.onnx", checksum=True)
    assert [node.op_type for node in onnx.load(tmp_path / "b.onnx").graph.node] == ["Conv"]
    assert (tmp_path / "a.onnx").read_bytes() == before
    assert names(tmp_path) == {"a.onnx", "b.onnx"}
    assert report.source.sha256 == hashlib.sha256(before).hexdigest()
    assert report.before.file_bytes == len(before)
    assert report.after is not None
    assert report.after.file_bytes == (tmp_path / "b.onnx").stat().st_size


def test_nothing_to_fold_is_a_copy_byte_for_byte(tmp_path: Path) -> None:
    model = save(tmp_path / "a.onnx", NO_BATCH_NORM)
    # An unusual order of fields, and one that onnx does not know: neither survives a parser and a writer.
    data = b"\xca\x3e\x03new" + model.SerializeToString()
    assert onnx.ModelProto.FromString(data).SerializeToString() != data
    (tmp_path / "a.onnx").write_bytes(data)
    convert(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert (tmp_path / "b.onnx").read_bytes() == data


@pytest.mark.parametrize("how", ["by name", "by a link", "by another spelling"])
def test_the_input_is_overwritten_only_by_force(how: str, tmp_path: Path) -> None:
    source = target = tmp_path / "a.onnx"
    save(source)
    before = source.read_bytes()
    if how == "by a link":
        target = tmp_path / "b.onnx"
        target.hardlink_to(source)
    elif how == "by another spelling":
        target = tmp_path / ".." / tmp_path.name / "a.onnx"
    with pytest.raises(OutputError, match="this is the input; choose another name, or --force"):
        convert(source, target)
    assert source.read_bytes() == before
    convert(source, target, force=True)
    assert len(onnx.load(target).graph.node) == 1
    assert names(tmp_path) == {source.name, target.name}


def test_a_file_in_the_way_is_overwritten_only_by_force(tmp_path: Path) -> None:
    save(tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(b"mine")
    with pytest.raises(OutputError, match="the file exists"):
        convert(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert (tmp_path / "b.onnx").read_bytes() == b"mine"
    convert(tmp_path / "a.onnx", tmp_path / "b.onnx", force=True)
    onnx.load(tmp_path / "b.onnx")


@posix_only
def test_an_overwritten_file_keeps_its_permissions_and_a_new_one_gets_the_usual(tmp_path: Path) -> None:
    save(tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(b"private")
    (tmp_path / "b.onnx").chmod(0o600)
    (tmp_path / "usual").touch()
    convert(tmp_path / "a.onnx", tmp_path / "b.onnx", force=True)
    convert(tmp_path / "a.onnx", tmp_path / "c.onnx")
    assert (tmp_path / "b.onnx").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "c.onnx").stat().st_mode == (tmp_path / "usual").stat().st_mode


@posix_only
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_at_the_target_is_replaced_and_not_followed(dangling: bool, tmp_path: Path) -> None:
    save(tmp_path / "a.onnx")
    (tmp_path / "folder").mkdir()
    if not dangling:
        (tmp_path / "folder/there.onnx").write_bytes(b"mine")
    (tmp_path / "b.onnx").symlink_to("folder/there.onnx")
    with pytest.raises(OutputError, match="the file exists"):
        convert(tmp_path / "a.onnx", tmp_path / "b.onnx")
    convert(tmp_path / "a.onnx", tmp_path / "b.onnx", force=True)
    assert not (tmp_path / "b.onnx").is_symlink()
    onnx.load(tmp_path / "b.onnx")
    assert names(tmp_path / "folder") == (set() if dangling else {"there.onnx"})


def test_a_name_of_the_greatest_length_can_be_written(tmp_path: Path) -> None:
    save(tmp_path / "a.onnx")
    longest = tmp_path / ("x" * (os.pathconf(tmp_path, "PC_NAME_MAX") - 5) + ".onnx")
    convert(tmp_path / "a.onnx", longest)
    onnx.load(longest)
    with pytest.raises(OutputError, match="name too long"):
        convert(tmp_path / "a.onnx", longest.with_name(f"x{longest.name}"))


@posix_only
@pytest.mark.parametrize("force", [False, True])
def test_a_target_that_is_no_regular_file_is_left_alone(force: bool, tmp_path: Path) -> None:
    save(tmp_path / "a.onnx")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="no regular file"):
        convert(tmp_path / "a.onnx", tmp_path / "pipe", force=force)
    assert (tmp_path / "pipe").is_fifo()


@posix_only
def test_a_source_that_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="no regular file"):
        bnfold.inspect(tmp_path / "pipe")


# What goes wrong while a result is written: nothing of it may be left.


def test_an_error_in_the_middle_of_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(b"old")
    monkeypatch.setattr(wire, "attach", writes_half(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        convert(tmp_path / "a.onnx", tmp_path / "b.onnx", force=True)
    assert names(tmp_path) == {"a.onnx", "b.onnx"}
    assert (tmp_path / "b.onnx").read_bytes() == b"old"


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(b"old")
    monkeypatch.setattr(wire, "attach", writes_half(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    with pytest.raises(OutputError) as caught:
        convert(tmp_path / "a.onnx", tmp_path / "b.onnx", force=True)
    target = tmp_path / "b.onnx"
    assert str(caught.value) == f"{target}: cannot be written: No space left on device; nothing was left there"
    assert names(tmp_path) == {"a.onnx", "b.onnx"}
    assert target.read_bytes() == b"old"


def writes_half(error: Exception) -> Callable[[bytes, object, BinaryIO], int]:
    def attach(skeleton: bytes, _: object, file: BinaryIO) -> int:
        file.write(skeleton[: len(skeleton) // 2])
        raise error

    return attach


def failing(number: int) -> Callable[..., None]:
    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fails


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize("step", ["fsync", "rename", "name"])
def test_a_failure_at_the_last_step_leaves_nothing(
    step: str, force: bool, links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_external(tmp_path / "a.onnx")
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", failing(errno.EPERM))
    taking = "hardlink_to" if links and not force else "replace"
    monkeypatch.setattr(os if step == "fsync" else Path, taking if step == "name" else step, failing(errno.EIO))
    with pytest.raises(OutputError, match=r"b\.onnx: cannot be written: Input/output error"):
        convert(tmp_path / "a.onnx", tmp_path / "b.onnx", force=force)
    assert names(tmp_path) == {"a.onnx", "a.onnx.data"}


def test_a_file_system_without_links_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_external(tmp_path / "a.onnx")
    monkeypatch.setattr(Path, "hardlink_to", failing(errno.EPERM))
    convert(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert names(tmp_path) == {"a.onnx", "a.onnx.data", "b.onnx", "b.onnx.data"}
    folded_weight(tmp_path / "b.onnx")


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_file_that_appears_during_the_run_is_not_overwritten(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_external(tmp_path / "a.onnx")
    fsync = os.fsync

    def appears(handle: int) -> None:
        (tmp_path / "b.onnx").write_bytes(b"mine")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", appears)
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", failing(errno.EPERM))
    with pytest.raises(OutputError, match=r"b\.onnx: a file of this name has appeared meanwhile"):
        convert(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert (tmp_path / "b.onnx").read_bytes() == b"mine"
    assert names(tmp_path) == {"a.onnx", "a.onnx.data", "b.onnx"}


@pytest.mark.parametrize("force", [True, False])
def test_a_file_that_takes_the_place_of_the_result_at_once_is_told(
    force: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a.onnx")
    take = staging._take_name

    def overtaken(*args: Any) -> None:
        take(*args)
        (tmp_path / "other").write_bytes(b"another program's")
        (tmp_path / "other").replace(tmp_path / "b.onnx")

    monkeypatch.setattr(staging, "_take_name", overtaken)
    with pytest.raises(OutputError, match=r"b\.onnx: another program has put a file there meanwhile; run it again"):
        convert(tmp_path / "a.onnx", tmp_path / "b.onnx", force=force)
    assert (tmp_path / "b.onnx").read_bytes() == b"another program's"


def test_two_runs_onto_one_target_leave_one_whole_pair(tmp_path: Path) -> None:
    """Each run has its data in a file of its own until it takes the target's name, one after the other."""
    save_external(tmp_path / "a.onnx")
    before = names(tmp_path)
    runs = [
        threading.Thread(target=convert, args=(tmp_path / "a.onnx", tmp_path / "b.onnx"), kwargs={"force": True})
        for _ in range(8)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    left = names(tmp_path) - before - {"b.onnx"}
    assert len(left) == 1
    onnx.checker.check_model(tmp_path / "b.onnx", full_check=True)
    folded_weight(tmp_path / "b.onnx")


def test_of_two_runs_without_force_one_writes_a_whole_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.onnx")
    both, commit, refused = threading.Barrier(2), staging.Staged.commit, list[str]()

    def together(staged: staging.Staged, *, force: bool) -> None:
        both.wait(60)
        try:
            commit(staged, force=force)
        except OutputError as error:
            refused.append(str(error))

    monkeypatch.setattr(staging.Staged, "commit", together)
    convert_it = partial(convert, tmp_path / "a.onnx", tmp_path / "b.onnx", save_as_external_data=True)
    runs = [threading.Thread(target=convert_it) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert len(refused) == 1
    assert "b.onnx: a file of this name has appeared meanwhile" in refused[0]
    assert names(tmp_path) == {"a.onnx", "b.onnx", "b.onnx.data"}
    folded_weight(tmp_path / "b.onnx")


def test_a_run_that_finds_its_data_file_taken_chooses_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_external(tmp_path / "a.onnx")
    own = staging._own_data_files

    def appears(target: Path) -> set[str]:
        (tmp_path / "b.onnx.data").write_bytes(b"mine")
        return own(target)

    monkeypatch.setattr(staging, "_own_data_files", appears)
    convert(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert (tmp_path / "b.onnx.data").read_bytes() == b"mine"
    folded_weight(tmp_path / "b.onnx")


@posix_only
def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.onnx")
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # for root no folder is closed
        mkdir = Path.mkdir

        def closed(path: Path, *args: int, **keywords: bool) -> None:
            if path.parent == folder:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            mkdir(path, *args, **keywords)

        monkeypatch.setattr(Path, "mkdir", closed)
    with pytest.raises(OutputError) as caught:
        convert(tmp_path / "a.onnx", folder / "b.onnx")
    assert str(caught.value) == f"{folder / 'b.onnx'}: the folder '{folder}' cannot be written to: Permission denied"
    assert names(folder) == set()


# Processes that are ended from outside.

SERVER = """
import os, signal, sys, time
from pathlib import Path
import bnfold
source, target, external = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "True"
convert = lambda: bnfold.convert(
    source, target, verify=False, bench=False, force=True, save_as_external_data=external or None
)
convert()  # all is imported now
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        convert()
        os._exit(0)
    if line != "never\\n":
        time.sleep(float(line))
        os.kill(child, signal.SIGKILL)
    print(os.waitpid(child, 0)[1], flush=True)
"""
LARGE = "(T[N,64,4,4] x) => (T[N,4096,4,4] y) <T[4096,64,3,3] w, bn[4096]> { c = Conv<pads=[1,1,1,1]>(x, w) y = BN(c) }"


@posix_only
@pytest.mark.parametrize("external", [False, True])
def test_a_killed_process_leaves_the_old_model_or_the_new_one(external: bool, tmp_path: Path) -> None:
    source, target = tmp_path / "a.onnx", tmp_path / "out/b.onnx"
    target.parent.mkdir()
    old, new = parse(LARGE, "float"), parse(LARGE, "float")
    next(tensor for tensor in new.graph.initializer if tensor.name == "beta").raw_data = b"\0" * 4 * 4096
    onnx.save(new, source)
    began = time.monotonic()
    convert(source, tmp_path / "new.folded.onnx")
    seconds = time.monotonic() - began
    onnx.save(old, tmp_path / "old.onnx")
    convert(tmp_path / "old.onnx", tmp_path / "old.folded.onnx")
    contents = {name: contents_of(tmp_path / f"{name}.folded.onnx") for name in ("old", "new")}
    argv = [sys.executable, "-W", "ignore", "-c", SERVER, str(source), str(target), str(external)]
    found, caught_writing = [], 0
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        for moment in [*(f"{seconds * part / 24:.6f}" for part in range(25)), "never"]:
            restore(tmp_path / "old.folded.onnx", target, external)
            print(moment, file=server.stdin, flush=True)
            assert server.stdout.readline() in {"0\n", f"{int(signal.SIGKILL)}\n"}
            caught_writing += bool(list(target.parent.glob(".bnfold-*/*/*")))
            found.append(next((name for name in contents if contents[name] == contents_of(target)), "broken"))
        server.stdin.close()
        server.wait()
    assert set(found) == {"old", "new"}
    assert found[0] == "old"
    assert found[-1] == "new"
    assert caught_writing


def contents_of(path: Path) -> tuple[list[str], dict[str, bytes]]:
    """The nodes and weights of a model, wherever its file has them."""
    model = onnx.load(path)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor).tobytes() for tensor in model.graph.initializer}
    return [node.op_type for node in model.graph.node], weights


def restore(old: Path, target: Path, external: bool) -> None:
    """Put the old model at the target, and nothing else into its folder."""
    for path in sorted(target.parent.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    onnx.save(onnx.load(old), target, save_as_external_data=external, location=f"{target.name}.data")


@posix_only
def test_an_interrupted_process_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    save(tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(b"old")
    argv = [sys.executable, "-m", "bnfold", "convert", "a.onnx", "-o", "b.onnx", "--force", "--check-n", "1000000"]
    with subprocess.Popen(
        argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=package_on_path()
    ) as child:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".bnfold-*/*/b.onnx")) and child.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(0.2)  # long after the file is written: the models are being run
        child.send_signal(signal.SIGINT)
        out, errors = child.communicate()
    assert (child.returncode, out, errors) == (130, "", "Error: interrupted\n")
    assert names(tmp_path) == {"a.onnx", "b.onnx"}
    assert (tmp_path / "b.onnx").read_bytes() == b"old"


def package_on_path() -> dict[str, str]:
    root = str(Path(bnfold.__file__).parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
