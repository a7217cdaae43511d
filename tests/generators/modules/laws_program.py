"""The laws of the program form, and of the files that a conversion writes."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import torch

import bnfold
from generators.modules.court import Court, again, can, exported, told
from generators.modules.laws import account
from generators.modules.values import changes, content, copied, digest
from generators.verdict import Verdict

NORMS = ("aten.batch_norm", "aten._native_batch_norm_legit", "aten.native_batch_norm", "aten.cudnn_batch_norm")


def program_laws(court: Court, program: Any, thorough: bool) -> Any:
    """Fold the program of a case, and hold the result to the module; the result, if there is one."""
    result = _one_program(court, program, "program", thorough)
    if result is None:
        return None
    court.out.sites = court.out.sites or result.sites
    if thorough:
        _unflattened(court, program, result.model)
    for kind in ("batch", "sizes") if thorough else ():
        _dynamic(court, kind)
    return result


def decomposed_laws(court: Court) -> None:
    """The same of the program that torch makes of it in core operators, and of one that is functional alone."""
    for law, table in (("decomposed program", None), ("functional program", {})):
        try:
            program = again(court.model, court.case.example).run_decompositions(table)
        except Exception:  # noqa: S112
            continue  # torch says no; bnfold is not asked
        if court.torch_agrees(program):
            _one_program(court, program, law, thorough=False)


def _one_program(court: Court, program: Any, law: str, thorough: bool = True) -> Any:
    norms = batch_norms(program)
    before, text = state_of(program), str(program.graph)
    found = len(court.out.failures)
    result = court.told(lambda: bnfold.fold(program), law)
    if result is None and "refused" in court.out.failures[-1] and not can(lambda: program.run_decompositions({})):
        del court.out.failures[found:]  # what torch cannot make functional, bnfold may refuse
    if changes(before, state_of(program)) or str(program.graph) != text:
        court.fail(f"{law} unchanged", "the program that was given has changed")
    if result is None:
        return None
    account(court, result)
    counted = sum(site.op == "BatchNormalization" for site in result.sites)
    kept = sum(site.op == "BatchNormalization" and not site.folded for site in result.sites)
    if counted != norms:
        court.fail(f"{law} account", f"{counted} sites of {norms} BatchNorms in the graph")
    elif batch_norms(result.model) != kept or result.after.batch_norms != kept or result.before.batch_norms != norms:
        counts = (batch_norms(result.model), kept, result.after.batch_norms, result.before.batch_norms, norms)
        court.fail(f"{law} account", f"left in the graph, kept, after, before, in the original: {counts}")
    if not court.agrees:
        return result
    if not can(result.model.module) and not can(lambda: program.run_decompositions({}).module()):
        return result  # torch cannot run what it has made functional
    if _same(court, f"{law} outputs", result.model):
        _second(court, law, result.model)
        if thorough:
            _saved(court, law, result.model)
    return result


def _same(court: Court, law: str, program: Any, inputs: Any = None) -> bool:
    try:
        module = program.module()
    except Exception as error:
        court.fail(law, f"no module: {told(error)}")
        return False
    return court.same(law, module, inputs)


def _second(court: Court, law: str, folded: Any) -> None:
    second = court.told(lambda: bnfold.fold(folded), f"second {law} fold")
    if second is None:
        return
    if moved := [site.name for site in second.sites if site.folded]:
        court.fail(f"second {law} fold", f"folds what the first did not: {moved[:3]}")
    elif moved := changes(state_of(folded), state_of(second.model)):
        court.fail(f"second {law} fold", f"the state changes: {moved[:3]}")


def _saved(court: Court, law: str, folded: Any) -> None:
    """A file of the result, where the original can be saved and loaded."""

    def through_file(program: Any) -> Any:
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        return torch.export.load(file)

    if not can(lambda: through_file(again(court.model, court.case.example))):
        return
    try:
        loaded = through_file(folded)
    except Exception as error:
        court.fail(f"{law} saved", told(error))
        return
    _same(court, f"{law} saved", loaded)


def _unflattened(court: Court, program: Any, folded: Any) -> None:
    """The tree of modules that torch makes of a program, where it makes one of the original."""
    if not court.agrees or court.out.failures:
        return
    try:
        original = torch.export.unflatten(program)
    except Exception:
        return
    quiet = Court(court.case, Verdict(0))
    quiet.hear()
    if not quiet.same("torch", original):
        return
    try:
        module = torch.export.unflatten(folded)
    except Exception as error:
        court.fail("program unflattened", told(error))
        return
    court.same("program unflattened", module)


def _dynamic(court: Court, kind: str) -> None:
    """Symbolic sizes stay symbolic."""
    other = dict(zip(("batch", "sizes"), court.case.batches, strict=False)).get(kind)
    if other is None:
        return
    try:
        program = exported(copied(court.model), court.case.example, dynamic=kind)
    except Exception:
        return
    inputs = [*court.inputs, other]
    if not court.torch_agrees(program, inputs):
        return
    result = court.told(lambda: bnfold.fold(program), f"program of any {kind}")
    if result is not None and court.torch_agrees(program.run_decompositions({}), inputs):  # which fixes sizes at times
        _same(court, f"program of any {kind}, outputs", result.model, inputs)
        if str(result.model.range_constraints) != str(program.range_constraints):
            court.fail(f"program of any {kind}", "other range constraints")


def agreement(court: Court, module: Any, program: Any) -> None:
    """Both forms account for the same BatchNorms."""
    counts = [sum(site.op == "BatchNormalization" for site in result.sites) for result in (module, program)]
    if counts[0] != counts[1]:
        court.fail("agreement", f"{counts[0]} BatchNorms in the module's account, {counts[1]} in the program's")


def file_laws(court: Court) -> None:
    """An ONNX file and a program file, each of which bnfold verifies."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".onnx", ".pt2"):
            target = Path(folder) / f"x{suffix}"
            before = digest(court.model)
            _converted(court, target, suffix)
            if moved := changes(before, digest(court.model)):
                court.fail(f"{suffix}: module unchanged", "; ".join(moved[:3]))
                return  # what comes next would be told of another module


