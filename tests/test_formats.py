"""The registry of file formats: readable without the engine, and each format explains itself."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from sparsezo_gui import cli
from sparsezo_gui.cli import tuned
from sparsezo_gui.engine.export.form import ExportFormat, Option
from sparsezo_gui.errors import UserError
from sparsezo_gui.formats import DATA, EXPORTS, export_formats


@pytest.mark.slow
def test_looking_at_all_formats_loads_no_torch():
    code = (
        "import sys\nfrom sparsezo_gui.formats import default_export, export_formats\nassert export_formats()\n"
        "from sparsezo_gui.recipe.registry import SPACES\nassert all(default_export(SPACES[each]) for each in SPACES)\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'PySide6') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", EXPORTS)
def test_every_export_format_explains_itself(name, capsys):
    form = export_formats()[name]
    assert form.title and form.help.endswith(".") and form.help.count(". ") == 0
    with pytest.raises(SystemExit):
        cli.main(["export", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"{name}: " in told
    for option in form.options:
        assert f"--{option.name} {{" in told and f"for {name}: {option.help}" in told
        assert all(title and sentence.endswith(".") for title, sentence in option.choices.values())


def test_formats_whose_options_have_the_same_name_share_a_flag(monkeypatch, capsys):
    """Each takes its own choices."""

    class Other(ExportFormat):
        title, help = "Other", "Another format."
        options = (Option("weights", "Weights", "how they are written", {"plain": ("Plain", "As they are.")}),)

        def write(self, session, run, out, accept, **options): ...

    taken = {**export_formats(), "other": Other()}
    monkeypatch.setattr(tuned, "export_formats", lambda: taken)
    parser = argparse.ArgumentParser()
    tuned._formats(parser)
    for value in ("original", "trained", "plain"):
        asked = parser.parse_args(["--format", "other", "--out", "x", "--weights", value])
        assert asked.weights == value
    assert "for hf: the original" in (told := " ".join(parser.format_help().split()))
    assert "for other: how they are written" in told
    (option,) = taken["other"].options
    assert option.chosen(None) == "plain"
    with pytest.raises(UserError, match=r"Unknown export choice of weights 'trained'\."):
        option.chosen("trained")


def test_data_formats_share_no_suffix_and_have_readers():
    suffixes = [suffix for each in DATA for suffix in each.suffixes]
    assert len(suffixes) == len(set(suffixes)) and all(callable(each.reader) and each.title for each in DATA)
