"""One bar for work of several stages: what it shows for known courses, and what holds for all."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.stages import ONE, RESUMING, Overall, Stage, Stages, amount, starting

NAMES = ["Looking for the model", "Downloading the model", "Loading the model", "Reading data", "Preparing examples",
         "Finding sensitive weights", "Trying a learning rate of 0.1", "Evaluating on validation",
         "Replaying the journal", "Anything"]  # fmt: skip
STARTING, GIVEN = (starting(Recipe(update={"find_rate": found})) for found in (True, False))
PLAN = (Stage(10, ("first",)), Stage(20), Stage(30, ("last",)))


class Work:
    """Stages whose clock is set by hand."""

    def __init__(self, plan):
        self.now = 0.0
        self.stages = Stages(plan, lambda: self.now)

    def at(self, seconds, *progress):
        self.now = seconds
        return self.stages.at(Progress(*progress))


def test_work_that_takes_as_long_as_expected_goes_evenly():
    work = Work(PLAN)
    assert work.at(0, "first", 0, 100) == Overall(1, 3, 0.0, 0.0)
    assert work.at(5, "first", 50, 100) == Overall(1, 3, pytest.approx(5 / 60), pytest.approx(55))
    assert work.at(10, "first", 100, 100) == Overall(1, 3, pytest.approx(10 / 60), pytest.approx(50))
    assert work.at(10, "unknown", 0, 4).left == pytest.approx(50)
    assert work.at(25, "unknown", 3, 4) == Overall(2, 3, pytest.approx(25 / 60), pytest.approx(35))
    assert work.at(30, "last", 0, 30).number == 3
    assert work.at(50, "last", 20, 30) == Overall(3, 3, pytest.approx(50 / 60), pytest.approx(10))
    assert work.at(60, "last", 30, 30) == Overall(3, 3, 1.0, 0.0)


@pytest.mark.parametrize(("follows", "left"), [("other", 4 * (20 + 30)), ("last", 4 * 30)], ids=["all", "one left out"])
def test_slow_stages_slow_down_what_is_expected_of_later_ones(follows, left):
    work = Work(PLAN)
    work.at(0, "first", 0, 100)
    assert work.at(20, "first", 50, 100).left == pytest.approx(20 + 50)  # its own pace, nothing finished yet
    work.at(40, "first", 100, 100)
    assert work.at(40, follows).left == pytest.approx(left)


def test_a_download_has_its_own_pace_and_says_nothing_about_the_computer():
    work = Work(STARTING)
    work.at(0, "Looking for the model")
    work.at(1, "Downloading the model", 0, 300, "bytes")
    rest = sum(stage.seconds for stage in STARTING)
    assert work.at(101, "Downloading the model", 100, 300, "bytes") == Overall(
        1, 6, pytest.approx(101 / (301 + rest)), pytest.approx(200 + rest)
    )
    assert work.at(301, "Loading the model", 0, 10, "layers").left == pytest.approx(rest)


def test_without_a_total_less_and_less_is_left_but_never_nothing():
    work = Work((Stage(10),))
    left = [work.at(seconds, "a").left for seconds in (3, 10, 100, 1000)]
    assert left == pytest.approx([100 / 13, 5, 100 / 110, 100 / 1010])
    assert work.at(1000, "a").fraction < 1


def test_a_report_that_repeats_does_not_say_when_its_stage_ends():
    work = Work((Stage(30, ("try",), repeats=True), Stage(10, ("last",))))
    work.at(0, "try 1", 0, 10)
    assert work.at(6, "try 1", 9, 10).left == pytest.approx(900 / 36 + 10)
    assert work.at(15, "try 2", 0, 10).left == pytest.approx(900 / 45 + 10)
    assert work.at(60, "last", 0, 10).left == pytest.approx(2 * 10)


@pytest.mark.parametrize(
    ("plan", "names", "numbers"),
    [
        (STARTING, ["Looking for the model", "Loading the model", "Reading data", "Preparing examples",
                    "Drawing the mask", "Measuring rounding noise of the loss", "Trying a learning rate of 1e-3",
                    "Trying a learning rate of 1", "Evaluating on validation"], [1, 2, 3, 3, 4, 4, 5, 5, 6]),
        (GIVEN, ["Loading the model", "Reading data", "Drawing the mask", "Measuring rounding noise of the loss",
                 "Evaluating on validation"], [2, 3, 4, 4, 5]),
        (STARTING, ["Loading the model", "Reading data", "Trying a learning rate of 1e-3"], [2, 3, 5]),
        (RESUMING, ["Looking for the model", "Loading the model", "Replaying the journal", "Reading data",
                    "Evaluating on validation"], [1, 2, 3, 4, 5]),
        (RESUMING, ["Loading the model", "Preparing examples", "Measuring the base model"], [2, 4, 4]),
        (ONE, ["Reading data", "Exporting"], [1, 1]),
    ],
)  # fmt: skip
def test_what_the_engine_reports_is_the_stage_it_belongs_to(plan, names, numbers):
    work = Work(plan)
    assert [work.at(second, name).number for second, name in enumerate(names)] == numbers


@given(
    st.sampled_from([ONE, STARTING, GIVEN, RESUMING, PLAN]),
    st.lists(st.tuples(st.floats(0, 1e5), st.sampled_from(NAMES), st.integers(0, 100), st.integers(0, 90))),
)
def test_the_fraction_never_falls_and_the_time_left_is_never_negative(plan, course):
    work, before, seconds = Work(plan), Overall(1, len(plan), 0.0, 0.0), 0.0
    for took, *progress in course:
        seconds += took
        now = work.at(seconds, *progress)
        assert before.fraction <= now.fraction <= 1 and before.number <= now.number <= now.count == len(plan)
        assert 0 <= now.left < math.inf
        before = now


def test_in_words():
    assert Overall(2, 6, 0.1, 40.2).words() == "stage 2 of 6, about 40 s left"
    assert Overall(2, 6, 0.1, 0.4).words() == "stage 2 of 6"
    assert Overall(1, 1, 0.1, 600).words() == "about 10 min left"
    assert Overall(1, 1, 0.1, 0).words() == ""


def test_the_speed_is_that_of_the_last_seconds():
    """A download of 10 MiB/s that slows down to 1 MiB/s."""
    work, speed = Work(ONE), 2**20
    for second in range(10):
        assert work.at(second, "down", 10 * speed * second, 500 * speed, "bytes").speed in (0, 10 * speed)
    for second in range(10, 21):
        last = Progress("down", (90 + second - 9) * speed, 500 * speed, "bytes")
        found = work.at(second, last.stage, last.done, last.total, last.unit)
    assert found.speed == speed and amount(last, found.speed) == "101 MiB of 500 MiB, 1.00 MiB/s"
    assert work.at(21, "other", 5, 9).speed == 0 and amount(last, 0) == "101 MiB of 500 MiB"
