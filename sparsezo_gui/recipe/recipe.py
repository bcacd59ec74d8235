"""The recipe: everything that decides what a run does, as one frozen value."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sparsezo_gui.recipe import rates
from sparsezo_gui.recipe.combine import refusal
from sparsezo_gui.recipe.parts import Estimator, MaskRule, Objective, Privacy, Selection, Update
from sparsezo_gui.recipe.registry import ESTIMATORS, MASKS, OBJECTIVES, PRIVACY, SELECTIONS, UPDATES, Registry
from sparsezo_gui.recipe.variants import Settings, setting
from sparsezo_gui.recipe.versions import VERSION, renamed


class ModelTable(Settings):
    """Which model, and in what precision."""

    id: str = setting(
        "starter",
        "A bundled model, a folder or GGUF file on this computer, 'ollama:NAME' for a model of Ollama, or a Hub id "
        "such as 'Qwen/Qwen3-0.6B'. To tune further: an adapter folder, an overlay file, or 'run:NAME@STEP'.",
    )
    revision: str = setting("main", "Branch, tag or commit on the Hub; ignored for folders.")
    bits: Literal[4, 8, 16, 32] = setting(4, "Bits per frozen weight: 4 (NF4), 8 (int8), 16 or 32.", unit="bits")
    block: Literal[32, 64] = setting(
        32,
        "How many 4-bit weights share a scale: 32 with a 16-bit scale, or 64 with a 32-bit scale as in bitsandbytes. "
        "Both need the same memory.",
        unit="weights",
    )
    device: str = setting("auto", "'auto' uses a CUDA GPU if there is one; or choose 'cpu', 'cuda' or 'cuda:1'.")
    compute: Literal["auto", "float32", "bfloat16", "int8"] = setting(
        "auto",
        "Number format for computing: 'auto' is float32 on a CPU and 16 bits on a GPU; 'int8' is fastest on a CPU and "
        "needs bits = 8; 'bfloat16' needs a processor that supports it.",
    )
    trust_remote_code: bool = setting(
        False,
        "The model needs the Python code that comes with it. This alone does not allow it to run: you are asked first, "
        "and again when the code changes.",
        title="Run code that comes with the model",
    )

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        kind, _, index = value.partition(":")
        if kind not in ("auto", "cpu", "cuda") or (index and not index.isdigit()):
            raise ValueError("must be 'auto', 'cpu', 'cuda' or 'cuda:N'")
        return value

    @field_validator("compute")
    @classmethod
    def _computable(cls, value: str, others: ValidationInfo) -> str:
        if value == "int8" and others.data.get("bits") != 8:
            raise ValueError("must be 'auto', 'float32' or 'bfloat16' unless bits = 8")
        return value


SPLITS = ("train", "validation", "test")
MOST_LEFT_OUT = 1000  # rows that a recipe names: each takes 20 bytes of its file


def _key(value: str) -> str:
    if not re.fullmatch("[0-9a-f]{16}", value):
        raise ValueError("must be 16 hexadecimal digits, as the Data page writes them")
    return value


class DataTable(Settings):
    """Which examples, and how they become text."""

    source: str = setting(
        "starter", "A bundled data set, a file, a folder of train/validation/test files, or a Hub data set."
    )
    task: str = setting("choice", "How a row becomes an example; 'sparsezo methods' lists the tasks.")
    template: str = setting(
        "",
        "The prompt, with {{ column }} for the value of a column; empty uses the task's own.",
        title="Prompt template",
    )
    chat_template: bool = setting(
        True,
        "Use the model's chat template if it has one, as other programs do; for the tasks 'pairs' and 'preference'.",
    )
    columns: dict[str, str] = setting({}, "Which column has which role, such as answer = 'label'.")
    answers: tuple[str, ...] = setting((), "The possible answers of a 'choice' task; empty reads them from the data.")
    merge_labels: bool = setting(
        False,
        "Merge labels that differ only in case, spaces, or number format (1 and 1.0); the most frequent form stays.",
    )
    leave_out_gaps: bool = setting(
        False,
        "Skip rows with a missing label, answer or other part; otherwise they are an error.",
        title="Skip incomplete rows",
    )
    duplicates: Literal["keep", "remove"] = setting(
        "keep",
        "Keep or remove examples that repeat another one, with the same text and answer: one stays, in the test split "
        "if it is there, else in validation or training.",
    )
    leave_out: tuple[Annotated[str, AfterValidator(_key)], ...] = setting(
        (),
        "Rows to leave out, by a hash of their content, such as the Data page writes: rows that are equal go together, "
        "and a row that changes is back. At most 1,000.",
        title="Rows left out",
    )
    train: int = setting(1000, "Maximum number of training examples.", unit="examples", ge=1)
    validation: int = setting(500, "Maximum number of validation examples.", unit="examples", ge=0)
    test: int = setting(1000, "Maximum number of test examples.", unit="examples", ge=0)
    split_seed: int = setting(
        0,
        "Another number splits the rows differently into training, validation and test; data sets that come already "
        "split are not affected.",
        ge=0,
        lt=2**63,
        title="Seed of the splits",
    )
    max_tokens: int = setting(
        512, "Maximum length of an example; longer prompts are cut at the beginning.", unit="tokens", ge=8, le=131072
    )

    @field_validator("leave_out")
    @classmethod
    def _keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) > MOST_LEFT_OUT:
            raise ValueError(f"must name at most {MOST_LEFT_OUT:,} rows (remove others from the data itself)")
        return tuple(dict.fromkeys(value))


class LoopTable(Settings):
    """How many steps, how many examples per step, and from which seed."""

    steps: int = setting(2000, "Training steps.", unit="steps", ge=1, le=10_000_000, basic=True, sane=(500, 20000))
    batch_size: int = setting(16, "Examples per step.", unit="examples", ge=1, le=4096, basic=True, sane=(8, 64))
    seed: int = setting(
        0, "Sets the random directions and the data order; the same recipe and seed give the same run.", ge=0, lt=2**63
    )
    pass_rows: int = setting(
        0,
        "Largest forward pass, in tokens × perturbations: what one of several workers does at a time. 0: as many as "
        "suit the memory of the computer, or those that workers share well.",
        unit="rows",
        ge=0,
        le=1_048_576,
        title="Size of a pass",
    )
    evaluate_every: int = setting(
        200, "Evaluate on the validation examples every so many steps; 0: never.", unit="steps", ge=0
    )
    patience: int = setting(
        0,
        "Stop early after so many evaluations in a row without improvement; 0: never.",
        unit="evaluations",
        ge=0,
        title="Stop early after",
    )
    guard: bool = setting(
        True,
        "When the run diverges, go back automatically to its best step and halve the learning rate: when the loss "
        "reaches three times its initial value, stays above the initial value, or returns to it after falling.",
        title="Recover from divergence",
    )


class RunTable(Settings):
    """Where the run is stored."""

    name: str = setting("", "Shown in lists; empty uses the name of the recipe.", max_length=80)
    folder: str = setting("", "Folder of the run; empty creates one in your runs folder.")
    checkpoints: int = setting(
        2000,
        "Disk space for checkpoints, which make any past step quick to open; 0: none.",
        unit="MiB",
        ge=0,
        title="Space for checkpoints",
    )
    gradients: int = setting(
        1000,
        "Disk space for exact gradients, from which any step is rebuilt without the data; 0: none.",
        unit="MiB",
        ge=0,
        title="Space for gradients",
    )
    pause_on: tuple[Literal["battery", "disk", "gpu"], ...] = setting(
        ("disk",),
        "Pause automatically: on 'battery', when the 'disk' is full, while another program uses the 'gpu'.",
        title="Pause automatically",
    )


def _variant(registry: Registry[Any]) -> BeforeValidator:
    """Turns a table into a variant. `tables.build` does this earlier, to report errors one by one."""
    return BeforeValidator(registry.build)


class Recipe(Settings):
    """A whole run. See the package's docstring for the file format. A missing learning rate is found at the start of a
    run (`find_rate`); until then, it is the usual one of its rules (see `sparsezo_gui.recipe.rates`)."""

    version: Literal[1] = VERSION
    model: ModelTable = ModelTable()
    data: DataTable = DataTable()
    mask: Annotated[SerializeAsAny[MaskRule], _variant(MASKS)] = Field(default={}, validate_default=True)
    estimator: Annotated[SerializeAsAny[Estimator], _variant(ESTIMATORS)] = Field(default={}, validate_default=True)
    update: Annotated[SerializeAsAny[Update], _variant(UPDATES)] = Field(default={}, validate_default=True)
    objective: Annotated[SerializeAsAny[Objective], _variant(OBJECTIVES)] = Field(default={}, validate_default=True)
    selection: Annotated[SerializeAsAny[Selection], _variant(SELECTIONS)] = Field(default={}, validate_default=True)
    privacy: Annotated[SerializeAsAny[Privacy], _variant(PRIVACY)] = Field(default={}, validate_default=True)
    loop: LoopTable = LoopTable()
    run: RunTable = RunTable()

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, tables: Any) -> Any:
        return renamed(tables) if isinstance(tables, dict) else tables

    @model_validator(mode="after")
    def _goes_together(self) -> Recipe:
        if reason := refusal(self):
            raise ValueError(reason)
        return self

    @model_validator(mode="after")
    def _usual_rate(self) -> Recipe:
        given = self.update.model_fields_set
        if "learning_rate" not in given:
            find = self.update.find_rate if "find_rate" in given else not self.privacy.private
            object.__setattr__(self, "update", self.with_rate(rates.usual(self), find).update)  # not yet frozen
        return self

    def with_rate(self, learning_rate: float, find: bool = False) -> Recipe:
        """The recipe with this learning rate, or with a search that starts there."""
        update = self.update.model_copy(update={"learning_rate": learning_rate, "find_rate": find})
        return self.model_copy(update={"update": update})

    @property
    def forward_passes(self) -> int:
        """Maximum number of perturbed copies of the tuned values in one forward pass."""
        return max(self.estimator.forward_passes, self.update.forward_passes)

    @property
    def state_vectors(self) -> int:
        """How many vectors of the size of the tuned values are kept from step to step."""
        return self.estimator.state_vectors + self.update.state_vectors + self.mask.refreshed

    @property
    def step_cost(self) -> int:
        """Cost of a step in forward passes of a batch; a backward pass counts as two."""
        return self.estimator.cost + self.update.forward_passes + self.selection.cost

    @property
    def cost(self) -> int:
        """The same with the step's share of finding a basis again."""
        return self.step_cost + self.mask.refresh_cost(self.loop.steps, self.loop.batch_size)

    @property
    def backwards(self) -> bool:
        """Whether steps use back-propagation: all of them, or those before which a basis is found again."""
        return self.estimator.backwards or self.mask.refreshed > 0

    def gradient_size(self, tuned: int) -> int:
        """Most numbers of a recorded gradient of so many ``tuned`` values; 0 if the steps record none."""
        return tuned if self.estimator.exact else self.mask.refreshed * tuned

    @property
    def recorded(self) -> int:
        """How many numbers a step measures and the journal records."""
        return self.estimator.recorded(self.loop.batch_size) + self.update.recorded
