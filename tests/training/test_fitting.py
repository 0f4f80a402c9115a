"""Fits on cached outputs: they learn, leave out what is held out, and repeat."""

import numpy as np
import pytest
import torch
from tiny import noise, tiny_model, tiny_processor

from msfser.loss_msfser import concordance
from msfser.training.fitting import Clips, MeanHead, Recipe, encoded, fit, predict

SIZE = 32


def clips(stronger: bool = False) -> Clips:
    """Sounds whose mean tells the labels, and text vectors that tell nothing."""
    draw = np.random.default_rng(0)
    labels = draw.uniform(size=(160, 3)).astype(np.float32)
    direction = draw.standard_normal((3, SIZE))
    states = [
        torch.tensor(draw.standard_normal((3, int(draw.integers(20, 90)), SIZE)) + 4 * (y - 0.5) @ direction).half()
        for y in labels
    ]
    texts = {"gs": torch.tensor(draw.standard_normal((160, SIZE)), dtype=torch.float32)}
    texts["gs"][::5] = float("nan")
    pairs = np.full(160, -1)
    if stronger:
        pairs[0:160:2] = np.arange(1, 160, 2)
    return Clips(labels, np.repeat(list("abcd"), 40), {"clean": states}, {"clean": 1.0}, texts, pairs)


def ours():
    return tiny_model("whisper", audio_states="weighted", freeze_audio="all", semantics=["gs"])


@pytest.mark.parametrize("new", [ours, lambda: MeanHead(SIZE)])
def test_a_fit_predicts_clips_that_it_has_not_seen(new):
    recipe = Recipe(ranking_loss_weight=0.5, mixing_lr_scale=2.0, learning_rate=0.02, epochs=8)
    corpus = clips()
    held = np.flatnonzero(corpus.speakers == "d")
    model = fit(new, corpus, np.flatnonzero(corpus.speakers != "d"), seed=0, recipe=recipe)
    answers = predict(model, corpus, held, "clean")
    agreement = concordance(torch.tensor(answers), torch.tensor(corpus.labels[held]))
    assert agreement.min() > 0.5
    again = fit(new, corpus, np.flatnonzero(corpus.speakers != "d"), seed=0, recipe=recipe)
    np.testing.assert_allclose(predict(again, corpus, held, "clean"), answers, atol=1e-5)


def test_the_order_of_takes_is_learned():
    """The labels say the contrary of the pairs in half of them; the loss of the order pulls the other way."""
    recipe = Recipe(ranking_loss_weight=0.5, epochs=8)
    without, given = clips(), clips(stronger=True)
    items = np.arange(160)

    def right(corpus):
        answers = predict(fit(ours, corpus, items, seed=0, recipe=recipe), corpus, items, "clean")
        return (answers[1::2, 1] > answers[0::2, 1]).mean()

    assert right(given) > right(without) + 0.1


def test_texts_that_training_withholds_are_not_learned():
    """The sound tells nothing and the text everything."""
    corpus, items = clips(), np.arange(160)
    draw = np.random.default_rng(2)
    corpus.states["clean"] = [torch.tensor(draw.standard_normal((3, 20, SIZE))).half() for _ in items]
    told = torch.tensor((corpus.labels - 0.5) @ draw.standard_normal((3, SIZE)), dtype=torch.float32)
    corpus.texts = {"gs": 4 * told}
    recipe = Recipe(ranking_loss_weight=0.0, learning_rate=0.01, epochs=8)

    def agreement(withheld):
        corpus.withheld = withheld
        answers = predict(fit(ours, corpus, items[:120], seed=0, recipe=recipe), corpus, items[120:], "clean")
        return concordance(torch.tensor(answers), torch.tensor(corpus.labels[120:])).mean()

    assert agreement({}) > 0.5
    assert agreement({"gs": 1.0}) < 0.3


def test_what_is_kept_of_other_sounds_is_made_anew(tmp_path):
    model, processor, path = ours(), tiny_processor("whisper"), tmp_path / "clean.safetensors"
    first, other = noise(0.5), noise(0.7)
    made = encoded(path, [first], model, processor)
    written = path.stat().st_mtime_ns
    assert torch.equal(encoded(path, [first], model, processor)[0], made[0]) and path.stat().st_mtime_ns == written
    assert encoded(path, [other], model, processor)[0].shape[1] > made[0].shape[1]
    louder = encoded(path, [first], model, processor, lambda samples, draw: samples * draw.uniform(2, 3))
    assert not torch.equal(louder[0], made[0])
