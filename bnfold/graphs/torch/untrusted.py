"""Files of PyTorch's from people who are not known: what in them would run code, refused before PyTorch reads it.

A program of `torch.export.save` is an archive of JSON, raw tensors and a few pickles. Read by `torch.export.load`, it
runs code in more places than its pickles (seen with PyTorch 2.13): sizes are evaluated as Python, names of inputs and
guards become Python source, an operator may be any attribute of `torch`, and compiled libraries are opened. So each
member is held to what `torch.export.save` writes for a plain program; everything else is refused by name:

- the members themselves: no compiled code, no objects, no pickled weights; sample inputs that `torch.load` reads
  without running code;
- operators: those of the dispatcher that touch no files, and Python's own arithmetic;
- sizes, ranges and guards: arithmetic over sizes, read as syntax and never evaluated here;
- names: words; other text: without quotes, where it becomes source.

TorchScript is code throughout and cannot be checked so.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import math
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bnfold.errors import ModelError, refused_as

ADVICE = "if you know who wrote the file, give --trust-pickle (trust_pickle=True)"
MOST_BYTES = 2**30  # of a member that is stored in fewer
MOST_ELEMENTS = 2**34
_LONGEST = 20_000

# What torch.export.save of PyTorch 2.5 and newer writes; names count from the archive's own folder.
_RAW = re.compile(r"data/(weights|constants)/(weight|tensor)_\d+")
_CONFIG = re.compile(r"data/(weights|constants)/\w+_config\.json")
_PROGRAM = re.compile(r"models/[\w.-]+\.json|serialized_exported_program\.json")
_PICKLE = re.compile(r"data/(weights|constants|sample_inputs)/[\w.-]+\.pt|serialized_\w+\.pt")
_TEXT = re.compile(r"archive_format|archive_version|byteorder|version|\.data/\w+|\.format_version|extra(_files)?/.*")

_WORD = re.compile(r"[^\W\d]\w*")
_PATH = re.compile(r"[^\"'\\\x00-\x1f\x7f]*")
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed|torchao)\.\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(cond|while_loop|scan|map_impl|associative_scan|wrap|tag_activation_checkpoint"
    r"|wrap_with_set_grad_enabled|wrap_with_autocast|wrap_activation_checkpoint|invoke_subgraph)"
    r"|torch\._?sym_\w+|math\.(ceil|floor|sqrt|trunc)"
    r"|_operator\.(add|and_|eq|floordiv|ge|getitem|gt|le|lt|mod|mul|ne|neg|not_|or_|pos|sub|truediv|xor)"
)
_FUNCTIONS = frozenset(
    {
        *("Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Mod", "Abs", "Max", "Min", "floor"),
        *(
            "ceiling",
            "Equality",
            "Unequality",
            "GreaterThan",
            "LessThan",
            "StrictGreaterThan",
            "StrictLessThan",
            "Eq",
            "Ne",
        ),
        *("Ge", "Gt", "Le", "Lt", "And", "Or", "Not", "FloorDiv", "ModularIndexing", "Where", "PythonMod", "CleanDiv"),
        *("CeilToInt", "FloorToInt", "CeilDiv", "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv"),
        *("IntTrueDiv", "IsNonOverlappingAndDenseIndicator", "TruncToFloat", "TruncToInt", "RoundToInt"),
        *("RoundDecimal", "ToFloat", "Identity"),
    }
)
_GROWING = frozenset({"Pow", "PowByNatural", "FloatPow", "LShift"})
_METHODS = frozenset({"size", "stride", "numel", "storage_offset", "dim"})
_SYNTAX = (
    *(ast.Expression, ast.Call, ast.keyword, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Subscript, ast.Name),
    *(ast.Attribute, ast.Constant, ast.Tuple, ast.Load, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)
_LARGEST, _MOST_POWER = 2**63, 64


def check_program(path: Path) -> None:
    """Raises ModelError for a .pt2 file whose reading would run code, or may."""
    with (
        refused_as(ModelError, f"{path}: this is no program that PyTorch {torch.__version__} reads"),
        zipfile.ZipFile(path) as archive,
    ):
        members = list(_members(path, archive))
        empty = {member for member, size, _ in members if not size}
        for member, _, read in members:
            if _RAW.fullmatch(member):
                continue
            said = _refusal(member, read, empty)
            if said:
                raise ModelError(f"{path}: its member '{member}' {said}; {ADVICE}")


def _members(path: Path, archive: zipfile.ZipFile) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """The members, with their sizes, as PyTorch names them, and as Python's zipfile sees them, which it falls back to.

    Two readers can see different members in one archive.
    """
    infos = archive.infolist()
    if any(info.file_size > max(MOST_BYTES, info.compress_size) for info in infos):
        raise ModelError(f"{path}: a member of this archive is larger than the file can hold")
    roots = {info.filename.partition("/")[0] for info in infos}
    root = f"{roots.pop()}/" if len(roots) == 1 else ""
    for info in infos:
        yield info.filename.removeprefix(root), info.file_size, partial(archive.read, info)
    with contextlib.suppress(RuntimeError):  # what PyTorch's reader does not open, it does not read
        reader: Any = torch._C.PyTorchFileReader(str(path))
        for name in reader.get_all_records():
            yield name, reader.get_record_size(name), partial(reader.get_record, name)


def _refusal(member: str, read: Callable[[], bytes], empty: Collection[str]) -> str | None:
    """What a member of an archive would do, if it would do anything; None if it holds data alone."""
    if _PROGRAM.fullmatch(member):
        return next(_faults(json.loads(read())), None)
    if _CONFIG.fullmatch(member):
        folder = member.rpartition("/")[0]
        return next(_config_faults(json.loads(read()), folder, empty), None)
    if _PICKLE.fullmatch(member):
        try:
            content = read()
            if content:
                torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as error:  # a pickle raises what it likes
            first = next(iter(str(error).splitlines()), type(error).__name__)
            return f"would run code when it is unpickled ({first[:100]})"
        return None
    return None if _TEXT.fullmatch(member) else "is none that torch.export.save writes for a plain program"


def _config_faults(config: Any, folder: str, empty: Collection[str]) -> Iterator[str]:
    for name, entry in config["config"].items():
        if entry["use_pickle"] is not False:
            yield f"says that '{name}' is pickled, and unpickling runs code"
        if not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
            yield f"says that '{name}' is an object, not a tensor"
        elements = math.prod(size.get("as_int", 0) for size in (entry["tensor_meta"] or {}).get("sizes", ()))
        if elements > MOST_ELEMENTS or (elements and f"{folder}/{entry['path_name']}" in empty):
            yield f"says that '{name}' has {elements} elements, which are not there"
        yield from _faults(entry)


def _faults(item: Any, key: str = "") -> Iterator[str]:
    """What in the JSON of a program would run code."""
    if isinstance(item, dict):
        if "as_custom_obj" in item or "custom_obj" in item or item.get("custom_obj_values"):
            yield "holds objects of its own classes"
        constant = item.get("constant_input") or {}
        if not _PATH.fullmatch(constant.get("value", {}).get("as_string", "")):
            yield "has text for an input that would be code, or may be"
        for name, inner in item.items():
            if not isinstance(name, str) or not _PATH.fullmatch(name):
                yield f"has a name that would be code ({name!r:.80})"
            elif key == "range_constraints" and not is_arithmetic(name):
                yield f"has a size that would be code ({name!r:.80})"
            else:
                yield from _faults(inner, name if key != "metadata" else "metadata")
    elif isinstance(item, list):
        for inner in item:
            yield from _faults(inner, key)
    elif isinstance(item, str) and not _CHECKS.get(key, _PATH.fullmatch)(item):
        yield f"has a {key} that would be code, or may be ({item!r:.80})"


def is_arithmetic(text: str) -> bool:
    """Whether Python source is arithmetic over sizes alone: read as syntax, not evaluated."""
    if len(text) > _LONGEST:
        return False
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    return all(isinstance(node, _SYNTAX) and _is_plain(node, called) for node in nodes)


def _is_plain(node: ast.AST, called: set[int]) -> bool:
    if isinstance(node, ast.Attribute):
        return id(node) in called and node.attr in _METHODS
    if isinstance(node, ast.Name):
        return node.id in _FUNCTIONS if id(node) in called else "__" not in node.id
    if isinstance(node, ast.Call):
        grows = isinstance(node.func, ast.Name) and node.func.id in _GROWING
        return isinstance(node.func, ast.Name | ast.Attribute) and not (
            grows and not all(map(_is_small, node.args[1:]))
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.LShift):
        return _is_small(node.right)
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, str):
            return _WORD.fullmatch(value) is not None
        return value is None or (isinstance(value, int | float) and abs(value) <= _LARGEST)
    return True


def _is_small(node: ast.AST) -> bool:
    """Whether this is a power that Python computes at once."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Integer" and node.args:
        node = node.args[0]
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return isinstance(node, ast.Constant) and isinstance(node.value, int) and abs(node.value) <= _MOST_POWER


