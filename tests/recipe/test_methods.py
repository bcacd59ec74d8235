"""The list of methods: complete, and the same in the documentation."""

from __future__ import annotations

from sparsezo_gui import resources
from sparsezo_gui.recipe import methods
from sparsezo_gui.recipe.registry import REGISTRIES


def test_every_variant_says_what_it_does_and_each_setting_has_help():
    for registry in REGISTRIES:
        for rule in registry:
            variant = registry[rule]
            assert variant.title and variant.summary().endswith("."), rule
            for key, field in variant.model_fields.items():
                assert key == "rule" or (field.description or "").endswith("."), (rule, key)


def test_the_page_of_the_documentation_is_what_the_program_says():
    page = (resources.ROOT / "methods.md").read_text(encoding="utf-8")
    assert page == methods.markdown(), "write it anew: sparsezo methods --markdown > resources/methods.md"
