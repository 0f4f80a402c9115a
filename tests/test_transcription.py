"""Transcription: word times, batches, long clips, languages and non-speech; with tiny.en if it is installed."""

import copy
import itertools
from difflib import SequenceMatcher

import numpy as np
import pytest
import torch
from published import WHISPER, needs
from tiny import AUDIO_CONFIGS, noise, tiny_recognizer
from transformers import AutoConfig, AutoModel, GenerationMixin
from transformers.modeling_outputs import BaseModelOutput

from msfser import languages_msfser, transcription_msfser
from msfser.audio_msfser import load_audio
from msfser.benchmarks.recognition import nonspeech, normalized
from msfser.corpora.probe.synthesizer import Synthesizer
from msfser.decoded_clip_msfser import DecodedClip
from msfser.decoder_msfser import MsfSerDecoder, sound_keys_and_values
from msfser.encoders_msfser import load_recognizer
from msfser.greedy_msfser import DecodedText, SoundToRead, given_text, most_probable_texts, period_of
from msfser.transcription_msfser import MsfSerRecognizer
from msfser.word_times_msfser import (
    _padded_levels,
    cut_into_pieces,
    matching_index,
    monotonic_starts,
    trim_quiet_edges,
    word_spans,
)

needs_whisper = needs(WHISPER)

# Tokens that the random recognizer writes early in some texts.
_EARLY = (8, 12)
UNCLEAR = "not clearly English, and the recognizer knows only English"


@pytest.fixture(scope="module")
def whisper() -> MsfSerRecognizer:
    return MsfSerRecognizer.from_pretrained(WHISPER)


@pytest.fixture(scope="module")
def spoken() -> list[tuple[str, np.ndarray, list]]:
    """Texts with synthetic speech at 16 kHz and the true times of its words."""
    synthesizer = Synthesizer()
    synthesizer.set_voice("en-us")
    made = []
    for text in ("My sister bought seven flowers.", "We had a wonderful evening, but the letter was horrible."):
        speech = synthesizer.speak(f"<speak>{text}</speak>", rate=150, volume=80)
        made.append((text, load_audio(speech.samples, speech.rate), speech.words))
    return made


def decoded(tokens: list[int], **fields) -> DecodedClip:
    common = {"language": "en", "no_speech": 0.0, "log_probability": -0.1, "entropy": 0.2, "focus": 0.5}
    return DecodedClip(tokens=tokens, **common | fields, starts=list(range(len(tokens) + 1)))


@pytest.fixture(scope="module")
def polyglot() -> MsfSerRecognizer:
    return tiny_recognizer()


@pytest.fixture
def repeating() -> MsfSerRecognizer:
    """Without positions, its texts soon repeat."""
    recognizer = tiny_recognizer()
    with torch.no_grad():
        recognizer.model.model.decoder.embed_positions.weight.zero_()
    return recognizer


def texts_of(recognizer, states, codes, most, rows=None, **options) -> list[DecodedText]:
    """The texts of sounds whose states are given, some at once."""
    model = recognizer.model
    sounds = [
        SoundToRead(sound_keys_and_values(model, state[None]), recognizer._prompt(code), limit)
        for state, code, limit in zip(states, codes, most, strict=True)
    ]
    with torch.no_grad():
        decoder = MsfSerDecoder(model, rows or len(sounds), frames=max(map(len, states)), tokens=128)
        return most_probable_texts(decoder, iter(sounds), **options)


def states_of(recognizer, *frames: int, seed: int = 0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(count, recognizer.model.config.d_model, generator=draw) * 3 for count in frames]


# Beside the greatest logits, the others are rounded to bfloat16 on a CPU that has it. In these tiny models all tokens
# are about as probable; in a trained one the others have next to no share.
_ROUNDED = 2e-3


