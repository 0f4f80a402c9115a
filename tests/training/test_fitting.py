"""Fits on cached outputs: they learn, leave out what is held out, and repeat."""

from dataclasses import replace

import datasets
import numpy as np
import pytest
import soundfile
import torch
from tiny import noise, tiny_model, tiny_processor

from msfser.loss_msfser import ccc_loss, concordance
from msfser.training import fitting
from msfser.training.features import encode_sounds
from msfser.training.fitting import Clips, MeanHead, Recipe, fit, predict
from msfser.training.sentences import Sentences

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
    predictions = predict(model, corpus, held, "clean")
    agreement = concordance(torch.tensor(predictions), torch.tensor(corpus.labels[held]))
    assert agreement.min() > 0.5
    again = fit(new, corpus, np.flatnonzero(corpus.speakers != "d"), seed=0, recipe=recipe)
    np.testing.assert_allclose(predict(again, corpus, held, "clean"), predictions, atol=1e-5)


def test_a_fit_is_a_plain_loop():
    """The trainer does what these lines do, to the last bit."""
    corpus, items = clips(stronger=True), np.arange(150)
    corpus.states["other"] = corpus.states["clean"][::-1]
    corpus.sampling_weights = {"clean": 0.7, "other": 0.3}
    corpus.text_dropout = {"gs": 0.2}
    recipe = Recipe(ranking_loss_weight=0.5, mixing_lr_scale=2.0, epochs=3)
    draw = np.random.default_rng(7)
    torch.manual_seed(7)
    model = ours()
    rate = recipe.learning_rate
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    mixing = [weight for name, weight in trained.items() if name in ("layer_mix.scores", "cross_fusion.routing.table")]
    plain = [w for name, w in trained.items() if name.endswith("bias") or ".norm" in name]
    rest = [w for w in trained.values() if not any(w is other for other in (*mixing, *plain))]
    groups = [
        {"params": mixing, "lr": 2 * rate, "weight_decay": 0.0},
        {"params": plain, "lr": rate, "weight_decay": 0.0},
        {"params": rest, "lr": rate, "weight_decay": 0.01},
    ]
    assert len(mixing) == 2
    optimizer = torch.optim.AdamW(groups, fused=True)
    batches = fitting._PairedBatches(items, corpus.stronger, recipe.batch_size, draw)
    rates = [group["lr"] for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=12, pct_start=0.1)
    model.train()
    for _ in range(recipe.epochs):
        for chosen in batches:
            batch = fitting._training_batch(corpus, np.array(chosen), items[:0], recipe, draw)
            labels, pairs = batch.pop("labels"), batch.pop("pairs")
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(**batch).logits.float()
            arousal = logits[:, 1]
            order = torch.nn.functional.softplus((arousal[pairs[:, 0]] - arousal[pairs[:, 1]]) / 0.05).mean()
            (ccc_loss(logits, labels) + 0.5 * order).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    fitted = fit(ours, corpus, items, seed=7, recipe=recipe).state_dict()
    assert all(torch.equal(weight, fitted[name]) for name, weight in model.state_dict().items())


def test_the_order_of_pairs_is_learned():
    """The labels say the contrary of the pairs in half of them; the loss of the order pulls the other way."""
    recipe = Recipe(ranking_loss_weight=0.5, epochs=8)
    without, given = clips(), clips(stronger=True)
    items = np.arange(160)

    def right(corpus):
        predictions = predict(fit(ours, corpus, items, seed=0, recipe=recipe), corpus, items, "clean")
        return (predictions[1::2, 1] > predictions[0::2, 1]).mean()

    assert right(given) > right(without) + 0.1


def test_dropped_texts_are_not_learned():
    """The sound tells nothing and the text everything."""
    corpus, items = clips(), np.arange(160)
    draw = np.random.default_rng(2)
    corpus.states["clean"] = [torch.tensor(draw.standard_normal((3, 20, SIZE))).half() for _ in items]
    told = torch.tensor((corpus.labels - 0.5) @ draw.standard_normal((3, SIZE)), dtype=torch.float32)
    corpus.texts = {"gs": 4 * told}
    recipe = Recipe(ranking_loss_weight=0.0, learning_rate=0.01, epochs=8)

    def agreement(dropout):
        corpus.text_dropout = dropout
        predictions = predict(fit(ours, corpus, items[:120], seed=0, recipe=recipe), corpus, items[120:], "clean")
        return concordance(torch.tensor(predictions), torch.tensor(corpus.labels[120:])).mean()

    assert agreement({}) > 0.5
    assert agreement({"gs": 1.0}) < 0.3


