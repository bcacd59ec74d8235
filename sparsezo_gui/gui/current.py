"""What the engine last answered, as far as it is about the recipe as it is now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sparsezo_gui.answers import DataPreview, MaskReport, MemoryEstimate, ModelSummary, Plan, RateReport
from sparsezo_gui.gui import inputs
from sparsezo_gui.gui.calls import Request
from sparsezo_gui.gui.client import Client
from sparsezo_gui.gui.requests import (
    CompareWays,
    EstimateMemory,
    EstimateWays,
    FindMask,
    FindRate,
    PreviewData,
    ProbeNoise,
    ReadModel,
)
from sparsezo_gui.gui.run_control import RunControl
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.noise import NoiseProbed

Found = TypeVar("Found")


class Current(Client):
    """A part of the workspace. Answers for another recipe are None."""

    recipe: Recipe
    run: RunControl

    @property
    def memory(self) -> MemoryEstimate | None:
        """The last estimate or measurement for this model; None without one, or if the last estimate failed."""
        return self._unless_failed(EstimateMemory, inputs.same_model)

    @property
    def model(self) -> ModelSummary | None:
        """Summary of the recipe's model, if known."""
        summary = self.of(ReadModel).answer
        return summary if summary is not None and summary.id == self.recipe.model.id else None

    @property
    def rates(self) -> RateReport | None:
        """Report of the learning rates tried for this method, model and data, or None."""
        return self._found(FindRate, inputs.of_rate)

    @property
    def noise(self) -> NoiseProbed | None:
        """The noise measured for this method, model and data, also by the displayed run; or None."""
        found, record = self.of(ProbeNoise), self.run.record
        known = [(record.noise, record.recipe)] if record is not None and record.noise and record.recipe else []
        if isinstance(found.answered_request, ProbeNoise) and found.answer:
            known.insert(0, (found.answer, found.answered_request.recipe))
        return next((report for report, asked in known if report and inputs.probes(report, asked, self.recipe)), None)

    @property
    def plan(self) -> Plan | None:
        """The ways to tune: as compared for this model and data, else by formula; None if neither is known."""
        found = self.of(CompareWays)
        asked, plan = found.answered_request, found.answer
        if isinstance(asked, CompareWays) and plan and inputs.compares(plan, asked.recipe, self.recipe):
            return plan
        return self._unless_failed(EstimateWays, inputs.same_model)

    @property
    def preview_answer(self) -> DataPreview | None:
        """The last preview of this data for this model; None without one, or if the last one failed."""
        return self._unless_failed(PreviewData, inputs.same_data)

    @property
    def mask(self) -> MaskReport | None:
        """Report of the mask found for this model and rule, or None."""
        return self._found(FindMask, inputs.of_mask)

    def _found(self, kind: type[Request[Found]], inputs_of: Callable[[Recipe], object]) -> Found | None:
        """The answer of a search whose inputs in the recipe are still the same."""
        found = self.of(kind)
        asked = found.answered_request
        same = asked is not None and inputs_of(asked.recipe) == inputs_of(self.recipe)  # type: ignore[attr-defined]
        return found.answer if same else None

    def _unless_failed(
        self, kind: type[Request[Found]], same: Callable[[Request[Any] | None, Recipe], bool]
    ) -> Found | None:
        """The last answer, if no later request of its kind failed and it is about the ``same``."""
        found = self.of(kind)
        return found.answer if not found.problem and same(found.answered_request, self.recipe) else None
