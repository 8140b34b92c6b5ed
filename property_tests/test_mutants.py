"""The mutants of `make mutants` are still of this code: each changes one place, into code that compiles."""

from __future__ import annotations

import pytest

from .mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_place(mutant: Mutant) -> None:
    changed = mutant.changed()
    assert changed != (ROOT / mutant.path).read_text()
    compile(changed, mutant.path, "exec")