def _is_operator(text: str) -> bool:
    """Whether this names an operator that computes, and neither reads nor writes files."""
    if not _OPERATOR.fullmatch(text):
        return False
    if not text.startswith("torch.ops.") or text.startswith("torch.ops.higher_order."):
        return True
    space, name, *overload = text.removeprefix("torch.ops.").split(".")
    found: Any = getattr(getattr(torch.ops, space), name, None)
    found = getattr(found, overload[0] if overload else "default", None)
    if not isinstance(found, torch._ops.OpOverload) or not torch._C._dispatch_has_kernel(found._name):
        return False  # what only TorchScript has, such as aten::save
    return not any(argument.name.startswith(("file", "path")) for argument in found._schema.arguments)


def _is_tree(text: str) -> bool:
    """Whether this spells the structure of arguments or results, of Python's own containers."""
    try:
        waiting = [json.loads(text)]
    except ValueError:
        return False
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            context = item.get("context")
            if isinstance(context, str) and context[:1] in "[{":
                waiting.append(json.loads(context))
            if "__enum__" in item or item.get("default_factory_module", "builtins") != "builtins":
                return False
            if item.get("type") == "builtins.dict" and not _are_words(context):
                return False
        waiting.extend(item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
        if isinstance(item, str) and len(item) > _LONGEST:
            return False
    return True


def _are_words(context: Any) -> bool:
    """Whether the keys of a dict of arguments are words or numbers, which become names in source."""
    keys = json.loads(context) if isinstance(context, str) else []
    return isinstance(keys, list) and all(
        _PATH.fullmatch(key) is not None if isinstance(key, str) else isinstance(key, int) for key in keys
    )


def _is_word(text: str) -> bool:
    return not text or _WORD.fullmatch(text) is not None


def _is_anything(_: str) -> bool:
    return True


# How text is held, by the key under which it stands in the JSON; under any other it must be without quotes.
_CHECKS: Mapping[str, Callable[[str], Any]] = {
    **dict.fromkeys(("name", "as_name", "input_name", "user_input_name", "forward_arg_names", "field_names"), _is_word),
    **dict.fromkeys(("target", "as_operator"), _is_operator),
    **dict.fromkeys(("expr_str", "guards_code"), is_arithmetic),
    **dict.fromkeys(("in_spec", "out_spec"), _is_tree),
    # Written into source as the repr of a string, or not at all.
    **dict.fromkeys(("as_string", "as_strings", "metadata"), _is_anything),
}
