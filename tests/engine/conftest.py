"""Tiny frozen models of every family, made once a session."""

from __future__ import annotations

from functools import cache

import pytest

from sparsezo_gui.recipe.recipe import ModelTable
from tests.models import tiny


def finish(work):
    """Result of a generator whose progress nobody watches."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


@pytest.fixture(scope="session")
def frozen_tiny(tmp_path_factory):
    """``frozen_tiny(family, bits, compute)``: the loaded `FrozenModel` of a tiny random model."""
    from sparsezo_gui.engine.models import frozen

    @cache
    def folder(family):
        return tiny(family, tmp_path_factory.mktemp("models") / family)

    @cache
    def load(family, bits=4, compute="auto"):
        return finish(frozen.load(ModelTable(id=str(folder(family)), bits=bits, compute=compute, device="cpu")))

    return load
