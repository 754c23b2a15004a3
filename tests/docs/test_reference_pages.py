"""Reference pages that must say exactly what the code says."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ROW = re.compile(r"^\| `([A-Z_0-9]+)` \|", re.MULTILINE)


def variables_read() -> set[str]:
    """What the only reader of the environment passes to `environ.get(...)` and `environ[...]`."""
    tree = ast.parse((ROOT / "gateway" / "settings.py").read_text())
    calls = [
        node.args[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "environ.get"
    ]
    keys = [
        node.slice
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "environ"
    ]
    return {node.value for node in [*calls, *keys] if isinstance(node, ast.Constant)}


def test_the_configuration_page_lists_what_settings_read() -> None:
    listed = ROW.findall((ROOT / "docs" / "configuration.md").read_text())
    assert "ANTIPHON_HOME" in listed
    assert sorted(listed) == sorted(variables_read())


def test_the_page_of_errors_is_made_from_the_error_classes() -> None:
    program = ROOT / "docs" / "generate_errors.py"
    answer = subprocess.run(
        [sys.executable, program, "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
