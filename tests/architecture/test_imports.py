"""The directions of import, and what must stay out of the quick processes."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ISLANDS = ("storage", "pipelines", "models")
HEAVY = {"torch", "monai", "SimpleITK"}


def _imports(file: Path) -> set[str]:
    """Every module name that the file imports, anywhere in it."""
    found = set()
    for statement in ast.walk(ast.parse(file.read_text())):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            found.add(statement.module)
    return found


@pytest.mark.parametrize("island", ISLANDS)
def test_an_island_imports_no_other(island: str) -> None:
    others = {*ISLANDS, "dicom_node"} - {island}
    files = list((ROOT / island).rglob("*.py"))
    assert files
    wrong = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in _imports(file)
        if name.split(".")[0] in others
    }
    assert not wrong


def test_only_dimse_imports_pynetdicom() -> None:
    files = [file for package in (*ISLANDS, "dicom_node") for file in (ROOT / package).rglob("*.py")]
    users = {
        file.relative_to(ROOT).parts[:2]
        for file in files
        if any(n.split(".")[0] == "pynetdicom" for n in _imports(file))
    }
    assert users == {("dicom_node", "dimse")}


@pytest.mark.parametrize(
    "module",
    [
        "dicom_node.cli",
        "dicom_node.up",
        "dicom_node.reception",
        "dicom_node.scheduling",
        "dicom_node.console.app",
        "dicom_node.tasks",
        "pipelines.catalogue",
        "dicom_node.delivery",
    ],
)
def test_quick_processes_do_not_import_torch(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