def check_equal(text: DecodedText, expected: DecodedText) -> None:
    assert text.tokens == expected.tokens
    assert text.no_speech == pytest.approx(expected.no_speech, abs=1e-4)
    assert text.log_probabilities == pytest.approx(expected.log_probabilities, abs=_ROUNDED)
    assert text.entropies == pytest.approx(expected.entropies, abs=_ROUNDED)
    torch.testing.assert_close(text.attention, expected.attention, atol=1e-5, rtol=0)


@pytest.mark.parametrize("most", [1, 2, 25])
def test_the_most_probable_tokens_are_those_of_the_library(polyglot, most):
    model, codes = polyglot.model, ("en", "de", "en", "de")
    states = states_of(polyglot, 50, 50, 50, 50, seed=3)
    prompts = torch.tensor([polyglot._prompt(code) for code in codes])
    texts = texts_of(polyglot, states, codes, [most] * 4)
    end = model.generation_config.eos_token_id
    special = range(end + 1, model.config.vocab_size)
    with torch.no_grad():
        output = GenerationMixin.generate(
            model,
            encoder_outputs=BaseModelOutput(last_hidden_state=torch.stack(states)),
            attention_mask=torch.ones(4, 50, dtype=torch.long),
            decoder_input_ids=prompts,
            max_length=prompts.shape[1] + most,
            suppress_tokens=[*model.generation_config.suppress_tokens, *special],
        )
    expected = [itertools.takewhile(lambda token: token != end, row[prompts.shape[1] :]) for row in output.tolist()]
    assert [text.tokens for text in texts] == [*map(list, expected)]
    assert most < 25 or len({tuple(text.tokens) for text in texts}) > 1


@pytest.mark.parametrize("ends_like", [None, *_EARLY])
@pytest.mark.parametrize("seed", range(4))
def test_what_was_expected_of_a_text_is_that_of_the_library(seed, ends_like):
    recognizer = tiny_recognizer(ends_like)
    (state,), prompt = states_of(recognizer, 40, seed=seed), recognizer._prompt("de")
    (text,) = texts_of(recognizer, [state], ["de"], [12])
    with torch.no_grad():
        output = recognizer.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=state[None]),
            decoder_input_ids=torch.tensor([[*prompt, *text.tokens]]),
        )
        decoder = MsfSerDecoder(recognizer.model, 1, frames=40, tokens=64)
        sound = SoundToRead(sound_keys_and_values(recognizer.model, state[None]), prompt, 12)
        check_equal(given_text(decoder, sound, text.tokens), text)
    expected = output.logits[0].log_softmax(-1)
    ids = recognizer.ids
    assert text.no_speech == pytest.approx(expected[0, ids.no_timestamps_token_id - 1].exp().item(), abs=1e-4)
    expected = expected[len(prompt) - 1 :]
    of_tokens = expected[range(len(expected)), [*text.tokens, ids.eos_token_id]]
    assert text.log_probabilities == pytest.approx(of_tokens.tolist(), abs=_ROUNDED)
    assert text.entropies == pytest.approx((-expected.exp() * expected).sum(-1).tolist(), abs=_ROUNDED)


