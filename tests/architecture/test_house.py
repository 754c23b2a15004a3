"""The rules of the house, as far as a machine can hold them."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("gateway", "engine", "billing", "migrations")
FUNCTION_LINES = 70
MODULE_LINES = 500
TEST_MODULE_LINES = 800
CLASS_METHODS = 20
STATE_MACHINE_METHODS = 40
NAMELESS = {"utils", "util", "common", "helpers", "helper", "core", "manager", "misc"}
WITHOUT_TORCH = ("gateway.app", "gateway.cli.processes", "gateway.cli.up", "engine", "billing")
FIRST_COMMANDS = ("run", "test")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
CODE_BLOCK = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def pages() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def long_functions(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield f"{node.name} has {lines} lines"


def wide_classes(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
            # Of a state machine's class every rule is a fact of its own, like a test function.
            cap = STATE_MACHINE_METHODS if node.name.endswith("Machine") else CLASS_METHODS
            if len(methods) > cap:
                yield f"{node.name} has {len(methods)} methods"


def test_functions_and_classes_stay_readable() -> None:
    # A function that outgrows a screen hides its second idea; a class with many methods its second noun.
    found = [
        f"{name_of(path)}: {problem}"
        for path in modules(*PACKAGES, "tests", "benchmarks", "deploy")
        for tree in [ast.parse(path.read_text())]
        for problem in [*long_functions(tree), *wide_classes(tree)]
    ]
    assert found == []


def test_modules_stay_small_enough_to_have_one_subject() -> None:
    caps = [*((path, MODULE_LINES) for path in modules(*PACKAGES, "benchmarks", "deploy"))]
    caps += [(path, TEST_MODULE_LINES) for path in modules("tests")]
    found = [name_of(path) for path, cap in caps if len(path.read_text().splitlines()) > cap]
    assert found == []


def test_every_module_is_named_after_its_subject() -> None:
    # A drawer without a label collects everything.
    found = [name_of(path) for path in modules(*PACKAGES) if NAMELESS & {path.stem, path.parent.name}]
    assert found == []


def test_the_readmes_first_commands_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    for command in FIRST_COMMANDS:
        assert f"make {command}" in readme
        assert command in make_targets()


def test_every_make_command_in_the_docs_exists() -> None:
    known = make_targets()
    found = [
        f"{name_of(page)}: make {target}"
        for page in pages()
        for target in re.findall(r"(?:^\s*\$?\s*|`)make ([a-z][a-z-]*)\b", page.read_text(), re.MULTILINE)
        if target not in known
    ]
    assert found == []


def test_every_relative_link_of_the_docs_resolves() -> None:
    found = [
        f"{name_of(page)}: {target}"
        for page in pages()
        for target in map("".join, LINK.findall(CODE_BLOCK.sub("", page.read_text())))
        if not re.match(r"[a-z][a-z0-9+.-]*:|#|/", target)
        if not (page.parent / target.partition("#")[0]).exists()
    ]
    assert found == []


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_torch_is_imported_by_nothing_but_model_code(module: str) -> None:
    # It costs seconds and gigabytes; commands and the HTTP process do without.
    program = f"import sys, {module}; sys.exit(2 if 'torch' in sys.modules else 0)"
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert answer.returncode == 0, answer.stderr or f"import {module} imports torch"


def test_locks_pin_everything_and_leave_the_build_of_torch_open() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        pins = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
        assert [pin for pin in pins if "==" not in pin] == []
        assert "torch==2.13.0" in pins
        assert [pin for pin in pins if re.match(r"(nvidia|cuda|triton)|.*\+(cpu|cu\d)", pin)] == []


def test_locks_hold_the_versions_that_the_project_asks_for() -> None:
    declared = re.findall(
        r'^    "([a-z0-9-]+)(?:\[[a-z,]+\])?==([^"]+)",', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    locked = (ROOT / "requirements-dev.lock").read_text().lower()
    assert [name for name, version in declared if f"{name}=={version}" not in locked] == []