def test_features_of_sounds_are_computed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    model, processor = ours(), tiny_processor("whisper")
    soundfile.write(tmp_path / "a.wav", noise(0.6, 1), 16_000)
    sounds = [noise(0.5), str(tmp_path / "a.wav"), noise(0.5)]
    made = encode_sounds("clean", sounds, model, processor)
    inputs = processor.feature_extractor(sounds[0], 16_000, return_tensors="pt")
    with torch.inference_mode():
        assert torch.equal(made[0], model.encode_audio(**inputs)[0][0].half()) and torch.equal(made[0], made[2])

    count, encode = [], type(model).encode_audio
    monkeypatch.setattr(type(model), "encode_audio", lambda self, **kw: count.append(1) or encode(self, **kw))
    again = encode_sounds("clean", sounds, model, processor)
    assert all(map(torch.equal, made, again)) and not count
    other = encode_sounds("clean", [noise(0.7), *sounds[1:]], model, processor)
    assert other[0].shape[1] > made[0].shape[1] and torch.equal(other[1], made[1]) and len(count) == 1

    def louder(samples, draw):
        return samples * draw.uniform(2, 3)

    drawn = [encode_sounds(name, sounds, model, processor, louder) for name in ("take_0", "take_1", "take_0")]
    assert len(count) == 5  # equal sounds are distorted alike
    assert all(map(torch.equal, drawn[0], drawn[2])) and not torch.equal(drawn[0][0], drawn[1][0])
    assert torch.equal(drawn[0][0], drawn[0][2]) and not torch.equal(drawn[0][0], made[0])
    assert all(map(torch.equal, encode_sounds("take_0", sounds[::-1], model, processor, louder), drawn[0][::-1]))
    assert len(count) == 5  # in any order, and among other sounds


def with_sentences() -> Clips:
    """The clips, half of them neutral, and sentences whose vectors tell the labels."""
    corpus = clips()
    draw = np.random.default_rng(1)
    corpus.labels[:80] = 0.5
    labels = draw.uniform(size=(200, 3)).astype(np.float32)
    labels[::2] = 0.5
    vectors = torch.tensor(4 * (labels - 0.5) @ draw.standard_normal((3, SIZE)), dtype=torch.float32)
    texts = {"gs": vectors, "les": vectors}
    corpus.texts = {"es": corpus.texts["gs"]}
    return replace(corpus, sentences=Sentences(labels, texts), neutral=(corpus.labels == 0.5).all(1))


def test_sentences_go_where_they_cannot_contradict():
    corpus, recipe = with_sentences(), Recipe(ranking_loss_weight=0.0)
    shares = recipe.sentences
    neutral = np.flatnonzero(corpus.neutral)
    chosen = np.arange(70, 102)
    batch = fitting._training_batch(corpus, chosen, neutral, recipe, np.random.default_rng(0))
    sentences = corpus.sentences
    row_of = {tuple(vector.tolist()): row for row, vector in enumerate(sentences.texts["gs"])}
    said = [row_of[tuple(vector.tolist())] for vector in batch["gs_embedding"]]
    given = batch["gs_attention_mask"][:, 0].bool().numpy()
    count = len(chosen)
    assert len(said) == count + shares.spoken and 0 < given[:count].sum() < count and given[count:].all()
    assert (sentences.labels[said][:count][given[:count]] == 0.5).all()
    np.testing.assert_array_equal(batch["labels"], corpus.labels[chosen])
    alone = batch["alone"]
    said_alone = [row_of[tuple(vector.tolist())] for vector in alone["gs_embedding"]]
    np.testing.assert_array_equal(batch["sentence_labels"], sentences.labels[[*said[count:], *said_alone]])
    assert not alone["attention_mask"].any() and not alone["es_attention_mask"].any()
    # Emphasized words come with a transcript only.
    assert not (batch["les_attention_mask"][:, 0].bool().numpy() & ~given).any()


