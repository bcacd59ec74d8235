"""EleutherAI's lm-evaluation-harness judges an exported folder as the run judges itself."""

from __future__ import annotations

import json

import pytest
import torch

from sparsezo_gui.engine.export import export_run
from sparsezo_gui.engine.session.opening import open_session
from tests.engine.conftest import finish

TASK = """task: tiny
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{rows}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}} is it good?"
doc_to_choice: ["no", "yes"]
doc_to_target: "{{{{label}}}}"
metric_list: [{{metric: acc}}]
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of that program
def test_the_same_answers(trained, tmp_path):
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    run = trained("for lm-eval", mask={"density": 0.05}, model={"bits": 32}, loop={"steps": 4},
                  update={"rule": "scalar-normalised", "learning_rate": 0.05}, data={"test": 2})  # fmt: skip
    finish(export_run(run.path, "hf", tmp_path / "out"))
    rows = [{"text": f"a {word} film {i}", "label": i % 2} for i, word in enumerate(["good", "bad", "dull"] * 4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "task.yaml").write_text(TASK.format(rows=tmp_path / "rows.jsonl"))
    found = lm_eval.simple_evaluate(
        model="hf", model_args={"pretrained": str(tmp_path / "out"), "dtype": "float32"}, tasks=["tiny"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False), device="cpu", bootstrap_iters=0,
    )  # fmt: skip
    session = finish(open_session(run))
    tokens = session.model.tokenizer

    def score(text, answer):
        """The log-probability of ``answer`` after ``text``."""
        before = len(tokens(text, add_special_tokens=False).input_ids)
        ids = torch.tensor([tokens(text + answer, add_special_tokens=False).input_ids])
        logits = session.model.module(ids).logits[0].log_softmax(-1)
        return float(sum(logits[place - 1, ids[0, place]] for place in range(before, ids.shape[1])))

    with torch.no_grad(), session.tuned.applied():
        wanted = [[score(f"{row['text']} is it good?", f" {answer}") for answer in ("no", "yes")] for row in rows]
    samples = sorted(found["samples"]["tiny"], key=lambda sample: sample["doc_id"])
    for sample, scores in zip(samples, wanted, strict=True):
        assert [float(score[0]) for score in sample["filtered_resps"]] == pytest.approx(scores, abs=1e-3)
    right = sum((scores[1] > scores[0]) == bool(row["label"]) for row, scores in zip(rows, wanted, strict=True))
    assert found["results"]["tiny"]["acc,none"] == pytest.approx(right / len(rows))
