"""The comparison of methods: whole runs at equal forward passes, kept cell by cell."""

from __future__ import annotations

import importlib.util
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from sparsezo_gui import cli
from sparsezo_gui.cli import bench
from sparsezo_gui.engine.bench import quality, tables
from sparsezo_gui.engine.bench.contestants import METHODS, named, settings
from sparsezo_gui.engine.bench.quality import Quality
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, with_settings
from sparsezo_gui.recipe.events import Notice
from tests.engine.conftest import finish, of
from tests.models import tiny


@pytest.fixture
def make(make):
    """As elsewhere, with the usual schedule, which belongs to the compared methods."""
    return lambda **tables: make(**{"update": {"schedule": "linear"}, **tables})


def compared(make, folder, *methods, seeds=2, **more):
    return Quality(make(data={"validation": 4}), {"tiny": ()}, methods, seeds, 12, folder, **more)


def measured(found):
    """The rows of a comparison when all is measured."""
    finish(found.run())
    return tables.rows(found)


def cells_in(folder):
    """The cells of methods in a folder."""
    cells = map(json.loads, (folder / "results.jsonl").read_text().splitlines())
    return [cell for cell in cells if "method" in cell]


@pytest.fixture
def base(monkeypatch):
    """A model that is not measured."""

    def nothing(recipe):
        yield Notice("")
        return {"final": 0.5, "loss": 1.0}

    monkeypatch.setattr(quality, "untuned", nothing)


@pytest.mark.slow
def test_cells_are_kept_and_not_measured_again(make, tmp_path):
    methods = ("untuned", "random@0.05", "forward-gradient")
    rows = measured(compared(make, tmp_path, *methods))
    assert [(row["method"], row["seeds"]) for row in rows] == list(zip(methods, (1, 2, 2), strict=True))
    cells = cells_in(tmp_path)
    steps = {cell["method"]: cell["steps"] for cell in cells if "steps" in cell}
    assert steps == {"random@0.05": 6, "forward-gradient": 4}, "twelve forward passes, a backward one being two"
    assert not of(Notice, list(compared(make, tmp_path, *methods).run()))
    assert of(Notice, list(compared(make, tmp_path, "random@0.05", seeds=3).run())), "more can be asked for"


def test_the_rate_goes_where_the_loss_is_lowest(make, tmp_path, monkeypatch, base):
    tried = []

    def run(recipe, folder):
        tried.append(recipe.update.learning_rate)
        yield Notice("")
        loss = abs(recipe.update.learning_rate / usual - 4) + recipe.loop.seed
        return {"curve": [(12, 0.5)], "validation_loss": loss, "final": 0.5, "best": 0.5, "tuned": 1,
                "rate": recipe.update.learning_rate, "seconds": 1.0}  # fmt: skip

    usual = with_settings(Recipe(), settings("random")).update.learning_rate
    monkeypatch.setattr(quality, "tuned", run)
    (row,) = measured(compared(make, tmp_path, "random"))
    assert [round(rate / usual, 3) for rate in tried] == [1, 4, 16, 4]
    assert row["seeds"] == 2 and row["rate"] == f"{4 * usual:.1e}"
    tried.clear()
    again = Quality(make(), {"one": (), "other": ()}, ("random",), 2, 12, tmp_path / "once", once=True)
    assert [row["rate"] for row in measured(again)] == 2 * [f"{4 * usual:.1e}"]
    assert [round(rate / usual, 3) for rate in tried] == [1, 4, 16, 4, 4, 4], "no search on the other task"


