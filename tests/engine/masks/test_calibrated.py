"""Rules that run the model on text, and whole rows: against plain transformers with hooks, and closed forms."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sparsezo_gui.engine import frozen
from sparsezo_gui.engine.data import Passage, passages
from sparsezo_gui.engine.data.tokenise import beginning
from sparsezo_gui.engine.layers.weights import DenseWeight
from sparsezo_gui.engine.masks import fisher, select
from sparsezo_gui.engine.masks.activations import activations
from sparsezo_gui.engine.masks.multi_task import MultiTask
from sparsezo_gui.engine.masks.outliers import OutlierChannels, feed_forward
from sparsezo_gui.engine.masks.resumable import Unfinished
from sparsezo_gui.engine.masks.rows import Rows
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.masks.select import Selection, best_of_rows, part_of
from sparsezo_gui.engine.masks.sensitive import Sensitive
from sparsezo_gui.engine.masks.weight_activation import WeightActivation
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import DataTable, ModelTable
from sparsezo_gui.recipe.registry import MASKS
from sparsezo_gui.work import finish
from tests.engine import plain as reference
from tests.models import FAMILIES, tiny, tokenizer

SEARCH = Search(0, DataTable())
SHORT = {"sequences": 2, "tokens": 24}
RULES = [
    WeightActivation(density=0.01, **SHORT),
    WeightActivation(density=0.05, scope="tensor", **SHORT),
    WeightActivation(density=0.05, scope="row", **SHORT),
    Rows(density=0.03),
    Rows(density=0.03, spread="global", score="weight-activation", **SHORT),
    OutlierChannels(channels=0.05, threshold=1.5, **SHORT),
    OutlierChannels(what="block", threshold=1.5, **SHORT),
    MultiTask(density=0.05, texts=("general", "starter"), **SHORT),
]
families = pytest.mark.parametrize("family", FAMILIES)


def texts_of(model):
    return passages("general", model.tokenizer, **SHORT)


def looked_at(model, texts):
    """Inputs (tokens, in) of each layer and what the blocks give, by sequence, of the plain model."""
    plain = reference.plain_model(model)
    inputs, outputs = {name: [] for name in model.layers}, [[] for _ in range(model.spec.layers)]
    for name, seen in inputs.items():
        module = plain.get_submodule(name.removesuffix(".weight"))
        module.register_forward_hook(lambda _module, given, _out, seen=seen: seen.append(given[0].reshape(
            -1, given[0].shape[-1])))  # fmt: skip
    for block, seen in zip(plain.get_submodule(model.spec.blocks), outputs, strict=True):
        block.register_forward_hook(
            lambda _block, _given, out, seen=seen: seen.append((out[0] if isinstance(out, tuple) else out).abs())
        )
    with torch.no_grad():
        for text in texts:
            plain(torch.tensor([text.tokens]))
    return inputs, outputs


@families
def test_activations_are_those_of_the_plain_model(frozen_tiny, family):
    model = frozen_tiny(family, 4)
    texts = texts_of(model)
    seen, (inputs, outputs) = finish(activations(model, texts)), looked_at(model, texts)
    assert list(seen.norms) == list(seen.largest) == list(model.layers)
    for name, rows in inputs.items():
        square = sum(each.square().sum(0) for each in rows) / len(texts)
        assert torch.allclose(seen.norms[name], square.sqrt(), rtol=1e-4, atol=1e-5)
        assert torch.allclose(seen.largest[name], torch.cat(rows).abs().amax(0), rtol=1e-4, atol=1e-5)
    for number, blocks in enumerate(outputs):
        assert float(seen.peaks[number]) == pytest.approx(max(float(each.max()) for each in blocks), rel=1e-4)
        medians = [float(each.median()) for each in blocks]
        assert float(seen.medians[number]) == pytest.approx(sum(medians) / len(medians), rel=1e-4)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.module.modules())


@families
def test_weights_times_activations_are_ranked(frozen_tiny, family):
    model = frozen_tiny(family, 4)
    inputs, _ = looked_at(model, texts_of(model))
    scores = {
        name: model.original(name).abs() * (sum(each.square().sum(0) for each in rows) / len(rows)).sqrt()
        for name, rows in inputs.items()
    }
    for scope in ("global", "row"):
        found = finish(WeightActivation(density=0.05, scope=scope, **SHORT).find(model, SEARCH))
        taken = {name: scores[name].flatten()[indices.long()] for name, indices in found.indices.items()}
        if scope == "global":
            best = torch.cat([each.flatten() for each in scores.values()]).topk(found.size).values
            assert torch.allclose(torch.cat(list(taken.values())).sort(descending=True).values, best, rtol=1e-4)
            continue
        for name, each in scores.items():
            count = part_of(0.05, each.shape[1])
            best = each.topk(count, dim=1).values
            assert torch.allclose(taken[name].view(-1, count).sort(dim=1, descending=True).values, best, rtol=1e-4)


@families
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.rule}-{RULES.index(rule)}")
def test_every_rule_finds_a_mask_on_every_family(frozen_tiny, family, rule):
    model = frozen_tiny(family, 4)
    found, again = (finish(rule.find(model, SEARCH)) for _ in range(2))
    assert found.hash == again.hash and found.size > 0 and found.eligible == model.spec.eligible
    assert found.rule.items() >= rule.model_dump(mode="json").items()
    told = rule.tuned(model.spec)
    if getattr(rule, "spread", "") == "global":  # whole rows, as many as fit
        assert told - model.spec.intermediate <= found.size <= told
    else:
        assert found.size == told
    for name, indices in found.indices.items():
        rows, columns = model.spec.linears[name]
        assert indices.dtype == torch.int32 and bool((indices[1:] > indices[:-1]).all())
        assert 0 <= int(indices[0]) <= int(indices[-1]) < rows * columns
        if isinstance(rule, MultiTask) or getattr(rule, "scope", "") == "row":
            assert (indices // columns).bincount(minlength=rows).unique().tolist() == [part_of(0.05, columns)]


@settings(max_examples=80)
@given(st.data())
def test_the_best_of_each_row(data):
    rows, columns = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 7))
    entries = st.lists(st.integers(-2, 2), min_size=columns, max_size=columns)  # with many ties
    scores = data.draw(st.lists(entries, min_size=rows, max_size=rows))
    count, before = data.draw(st.integers(1, columns)), select.SORTED
    select.SORTED = data.draw(st.sampled_from([1, columns, 2 * columns + 1, before]))
    try:
        found = best_of_rows(torch.tensor(scores), count).tolist()
    finally:
        select.SORTED = before
    expected = []
    for number, row in enumerate(scores):
        best = sorted(range(columns), key=lambda place: (-row[place], place))[:count]
        expected += [number * columns + place for place in sorted(best)]
    assert found == expected


def weights(frozen_tiny, monkeypatch, **tensors):
    """A model whose checkpoint holds these weights (others are zero)."""
    model = frozen_tiny("llama", 4)
    shapes = model.spec.linears
    found = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        full = next(other for other in shapes if other.endswith(f"0.{name}.weight"))
        found[full][: len(tensor)] = tensor[:, None] / shapes[full][1] ** 0.5  # rows of these norms
    monkeypatch.setattr(type(model), "original", lambda _self, name: found[name])
    return model


def rows_of(mask, model, name):
    full = next(other for other in model.spec.linears if other.endswith(f"0.{name}.weight"))
    rows, columns = model.spec.linears[full]
    counts = (mask.indices.get(full, torch.empty(0, dtype=torch.int64)) // columns).bincount(minlength=rows)
    assert set(counts.tolist()) <= {0, columns}, "rows are whole"
    return counts.nonzero().flatten().tolist()


def test_rows_by_their_norm(frozen_tiny, monkeypatch):
    norms = torch.tensor([1.0, 9.0, 2.0, 9.0, 3.0])
    model = weights(frozen_tiny, monkeypatch, **{"mlp.down_proj": norms, "self_attn.q_proj": 100 * norms})
    mask = finish(Rows(density=2 / 64).find(model, SEARCH))
    assert rows_of(mask, model, "mlp.down_proj") == rows_of(mask, model, "self_attn.q_proj") == [1, 3]
    assert rows_of(mask, model, "self_attn.k_proj") == [0]  # all are equal; at least one
    # Ranked together, rows count by their ratio to the mean of their matrix, here alike in both; the first of equals
    # come first: two rows of 64, one of 128, and the next has no room.
    share = (2 * 64 + 128 + 40) / model.spec.eligible
    mask = finish(Rows(density=share, spread="global").find(model, SEARCH))
    assert (rows_of(mask, model, "self_attn.q_proj"), rows_of(mask, model, "mlp.down_proj")) == ([1, 3], [1])
    assert mask.size == 2 * 64 + 128
    least = finish(Rows(density=1e-9, spread="global").find(model, SEARCH))
    assert least.size == 64, "one row at least"


@families
def test_rows_by_weights_times_activations(frozen_tiny, family):
    model = frozen_tiny(family, 4)
    inputs, _ = looked_at(model, texts_of(model))
    mask = finish(Rows(density=0.05, score="weight-activation", **SHORT).find(model, SEARCH))
    for name, rows in inputs.items():
        norms = (sum(each.square().sum(0) for each in rows) / len(rows)).sqrt()
        best = (model.original(name).abs() * norms).sum(1).topk(part_of(0.05, len(model.original(name)))).indices
        assert (mask.indices[name] // len(norms)).unique().tolist() == sorted(best.tolist())


HALVES = {"gpt2": (["mlp.c_fc"], "mlp.c_proj"), "opt": (["fc1"], "fc2"), "phi": (["mlp.fc1"], "mlp.fc2"),
          "neox": (["mlp.dense_h_to_4h"], "mlp.dense_4h_to_h"),
          "phi3": (["mlp.gate_up_proj"], "mlp.down_proj")}  # fmt: skip


@families
def test_outlier_channels_are_columns_and_the_rows_that_make_them(frozen_tiny, family):
    model = frozen_tiny(family, 4)
    texts = texts_of(model)
    mask = finish(OutlierChannels(channels=0.05, threshold=1.5, **SHORT).find(model, SEARCH))
    before = f"{model.spec.blocks}.{mask.rule['block']}."
    makers, down = HALVES.get(family, (["mlp.gate_proj", "mlp.up_proj"], "mlp.down_proj"))
    makers, down = [f"{before}{maker}.weight" for maker in makers], f"{before}{down}.weight"
    shapes = {name: shape for name, shape in model.spec.linears.items() if name.startswith(before)}
    assert feed_forward(shapes) == (down, makers) and set(mask.indices) == {down, *makers}
    inputs, outputs = looked_at(model, texts)
    inner = shapes[down][1]
    best = torch.cat(inputs[down]).abs().amax(0).topk(part_of(0.05, inner)).indices.sort().values
    chosen = torch.zeros(shapes[down], dtype=torch.bool)
    chosen[:, best] = True
    assert torch.equal(mask.indices[down].long(), chosen.flatten().nonzero().flatten())
    for maker in makers:
        chosen = torch.zeros(shapes[maker], dtype=torch.bool)
        chosen[best] = True
        if len(chosen) == 2 * inner:
            chosen[best + inner] = True
        assert torch.equal(mask.indices[maker].long(), chosen.flatten().nonzero().flatten())
    sizes = outputs[mask.rule["block"]]
    median = sum(float(each.median()) for each in sizes) / len(sizes)
    assert mask.rule["ratio"] == pytest.approx(max(float(each.max()) for each in sizes) / median, abs=0.06)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Three blocks, the second of which makes a massive activation."""
    folder = tiny("llama", tmp_path_factory.mktemp("planted") / "llama", num_hidden_layers=3)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][5] *= 20_000
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return finish(frozen.load(ModelTable(id=str(folder), bits=32, device="cpu")))


