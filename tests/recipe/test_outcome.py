"""Which step did best, as the events of a run tell it."""

from __future__ import annotations

import json
import math

import pytest

from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe import outcome

NAN, INF = float("nan"), float("inf")


def measured(step, **metrics):
    return e.Evaluation(step, "validation", metrics)


@pytest.mark.parametrize("loss", [NAN, INF])
@pytest.mark.parametrize("turned", [False, True])
def test_no_step_with_a_loss_that_is_no_number_is_the_best(loss, turned):
    told = [measured(2, loss=1.0, accuracy=0.5), measured(4, loss=loss, accuracy=0.9), measured(6, loss=loss)]
    assert outcome.best(told[::-1] if turned else told).step == 2
    assert outcome.best(told[1:]) is None and outcome.stale(told[1:], 0, 2) == 2


def test_the_metric_that_an_evaluation_names_decides_and_older_ones_are_judged_as_they_were():
    def best(*found, metric=""):
        told = [e.Evaluation(step, "validation", each, (), metric) for step, each in enumerate(found, 1)]
        return outcome.best(told).step

    first, second = {"exact_match": 0.5, "f1": 0.6, "loss": 1.0}, {"exact_match": 0.4, "f1": 0.7, "loss": 0.9}
    assert best(first, second, metric="f1") == 2
    for metric in ("exact_match", "", "loss", "unknown", "accuracy"):  # the last three decide nothing here
        assert best(first, second, metric=metric) == 1
    text = [{"perplexity": 3.0, "loss": 1.1}, {"perplexity": 2.7, "loss": 1.0}, {"perplexity": 2.9, "loss": 1.05}]
    assert best(*text) == best(*text, metric="perplexity") == best(*({"loss": each["loss"]} for each in text)) == 2
    assert best({"loss": 1.0}, {"loss": 1.0}) == 1


def test_an_evaluation_on_the_first_examples_is_compared_with_nothing():
    part = e.Evaluation(4, "validation", {"loss": 0.1, "accuracy": 1.0, "examples": 64}, partial=True)
    told = [measured(2, loss=1.0, accuracy=0.5), part]
    assert outcome.best(told).step == 2 and outcome.last_metrics(told) == {"loss": 1.0, "accuracy": 0.5}
    assert outcome.best([part]) is None and outcome.last_metrics([part]) == {} and outcome.stale([part], 0, 2) == 0
    assert outcome.event_of(json.dumps(part.as_json())) == part
    older = '{"event": "evaluation", "step": 4, "split": "validation", "metrics": {"loss": 1.0}}'
    assert outcome.best([outcome.event_of(older)]).step == 4


def test_numbers_that_json_does_not_know_come_back_from_a_file():
    line = json.dumps(e.Evaluation(2, "test", {"loss": NAN, "accuracy": 0.5}).as_json(), allow_nan=False)
    found = outcome.event_of(line).metrics
    assert math.isnan(found["loss"]) and found["accuracy"] == 0.5
    assert math.isnan(outcome.event_of(json.dumps(e.Base([NAN]).as_json())).losses[0])
    older = outcome.event_of('{"event": "evaluation", "step": 2, "split": "test", "metrics": {"loss": NaN}}')
    assert math.isnan(older.metrics["loss"])
