"""A step whose code changed must say whether its outputs did: receipts count its version.

`tests/step_versions.json` records of each step its version and a digest of its code: the syntax of
all modules that it reaches (comments and docstrings aside), prompts and templates. After a change

- that makes other outputs: raise `version` in the step's `@step(…)`, then `make versions`;
- that does not: `make versions SAME="select pack"` records that you say so.
"""

import ast
import hashlib
import importlib.util
import json
import os
import sys
from functools import cache
from pathlib import Path

import pytest

from components.core.step import load_step
from components.steps import STEPS

ROOT = Path(__file__).parents[1]
RECORD = Path(__file__).with_name("step_versions.json")
PACKAGES = {"components": ROOT, "data_contracts": ROOT, "pixclip": ROOT / "model"}
PAGES = "components.core.pages"  # the one module of the core that reads templates
TEXT_FOLDERS = ("templates", "prompts")
CODE_LIKE = {".j2", ".css", ".json", ".txt", ".yaml"}
TORCHRUN = ("pixclip.", "components.training.")  # beginnings of the modules that it starts
# What runs around every step decides nothing of its outputs.
AROUND = {
    "components.core.contracts",
    "components.core.credentials",
    "components.core.drafts",
    "components.core.errors",
    "components.core.receipts",
    "components.core.kubeflow",
    "components.core.pointers",
    "components.core.process",
    "components.core.progress",
    "components.core.run",
    "components.core.settings",
    "components.core.state",
    "components.core.step",
    "components.core.nodes",
    "components.core.torchrun",
    "components.core.trainer_api",
    "components.core.trainjob",
    "components.steps",
}
pytestmark = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the syntax tree is written otherwise by other Pythons"
)


def module_file(name: str) -> Path | None:
    """The file of one of our modules."""
    root = PACKAGES.get(name.partition(".")[0])
    if root is None:
        return None
    base = root.joinpath(*name.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


@cache
def syntax(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> frozenset[str]:
    """Our modules that a module imports, at its top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and str(node.value).startswith(TORCHRUN):
            found.add(str(node.value))  # a module that torchrun starts
    return frozenset(name for name in found if module_file(name) and name not in AROUND)


def reached(start: str) -> set[str]:
    """A module and all of ours that it reaches."""
    seen, left = set(), [start]
    while left:
        name = left.pop()
        path = module_file(name)
        if name not in seen and path:
            seen.add(name)
            left += imports(path)
    return seen


@cache
def digest_of_module(name: str) -> str:
    path = module_file(name)
    assert path
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_text(body[0]):
            body[0] = ast.Pass()
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def texts_of(folder: Path) -> list[Path]:
    """Templates, prompts and tables that the modules of a folder read."""
    below = [folder, *(folder / name for name in TEXT_FOLDERS)]
    return [path for one in below for path in one.glob("*") if path.suffix in CODE_LIKE]


def digest_of_code(step: str) -> str:
    names = sorted(reached(STEPS[step]))
    parts = [f"{name} {digest_of_module(name)}" for name in names]
    reading = [name for name in names if name == PAGES or not name.startswith("components.core.")]
    folders = {path.parent for name in reading if (path := module_file(name))}
    for path in sorted(path for folder in folders for path in texts_of(folder)):
        parts.append(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def verdict(now: dict[str, object], recorded: dict[str, object] | None) -> str:
    """What is wrong with a step, empty if nothing is."""
    if recorded is None:
        return "is not recorded: `make versions`"
    if now == recorded:
        return ""
    if now["version"] != recorded["version"]:
        return "has a new version that is not recorded: `make versions`"
    return (
        f"changed under the unchanged version {now['version']}: raise it in @step(version=…) if "
        'its outputs can be others now, else `make versions SAME="…"`'
    )


def record(steps: dict[str, dict[str, object]], same: set[str]) -> dict[str, object]:
    """The new record: a step that changed is in it only by its version, or because you say so."""
    old = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    return {
        name: now
        if name in same or name not in old or now["version"] != old[name]["version"]
        else old[name]
        for name, now in steps.items()
    }


@pytest.fixture(scope="module")
def steps() -> dict[str, dict[str, object]]:
    return {
        name: {"version": load_step(name).version, "code": digest_of_code(name)} for name in STEPS
    }


def test_no_step_changed_under_an_unchanged_version(steps):
    if "UPDATE_VERSIONS" in os.environ:
        new = record(steps, set(os.environ["UPDATE_VERSIONS"].replace(",", " ").split()))
        RECORD.write_text(json.dumps(new, indent=1) + "\n", encoding="utf-8")
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    faults = {name: verdict(now, recorded.get(name)) for name, now in steps.items()}
    assert {name: fault for name, fault in faults.items() if fault} == {}


def test_a_changed_step_is_refused_until_its_version_is_raised_or_it_is_said_to_be_the_same():
    old, new = {"version": 1, "code": "a"}, {"version": 1, "code": "b"}
    assert verdict(old, old) == ""
    assert "under the unchanged version 1" in verdict(new, old)
    assert "not recorded" in verdict({"version": 2, "code": "b"}, old)


def test_the_code_of_a_step_reaches_into_the_library_and_its_contracts():
    names = reached("components.training.train")
    assert {
        "pixclip.training.loop",
        "pixclip.training.contrastive",
        "components.training.train",
    } <= names
    assert "components.core.run" not in names
    assert "data_contracts.quarantine" in reached("components.data.select.step")
    assert importlib.util.find_spec("pixclip.training.run"), "which torchrun starts"