def test_passes_and_seconds_to_what_mezo_reaches(make, tmp_path, monkeypatch, base):
    curves = {"all": [0.4, 0.6, 0.8], "sensitive": [0.7, 0.8, 0.9], "random": [0.5, 0.5, 0.5]}

    def run(recipe, folder):
        yield Notice("")
        low, high = curves[recipe.mask.rule][:2], curves[recipe.mask.rule][2]
        hits = [*low, high + 0.1 * recipe.loop.seed]
        return {"curve": list(zip((4, 8, 12), hits, strict=True)), "validation_loss": 1.0, "final": hits[-1],
                "best": hits[-1], "tuned": 1, "rate": 1.0, "seconds": 30.0 + 6 * recipe.loop.seed}  # fmt: skip

    monkeypatch.setattr(quality, "tuned", run)
    monkeypatch.setattr(quality, "FURTHEST", 0)
    rows = measured(compared(make, tmp_path, "mezo", "sensitive", "random"))
    # MeZO ends at 0.8 and 0.9: the mean is 0.85, which the first of its own seeds never reaches.
    assert [row["final"] for row in rows] == ["85.0 ± 5.0", "95.0 ± 5.0", "55.0 ± 5.0"]
    assert [row["forwards_to_mezo"] for row in rows] == ["", 12, ""]
    assert [row["seconds_to_mezo"] for row in rows] == ["", 33, ""]
    _, row = measured(compared(make, tmp_path, "mezo", "sensitive", seeds=1))
    assert (row["forwards_to_mezo"], row["seconds_to_mezo"]) == (8, 20)


def test_what_mezo_does_not_learn_is_reached_before_the_first_step(make, tmp_path, monkeypatch, base):
    def run(recipe, folder):
        yield Notice("")
        hits = [0.6, 0.4, 0.5 if recipe.mask.rule == "all" else 0.9]
        return {"curve": list(zip((0, 6, 12), hits, strict=True)), "validation_loss": float("nan"), "final": 0.5,
                "best": 0.5, "tuned": 1, "rate": recipe.update.learning_rate, "seconds": 30.0}  # fmt: skip

    monkeypatch.setattr(quality, "tuned", run)
    rows = measured(compared(make, tmp_path, "mezo", "random"))
    assert [(row["forwards_to_mezo"], row["seconds_to_mezo"]) for row in rows] == [(0, 0), (0, 0)]
    assert [row["seeds"] for row in rows] == [2, 2], "a loss that is no number wins no search"


@pytest.mark.slow
def test_two_at_once_lose_nothing_of_each_other(make, tmp_path):
    one, other = (compared(make, tmp_path, name, seeds=1) for name in ("random@0.05", "untuned"))
    finish(one.run())
    finish(other.run())
    assert {"random@0.05", "untuned"} <= {cell["method"] for cell in cells_in(tmp_path)}


def test_two_that_write_together_lose_nothing_of_each_other(make, tmp_path, monkeypatch, base):
    def run(recipe, folder):
        yield Notice("")
        return {"validation_loss": float(recipe.loop.seed), "final": 0.5, "tuned": 1, "rate": 1.0}

    monkeypatch.setattr(quality, "tuned", run)
    both = [compared(make, tmp_path, f"random@0.0{number}", seeds=20) for number in (1, 2)]
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda each: finish(each.run()), both))
    cells = cells_in(tmp_path)
    assert len([cell for cell in cells if cell["factor"] == 1.0]) == 40


def test_cells_of_other_data_are_others(make, tmp_path):
    found = [
        Quality(make(), {"sst2": task_settings}, ("random",), 1, 12, tmp_path)._key("sst2", "random")["base"]
        for task_settings in (("data.source='a'", "data.task=sst2"), ("data.source='b'", "data.task=sst2"))
    ]
    assert len(set(found)) == 2


def test_cells_of_other_blocks_are_others(make, tmp_path):
    found = [
        Quality(make(model={"block": block}), {"tiny": ()}, ("random",), 1, 12, tmp_path)._key("tiny", "random")["base"]
        for block in (32, 64)
    ]
    assert len(set(found)) == 2


