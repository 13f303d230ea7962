"""Plug-ins: ``methods/*.py`` and ``datasets/*.py``, found by file name, loaded without a registry.

The plan of a sweep must not import torch, so what the plan needs of a plug-in (its settings' names, its constants,
its fingerprint) is read from the syntax tree.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import importlib.util
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from spikebench.errors import UserError
from spikebench.paths import project_root


def names(kind: str, root: Path | None = None) -> list[str]:
    """All plug-ins of a kind (``methods`` or ``datasets``), sorted."""
    folder = (root or project_root()) / kind
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def source(kind: str, name: str, root: Path | None = None) -> Path:
    """The file of a plug-in.

    Raises:
        UserError: there is no such file; the message lists those there are.
    """
    path = (root or project_root()) / kind / f"{name}.py"
    if not path.is_file():
        raise UserError(f"{kind}/{name}.py does not exist; known {kind}: {', '.join(names(kind, root))}")
    return path


def load(kind: str, name: str, root: Path | None = None) -> ModuleType:
    """Import a plug-in under a private module name, so that ``datasets`` never shadows another package."""
    path = source(kind, name, root).resolve()
    private = f"_spikebench_{kind}_{name}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if private in sys.modules:
        return sys.modules[private]
    spec = importlib.util.spec_from_file_location(private, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[private] = module  # dataclasses look their module up while it is being executed
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[private]
        raise
    return module


@lru_cache(maxsize=256)
def _tree(path: Path, modified: int) -> ast.Module:
    try:
        return ast.parse(path.read_text())
    except SyntaxError as error:
        raise UserError(f"{path.parent.name}/{path.name} line {error.lineno}: {error.msg}") from error


def _parse(path: Path) -> ast.Module:
    return _tree(path, path.stat().st_mtime_ns)


def fingerprint(kind: str, name: str, root: Path | None = None) -> str:
    """Hash of the plug-in's syntax tree without docstrings and ``DEVICES``: comments and formatting change nothing."""
    return fingerprint_of(source(kind, name, root))


def fingerprint_of(path: Path) -> str:
    """The same of any file with Python source."""
    return _fingerprint(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _fingerprint(path: Path, modified: int) -> str:
    tree = copy.deepcopy(_tree(path, modified))
    tree.body = [node for node in tree.body if _assigned(node) != {"DEVICES"}]  # where it runs, not what it does
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def defines(kind: str, name: str, function: str, root: Path | None = None) -> bool:
    """Whether a plug-in has a function of this name, without importing it."""
    body = _parse(source(kind, name, root)).body
    return any(isinstance(node, ast.FunctionDef) and node.name == function for node in body)


def docstring(kind: str, name: str, root: Path | None = None) -> str:
    """What a plug-in says of itself: its module's docstring without indentation, or nothing."""
    return ast.get_docstring(_parse(source(kind, name, root))) or ""


def settings_names(kind: str, name: str, root: Path | None = None) -> list[str]:
    """The fields of the plug-in's ``Settings`` dataclass, in order, without importing it.

    Fields of a base class count where it is imported from the engine, but for those of ``DataSettings``, which are the
    harness's to set.
    """
    found = _fields(_parse(source(kind, name, root)), "Settings")
    if found is None:
        raise UserError(f"{kind}/{name}.py has no `class Settings`: see docs/contracts.md")
    return found


def _fields(tree: ast.Module, name: str) -> list[str] | None:
    """Fields of a class in a module, those of its bases first; None where there is no such class."""
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or node.name != name:
            continue
        fields = []
        for base in map(ast.unparse, node.bases):
            engine = _imported_from(tree, base)
            if engine is not None and base != "DataSettings":
                fields += _fields(_parse(engine), base) or []
        own = [n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
        fields += [ast.unparse(n.target) for n in own if "ClassVar" not in ast.unparse(n.annotation)]
        return list(dict.fromkeys(fields))
    return None


def _imported_from(tree: ast.Module, name: str) -> Path | None:
    """The engine's file that a name is imported from, if it is one."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and name in [alias.name for alias in node.names]:
            file = Path(__file__).parent.joinpath(*node.module.split(".")[1:]).with_suffix(".py")
            return file if node.module.startswith("spikebench.") and file.is_file() else None
    return None


def constant(kind: str, name: str, constant: str, default: Any = None, root: Path | None = None) -> Any:
    """A literal module constant of the plug-in (for example ``MODES``), without importing it."""
    for node in _parse(source(kind, name, root)).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and constant in _assigned(node):
            return ast.literal_eval(node.value)
    return default


def _assigned(node: ast.stmt) -> set[str]:
    """The names that a statement gives a value."""
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return set()
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def training_of(method: str, variant: str, root: Path | None = None) -> str:
    """The training that a variant is a reading of, by the method's ``VARIANTS``; without them the variant itself."""
    variants: dict[str, str] = constant("methods", method, "VARIANTS", {}, root)
    return variants.get(variant, variant)
