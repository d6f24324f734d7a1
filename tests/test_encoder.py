"""The encoder that comes with the package, and any other by its name."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ballet_qa.encoder import DEFAULT, STOCK, StoryEncoder, load_encoder
from ballet_qa.errors import EncoderError
from ballet_qa.networks import SHA256, TOKENIZER, WEIGHTS
from ballet_qa.types import Encoder

TEXTS = ["A swan danced on the lake.", "The café belongs to Colette."]


def test_rows_are_of_unit_length_and_the_same_each_time(encoder: Encoder) -> None:
    rows = encoder.encode_passages(TEXTS)
    assert (rows.shape, rows.dtype) == ((2, 384), np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(encoder.encode_queries(TEXTS[::-1])[::-1], rows)
    assert encoder.encode_passages([]).shape == (0, 384)


def test_a_long_text_is_read_by_its_beginning(encoder: Encoder) -> None:
    swans, pigs = "swan " * 300, "pig " * 300
    long, longer = encoder.encode_passages([swans, swans + pigs])
    np.testing.assert_array_equal(long, longer)


def test_training_moved_the_vectors_but_not_far(encoder: Encoder) -> None:
    stock = load_encoder(STOCK)
    assert encoder.name == DEFAULT
    assert encoder.fingerprint != stock.fingerprint
    cosines = np.sum(encoder.encode_passages(TEXTS) * stock.encode_passages(TEXTS), axis=1)
    assert np.all((cosines > 0.7) & (cosines < 0.99))


def test_all_weights_are_those_we_know() -> None:
    assert {path.name for path in WEIGHTS.iterdir()} == {*SHA256, "README.md"}


@pytest.mark.parametrize("name", ["encoder.onnx", TOKENIZER])
def test_other_weights_than_those_we_know_are_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SHA256, name, "0" * 64)
    with pytest.raises(EncoderError, match=rf"{name} is not what .* pip install --force-reinstall"):
        load_encoder()


def test_a_folder_without_a_network_is_named(tmp_path: Path) -> None:
    shutil.copy(WEIGHTS / TOKENIZER, tmp_path)
    (tmp_path / "encoder.onnx").write_bytes(b"no network")
    with pytest.raises(EncoderError, match=r"encoder\.onnx is no network .*; export it again"):
        StoryEncoder(tmp_path)


def test_an_encoder_that_is_not_there_is_named() -> None:
    with pytest.raises(EncoderError, match=r"no encoder '/nowhere' here .* name a folder"):
        load_encoder("/nowhere")