def test_the_results_of_the_repository_are_told_without_measuring():
    base = with_settings(
        Recipe(), ["model.block=64", "mask.density=0.01", "estimator.epsilon=3e-3", "data.validation=150"]
    )
    place = Path(__file__).parents[1] / "benchmarks" / "quality"
    kept = Quality(base, dict([bench.task_of("starter")]), ("mezo", "sensitive@0.001"), 3, 1000, place)
    assert [(row["method"], row["final"]) for row in tables.rows(kept)] == [
        ("mezo", "85.7 ± 1.1"), ("sensitive@0.001", "90.1 ± 1.5"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_recipe(name):
    assert with_settings(Recipe(), settings(name))


def test_densities_go_with_what_has_one():
    assert named(["untuned", "random", "mezo", "lora"], ["0.1", "0.2"]) == [
        "untuned", "random@0.1", "random@0.2", "mezo", "lora",
    ]  # fmt: skip
    assert named(["random"], []) == ["random"]


def test_wrong_words_are_told(make, tmp_path):
    with pytest.raises(UserError, match="Unknown method 'sensitve'"):
        compared(make, tmp_path, "sensitve")
    with pytest.raises(UserError, match="density"):
        compared(make, tmp_path, "random@7")
    with pytest.raises(UserError, match=r"has no density\. Use 'mezo'"):
        compared(make, tmp_path, "mezo@0.1")
    with pytest.raises(UserError, match=r"\[update\] rule belongs to the compared methods"):
        Quality(make(update={"rule": "sgd"}), {"tiny": ()}, ("random",), 1, 12, tmp_path)
    for task, told in (("data.task=preference", "no correct answer"), ("data.validation=0", "validation data")):
        with pytest.raises(UserError, match=told):
            Quality(make(), {"tiny": (task,)}, ("random",), 1, 12, tmp_path)
    (tmp_path / "results.jsonl").write_text("{")
    with pytest.raises(UserError, match="not a results file"):
        compared(make, tmp_path, "random")
    with pytest.raises(UserError, match="cannot be written"):
        finish(compared(make, tmp_path / "results.jsonl", "random").run())


def test_on_the_command_line(tmp_path, capsys):
    model, data, out = tiny("llama", tmp_path / "llama"), tmp_path / "sst2.jsonl", tmp_path / "out"
    data.write_text("\n".join(json.dumps({"sentence": f"film {i}", "label": i % 2}) for i in range(40)))
    command = ["bench", "quality", "--methods", "untuned", "--set", f"model.id={model}", "--out", str(out)]
    assert cli.main([*command, "--tasks", f"sst2={data}", "--markdown"]) == 0
    cells = [cell.strip() for cell in capsys.readouterr().out.strip().splitlines()[-1].split("|")]
    (kept,) = cells_in(out)
    assert cells[1:6] == ["sst2", "untuned", "1", "accuracy", f"{100 * kept['final']:.1f}"]
    more = ["linear-probe", "exact:2", "--passes", "3", "6", "--minutes", "9", "--evaluations", "1", "--no-search"]
    small = ["--set", "mask.sequences=2", "--set", "mask.tokens=32", "--seeds", "1"]
    assert cli.main([*command[:4], *more, *command[4:], "--tasks", f"sst2={data}", "--json", *small]) == 0
    *rows, within = map(json.loads, capsys.readouterr().out.splitlines())
    found = {cell["method"]: cell for cell in cells_in(out)}
    assert [(row["method"], row["search"], row["passes"]) for row in rows] == [
        ("untuned", "no", ""), ("linear-probe", "no", 2), ("exact:2", "no", 6),
    ]  # fmt: skip
    assert rows[1]["better"] - rows[1]["worse"] == sum(
        int(after) - int(before) for before, after in zip(kept["scores"], found["linear-probe"]["scores"], strict=True)
    )
    first, last = (f"{100 * point[1]:.1f}" for point in found["exact:2"]["curve"])
    assert (within["3 passes"], within["6 passes"], within["9 min"]) == (first, last, last)
    for wrong, told in ((["--tasks", "sst2"], "add the path of its data"), (["--seeds", "0"], "must be 1 or more"),
                        (["--methods", "mezzo"], "Did you mean 'mezo'?")):  # fmt: skip
        with suppress(SystemExit):
            assert cli.main([*command, *wrong]) == 2
        assert told in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs the extra 'bench'")
def test_a_picture_is_drawn(make, tmp_path):
    from sparsezo_gui.engine.bench.pictures import check, draw

    with pytest.raises(UserError, match="unsupported file type"):
        check(tmp_path / "all.txt")
    check(tmp_path / "all")
    found = compared(make, tmp_path, "untuned", "random@0.05", "random@0.2", "random")
    assert not draw(found, tmp_path / "none.png")
    finish(found.run())
    assert draw(found, tmp_path / "all.png") and (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")
