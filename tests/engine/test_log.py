"""Curves of a run for other programs."""

from __future__ import annotations

import csv
import json
import shutil
import struct
import threading

import numpy as np
import pytest

from sparsezo_gui import cli, formats
from sparsezo_gui.engine import log, training
from sparsezo_gui.engine.log import form
from sparsezo_gui.engine.log.table import Table, table_of
from sparsezo_gui.engine.runs import curves
from sparsezo_gui.engine.runs.branch import branch
from sparsezo_gui.engine.runs.folder import locked, open_run
from sparsezo_gui.engine.runs.journal import read
from sparsezo_gui.errors import UserError
from tests.engine.conftest import finish

STEP_COLUMNS = ["step", "time", "loss", "projected_gradient", "rate", "seconds", "memory_bytes", "tokens"]


@pytest.fixture
def run(trained):
    return trained("logged", loop={"steps": 4, "evaluate_every": 2}, update={"learning_rate": 0.01},
                   data={"test": 4, "validation": 4})  # fmt: skip


def expected(run):
    """The rows as the journal and the events have them."""
    rows = {0: {"step": 0}}
    for record in read(run.journal).steps:
        step = int(record["step"])
        rows[step] = {name: float(record[name]) for name in ("time", "loss", "rate", "seconds", "tokens")} | {
            "step": step, "memory_bytes": float(record["memory"]), "projected_gradient": float(record["values"][0]),
        }  # fmt: skip
    for line in (run.path / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "evaluation" and not event.get("partial"):
            named = {f"{event['split']}/{name}": value for name, value in event["metrics"].items()}
            rows[event["step"]] |= {name: value for name, value in named.items() if not name.endswith("examples")}
        if event["event"] == "general-text":
            rows[0]["general/perplexity"], rows[event["step"]]["general/perplexity"] = event["base"], event["tuned"]
    return [rows[step] for step in sorted(rows)]


def test_files_have_every_step_and_evaluation(run, tmp_path):
    from pyarrow import parquet

    wanted = expected(run)
    assert [row["step"] for row in wanted] == [0, 1, 2, 3, 4] and "test/accuracy" in wanted[4]
    report = finish(log.log_run(run.path, "csv", str(tmp_path / "a.csv")))
    with (tmp_path / "a.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0])[:8] == STEP_COLUMNS == list(curves.COLUMNS) and list(lines[0]) == report["columns"]
    assert [{name: float(text) for name, text in line.items() if text} for line in lines] == wanted
    finish(log.log_run(run.path, "parquet", str(tmp_path / "a.parquet")))
    rows = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert [{name: value for name, value in row.items() if value is not None} for row in rows] == wanted
    assert report["steps"] == 4 and report["told"] == f"Written to {tmp_path / 'a.csv'}."


def test_a_branch_has_the_steps_before_it(run, tmp_path):
    made = branch(run, 2, ["loop.steps=3"])
    list(training.resume(made.path))
    table, before = table_of(open_run(made.path)), expected(run)
    rows = list(table.rows())
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert rows[1] == before[1] and rows[2]["loss"] == before[2]["loss"]
    assert rows[2]["validation/loss"] == before[2]["validation/loss"]


def test_the_command_line(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["log", str(run.path), "--to", "csv", "--json"]) == 0
    assert (
        json.loads(capsys.readouterr().out.splitlines()[-1])["out"] == "tiny.csv" and (tmp_path / "tiny.csv").exists()
    )
    content = (tmp_path / "tiny.csv").read_bytes()
    for arguments, sentence in (
        (["log", str(run.path), "--to", "csv"], "tiny.csv: already exists"),
        (["log", "nothing", "--to", "csv"], "There is no run folder"),
        (["log", str(run.path), "--to", "xls"], "invalid choice"),
        (["log", str(run.path)], "--to"),
        (["log", str(run.path), "--to", "csv", "--out", "tiny.csv/a.csv"], "tiny.csv"),
    ):
        assert cli.main(arguments) == 2 and sentence in capsys.readouterr().err
    assert (tmp_path / "tiny.csv").read_bytes() == content


def test_missing_packages_are_named(run, monkeypatch):
    monkeypatch.setattr(form, "find_spec", lambda name: None)
    for kind in ("tensorboard", "trackio"):
        with pytest.raises(UserError, match=r"pip install 'sparsezo-gui\[log\]'"):
            finish(log.log_run(run.path, kind))


def test_a_full_disk_leaves_nothing(run, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(csv.DictWriter, "writerows", full)
    with pytest.raises(UserError, match=r"a\.csv"):
        finish(log.log_run(run.path, "csv", str(tmp_path / "logs" / "a.csv")))
    assert not list((tmp_path / "logs").iterdir())


def test_a_live_run_is_followed_to_its_end(run, tmp_path):
    """The file is whole each time, and grows until nothing writes the run any more."""
    out, journal = tmp_path / "live.csv", run.journal.read_bytes()
    size = (len(journal) - 128) // 4
    held, free = threading.Event(), threading.Event()

    def writer():
        with locked(run.path):
            held.set()
            free.wait()

    thread = threading.Thread(target=writer)
    thread.start()
    held.wait()
    seen = []
    for done, _ in enumerate(log.log_run(run.path, "csv", str(out), follow=True, every=0), 1):
        seen.append(len(out.read_text().splitlines()) - 1)
        run.journal.write_bytes(journal[: 128 + size * min(done, 4)])
        if done == 5:
            free.set()
            thread.join()
    assert seen[1:5] == [2, 3, 4, 5] and seen[-1] == 5 and len(seen) in (6, 7)


def steps(*times):
    found = np.zeros(len(times), [(name, float) for name in curves.COLUMNS])
    found["step"], found["time"] = range(1, len(times) + 1), times
    return found


def test_what_is_appended_is_new_also_after_the_run_went_back():
    unsent = form.Unsent()

    def sent(table):
        return [(row["step"], "test/f1" in row, "loss" in row) for row in unsent.rows(table)]

    assert sent(Table(steps(1, 2), {0: {"test/f1": 0.1}})) == [(0, True, False), (1, False, True), (2, False, True)]
    assert sent(Table(steps(1, 2), {0: {"test/f1": 0.1}, 2: {"test/f1": 0.2}})) == [(2, True, False)]
    assert sent(Table(steps(1, 2, 3), {0: {"test/f1": 0.1}, 2: {"test/f1": 0.2}})) == [(3, False, True)]
    assert sent(Table(steps(1, 7, 8, 9), {0: {"test/f1": 0.1}})) == [
        (2, False, True),
        (3, False, True),
        (4, False, True),
    ]


def test_tensorboard_reads_every_value(run, tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    report = finish(log.log_run(run.path, "tensorboard", str(tmp_path / "tb" / "tiny")))
    assert report["told"].endswith(f"tensorboard --logdir {tmp_path / 'tb'}")
    (path,) = (tmp_path / "tb" / "tiny").iterdir()
    assert path.name.startswith("events.out.tfevents.")
    content, found, times = path.read_bytes(), {}, {}
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        event, content = Event.FromString(content[12 : 12 + length]), content[16 + length :]
        for value in event.summary.value:
            found.setdefault(event.step, {"step": event.step})[value.tag] = value.simple_value
            times[event.step] = event.wall_time
    for row in expected(run):
        assert found[row["step"]] == {key: pytest.approx(value) for key, value in row.items() if key != "time"}
        assert times[row["step"]] == pytest.approx(row["time"]) if "time" in row else True
    with pytest.raises(UserError, match="already exists"):
        finish(log.log_run(run.path, "tensorboard", str(tmp_path / "tb" / "tiny")))


def test_trackio_has_every_value(run, tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    from trackio import utils
    from trackio.sqlite_storage import SQLiteStorage

    for module in (utils, __import__("trackio.sqlite_storage").sqlite_storage):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    finish(log.log_run(run.path, "trackio", "mine"))
    rows = SQLiteStorage.get_logs("mine", "tiny")
    for row, wanted in zip(rows, expected(run), strict=True):
        assert {name: row[name] for name in wanted if name != "time"} == {
            name: value for name, value in wanted.items() if name != "time"
        }
    with pytest.raises(UserError, match="already has a run 'tiny'"):
        finish(log.log_run(run.path, "trackio", "mine"))


def test_kinds_are_described():
    assert all(formats.log_format(name).help for name in formats.LOGS)
    with pytest.raises(UserError, match="Did you mean 'csv'"):
        formats.log_format("cvs")


def test_a_shared_folder_may_be_copied(run, tmp_path):
    """Nothing of the run is written."""
    before = {path.name: path.stat().st_mtime_ns for path in run.path.iterdir()}
    shutil.copytree(run.path, tmp_path / "copy")
    finish(log.log_run(tmp_path / "copy", "csv", str(tmp_path / "b.csv")))
    assert {path.name: path.stat().st_mtime_ns for path in run.path.iterdir()} == before
