"""The tables of the comparison of methods: paired tests, and what came of them within passes and minutes."""

from __future__ import annotations

import json
import math

import pytest

from sparsezo_gui.engine.bench import tables
from sparsezo_gui.engine.bench.judged import packed, unpacked
from sparsezo_gui.engine.bench.paired import compared, sign_test
from sparsezo_gui.engine.bench.quality import Quality


@pytest.mark.parametrize(("better", "worse", "p"), [
    (0, 0, 1.0), (0, 5, 2 / 32), (9, 1, 2 * (1 + 10) / 1024), (1, 9, 2 * (1 + 10) / 1024), (10, 10, 1.0),
    (0, 6, 2 / 64), (3, 4, 1.0),
])  # fmt: skip
def test_the_p_of_mcnemars_exact_test_is_that_of_fair_coins(better, worse, p):
    assert sign_test(better, worse) == pytest.approx(p, rel=1e-12)


def test_p_of_many_pairs_is_near_the_normal_one():
    better, worse = 5_200, 4_800  # z with continuity correction: (400 - 1) / 100
    assert sign_test(better, worse) == pytest.approx(math.erfc(3.99 / math.sqrt(2)), rel=0.01)


def test_only_examples_that_changed_count():
    found = compared([(1.0, 1.0)] * 50 + [(0.0, 0.0)] * 30 + [(1.0, 0.0)] * 8 + [(0.0, 1.0)])
    assert (found.better, found.worse, found.verdict) == (1, 8, "below")
    assert found.p == pytest.approx(2 * (1 + 9) / 2**9)
    assert compared([(0.0, 0.4)] * 6).verdict == "above" and compared([(0.0, 0.4)] * 5).verdict == ""


def test_scores_of_choices_are_kept_as_a_string():
    assert packed([1.0, 0.0, 1.0]) == "101" and unpacked("101") == [1.0, 0.0, 1.0]
    assert unpacked(packed([0.25, 1.0])) == [0.25, 1.0]


@pytest.fixture
def make(make):
    """As elsewhere, with the usual schedule, which belongs to the compared methods."""
    return lambda **tables: make(**{"update": {"schedule": "linear"}, **tables})


@pytest.fixture
def kept(make, tmp_path):
    """``kept(name, cells)``: a comparison of the method ``name`` whose cells, one a seed, are already measured."""

    def made(name, cells, **more):
        found = Quality(make(data={"validation": 4}), {"tiny": ()}, (name,), len(cells), 600, tmp_path, **more)
        key = found._key("tiny", found.methods[0])
        usual = {"factor": 1.0, "tuned": 5, "rate": 0.1, "curve": [], "final": 0.5}
        lines = [json.dumps({**key, **usual, "seed": seed, **cell}) for seed, cell in enumerate(cells)]
        (tmp_path / "results.jsonl").write_text("\n".join(lines))
        return Quality(found.base, found.tasks, found.methods, found.seeds, 600, tmp_path, **more)

    return made


def test_seeds_are_tested_together(kept):
    scores = {"metric": "accuracy", "base_final": 0.75, "base_scores": "1110", "base_loss": 1.0, "loss": 2.0}
    cells = [{**scores, "final": hits.count("1") / 4, "scores": hits} for hits in ("0010", "0001", "0010")]
    (row,) = tables.rows(kept("random", cells))
    # Two, three and two became wrong and one right: p = 2 · (1 + 8) / 2⁸.
    assert (row["better"], row["worse"], row["p"], row["against_base"]) == (1, 7, "0.07", "")
    assert (row["base"], row["final"], row["loss"]) == ("75.0 ± 0.0", "25.0 ± 0.0", "2.000 ± 0.000")
    cells.append({**scores, "final": 0.5, "scores": "0110"})
    (row,) = tables.rows(kept("random", cells))
    assert (row["worse"], row["p"], row["against_base"]) == (8, "0.039", "below")


def test_of_a_loss_less_is_better(kept):
    cell = {"metric": "perplexity", "base_final": 20.0, "base_scores": [3.0] * 7, "final": 15.25, "scores": [2.5] * 7}
    (row,) = tables.rows(kept("random", [cell]))
    assert (row["better"], row["worse"], row["against_base"], row["final"]) == (7, 0, "above", "15.250")


def test_passes_and_minutes_are_read_off_the_same_cells(kept):
    curve = [
        [0, 0.5, 0.0, 1.0, 0],
        [200, 0.6, 60.0, 0.9, 100],
        [400, 0.7, 120.0, 0.8, 200],
        [600, 0.8, 180.0, 0.7, 300],
    ]
    later = [[passes, hit + 0.1, 2 * seconds, loss, step] for passes, hit, seconds, loss, step in curve]
    cells = [
        {"metric": "accuracy", "curve": each, "mask_seconds": 20.0, "rate_seconds": 10.0, "seconds": each[-1][2]}
        for each in (curve, later)
    ]
    found = kept("default:300", cells)
    (row,) = tables.within(found, (100, 400), (0.4, 3))
    assert row == {
        "task": "tiny", "method": "default:300", "seeds": 2, "100 passes": "55.0 ± 5.0", "400 passes": "75.0 ± 5.0",
        "0.4 min": "", "3 min": "70.0 ± 0.0",
    }  # fmt: skip
    (row,) = tables.rows(found)
    assert (row["minutes"], row["passes"], row["search"]) == ("5.0", 600, "short runs")


def test_a_search_is_told(kept):
    assert [tables.rows(kept("random", [{}], search=search))[0]["search"] for search in (True, False)] == [
        "whole runs",
        "no",
    ]


def test_rates_that_each_run_found_are_told_as_a_range(kept):
    rates = [tables.rows(kept("default:300", [{"rate": rate} for rate in each]))[0]["rate"]
             for each in ((0.01, 0.002, 0.05), (0.01, 0.01))]  # fmt: skip
    assert rates == ["2.0e-03 to 5.0e-02", "1.0e-02"]
