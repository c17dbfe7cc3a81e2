"""The extra `library` installs all that the library needs, and none of the pipelines' tools."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "model" / "pixclip"
TRAINING = ("training/", "text/adapt")  # need the extra `train`
TOOLS = {"apache-airflow", "dvc", "great-expectations", "kfp", "mlflow", "deepspeed"}


def imported_packages(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"pixclip"}


def test_the_extra_asks_for_every_package_that_the_library_imports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["library"]
    asked = {re.split(r"[^a-z0-9-]", line.lower())[0] for line in lines}
    files = {path.relative_to(LIBRARY).as_posix(): path for path in LIBRARY.rglob("*.py")}
    used = [imported_packages(files[name]) for name in files if not name.startswith(TRAINING)]
    distributions = packages_distributions()
    for package in set().union(*used):
        names = distributions.get(package, [package])  # it may be optional, and not be there
        assert asked & {name.lower() for name in names}, f"{package} is missing"
    assert not asked & TOOLS