@pytest.mark.parametrize("ends_like", [None, *_EARLY])
@pytest.mark.parametrize("seed", range(8))
def test_a_guess_changes_no_text(seed, ends_like):
    """Guesses that are right, wrong in places, too long, or of other texts."""
    recognizer = tiny_recognizer(ends_like)
    states, draw = states_of(recognizer, 40, seed=seed), np.random.default_rng(seed)
    (plain,) = texts_of(recognizer, states, ["en"], [25])
    expected = plain.tokens
    wrong = [*expected, 9, 9]
    wrong[len(wrong) // 2] = 7
    others = draw.integers(5, 20, 30).tolist()
    for guess in (expected, expected[3:], wrong, expected * 3, others, [others[0], *expected]):
        check_equal(*texts_of(recognizer, states, ["en"], [25], guess=guess), plain)


@pytest.mark.parametrize("ends_like", _EARLY)
def test_some_random_texts_end_early(ends_like):
    recognizer = tiny_recognizer(ends_like)
    texts = texts_of(recognizer, states_of(recognizer, *[40] * 8), ["en"] * 8, [25] * 8)
    assert len({len(text.tokens) for text in texts}) > 2


@pytest.mark.parametrize("ends_like", [None, *_EARLY])
@pytest.mark.parametrize("rows", [1, 2, 3, 7])
@pytest.mark.parametrize("seed", range(2))
def test_sounds_are_read_at_once_as_alone(seed, rows, ends_like):
    """They have different lengths and limits; some texts end early, and other sounds follow in their rows."""
    recognizer = tiny_recognizer(ends_like)
    states = states_of(recognizer, 40, 9, 23, 40, 1, 30, 12, seed=seed)
    codes, most = ["en", "de", "en", "de", "de", "en", "en"], [25, 1, 7, 12, 25, 3, 16]
    together = texts_of(recognizer, states, codes, most, rows)
    for i, text in enumerate(together):
        check_equal(text, *texts_of(recognizer, [states[i]], [codes[i]], [most[i]]))


def test_a_text_that_loops_is_ended(repeating):
    """Those whose end repeats are asked about; the others are as before."""
    states, codes, most = states_of(repeating, *[40] * 6), ["en"] * 6, [120] * 6
    asked: list[int] = []

    def is_loop(number, text):
        asked.append(number)
        assert period_of(text.tokens, 3, 23) is not None and len(text.log_probabilities) == len(text.tokens)
        return number % 2 == 0

    plain = texts_of(repeating, states, codes, most)
    texts = texts_of(repeating, states, codes, most, rows=3, is_loop=is_loop)
    assert set(asked) >= {0, 1}
    for number, (text, expected) in enumerate(zip(texts, plain, strict=True)):
        if number % 2 == 0 and number in asked:
            count = len(text.tokens)
            assert 23 <= count < 120 and text.tokens == expected.tokens[:count]
            assert text.log_probabilities == pytest.approx(expected.log_probabilities[:count], abs=_ROUNDED)
            assert text.entropies == pytest.approx(expected.entropies[:count], abs=_ROUNDED)
            torch.testing.assert_close(text.attention, expected.attention[: count + 1], atol=1e-5, rtol=0)
        else:
            check_equal(text, expected)


def test_guesses_stop_a_loop_where_it_is_stopped_without(repeating):
    stopped = 0
    for seed in range(6):
        states = states_of(repeating, 40, seed=seed)
        (plain,) = texts_of(repeating, states, ["en"], [120])
        (expected,) = texts_of(repeating, states, ["en"], [120], is_loop=lambda *_: True)
        stopped += len(expected.tokens) < len(plain.tokens)
        for guess in (plain.tokens, plain.tokens[3:], [7, *plain.tokens]):
            check_equal(*texts_of(repeating, states, ["en"], [120], guess=guess, is_loop=lambda *_: True), expected)
    assert stopped


def test_a_text_is_judged_with_its_own_sound_and_language(repeating, monkeypatch):
    """Clips are read in the order of their lengths, and judged while they are read."""
    seen = []
    judged = DecodedClip.from_text

    def noted(text, samples, code):
        seen.append((samples, code, text.tokens))
        return judged(text, samples, code)

    monkeypatch.setattr(DecodedClip, "from_text", noted)
    monkeypatch.setattr(DecodedClip, "loops", False)
    sounds = {"en": noise(4.0, 0), "de": noise(28.0, 1)}
    decoded = repeating._decode([*sounds.values()], [*sounds])
    assert len(seen) > len(sounds)
    for length, code, tokens in seen:
        assert length == len(sounds[code])
        assert decoded[[*sounds].index(code)].tokens[: len(tokens)] == tokens


@pytest.mark.parametrize(
    ("text", "times", "least", "period"),
    [
        ("abcbcbc", 3, 6, 2),
        ("abcbcbc", 3, 7, None),
        ("abcbcbc", 4, 6, None),
        ("xaaaaaa", 3, 6, 1),
        ("abcabc", 2, 6, 3),
        ("abcabd", 2, 6, None),
        ("", 2, 8, None),
    ],
)
def test_after_how_many_tokens_an_end_repeats(text, times, least, period):
    assert period_of(text, times, least) == period


@pytest.mark.parametrize("given", [False, True])
def test_clips_of_different_lengths_are_decoded_together_as_alone(polyglot, given):
    sounds = [noise(seconds, seed) for seed, seconds in enumerate((4.0, 0.3, 1.5, 28.0, 1.2, 12.5))]
    tokens = [[5 + i] * (i + 1) for i in range(len(sounds))] if given else None
    together = polyglot._decode(sounds, [None] * len(sounds), tokens)
    for i, (sound, clip) in enumerate(zip(sounds, together, strict=True)):
        (alone,) = polyglot._decode([sound], [None], None if tokens is None else [tokens[i]])
        assert (clip.tokens, clip.starts, clip.language) == (alone.tokens, alone.starts, alone.language)
        for name in ("no_speech", "log_probability", "entropy", "focus"):
            assert getattr(clip, name) == pytest.approx(getattr(alone, name), abs=1e-4)


@pytest.mark.parametrize("ends_like", [None, *_EARLY])
def test_read_tokens_are_scored_as_given_ones(ends_like):
    recognizer = tiny_recognizer(ends_like)
    sounds = [noise(1.0, 1), noise(2.5, 2), noise(1.0, 3)]
    read = recognizer._decode(sounds, ["en"] * 3)
    given = recognizer._decode(sounds, ["en"] * 3, [clip.tokens for clip in read])
    for one, other in zip(read, given, strict=True):
        assert (one.tokens, one.starts) == (other.tokens, other.starts)
        for name in ("no_speech", "log_probability", "entropy", "focus"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-5)


def test_the_windows_of_a_stream_have_the_texts_of_recordings(polyglot):
    """Two streams that share a recognizer, each with another recording; the recognizer itself guesses nothing."""
    streams = [polyglot.following(1.0), polyglot.following(1.0)]
    recordings = [noise(9.0, 1), noise(9.0, 2)]
    for start in range(0, 6 * 16_000, 16_000):
        for recognizer, recording in zip(streams, recordings, strict=True):
            window = recording[start : start + 3 * 16_000]
            (alone,), (followed,) = (one.decode([window]) for one in (polyglot, recognizer))
            for (_, _, expected), (_, _, found) in zip(alone, followed, strict=True):
                assert (found.tokens, found.starts, found.language) == (
                    expected.tokens,
                    expected.starts,
                    expected.language,
                )
    assert polyglot._guess == [] and all(recognizer._guess for recognizer in streams)
    assert polyglot._silence is not None and not polyglot._silence[0].requires_grad


def test_the_language_is_detected_with_the_silent_end(polyglot, monkeypatch):
    seen = []
    monkeypatch.setattr(polyglot, "_languages", lambda states: seen.append(states) or ["de"])
    polyglot._decode([noise(1.0)], [None])
    assert torch.equal(seen[0], polyglot._append_silence(polyglot._encode([noise(1.0)], 2.0)))


def test_a_right_guess_is_read_at_once(polyglot, monkeypatch):
    states, sizes = states_of(polyglot, 40, seed=1), []
    read = MsfSerDecoder.read
    (expected,) = texts_of(polyglot, states, ["en"], [25])
    monkeypatch.setattr(MsfSerDecoder, "read", lambda self, ids: sizes.append(ids.shape[1]) or read(self, ids))
    texts_of(polyglot, states, ["en"], [25], guess=expected.tokens)
    assert sizes[0] == 4 + 8 and len(sizes) <= 4


# Division of frames


@pytest.mark.parametrize("seed", range(20))
def test_the_division_of_frames_is_the_best_of_all(seed):
    draw = np.random.default_rng(seed)
    tokens = draw.integers(1, 5)
    scores = draw.standard_normal((tokens, draw.integers(tokens, 9)))
    starts = monotonic_starts(scores)

    def total(cuts):
        edges = [0, *cuts, scores.shape[1]]
        return sum(scores[k, edges[k] : edges[k + 1]].sum() for k in range(tokens))

    best = max(total(cuts) for cuts in itertools.combinations(range(1, scores.shape[1]), tokens - 1))
    assert starts[0] == 0
    assert len(starts) == tokens
    assert all(np.diff(starts) >= 1)
    assert total(starts[1:]) == pytest.approx(best)


def test_more_tokens_than_frames_share_them():
    starts = monotonic_starts(np.eye(5)[:, :2])
    assert len(starts) == 5
    assert starts == sorted(starts)
    assert set(starts) <= {0, 1}


# Pieces and words


def test_a_long_clip_is_cut_in_its_pause_and_keeps_every_sample():
    sound = noise(70.0)
    sound[int(24.0 * 16_000) : int(24.5 * 16_000)] = 0
    pieces = list(cut_into_pieces(sound))
    assert np.array_equal(np.concatenate([samples for _, samples in pieces]), sound)
    assert 24.0 < pieces[1][0] < 24.5
    assert all(len(samples) <= 30 * 16_000 for _, samples in pieces)
    assert [offset for offset, _ in pieces] == [
        pytest.approx(sum(len(samples) for _, samples in pieces[:k]) / 16_000) for k in range(len(pieces))
    ]


def test_levels_are_decibels_of_full_scale_by_20_ms():
    sound = np.concatenate([np.full(320, 0.1), np.full(320, 1.0), np.zeros(320), np.full(160, 0.1)])
    np.testing.assert_allclose(_padded_levels(sound), [-20, 0, -120, -20 - 10 * np.log10(2)], atol=1e-6)


def test_words_lose_the_quiet_at_their_edges_but_never_everything():
    sound = np.concatenate([np.zeros(8_000, np.float32), noise(0.5), np.zeros(8_000, np.float32)])
    loud, silent = trim_quiet_edges(
        [{"word": "a", "start": 10, "end": 60}, {"word": "b", "start": 60, "end": 60}], sound, offset=2.0
    )
    assert (loud["start"], loud["end"]) == (pytest.approx(2.5, abs=0.021), pytest.approx(3.0, abs=0.021))
    assert (silent["start"], silent["end"]) == (3.2, 3.22)


def test_words_without_spaces_are_tokens_with_their_punctuation():
    assert word_spans("\u6211\u7528\u3002\u4f60\u5199", [1, 2, 3, 5]) == [(0, 1), (1, 3), (3, 5)]
    assert word_spans(" one two. ", [2, 4, 8, 9]) == [(1, 4), (5, 9)]
    # "Python", of two tokens, is one word within Chinese.
    assert word_spans("\u6211Python\u5199", [1, 4, 7, 8]) == [(0, 1), (1, 7), (7, 8)]


def test_an_index_among_the_recognized_words_is_found_among_the_given_ones():
    blocks = SequenceMatcher(None, "abcxdef", "abcdyef", autojunk=False).get_matching_blocks()
    assert [matching_index(blocks, k) for k in (0, 2, 5, 7)] == [0, 2, 4, 7]


def test_only_scattered_repetition_is_a_loop():
    twice = [5, 6, 7, 8] * 2
    assert decoded(twice, focus=0.2).loops
    assert decoded([9] * 8, focus=0.2).loops
    assert not decoded(twice, focus=0.5).loops
    assert not decoded([5, 6, 7, 8, 5, 6, 7, 9], focus=0.2).loops
    assert not decoded([5, 6, 5, 6], focus=0.2).loops


# Languages


def test_only_a_certain_text_is_english_where_no_language_is_stated(polyglot, monkeypatch):
    monkeypatch.setattr(polyglot, "english_only", True)
    sure, unsure = decoded([14, 15, 16, 17]), decoded([14, 15, 16, 17], log_probability=-0.9, entropy=2.5)
    assert polyglot._text(unsure) == "the food was wonderful"
    assert polyglot.why_rejected(sure, stated=False) is None
    assert polyglot.why_rejected(unsure, stated=False) == UNCLEAR
    assert polyglot.why_rejected(unsure, stated=True) is None
    monkeypatch.setattr(polyglot, "english_only", False)
    assert polyglot.why_rejected(unsure, stated=False) is None


def test_a_text_without_a_letter_is_no_speech(polyglot):
    assert polyglot.why_rejected(decoded([]), stated=True) == "no speech"


def test_certainty_is_that_of_the_tokens_and_the_end(polyglot):
    tokens = [5, 6, 7, 8]
    (clip,) = polyglot._decode([noise(1.0)], ["en"], [tokens])
    states = polyglot._append_silence(polyglot._encode([noise(1.0)], 2.0))
    ids = torch.tensor([[*polyglot._prompt("en"), *tokens]])
    with torch.no_grad():
        hidden = polyglot.model.model.decoder(input_ids=ids, encoder_hidden_states=states).last_hidden_state
        logits = polyglot.model.proj_out(hidden)[0, -5:]
    expected = torch.distributions.Categorical(logits=logits)
    # All logits but the greatest are in bfloat16.
    assert clip.entropy == pytest.approx(expected.entropy().median().item(), abs=1e-4)
    assert clip.log_probability == pytest.approx(
        expected.log_prob(torch.tensor([*tokens, 40])).mean().item(), abs=1e-4
    )


def test_gain_changes_nothing_that_is_recognized(polyglot):
    sound = noise(1.0) * np.hanning(16_000).astype(np.float32)
    quiet, loud = (polyglot._encode([np.float32(gain) * sound], 2.0) for gain in (0.02, 4.0))
    assert torch.allclose(quiet, loud, atol=1e-3)
    assert not torch.allclose(quiet, polyglot._encode([noise(1.0, 1)], 2.0), atol=1e-3)


def test_no_english_is_transcribed_if_another_language_is_stated(polyglot, monkeypatch):
    monkeypatch.setattr(polyglot, "english_only", True)
    results = polyglot([noise(1.0), noise(2.0)], language="German")
    assert [(r.text, r.words, r.reason) for r in results] == [(None, [], "the recognizer knows only English")] * 2


def prompts_of(recognizer, use) -> list[list[int]]:
    """The first four tokens of the texts that the decoder reads while the recognizer is used."""
    seen = []
    embed = recognizer.model.model.decoder.embed_tokens
    hook = embed.register_forward_pre_hook(lambda module, args: seen.append(args[0][0].tolist()))
    use()
    hook.remove()
    return [ids[:4] for ids in seen if len(ids) >= 4]


@pytest.mark.parametrize(("language", "expected"), [("de", 43), ("german", 43), ("en-US", 42), (None, None)])
def test_a_multilingual_recognizer_is_told_the_language_or_detects_it(polyglot, monkeypatch, language, expected):
    monkeypatch.setattr(transcription_msfser, "_TOKENS_PER_SECOND", 1)
    transcribing = prompts_of(polyglot, lambda: polyglot([noise(1.0)], language))
    aligning = prompts_of(polyglot, lambda: polyglot.align([noise(1.0)], ["the food"], [language]))
    assert transcribing and aligning
    for start, code, task, plain in transcribing + aligning:
        assert (start, task, plain) == (41, 44, 50)
        assert code in ({expected} if expected else {42, 43})


def test_the_language_of_a_text_is_known(polyglot, monkeypatch):
    monkeypatch.setattr(polyglot, "why_rejected", lambda clip, stated: None)
    assert polyglot([noise(1.0)], "de")[0].language == "de"
    (detected,) = polyglot.decode([noise(1.0)])
    assert polyglot([noise(1.0)])[0].language == detected[0][2].language


def test_given_words_in_a_language_that_the_recognizer_does_not_know_have_times(polyglot):
    assert [word["word"] for word in polyglot.align([noise(1.0)], ["le repas"], ["fr"])[0]] == ["le", "repas"]


def test_unknown_languages_and_wrong_input_are_sentences(polyglot):
    with pytest.raises(ValueError, match=r"language='klingon' is not a language that Whisper knows: give a code"):
        polyglot([noise(1.0)], "klingon")
    with pytest.raises(ValueError, match=r"does not know language='fr'"):
        polyglot([noise(1.0)], "fr")
    with pytest.raises(ValueError, match=r"1 sounds, 2 transcripts and 1 languages"):
        polyglot.align([noise(1.0)], ["a", "b"])
    with pytest.raises(ValueError, match=r"1 sounds, 1 transcripts and 2 languages"):
        polyglot.align([noise(1.0)], ["a"], ["de", "en"])
    with pytest.raises(ValueError, match=r"transcript of item 0 is too long"):
        polyglot.align([noise(1.0)], ["a " * 500])
    assert polyglot([]) == []


def test_alignment_heads_are_needed(polyglot):
    model = copy.deepcopy(polyglot.model)
    model.generation_config.alignment_heads = None
    with pytest.raises(ValueError, match="no alignment_heads"):
        MsfSerRecognizer(model, polyglot.tokenizer)


def test_given_words_keep_their_spelling_and_order(polyglot):
    transcripts = ["the food - was WONDERFUL!", "", "dreadful"]
    results = polyglot.align([noise(2.0), noise(1.0), noise(0.01)], transcripts)
    assert [[entry["word"] for entry in words] for words in results] == [
        ["the", "food", "was", "WONDERFUL!"],
        [],
        ["dreadful"],
    ]
    for words, length in zip(results, (2.0, 1.0, 0.01), strict=True):
        edges = [entry[edge] for entry in words for edge in ("start", "end")]
        assert edges == sorted(edges)
        assert all(0 <= edge <= length for edge in edges)


def test_a_saved_whisper_is_read_from_its_folder(polyglot, tmp_path):
    polyglot.model.save_pretrained(tmp_path)
    polyglot.tokenizer.save_pretrained(tmp_path)
    again = MsfSerRecognizer.from_pretrained(str(tmp_path))
    transcript = ["the food was wonderful"]
    assert again.align([noise(2.0)], transcript) == polyglot.align([noise(2.0)], transcript)
    with pytest.raises(OSError, match=r"neither the Hub nor its cache has it"):
        MsfSerRecognizer.from_pretrained("openai/whisper-none")


def test_a_model_that_is_not_whisper_is_refused(tmp_path):
    AutoModel.from_config(AutoConfig.for_model(**AUDIO_CONFIGS["wavlm"])).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a wavlm model: words are recognized by Whisper only"):
        load_recognizer(str(tmp_path))


def test_the_tail_of_silence_follows_the_model(polyglot, monkeypatch):
    """It is computed once, and the model may have moved since."""
    states = torch.zeros(1, 100, 32)
    assert polyglot._append_silence(states).device.type == "cpu"
    for moved in (states.to("meta"), states.double()):
        with_tail = polyglot._append_silence(moved)
        assert (with_tail.device, with_tail.dtype) == (moved.device, moved.dtype)
        assert with_tail.shape[1] > moved.shape[1]
        if moved.device.type == "cpu":
            layers = copy.deepcopy(polyglot).model.to(moved.dtype)
            monkeypatch.setattr(polyglot, "model", layers)
            for keys, values in polyglot._keys_and_values(moved):
                assert keys.dtype == values.dtype == moved.dtype and keys.shape[2] == with_tail.shape[1]


# With tiny.en


@needs_whisper
def test_the_tokenizer_decodes_what_it_encodes_with_the_published_ids(whisper):
    text = " Dogs don't antidisestablishmentarianism, na\u00efve 1970s!"
    ids = whisper._tokenize(text[1:])
    assert whisper.tokenizer.decode(ids) == text
    assert ids[:4] == [21367, 836, 470, 1885]


@needs_whisper
def test_speech_is_transcribed_with_word_times(whisper, spoken):
    results = whisper([sound for _, sound, _ in spoken], "en")
    for (text, sound, _), result in zip(spoken, results, strict=True):
        assert result.reason is None
        assert -1.3 < result.confidence < 0
        true, recognized = set(normalized(text)), set(normalized(result.text))
        assert len(true & recognized) >= 0.7 * len(true)
        assert [entry["word"] for entry in result.words] == result.text.split()
        assert 0 <= result.words[0]["start"] < result.words[-1]["end"] <= len(sound) / 16_000


@needs_whisper
def test_a_clip_alone_and_in_a_batch_is_the_same(whisper, spoken):
    sounds = [sound for _, sound, _ in spoken] + [np.zeros(20_000, np.float32)]
    together = whisper(sounds, "en")
    for sound, result in zip(sounds, together, strict=True):
        alone = whisper([sound], "en")[0]
        assert (alone.text, alone.words, alone.reason) == (result.text, result.words, result.reason)


@needs_whisper
def test_given_words_are_aligned_where_they_are(whisper, spoken):
    results = whisper.align([sound for _, sound, _ in spoken], [text for text, _, _ in spoken])
    errors = []
    for (text, _, words), found in zip(spoken, results, strict=True):
        assert [entry["word"] for entry in found] == text.split()
        for entry, word in zip(found, words, strict=True):
            errors += [abs(entry["start"] - word.start), abs(entry["end"] - word.end)]
    assert np.median(errors) < 0.05


@needs_whisper
def test_a_long_clip_is_joined_from_itscut_into_pieces(whisper):
    synthesizer = Synthesizer()
    synthesizer.set_voice("en-us")
    sentences = [
        "The captain was friendly.",
        "My sister bought seven yellow flowers.",
        "Nobody answered the telephone yesterday.",
        "Winter mornings are very cold.",
        "The children played in the garden.",
        "A doctor looked at the old picture.",
    ]
    period, true = 6.0, []
    clip = np.zeros(int(len(sentences) * period * 16_000), np.float32)
    for k, sentence in enumerate(sentences):
        speech = synthesizer.speak(f"<speak>{sentence}</speak>", rate=150, volume=80)
        sound = load_audio(speech.samples, speech.rate)
        clip[int(k * period * 16_000) :][: len(sound)] = sound
        true += [k * period + word.start for word in speech.words]
    found = whisper.align([clip], [" ".join(sentences)])[0]
    assert [entry["word"] for entry in found] == " ".join(sentences).split()
    errors = np.abs(np.array([entry["start"] for entry in found]) - true)
    assert np.median(errors) < 0.06
    assert errors.max() < period
    assert whisper([clip], "en")[0].words[-1]["end"] > 5 * period


@needs_whisper
def test_a_sentence_that_is_said_eight_times_is_transcribed(whisper, spoken):
    text, sound, _ = spoken[0]
    result = whisper([np.tile(sound, 8)], "en")[0]
    assert result.reason is None
    assert 7 <= normalized(result.text).count("flowers") <= 9 and len(result.words) >= 7 * len(text.split())


@needs_whisper
def test_non_speech_gets_no_text(whisper):
    sounds = [sound for _, sound in nonspeech(seed=3) if len(sound) == 16_000][::4]
    results = whisper(sounds, "en")
    assert len(sounds) > 10
    assert [(r.text, r.words, r.reason, r.confidence) for r in results] == [(None, [], "no speech", None)] * len(
        sounds
    )


@needs_whisper
def test_unclear_english_is_left_out_unless_it_is_stated(whisper, spoken, monkeypatch):
    sound = spoken[0][1]
    monkeypatch.setattr(languages_msfser, "LEAST_CERTAINTY", 0.0)
    assert "not clearly English" in whisper([sound])[0].reason
    assert whisper([sound], "english")[0].text is not None