def test_the_first_block_with_outliers_is_taken(planted):
    work = OutlierChannels(**SHORT).find(planted, SEARCH)
    told = []
    try:
        while True:
            told.append(next(work).stage)
    except StopIteration as end:
        mask = end.value
    assert mask.rule["block"] == 1 and mask.rule["ratio"] > 1000
    assert told[-1].startswith("Block 1 is the first with outliers (")
    whole = finish(OutlierChannels(what="block", **SHORT).find(planted, SEARCH))
    assert set(whole.indices) == {name for name in planted.layers if ".layers.1." in name}
    assert whole.size == sum(math.prod(planted.spec.linears[name]) for name in whole.indices)


def test_no_block_with_outliers_is_told_with_what_would_work(frozen_tiny):
    model = frozen_tiny("llama", 4)
    with pytest.raises(UserError, match=r"No block .* Set \[mask\] threshold = ([\d.]+) to use that block") as error:
        finish(OutlierChannels(**SHORT).find(model, SEARCH))
    advised = float(str(error.value).split("threshold = ")[1].split()[0])
    mask = finish(OutlierChannels(threshold=advised, **SHORT).find(model, SEARCH))
    assert f"after block {mask.rule['block']}," in str(error.value)


@families
def test_tasks_count_alike_in_every_row(frozen_tiny, family, tmp_path):
    """Each task's squared gradients, divided by the sum of their row, and added; the first task has three passages."""
    model = frozen_tiny(family, 4)
    draw = torch.Generator().manual_seed(2)
    sequences = [torch.randint(3, 288, (length,), generator=draw).tolist() for length in (12, 18, 12, 25)]
    texts = [Passage(tuple(tokens), tuple(range(2, len(tokens) - 1, 2))) for tokens in sequences]
    selection = Selection(0.1, "row", model.spec.linears)
    work = fisher.squared_gradients(model, texts, Unfinished(tmp_path), selection, budget=70_000, tasks=(3, 1))
    found = dict(item for item in work if not isinstance(item, Progress))
    plain = reference.plain_model(model)
    expected = dict.fromkeys(model.layers, 0.0)
    for task in (texts[:3], texts[3:]):
        sums = dict.fromkeys(model.layers, 0.0)
        for text in task:
            plain.zero_grad()
            chosen = [reference.log_probability(plain, text.tokens, place, text.tokens[place + 1])
                      for place in text.places]  # fmt: skip
            (-torch.stack(chosen).mean()).backward()
            for name in sums:
                sums[name] = sums[name] + reference.oriented(model, name, plain.get_parameter(name).grad) ** 2
        for name, each in sums.items():
            expected[name] = expected[name] + each / each.sum(1, keepdim=True).clamp_min(1e-38)
    for name, scores in expected.items():
        assert torch.allclose(found[name], scores, rtol=5e-3, atol=1e-5)
        assert float(found[name].sum(1).max()) == pytest.approx(2, rel=1e-3)


