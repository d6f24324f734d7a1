"""The encoder that comes with the package: MiniLM, its layers trained on."""

from __future__ import annotations

import numpy as np
import pytest

import ballet_qa.encoder
from ballet_qa.encoder import DEFAULT, STOCK, SentenceEncoder
from ballet_qa.errors import EncoderError

TEXTS = ["A swan danced on the lake.", "The café belongs to Colette."]


def test_rows_are_of_unit_length_and_the_same_each_time(encoder: SentenceEncoder) -> None:
    rows = encoder.encode_passages(TEXTS)
    assert (rows.shape, rows.dtype) == ((2, 384), np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS[::-1])[::-1], rows, atol=1e-6)
    assert encoder.encode_passages([]).shape == (0, 384)


def test_training_moved_the_layers_and_not_the_words(encoder: SentenceEncoder) -> None:
    stock = SentenceEncoder(STOCK)
    assert encoder.name == DEFAULT
    assert encoder.fingerprint != stock.fingerprint
    mine, theirs = (dict(e._model.named_parameters()) for e in (encoder, stock))
    moved = {name for name in mine if not bool((mine[name] == theirs[name]).all())}
    assert moved == {name for name in mine if ".layer." in name}
    cosines = np.sum(encoder.encode_passages(TEXTS) * stock.encode_passages(TEXTS), axis=1)
    assert np.all((cosines > 0.7) & (cosines < 0.99))


@pytest.mark.parametrize("constant", ["_TRAINED_SHA256", "_STOCK_SHA256"])
def test_other_weights_than_those_we_know_are_refused(
    constant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ballet_qa.encoder, constant, "0" * 64)
    with pytest.raises(EncoderError, match="pip install --force-reinstall"):
        SentenceEncoder()


def test_an_encoder_that_is_not_there_is_named() -> None:
    with pytest.raises(EncoderError, match=r"no encoder '/nowhere' here .* name a folder"):
        SentenceEncoder("/nowhere")
