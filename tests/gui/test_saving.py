"""Files that the user saves: whole or not at all, and never over one that no dialog asked about."""

from __future__ import annotations

import pytest
from PySide6.QtWidgets import QFileDialog

from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.saving import save, with_suffix


def test_a_name_without_a_suffix_gets_one_and_replaces_nothing(tmp_path):
    assert with_suffix(str(tmp_path / "plot"), ".csv") == tmp_path / "plot.csv"
    assert with_suffix(str(tmp_path / "v1.2"), ".csv") == tmp_path / "v1.2.csv"
    (tmp_path / "plot.csv").write_text("other")
    assert with_suffix(str(tmp_path / "plot.csv"), ".csv") == tmp_path / "plot.csv", "the dialog asked about it"
    assert with_suffix(str(tmp_path / "plot.CSV"), ".csv") == tmp_path / "plot.CSV"
    assert with_suffix(str(tmp_path / "plot"), ".csv") == tmp_path / "plot-2.csv"


def test_a_file_is_replaced_at_once_or_the_reason_is_told(tmp_path):
    save(tmp_path / "a.csv", b"one")
    save(tmp_path / "a.csv", b"two")
    assert (tmp_path / "a.csv").read_bytes() == b"two" and len(list(tmp_path.glob("a*"))) == 1
    (tmp_path / "folder.csv").mkdir()
    for place in (tmp_path / "folder.csv", tmp_path / "none" / "a.csv"):
        with pytest.raises(UserError, match=r"cannot be written \(.+\)\. Choose another place\.$"):
            save(place, b"three")
    assert not (tmp_path / "none").exists() and (tmp_path / "folder.csv").is_dir()


def test_recipes_and_plots_tell_in_the_window_why_they_cannot_be_saved(window, workspace, tmp_path, monkeypatch):
    place = tmp_path / "none" / "mine"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(place), ""))
    told = "cannot be written (No such file or directory). Choose another place."
    window.save_recipe_as()
    assert window.page("model").banner.text == f"{place}.toml: {told}"
    window.go("run")
    window.page("run").export_csv()
    banner = window.page("run").banner
    assert banner.text == f"{place}.csv: {told}" and banner._more.isHidden(), "no bug of ours"
