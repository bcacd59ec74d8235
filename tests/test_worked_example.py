"""The worked example of ARCHITECTURE.md, and a new space, each added to a copy of the program and used."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r'^```python (\S+?)(?: after "(.+?)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
SPACE = '''"""Row scales: an effective weight is diag(s)·W, with a factor s for every output row of the frozen W."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsezo_gui.engine.layers.patch import Patch
from sparsezo_gui.engine.spaces.space import Space
from sparsezo_gui.engine.spaces.values import CopiedValues, TunedValues

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask


class RowScales(Space):
    """A factor for each output row of each weight."""

    relation = "factors on the rows of"
    whole_weights = "scaled the rows of whole matrices"

    def tuned_values(self, model: FrozenModel, mask: Mask) -> TunedValues:
        """See `Space.tuned_values`."""
        return RowScaleValues(model, mask)

    def counts(self, mask: Mask, spec: ModelSpec) -> Mapping[str, int]:
        """See `Space.counts`."""
        return {name: rows for name, (rows, _) in spec.linears.items()}


class RowScaleValues(CopiedValues):
    """The factors of each weight, one at the start."""

    def __init__(self, model: FrozenModel, mask: Mask) -> None:
        import torch

        super().__init__(model, mask)
        self.start = torch.ones(mask.size, device=model.device)
        self.values = self.start.clone()

    def patches(self, points: Tensor) -> dict[str, Patch]:
        """See `CopiedValues.patches`."""
        return {name: RowPatch(len(points), points[:, part]) for name, part in self.slices.items()}

    def project(self, name: str, gradient: Tensor, x: Tensor) -> Tensor:
        """See `TunedValues.project`."""
        weight = self.model.layers[name].frozen.read(x.dtype)
        return (gradient * (x @ weight.mT)).float().sum(0)


@dataclass(frozen=True, eq=False)
class RowPatch(Patch):
    """Each point has its own ``scales`` (points, out)."""

    scales: Tensor

    def add(self, rows: Tensor, out: Tensor) -> None:
        """See `Patch.add`."""
        out *= self.scales[:, None]

    def whole(self, weight: Tensor) -> Tensor:
        """See `Patch.whole`."""
        return weight.mul_(self.scales[0, :, None])
'''
RULE = '''"""A factor for every row."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.masks.rule import MaskRule, Search
from sparsezo_gui.recipe.events import Progress

if TYPE_CHECKING:
    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask


class EveryRow(MaskRule):
    """A factor for every output row of every weight."""

    title: ClassVar[str] = "Row scales"
    space: ClassVar[str] = "row-scales"
    rule: Literal["every-row"] = "every-row"

    def tuned(self, spec: ModelSpec) -> int:
        """See `MaskRule.tuned`."""
        return sum(rows for rows, _ in spec.linears.values())

    def source(self) -> str:
        """See `MaskRule.source`."""
        return "A factor for every row; no search is needed."

    def cost(self) -> str:
        """See `MaskRule.cost`."""
        return ""

    def find(self, model: FrozenModel, search: Search) -> Generator[Progress, None, Mask]:
        """See `MaskRule.find`."""
        yield Progress("Selecting all rows")
        return self.mask_of(model, {}, self.tuned(model.spec))
'''
EXAMPLE = FENCE.findall((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
NEW_SPACE = [
    ("sparsezo_gui/engine/spaces/row_scales.py", "", SPACE),
    ("sparsezo_gui/recipe/registry.py", "entries", '        "row-scales": f"{_ENGINE}.spaces.row_scales:RowScales",\n'),
    ("sparsezo_gui/engine/masks/every_row.py", "", RULE),
    ("sparsezo_gui/recipe/registry.py", "random", '        "every-row": f"{_ENGINE}.masks.every_row:EveryRow",\n'),
]
SHORT = ["loop.steps=3", "data.train=32", "data.validation=4", "data.test=4", "loop.guard=false"]


def add(root: Path, parts: list[tuple[str, str, str]]) -> None:
    """Copies the program to ``root``, and adds files, and lines after others."""
    for part in ("sparsezo_gui", "resources"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    for path, after, text in parts:
        file = root / path
        if after:
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            (place,) = (number for number, line in enumerate(lines) if line.strip().startswith(f'"{after}":'))
            lines.insert(place + 1, text)
            text = "".join(lines)
        else:
            assert not file.exists()
        file.write_text(text, encoding="utf-8")
    ruff = [sys.executable, "-m", "ruff", "check", "--config", "pyproject.toml", "sparsezo_gui"]
    done = subprocess.run(ruff, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def sparsezo(tmp_path) -> Callable[..., list[dict]]:
    """``sparsezo(*arguments)``: what the copy's command gives."""

    def run(*arguments: str) -> list[dict]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "SPARSEZO_HOME": str(tmp_path / "home")}
        command = [sys.executable, "-m", "sparsezo_gui.cli", *arguments, "--json"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def trained(sparsezo: Callable[..., list[dict]], *settings: str) -> tuple[int, str]:
    """The number of tuned values, and the hash at the end."""
    chosen = (part for each in (*settings, *SHORT) for part in ("--set", each))
    events = sparsezo("train", "starter", "--run", "run", *chosen)
    steps = [event for event in events if event["event"] == "step"]
    assert [step["step"] for step in steps] == [1, 2, 3] and len({step["loss"] for step in steps}) == 3
    sparsezo("verify", "run")
    (tuned,) = (event["tuned"] for event in events if event["event"] == "started")
    return tuned, events[-1]["hash"]


@pytest.mark.slow
def test_the_worked_example_works_as_it_is_written(tmp_path, sparsezo):
    assert len(EXAMPLE) == 6
    add(tmp_path, EXAMPLE)
    rules = {(row["table"], row["rule"]) for row in sparsezo("methods") if "table" in row}
    assert {("mask", "evenly"), ("estimator", "one-sided")} <= rules
    tuned, _ = trained(sparsezo, "mask.rule=evenly", "estimator.rule=one-sided")
    sparsezo("export", "run", "--format", "table", "--out", "values.csv")
    lines = (tmp_path / "values.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "weight,index,value" and len(lines) == 1 + tuned


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["two-sided", "first-order"])
def test_a_space_is_one_file_and_one_line(tmp_path, sparsezo, estimator):
    """With a rule that uses it, it trains, resumes to the same bits, and exports what runs as the run does."""
    add(tmp_path, NEW_SPACE)
    _, end = trained(sparsezo, "mask.rule=every-row", f"estimator.rule={estimator}", "update.learning_rate=0.02")
    assert sparsezo("resume", "run", "--step", "2")[-1]["hash"] == end
    (told,) = (
        row["told"]
        for row in sparsezo("export", "run", "--format", "hf", "--weights", "trained", "--out", "m")
        if "told" in row
    )
    assert "In plain transformers, 4 of 4 prompts give the same tokens as in the run." in told