def _converted(court: Court, target: Path, suffix: str) -> None:
    try:
        report = bnfold.convert(court.model, target, example_inputs=court.arguments(), bench=False)
    except bnfold.EquivalenceError as error:
        if "torch's exporter, not the fold" in str(error):
            court.out.disputed = f"{suffix}: what torch exports is another function"
        elif court.case.coarse and "in float64 the models differ" not in str(error):
            court.out.disputed = f"{suffix}: the folded model rounds worse in a coarse type"
        else:
            court.fail(suffix, f"EquivalenceError: {str(error)[:300]}")
    except bnfold.BnfoldError as error:
        if "\n" in str(error).strip():
            court.fail(suffix, f"an error of several lines: {str(error)[:200]!r}")
        court.out.disputed = f"{suffix}: refused, {type(error).__name__}"
    except Exception as error:
        court.fail(suffix, f"crash: {told(error)}")
    else:
        if report.verification is not None and not report.verification.passed:
            court.fail(suffix, "not verified")
        if suffix == ".onnx":
            _on_runtime(court, target)
        elif court.agrees:
            _same(court, "file of a program", torch.export.load(target))


def _on_runtime(court: Court, target: Path) -> None:
    """The file gives the original's outputs on ONNX Runtime, on inputs of our own."""
    import onnxruntime

    args, kwargs = court.case.example
    if kwargs or not all(isinstance(value, torch.Tensor) for value in args):
        return
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        if len(names) != len(args):
            return
        feed = {name: t.numpy() for name, t in zip(names, args, strict=True)}
        found = [torch.from_numpy(a) for a in session.run(None, feed)]
    except Exception:  # ONNX Runtime has no operator for it
        return
    wanted = [value for value in court.wanted[0][0] if isinstance(value, torch.Tensor)]
    if len(found) == len(wanted):
        for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
            if a.shape == b.shape and b.is_floating_point():
                error = float((a.double() - b.double()).abs().max())
                if error > 2e-3 * float(b.abs().max()) + 1e-6:
                    court.fail("runtime", f"output {number} is off by {error:.1e}")


def state_of(program: Any) -> dict[str, str]:
    values = {**program.state_dict, **program.constants}
    return {name: content(v) if isinstance(v, torch.Tensor) else str(type(v)) for name, v in values.items()}


def batch_norms(program: Any) -> int:
    """The BatchNorms of a program, with those of the graphs that it holds."""
    modules = [module for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    return sum(str(node.target).startswith(NORMS) for module in modules for node in module.graph.nodes)
