"""A power cut: what was not synced may be there, may be missing, or may be there in part.

A double at the border to the system notes what each ``fsync`` made durable: the content of a file, the names in a
folder. At random moments a disk is put together as a cut could leave it: of every file its durable content, and of what
came after that some, all or none; of every folder its durable names, and of later changes each one or not.
"""

from __future__ import annotations

import os
import random
import shutil
import sys

import pytest

from sparsezo_gui import recipe
from sparsezo_gui.engine import training
from sparsezo_gui.engine.runs import checkpoints, gradients, journal, journal_writer
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import events as e

pytestmark = pytest.mark.slow


class Disk:
    """What of ``folder`` would survive."""

    def __init__(self, folder):
        self.folder = folder
        self.contents: dict[int, bytes] = {}
        self.names: dict[int, dict[str, int]] = {}

    def sync(self, handle):
        """Notes what an fsync of ``handle`` makes durable."""
        path = os.readlink(f"/proc/self/fd/{handle}")
        if not path.startswith(str(self.folder)):
            return
        number = os.fstat(handle).st_ino
        if os.path.isdir(path):
            self.names[number] = {entry.name: entry.inode() for entry in os.scandir(path)}
        else:
            with open(path, "rb") as file:
                self.contents[number] = file.read()

    def cut(self, target, chance):
        """Puts the disk together in ``target`` as a cut now could leave it."""
        self._folder(self.folder, target, chance)

    def _folder(self, source, target, chance):
        target.mkdir()
        now = {entry.name: entry for entry in os.scandir(source)}
        durable = self.names.get(os.stat(source).st_ino, {})
        files = {entry.inode(): entry for entry in now.values()}
        for name in {*now, *durable}:
            here = now[name].inode() if name in now else None
            number = chance.choice((durable.get(name), here))  # each later change of a name may have come through
            if number is None:
                continue
            entry = files.get(number)
            if entry is not None and entry.is_dir():
                self._folder(entry.path, target / name, chance)
            else:
                (target / name).write_bytes(self._content(number, entry, chance))

    def _content(self, number, entry, chance):
        durable = self.contents.get(number, b"")
        if entry is None:
            return durable
        with open(entry.path, "rb") as file:
            present = file.read()
        if not present.startswith(durable):
            return durable
        rest = present[len(durable) :]
        kept = chance.choice((0, len(rest), chance.randint(0, len(rest))))
        torn = bytes(min(chance.choice((0, 0, 40)), len(rest) - kept))  # a length that came through before the bytes
        return durable + rest[:kept] + torn


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["scalars", "exact gradients"])
def test_a_run_survives_a_power_cut_at_any_moment(request, tmp_path, monkeypatch, pytestconfig, kind):
    names = ("exact_file", "exact_whole") if kind == "exact gradients" else ("recipe_file", "whole")
    recipe_file, whole = map(request.getfixturevalue, names)
    count, tried = pytestconfig.getoption("--faults"), 0
    monkeypatch.setattr(checkpoints, "spacing", lambda size, again=False: 5)
    while tried < count:
        chance, place = random.Random(tried), tmp_path / f"runs{tried}"
        cuts = cuts_of_a_run(recipe_file, place, chance, monkeypatch, likely=count / 40)
        for target, synced in chance.sample(cuts, min(count - tried, len(cuts))):
            tried += 1
            assert ended(recipe_file, target / "run", synced) == whole[1]
        shutil.rmtree(place)
    print(f"{tried} power cuts")


def cuts_of_a_run(recipe_file, place, chance, monkeypatch, likely):
    """Disks as cuts would leave them in one run, each with the number of steps that were synced then."""
    disk, cuts, fsync = Disk(place / "now"), [], os.fsync
    disk.folder.mkdir(parents=True)
    path = disk.folder / "run" / "journal.bin"

    def maybe_cut():
        if chance.random() < likely:
            target = place / f"cut{len(cuts)}"
            disk.cut(target, chance)
            durable = disk.contents.get(path.stat().st_ino, b"") if path.exists() else b""
            cuts.append((target, max(len(durable) - 128, 0) // 60))

    def noted(handle):
        fsync(handle)
        disk.sync(handle)
        maybe_cut()

    with monkeypatch.context() as patched:
        for writer in (journal_writer, gradients):
            patched.setattr(writer, "SYNC_EVERY", 0.02)  # as many syncs in a short run as in a long one
        patched.setattr(os, "fsync", noted)
        for event in training.train(recipe.load(recipe_file), folder=disk.folder / "run"):
            if isinstance(event, e.Step):
                maybe_cut()
    return cuts


def ended(recipe_file, folder, synced):
    """The hash at the end of what goes on from ``folder``; no synced step may be missing there."""
    try:
        run = open_run(folder)
    except UserError as error:
        assert "no run folder" in str(error) or "not a run" in str(error)
        assert synced == 0
        return list(training.train(recipe.load(recipe_file), folder=folder))[-1].hash
    assert (journal.read(run.journal).step if run.journal.exists() else 0) >= synced
    return list(training.resume(folder))[-1].hash
