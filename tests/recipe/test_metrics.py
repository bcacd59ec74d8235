"""The table of metrics: whole, and readable without the engine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sparsezo_gui.engine import metrics as measured
from sparsezo_gui.recipe.metrics import METRICS, deciding, functions, metric


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_a_title_and_a_direction_and_those_that_decide_a_function(name):
    each = METRICS[name]
    assert each.title and each.sign in (1, -1)
    assert bool(each.choices or each.written or each.loss) == each.decides


def test_the_functions_are_those_of_the_engine():
    assert functions("choices") == {"accuracy": measured.accuracy, "f1": measured.macro_f1}
    assert functions("written") == {"exact_match": measured.exact_match, "f1": measured.f1}
    assert functions("loss") == {"perplexity": measured.perplexity}


def test_what_decides():
    assert deciding({"f1": 1.0, "accuracy": 1.0}) == "accuracy"
    assert deciding({"f1": 1.0, "accuracy": 1.0}, "f1") == "f1"
    assert deciding({"loss": 1.0}, "loss") == "" == deciding({})
    assert (metric("word_count").title, metric("word_count").sign) == ("Word count", 0)


def test_the_table_loads_no_torch():
    code = "import sys, sparsezo_gui.recipe.metrics\n"
    code += "print({'torch', 'numpy', 'sparsezo_gui.engine'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
