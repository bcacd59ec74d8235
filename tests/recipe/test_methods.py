"""The list of methods is complete."""

from __future__ import annotations

from sparsezo_gui.recipe.registry import REGISTRIES


def test_every_variant_says_what_it_does_and_each_setting_has_help():
    for registry in REGISTRIES:
        for rule in registry:
            variant = registry[rule]
            assert variant.title and variant.summary().endswith("."), rule
            for key, field in variant.model_fields.items():
                assert key == "rule" or (field.description or "").endswith("."), (rule, key)
