"""Sentence embeddings are large: they run where SANDBOX_TEST_LARGE=1 and the packages are installed."""

import os

import pytest


@pytest.mark.skipif(os.environ.get("SANDBOX_TEST_LARGE") != "1", reason="needs torch: set SANDBOX_TEST_LARGE=1")
def test_texts_of_like_meaning_get_like_vectors(imported, placed):
    model = placed(imported("embed").Embed(), "embed")
    model.load()
    cat, kitten, tax = model.embed(["The cat sleeps.", "A kitten is asleep.", "Taxes are due in April."])
    alike, unlike = (sum(a * b for a, b in zip(cat, other, strict=True)) for other in (kitten, tax))
    assert len(cat) == 384
    assert alike > 0.5 > unlike
