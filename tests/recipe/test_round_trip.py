"""Any recipe that can be made is the same after it was written and read, whole or by single settings."""

from __future__ import annotations

import math
from typing import Annotated, Any

import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from sparsezo_gui.recipe import Recipe, dump, load, loads, with_settings
from sparsezo_gui.recipe.combine import refusal
from sparsezo_gui.recipe.registry import REGISTRIES
from sparsezo_gui.recipe.tables import build
from sparsezo_gui.recipe.variants import Settings

EXACT = {  # fields that take some texts only
    "device": st.sampled_from(["auto", "cpu", "cuda", "cuda:3"]),
    "compute": st.sampled_from(["auto", "float32", "bfloat16"]),
    "folder": st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60),
    "leave_out": st.lists(st.from_regex(r"[0-9a-f]{16}", fullmatch=True), unique=True).map(tuple),
    "targets": st.lists(st.sampled_from(["q_proj", "v_proj", "c_attn"]), min_size=1, unique=True).map(tuple),
    "texts": st.lists(st.text(min_size=1), min_size=1, max_size=3, unique=True).map(tuple),
}


def values(name: str, field: FieldInfo) -> st.SearchStrategy:
    """Values of a field's type, within its bounds."""
    pattern = next((each.pattern for each in field.metadata if getattr(each, "pattern", "")), "")
    kind = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    found = st.from_regex(pattern, fullmatch=True) if pattern else EXACT[name] if name in EXACT else st.from_type(kind)
    return found.filter(lambda value: not isinstance(value, float) or math.isfinite(value))


def tables(kind: type[Settings]) -> st.SearchStrategy:
    """Tables with any of the fields of ``kind``."""
    return st.fixed_dictionaries({}, optional={name: values(name, field) for name, field in kind.model_fields.items()})


def variants(registry: Any) -> st.SearchStrategy:
    """Tables of any of the rules."""
    return st.sampled_from(list(registry)).flatmap(
        lambda rule: tables(registry[rule]).map(lambda table: {**table, "rule": rule})
    )


parts = {registry.table: variants(registry) for registry in REGISTRIES}
parts |= {name: tables(Recipe.model_fields[name].annotation) for name in ("model", "data", "loop", "run")}


def together(content: dict[str, Any]) -> bool:
    """Whether the parts can be combined; what cannot is refused, which other tests look at."""
    chosen = {registry.table: registry.build(content.get(registry.table, {})) for registry in REGISTRIES}
    rest = {name: kind.annotation(**content.get(name, {})) for name, kind in Recipe.model_fields.items() if name in
            ("model", "data", "loop", "run")}  # fmt: skip
    return not refusal(Recipe.model_construct(version=1, **chosen, **rest))


contents = st.fixed_dictionaries({}, optional=parts).filter(together)
recipes = contents.map(build)


@settings(max_examples=300)
@given(contents)
def test_plain_tables_and_arguments_are_the_same_recipe(content):
    assert Recipe(**content) == build(content)


@settings(max_examples=300)
@given(recipes)
def test_as_text(made):
    assert loads(dump(made)) == made


@settings(max_examples=100)
@given(recipes)
def test_as_a_file(tmp_path_factory, made):
    """A file also gives a name, and makes absolute what begins as a path or exists beside it."""
    path = tmp_path_factory.mktemp("recipe") / "r.toml"
    path.write_text(dump(made), encoding="utf-8", newline="")
    found = load(path)
    assert (found.loop, found.estimator, found.update) == (made.loop, made.estimator, made.update)
    assert found.run.name == (made.run.name or "r")


@settings(max_examples=100)
@given(recipes)
def test_as_settings(made):
    content = made.model_dump(mode="json", exclude={"version"})
    lines = [f"{table}.{key}={written(value)}" for table, keys in content.items() for key, value in keys.items()]
    assert with_settings(Recipe(), lines) == made


def written(value: Any) -> str:
    """A value as TOML in one line."""
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        table.update(value)
        return table.as_string()
    return tomlkit.item(value).as_string()
