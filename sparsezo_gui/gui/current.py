"""What the engine last answered, as far as it is about the recipe as it is now."""

from __future__ import annotations

from sparsezo_gui.answers import DataPreview, MaskReport, MemoryEstimate, ModelSummary, Plan, RateReport
from sparsezo_gui.gui import inputs
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


class Current(Client):
    """A part of the workspace. Answers for another recipe are None."""

    recipe: Recipe
    run: RunControl

    @property
    def memory(self) -> MemoryEstimate | None:
        """The last estimate or measurement for this model; None without one, or if the last estimate failed."""
        estimate = self.of(EstimateMemory)
        known = not estimate.problem and inputs.same_model(estimate.answered_request, self.recipe)
        return estimate.answer if known else None

    @property
    def model(self) -> ModelSummary | None:
        """Summary of the recipe's model, if known."""
        summary = self.of(ReadModel).answer
        return summary if summary is not None and summary.id == self.recipe.model.id else None

    @property
    def rates(self) -> RateReport | None:
        """Report of the learning rates tried for this method, model and data, or None."""
        found = self.of(FindRate)
        asked = found.answered_request
        fits = isinstance(asked, FindRate) and inputs.of_rate(asked.recipe) == inputs.of_rate(self.recipe)
        return found.answer if fits else None

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
        found, estimate = self.of(CompareWays), self.of(EstimateWays)
        asked, plan = found.answered_request, found.answer
        if isinstance(asked, CompareWays) and plan and inputs.compares(plan, asked.recipe, self.recipe):
            return plan
        known = not estimate.problem and inputs.same_model(estimate.answered_request, self.recipe)
        return estimate.answer if known else None

    @property
    def preview_answer(self) -> DataPreview | None:
        """The last preview of this data for this model; None without one, or if the last one failed."""
        found = self.of(PreviewData)
        known = not found.problem and inputs.same_data(found.answered_request, self.recipe)
        return found.answer if known else None

    @property
    def mask(self) -> MaskReport | None:
        """Report of the mask found for this model and rule, or None."""
        found = self.of(FindMask)
        asked = found.answered_request
        fits = isinstance(asked, FindMask) and inputs.of_mask(asked.recipe) == inputs.of_mask(self.recipe)
        return found.answer if fits else None
