"""The mutants of the load proof are of the code as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.load import mutants
from tests.e2e.load.mutants import Exchange

ROOT = Path(__file__).parents[2]


def exchanges() -> list[Exchange]:
    found: list[Exchange] = []
    for value in vars(mutants).values():
        each = value if isinstance(value, tuple) else (value,)
        found += [one for one in each if isinstance(one, Exchange)]
    return found


@pytest.mark.parametrize("exchange", exchanges(), ids=lambda each: each.file)
def test_what_a_mutant_exchanges_is_there_once(exchange: Exchange) -> None:
    assert (ROOT / exchange.file).read_text().count(exchange.before) == 1