def test_an_interrupted_search_of_several_tasks_goes_on(frozen_tiny, home):
    model, rule = frozen_tiny("llama", 4), RULES[-1]
    whole = finish(rule.find(model, SEARCH))
    work = rule.find(model, SEARCH)
    for _ in range(18):  # into the backward passes
        next(work)
    work.close()
    assert finish(rule.find(model, SEARCH)).hash == whole.hash
    other = rule.model_copy(update={"texts": ("starter", "general")})
    assert finish(other.find(model, SEARCH)).hash == whole.hash, "the order of tasks does not matter"


@pytest.mark.parametrize("texts", [(), ("",), ("general", "general")])
def test_texts_of_tasks_must_differ(texts):
    from sparsezo_gui.recipe import build

    with pytest.raises(UserError, match=r"\[mask\] texts: must name one text or several different ones"):
        build({"mask": {"rule": "multi-task", "texts": texts}})


@pytest.fixture
def asked(tmp_path):
    """``asked(rows, **table)``: the data table of these rows."""

    def made(rows, **table):
        (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return DataTable(source=str(tmp_path / "train.jsonl"), validation=0, test=0, **table)

    return made


def test_of_answers_only_what_is_learned_is_predicted(asked):
    words = tokenizer()
    rows = [{"text": f"a film {i}", "label": ("good and warm", "bad", "dull")[i % 3]} for i in range(9)]
    table = asked(rows, template="{{ text }} is", columns={"answer": "label"})
    for found in passages("answers", words, 5, 64, table):
        assert found.tokens[: len(beginning(words))] == beginning(words)
        answer = words.decode([found.tokens[place + 1] for place in found.places])
        prompt = words.decode(found.tokens[len(beginning(words)) : found.places[0] + 1])
        assert {"text": prompt.removesuffix(" is"), "label": answer.strip()} in rows
        assert found.places[-1] == len(found.tokens) - 2
    assert len(passages("answers", words, 5, 64, table)) == 5
    single = asked([{"text": f"{i}", "label": "ab"[i % 2]} for i in range(4)], template="{{ text }}:",
                   columns={"answer": "label"})  # fmt: skip
    ends = {words.decode(found.tokens)[-1] for found in passages("answers", words, 9, 64, single)}
    assert ends == {"a", "b"}, "of candidates that differ in one token, the right one"


def test_of_a_conversation_the_assistants_turns_are_predicted(asked):
    words = tokenizer()
    turns = [("user", "is it warm"), ("assistant", "yes"), ("user", "and the cat"), ("assistant", "no, sat")]
    table = asked([{"messages": [{"role": role, "content": text} for role, text in turns]}] * 2, task="chat")
    [found, _] = passages("answers", words, 3, 128, table)
    said = words.decode([found.tokens[place + 1] for place in found.places])
    assert "yes" in said and "no, sat" in said and "warm" not in said and "cat" not in said


def test_answers_alone_give_another_mask_of_the_right_gradient(frozen_tiny, asked):
    model = frozen_tiny("gemma2", 4)
    rows = [{"text": f"a film {i}", "label": ("good and warm", "bad")[i % 2]} for i in range(4)]
    table = asked(rows, template="{{ text }} is", columns={"answer": "label"})
    search, plain = Search(0, table), reference.plain_model(model)
    found = finish(Sensitive(density=0.01, text="answers", sequences=4, tokens=64).find(model, search))
    scores = dict.fromkeys(model.layers, 0.0)
    start = beginning(model.tokenizer)
    for row in rows:
        prompt = (*start, *model.tokenizer(f"{row['text']} is", add_special_tokens=False)["input_ids"])
        tokens = (*start, *model.tokenizer(f"{row['text']} is {row['label']}", add_special_tokens=False)["input_ids"])
        plain.zero_grad()
        chosen = [reference.log_probability(plain, tokens, place - 1, tokens[place])
                  for place in range(len(prompt), len(tokens))]  # fmt: skip
        (-torch.stack(chosen).mean()).backward()
        for name in scores:
            scores[name] = scores[name] + plain.get_parameter(name).grad ** 2
    taken = torch.cat([scores[name].flatten()[indices.long()] for name, indices in found.indices.items()])
    best = torch.cat([each.flatten() for each in scores.values()]).topk(found.size).values
    assert float(taken.sum()) == pytest.approx(float(best.sum()), rel=1e-4)
    other = finish(Sensitive(density=0.01, text="task", sequences=4, tokens=64).find(model, search))
    assert other.hash != found.hash


CALIBRATED = ["sensitive", "weight-activation", "outlier-channels"]


@pytest.mark.parametrize("rule", CALIBRATED)
def test_what_is_wrong_with_the_text_is_told(frozen_tiny, tmp_path, rule):
    model = frozen_tiny("llama", 4)
    (tmp_path / "short.txt").write_text(" ")
    for text, sentence in (("short.txt", "too short to find a mask with|has no"), ("none.txt", "There is no")):
        with pytest.raises(UserError, match=sentence):
            finish(MASKS[rule](text=str(tmp_path / text)).find(model, SEARCH))


def test_activations_that_are_not_finite_are_told(frozen_tiny):
    model = frozen_tiny("llama", 4)
    layer = next(iter(model.layers.values()))
    frozen = layer.frozen
    layer.hold(DenseWeight(torch.full(frozen.shape, torch.inf)))
    try:
        with pytest.raises(UserError, match=r"are not finite\. Use more bits"):
            finish(WeightActivation(**SHORT).find(model, SEARCH))
    finally:
        layer.hold(frozen)


def test_only_rules_that_read_the_examples_depend_on_them():
    assert not Sensitive().reads_task and Sensitive(text="task").reads_task
    assert MultiTask().reads_task and not MultiTask(texts=("general",)).reads_task
    assert not Rows(text="task").reads_task and Rows(text="task", score="weight-activation").reads_task
    assert not MASKS["all"]().reads_task and MASKS["activation-subspace"](text="task").reads_task


def test_searches_of_activations_tell_how_far_they_are_and_can_be_cancelled(frozen_tiny):
    model = frozen_tiny("llama", 4)
    work = WeightActivation(sequences=3, tokens=16).find(model, SEARCH)
    told = [event for _, event in zip(range(3), work, strict=False)]
    assert [(event.done, event.total) for event in told[1:]] == [(0, 3), (1, 3)]
    work.close()
    assert not any(layer._forward_pre_hooks for layer in model.layers.values())