def test_a_fit_reads_sentences_and_sounds():
    corpus = with_sentences()
    new = lambda: tiny_model("whisper", audio_states="weighted", freeze_audio="all")  # noqa: E731
    recipe = Recipe(ranking_loss_weight=0.0, learning_rate=0.02, epochs=20)
    model = fit(new, corpus, np.arange(160), 0, recipe)
    of_sound = predict(model, corpus, np.arange(80, 160), "clean", texts=())
    assert concordance(torch.tensor(of_sound), torch.tensor(corpus.labels[80:160])).min() > 0.5
    sentences = corpus.sentences
    with torch.no_grad():
        read = model(gs_embedding=sentences.texts["gs"], gs_attention_mask=torch.ones(200, 1)).logits
    assert concordance(read, torch.tensor(sentences.labels)).min() > 0.5


# Clips in the order of the names of RAVDESS, and of CREMA-D, where a strong clip comes before its two normal ones.
NORMAL_FIRST = np.array([1, -1, 3, -1, -1, 6, -1, -1])
STRONG_FIRST = np.array([-1, 0, 0, -1, 3, 3, -1, 3])


def two_kinds(stronger: np.ndarray) -> Clips:
    """Clips whose frames tell their kind."""
    count = len(stronger)
    states = {kind: [torch.full((3, 20, SIZE), value) for _ in stronger] for kind, value in (("a", 1.0), ("b", 2.0))}
    return Clips(np.zeros((count, 3), np.float32), np.arange(count), states, {"a": 0.5, "b": 0.5}, {}, stronger)


@pytest.mark.parametrize("stronger", [NORMAL_FIRST, STRONG_FIRST])
def test_a_matched_pair_is_of_one_kind(stronger):
    corpus, recipe = two_kinds(stronger), Recipe(ranking_loss_weight=0.5)
    seen = set()
    for seed in range(20):
        batch = fitting._training_batch(corpus, np.arange(8), np.arange(0), recipe, np.random.default_rng(seed))
        kinds = batch["audio_states"][:, 0, 0, 0]
        normal, strong = batch["pairs"].T
        assert len(normal) == np.count_nonzero(stronger >= 0) and torch.equal(kinds[normal], kinds[strong])
        seen.add(tuple(kinds.tolist()))
    assert len(seen) > 4


def test_an_epoch_has_each_clip_once():
    """Also a strong one with two normal ones; sounds without speech are in it as often as they are listed."""
    items = np.array([0, 1, 2, 3, 4, 5, 6, 6, 7])
    batches = fitting._PairedBatches(items, STRONG_FIRST, 3, np.random.default_rng(0))
    assert batches.units == [[1, 2, 0], [4, 5, 7, 3], [6], [6]]
    for _ in range(3):
        assert sorted(item for batch in batches for item in batch) == items.tolist()
    # A strong clip that is held out has no pair.
    assert fitting._PairedBatches(items[1:3], STRONG_FIRST, 2, np.random.default_rng(0)).units == [[1], [2]]


def test_pairs_whose_normal_clip_comes_first_are_drawn_as_for_the_shipped_starters():
    """Those were fitted so: a pair is at the place of its normal clip, and of the kind of the other."""
    corpus, recipe = two_kinds(NORMAL_FIRST), Recipe(ranking_loss_weight=0.5)
    items = np.array([7, 0, 1, 2, 3, 4, 5, 6])
    units = fitting._PairedBatches(items, NORMAL_FIRST, 4, np.random.default_rng(0)).units
    assert units == [[7], [0, 1], [2, 3], [4], [5, 6]]
    batch = fitting._training_batch(corpus, items, items[:0], recipe, np.random.default_rng(3))
    kinds = np.random.default_rng(3).choice([1.0, 2.0], size=8, p=[0.5, 0.5])
    keys = [max(item, NORMAL_FIRST[item]) for item in items]
    assert batch["audio_states"][:, 0, 0, 0].tolist() == kinds[keys].tolist()
