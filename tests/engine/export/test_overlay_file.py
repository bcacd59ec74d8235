"""Overlay files: there and back, and none that is not as the format says."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sparsezo_gui.engine.export.overlay_file import OverlayFile, read_overlay, write_overlay
from sparsezo_gui.errors import UserError

SMALL = OverlayFile(
    {
        "a.weight": (torch.tensor([0, 3, 11], dtype=torch.int32), torch.tensor([1.0, -2.5, 1e-30])),
        "b.weight": (torch.tensor([], dtype=torch.int32), torch.tensor([])),
    },
    {"a.weight": (3, 4), "b.weight": (2, 2)},
    model="some/model",
    revision="abc",
    fingerprint="f" * 64,
    step=7,
    recipe="[loop]\nsteps = 7\n# ü\n",
)


def test_there_and_back(tmp_path):
    path = tmp_path / "run.overlay"
    write_overlay(path, SMALL)
    found = read_overlay(path)
    assert found.changes.keys() == SMALL.changes.keys()
    for name, (indices, values) in SMALL.changes.items():
        assert torch.equal(found.changes[name][0], indices) and torch.equal(found.changes[name][1], values)
    for key in ("shapes", "model", "revision", "fingerprint", "step", "recipe"):
        assert getattr(found, key) == getattr(SMALL, key)
    assert path.stat().st_size < 1500


def test_its_header_has_an_order(tmp_path):
    """The order of the library is another each time, and so were the bytes."""
    write_overlay(tmp_path / "x", SMALL)
    content = (tmp_path / "x").read_bytes()
    table = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert list(table) == ["__metadata__", *(f"{name}.{part}" for name in SMALL.changes for part in
                                             ("indices", "values"))]  # fmt: skip
    assert list(table["__metadata__"]) == [
        "format", "version", "model", "revision", "fingerprint", "shapes", "step", "recipe", "card"
    ]  # fmt: skip


def test_a_file_without_a_card_still_opens(tmp_path):
    assert read_overlay(rewritten(tmp_path / "x", {"card": None})).card == ""


def rewritten(path, metadata=None, **tensors):
    """A written overlay with some of its content replaced; None takes a tensor out."""
    write_overlay(path, SMALL)
    with safe_open(path, "pt") as file:
        facts = {**file.metadata(), **(metadata or {})}
    content = {**load_file(path), **{name.replace("__", "."): tensor for name, tensor in tensors.items()}}
    save_file({name: tensor for name, tensor in content.items() if tensor is not None}, path,
              {key: value for key, value in facts.items() if value is not None})  # fmt: skip
    return path


INT, FLOAT = torch.int32, torch.float32


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"a__weight__indices": torch.tensor([0, 3, 12], dtype=INT)}, "outside 3 × 4"),
        ({"a__weight__indices": torch.tensor([-1, 3, 4], dtype=INT)}, "outside 3 × 4"),
        ({"a__weight__indices": torch.tensor([3, 0, 4], dtype=INT)}, "do not ascend"),
        ({"a__weight__indices": torch.tensor([3, 3, 4], dtype=INT)}, "do not ascend"),
        ({"a__weight__indices": torch.tensor([0, 3], dtype=INT)}, "two lists of equal length"),
        ({"a__weight__indices": torch.tensor([[0, 3, 4]], dtype=INT)}, "two lists of equal length"),
        ({"a__weight__indices": torch.tensor([0, 3, 4])}, "not in int32 and float32"),
        ({"a__weight__values": torch.tensor([0, 3, 4], dtype=torch.float16)}, "not in int32 and float32"),
        ({"a__weight__values": torch.tensor([0, float("nan"), 4])}, "not a finite number"),
        ({"a__weight__values": torch.tensor([0, 1, float("inf")])}, "not a finite number"),
        ({"a__weight__values": None}, "missing or unexpected tensor"),
        ({"more": torch.ones(1)}, "missing or unexpected tensor"),
    ],
)
def test_content_that_breaks_the_format(tensors, reason, tmp_path):
    with pytest.raises(UserError, match=reason):
        read_overlay(rewritten(tmp_path / "x", **tensors))


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"format": "other"}, "not an overlay file"),
        ({"version": "2"}, "not an overlay file"),
        ({"fingerprint": None}, "missing or invalid in its header: 'fingerprint'"),
        ({"step": "seven"}, "missing or invalid"),
        ({"shapes": "{"}, "missing or invalid"),
        ({"shapes": "[]"}, "missing or invalid"),
        ({"shapes": json.dumps({"a.weight": [3]})}, "missing or invalid"),
        ({"shapes": json.dumps({"a.weight": [3, float("inf")]})}, "not whole numbers"),
        ({"shapes": json.dumps({"a.weight": [3, "4"]})}, "not whole numbers"),
        ({"shapes": json.dumps({"a.weight": [-3, -4]})}, "not whole numbers"),
        ({"shapes": json.dumps({"a.weight": [3, 4]})}, "missing or unexpected tensor"),
    ],
)
def test_a_header_that_breaks_the_format(metadata, reason, tmp_path):
    with pytest.raises(UserError, match=reason):
        read_overlay(rewritten(tmp_path / "x", metadata))


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="There is no overlay file"):
        read_overlay(tmp_path / "nothing")


@given(data=st.data())
@settings(max_examples=200)
def test_any_damage_gives_a_sentence_or_a_sound_overlay(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "x"
    write_overlay(path, dataclasses.replace(SMALL, recipe=""))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        found = read_overlay(path)
    except UserError:
        return
    for name, (indices, values) in found.changes.items():
        rows, columns = found.shapes[name]
        assert len(indices) == len(values) and values.isfinite().all()
        assert all(0 <= index < rows * columns for index in indices.tolist())


@st.composite
def overlays(draw):
    texts, shapes = st.text(max_size=8), st.tuples(st.integers(1, 6), st.integers(1, 6))
    sizes = draw(st.dictionaries(texts, shapes, max_size=4))
    changes = {}
    for name, (rows, columns) in sizes.items():
        places = sorted(draw(st.sets(st.integers(0, rows * columns - 1))))
        numbers = draw(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=len(places),
                                max_size=len(places)))  # fmt: skip
        changes[name] = (torch.tensor(places, dtype=INT), torch.tensor(numbers, dtype=FLOAT))
    return OverlayFile(changes, sizes, draw(texts), draw(texts), draw(texts), draw(st.integers(0)), draw(texts))


@given(made=overlays())
@settings(max_examples=200)
def test_any_overlay_is_the_same_after_it_was_written(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("overlay") / "x"
    write_overlay(path, made)
    found = read_overlay(path)
    assert dataclasses.replace(found, changes={}) == dataclasses.replace(made, changes={})
    assert found.changes.keys() == made.changes.keys()
    for name, (indices, values) in made.changes.items():
        assert torch.equal(found.changes[name][0], indices)
        assert torch.equal(found.changes[name][1].view(INT), values.view(INT))  # also the sign of zero
