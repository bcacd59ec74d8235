"""The rules that hold the house together: directions of imports, late loading, and what no file may do."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sparsezo_gui
from sparsezo_gui.recipe.registry import MASKS, REGISTRIES, SPACES

PACKAGE = Path(sparsezo_gui.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.slow
def test_import_contracts_hold():
    done = subprocess.run(["lint-imports"], cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("imported", "absent"),
    [
        ("sparsezo_gui", "torch transformers bitsandbytes datasets PySide6 pyqtgraph numpy"),
        ("sparsezo_gui.gui.app, sparsezo_gui.gui.main_window", "torch transformers bitsandbytes datasets"),
        ("sparsezo_gui.engine.training, sparsezo_gui.engine.planning", "PySide6 pyqtgraph"),
        ("sparsezo_gui.recipe, sparsezo_gui.cli, sparsezo_gui.resources", "torch transformers PySide6 numpy"),
        ("sparsezo_gui.answers", "torch transformers PySide6 numpy"),
        ("sparsezo_gui.recipe", "sparsezo_gui.engine"),
        ("sparsezo_gui.engine.runs.history", "torch transformers PySide6"),
    ],
)  # fmt: skip
def test_importing_one_side_leaves_the_other_out(imported, absent):
    code = f"import sys, {imported}\nprint([name for name in {absent.split()} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_help_stays_fast():
    """It imports what the commands and the recipe need, and none of the libraries that take seconds."""
    code = "import sys\nfrom sparsezo_gui import cli\ntry:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
    slow = ("torch", "transformers", "huggingface_hub", "datasets", "pyarrow", "numpy", "PySide6", "rich", "jinja2")
    code += f"print(sorted({set(slow)} & sys.modules.keys()), len(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, count = done.stdout.strip().splitlines()[-1].rsplit(" ", 1)
    assert loaded == "[]" and int(count) < 400
    assert "sparsezo train starter" in done.stdout


@pytest.mark.slow
def test_looking_at_all_variants_loads_no_torch():
    code = (
        "import sys\nfrom sparsezo_gui.recipe.registry import REGISTRIES, SPACES\n"
        "assert all(registry[rule].summary() for registry in REGISTRIES for rule in registry)\n"
        "assert all(SPACES[name].__doc__ for name in SPACES)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.table)
def test_every_variant_explains_itself(registry):
    assert registry.default in registry.paths
    for rule in registry:
        variant = registry[rule]
        assert variant.model_fields["rule"].default == rule
        assert variant.title
        for key, field in variant.model_fields.items():
            assert key == "rule" or (field.description or "").endswith("."), f"{rule}.{key} needs a sentence"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_reads_pickles_or_sets_the_global_seed(path):
    forbidden = {("torch", "load"), ("torch", "manual_seed"), ("pickle", "load"), ("pickle", "loads")}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            # One script opens a stranger's pickles, in a process of its own; one list reads what this process wrote
            # into a file that no other can open.
            allowed = (path.name, node.attr) in {("unpickle.py", "load"), ("spill.py", "loads")}
            assert allowed or (node.value.id, node.attr) not in forbidden, f"{path}:{node.lineno}"
        if isinstance(node, ast.ExceptHandler) and len(node.body) == 1 and isinstance(node.body[0], ast.Pass):
            broad = node.type is None or getattr(node.type, "id", "") in ("Exception", "BaseException")
            assert not broad, f"{path}:{node.lineno} swallows errors"


ELSEWHERE = [path for path in FILES if PACKAGE / "engine" / "spaces" not in path.parents]


@pytest.mark.parametrize("path", ELSEWHERE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_spaces_know_which_space_is_which(path):
    """What depends on a space is asked of its description, so that a new one is one line in the registry."""
    names = {*SPACES} - {"lora"}  # which also names a method that memory and accuracy are compared with
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        compared = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
        compared += [node.value] if isinstance(node, ast.MatchValue) else []
        for part in compared:
            assert not isinstance(part, ast.Attribute) or part.attr != "space", f"{path}:{node.lineno}"
            assert not {each.value for each in ast.walk(part) if isinstance(each, ast.Constant)} & names, path


def test_every_space_is_used():
    assert {MASKS[rule].space for rule in MASKS} == {*SPACES}
