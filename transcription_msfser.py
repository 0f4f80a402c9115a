"""Sound to text with the times of its words: Whisper of any size, heard at the clip's own length."""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from .audio_msfser import SAMPLING_RATE, load_audio
from .encoders_msfser import load_recognizer, whisper_states
from .feature_extraction_msfser import MsfSerFeatureExtractor

# Seconds: Whisper's window, and where a longer clip may be cut.
_LONGEST = 30.0
_EARLIEST_CUT = 20.0
_FRAME_SECONDS = 0.02
# The clip is followed by a second of silence or up to two, and by the states of the silence that ends 30 s.
_SILENCE_AFTER = 1.0
_REST_FRAMES = 500
# The heads look 80 ms behind a word's edges (median over the probe corpus's training part).
_LAG_FRAMES = 4
_FRAME = int(_FRAME_SECONDS * SAMPLING_RATE)
_MOST_TOGETHER = 16
# Fast speech has about 6 tokens a second; more are a loop.
_TOKENS_PER_SECOND = 10
# Languages written without spaces: each token that ends a character starts a new word.
_NO_SPACES = {"zh", "ja", "th", "lo", "my", "yue"}
# What counts as speech, as English, and as a loop: see MsfSerRecognizer.
_MOST_NO_SPEECH = 0.5
_LEAST_LOG_PROBABILITY = -1.3
_LEAST_ENGLISH = -0.8
_LEAST_FOCUS = 0.35
_LOOP_TOKENS = 8


@dataclass(frozen=True)
class Transcription:
    """What was said in a clip, or why nothing can be written.

    Args:
        text: The words with punctuation; `None` when absent.
        words: `{"word", "start", "end"}` in order, seconds from the start of the clip; the word keeps its punctuation.
            Empty without a text.
        reason: Why there is no text; `None` when there is one.
        confidence: Mean natural log probability of the tokens, at most 0; `None` when nothing was recognized.
    """

    text: str | None
    words: list[dict]
    reason: str | None
    confidence: float | None


@dataclass(frozen=True)
class DecodedClip:
    """A clip of at most 30 s as the decoder reads it."""

    tokens: list[int]
    language: str
    no_speech: float
    log_probability: float
    focus: float  # share of the attention that lies on each token's own frames
    starts: list[int]  # the frame at which each token starts, and that at which the last one ends


class MsfSerRecognizer:
    """Whisper with word times from its cross-attention.

    The encoder hears the clip and a second of silence or two, not 30 s. The decoder is also shown the states of the
    silence that ends a window of 30 s, without which it says short clips over and over. A text whose end repeats while
    attention is scattered is decoded again in the full window.

    **Non-speech.** A piece is taken for speech when Whisper's no-speech token has a probability under 0.5 and the
    tokens a mean log probability over -1.3, thresholds chosen on a third of the clips that follow. With tiny.en this
    took none of 1,616 English clips (acted, read, synthetic) for no speech, and none of 312 generated sounds without
    speech for speech (noises, hums, tones, music, impacts, noise and buzz in syllables, at three levels and six
    lengths). Singing, crowds and animals were not tried.

    **Other languages.** An English recognizer cannot say what is not English. When no language is stated, a text whose
    mean log probability is under -0.8 is left out. With tiny.en 4.5 % of 399 German clips got an English text all the
    same, and 0.4 % of the 1,616 English ones lost theirs. State the language wherever it is known.

    **Word times.** A word lies where the mean attention of the alignment heads is greatest, words in order and each
    with one frame of 20 ms or more, 80 ms earlier than the heads look, and without the quiet at its edges. The 80 ms
    were measured with tiny.en on synthetic speech; nothing is known of other sizes.

    Args:
        model: A whole Whisper with its generation config (special ids, alignment heads).
        tokenizer: Its tokenizer.

    Raises:
        ValueError: The generation config lists no alignment heads.
    """

    def __init__(self, model: WhisperForConditionalGeneration, tokenizer: PreTrainedTokenizerBase):
        self.ids = model.generation_config
        if not getattr(self.ids, "alignment_heads", None):
            raise ValueError(
                "The generation config lists no alignment_heads, which word times need: take the one of the published "
                "Whisper of this size."
            )
        # Other kinds of attention do not give their weights.
        model.set_attn_implementation("eager")
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.english_only = not getattr(self.ids, "is_multilingual", False)
        self._silence_states = None

    @classmethod
    def from_pretrained(
        cls, name: str = "openai/whisper-tiny.en", device: str | torch.device | None = None
    ) -> "MsfSerRecognizer":
        """Loads a recognizer from the Hub, its cache, a folder, or the installed package that carries tiny.en.

        Args:
            name: Hub name or folder of a Whisper of any size.
            device: Where it runs; the CPU by default.

        Raises:
            OSError: It is nowhere to be had; the sentence says what to install.
            ValueError: It is no Whisper, or has no alignment heads.
        """
        model, tokenizer = load_recognizer(name)
        return cls(model.to(device or "cpu"), tokenizer)

    def __call__(self, sounds: Sequence[np.ndarray], language: str | None = None) -> list[Transcription]:
        """Transcribes clips of any length; a clip's result does not depend on its neighbors.

        Args:
            sounds: `(samples,)` each, float in -1..1 at 16 kHz.
            language: What is spoken, as a code or an English name ("de", "german"). Without it a multilingual
                recognizer judges for itself, and an English one takes it for English.

        Returns:
            One transcription for each clip; `text` is `None` where there is no speech, or where the recognizer does
            not know the language.

        Raises:
            ValueError: A sound cannot be used (the sentence names the item), or the language is unknown.
        """
        sounds = _checked(sounds)
        code = language_code(language)
        if self.english_only and code not in (None, "en"):
            return [Transcription(None, [], "the recognizer knows only English", None)] * len(sounds)
        if code is not None and not self.english_only and f"<|{code}|>" not in self.ids.lang_to_id:
            raise ValueError(
                f"This recognizer does not know language={language!r}: take another one, or leave it out."
            )
        pieces = [list(_pieces(sound)) for sound in sounds]
        heard = iter(self._decode([samples for clip in pieces for _, samples in clip], code))
        clips = [[(start, samples, next(heard)) for start, samples in clip] for clip in pieces]
        return [self._transcription(clip, stated=code is not None) for clip in clips]

    def align(self, sounds: Sequence[np.ndarray], transcripts: Sequence[str]) -> list[list[dict]]:
        """Times of given words: the decoder is made to say them.

        Args:
            sounds: `(samples,)` each, float in -1..1 at 16 kHz.
            transcripts: What is said in each, in any language that the recognizer knows.

        Returns:
            For each clip `{"word", "start", "end"}` in order, one for each part of the transcript between spaces that
            has a letter or digit, in its spelling; none for an empty transcript.

        Raises:
            ValueError: A sound cannot be used, the numbers of sounds and transcripts differ, or a transcript is too
                long for its clip (the sentence names the item).
        """
        sounds = _checked(sounds)
        if len(sounds) != len(transcripts):
            raise ValueError(f"There are {len(sounds)} sounds and {len(transcripts)} transcripts: give one for each.")
        shares = []  # (item, offset in seconds, samples, words)
        for i, (sound, transcript) in enumerate(zip(sounds, transcripts, strict=True)):
            shares += [(i, *share) for share in self._shares(sound, transcript.split())]
        spelled = [[self._encode(word) for word in words] for *_, words in shares]
        tokens = [list(itertools.chain(*parts)) for parts in spelled]
        for (i, *_), ids in zip(shares, tokens, strict=True):
            if len(ids) > self._room():
                raise ValueError(f"The transcript of item {i} is too long for its sound: cut both into shorter clips.")
        results = [[] for _ in sounds]
        heard = self._decode([samples for _, _, samples, _ in shares], None, tokens)
        for (i, offset, samples, words), parts, reading in zip(shares, spelled, heard, strict=True):
            results[i] += _trimmed(self._given_words(words, parts, reading.starts), samples, offset)
        return results

    # Listening

    def _decode(
        self, sounds: list[np.ndarray], language: str | None, tokens: list[list[int]] | None = None
    ) -> list[DecodedClip]:
        """Reads clips of at most 30 s; given tokens are taken as said.

        Only clips with the same window are read together, so that none needs padding.
        """
        windows = [float(min(_LONGEST, math.ceil(len(sound) / SAMPLING_RATE + _SILENCE_AFTER))) for sound in sounds]
        results = self._decode_windows(windows, windows, sounds, language, tokens)
        again = [i for i, heard in enumerate(results) if tokens is None and _is_speech(heard) and _loops(heard)]
        lengths, loops = [windows[i] for i in again], [sounds[i] for i in again]
        full = self._decode_windows([_LONGEST] * len(again), lengths, loops, language, None)
        for i, heard in zip(again, full, strict=True):
            results[i] = heard
        return results

    def _decode_windows(
        self,
        windows: list[float],
        lengths: list[float],
        sounds: list[np.ndarray],
        language: str | None,
        tokens: list[list[int]] | None,
    ) -> list[DecodedClip]:
        """Reads clips in windows and with texts as long as `lengths` allow, both in seconds."""
        results = [None] * len(sounds)
        kinds = list(zip(windows, lengths, strict=True))
        for window, length in sorted(set(kinds)):
            alike = [i for i, other in enumerate(kinds) if other == (window, length)]
            for start in range(0, len(alike), _MOST_TOGETHER):
                batch = alike[start : start + _MOST_TOGETHER]
                given = None if tokens is None else [tokens[i] for i in batch]
                heard = self._decode_batch([sounds[i] for i in batch], window, length, language, given)
                for i, reading in zip(batch, heard, strict=True):
                    results[i] = reading
        return results

    @torch.no_grad()
    def _decode_batch(
        self,
        sounds: list[np.ndarray],
        window: float,
        length: float,
        language: str | None,
        tokens: list[list[int]] | None,
    ) -> list[DecodedClip]:
        states = self._append_silence(self._encoded(sounds, window))
        codes = [language] * len(sounds) if language is not None or self.english_only else self._languages(states)
        prompts = [self._prompt(code) for code in codes]
        if tokens is None:
            tokens = self._generate_tokens(states, codes, length)
        end = self.ids.eos_token_id
        longest = max(map(len, tokens))
        ids = [p + t + [end] * (longest - len(t)) for p, t in zip(prompts, tokens, strict=True)]
        decoded = self.model.model.decoder(
            input_ids=torch.tensor(ids, device=states.device), encoder_hidden_states=states, output_attentions=True
        )
        heads = [decoded.cross_attentions[layer][:, head] for layer, head in self.ids.alignment_heads]
        attention = torch.stack(heads).mean(0)  # (batch, tokens, frames)
        results = []
        for i, (said, code) in enumerate(zip(tokens, codes, strict=True)):
            first = len(prompts[i]) - 1  # the position that foretells the first token
            last = first + len(said)
            logits = self.model.proj_out(decoded.last_hidden_state[i, : last + 1]).log_softmax(-1)
            targets = torch.tensor([*said, end], device=logits.device)
            frames = max(1, math.ceil(len(sounds[i]) / _FRAME))
            # The position before a token is the one that looks at its sound.
            looks = attention[i, first : last + 1, :frames].cpu().double().numpy()
            looks = looks / looks.sum(1, keepdims=True)
            starts = monotonic_starts(looks)
            edges = [*starts, frames]
            focus = float(np.mean([looks[k, edges[k] : edges[k + 1]].sum() for k in range(len(said))] or [0.0]))
            results.append(
                DecodedClip(
                    tokens=said,
                    language=code or "en",
                    # As in Whisper's own code, the no-speech token stands before the one for no times.
                    no_speech=logits[0, self.ids.no_timestamps_token_id - 1].exp().item(),
                    log_probability=logits[first:].gather(1, targets[:, None]).mean().item(),
                    starts=[max(0, start - _LAG_FRAMES) for start in starts],
                    focus=focus,
                )
            )
        return results

    def _encoded(self, sounds: list[np.ndarray], window: float) -> torch.Tensor:
        """The encoder's states `(batch, window / 20 ms, size)`, with silence after each sound."""
        extract = MsfSerFeatureExtractor(
            kind="log_mel",
            feature_size=self.model.config.num_mel_bins,
            min_seconds=window,
            max_seconds=_LONGEST,
        )
        features = extract(list(sounds), SAMPLING_RATE, return_tensors="pt").to(self.model.device)
        states, _ = whisper_states(
            self.model.model.encoder, features["input_features"], features["attention_mask"].bool()
        )
        return states[-1]

    def _append_silence(self, states: torch.Tensor) -> torch.Tensor:
        """States followed by those of the silence that ends the 30 s on which Whisper was trained.

        Without them the decoder takes the end of a short window for a cut and says everything again. They hardly
        depend on the clip, so they are made once.
        """
        if self._silence_states is None:
            # Not digital silence alone: the features are scaled by the loudest moment.
            sound = np.zeros(int(_LONGEST * SAMPLING_RATE), np.float32)
            sound[:SAMPLING_RATE] = 0.05 * np.random.default_rng(0).standard_normal(SAMPLING_RATE)
            self._silence_states = self._encoded([sound], _LONGEST)
        rest = self._silence_states[:, max(states.shape[1], self._silence_states.shape[1] - _REST_FRAMES) :]
        return torch.cat([states, rest.expand(len(states), -1, -1)], dim=1)

    def _generate_tokens(self, states: torch.Tensor, codes: list[str | None], length: float) -> list[list[int]]:
        """The most probable tokens of each clip, without special ones."""
        options = {} if self.english_only else {"language": codes, "task": "transcribe"}
        end = self.ids.eos_token_id
        output = self.model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=torch.ones(states.shape[:2], dtype=torch.long, device=states.device),
            max_length=min(self._room(), int(_TOKENS_PER_SECOND * length)),
            **options,
        )
        rows = (row[: row.index(end)] if end in row else row for row in output.tolist())
        return [[token for token in row if token < end] for row in rows]

    def _languages(self, states: torch.Tensor) -> list[str]:
        ids = self.model.detect_language(encoder_outputs=BaseModelOutput(last_hidden_state=states)).tolist()
        codes = {index: token.strip("<|>") for token, index in self.ids.lang_to_id.items()}
        return [codes[index] for index in ids]

    def _prompt(self, code: str | None) -> list[int]:
        ids = [self.ids.decoder_start_token_id]
        if not self.english_only:
            ids += [self.ids.lang_to_id[f"<|{code}|>"], self.ids.task_to_id["transcribe"]]
        return [*ids, self.ids.no_timestamps_token_id]

    def _room(self) -> int:
        """How many tokens fit beside the prompt and the end."""
        return self.model.config.max_target_positions - 5

    def _encode(self, word: str) -> list[int]:
        """The tokens of a word after a space; none crosses a space."""
        return self.tokenizer(" " + word, add_special_tokens=False)["input_ids"]

    # Words

    def _words(self, heard: DecodedClip, spaced: bool) -> list[dict]:
        """Recognized words with their frames; punctuation belongs to the spelling, not to the time."""
        text = self.tokenizer.decode(heard.tokens)
        # Where the text of each token ends; half a character is none.
        ends = [len(self.tokenizer.decode(heard.tokens[: i + 1]).rstrip("\ufffd")) for i in range(len(heard.tokens))]
        words = []
        for start, end in _spans(text, None if spaced else ends):
            letters = [i for i in range(start, end) if text[i].isalnum()]
            if not letters:
                continue
            first = next(i for i, token_end in enumerate(ends) if token_end > letters[0])
            last = next(i for i, token_end in enumerate(ends) if token_end > letters[-1])
            words.append(
                {"word": text[start:end].strip(), "start": heard.starts[first], "end": heard.starts[last + 1]}
            )
        return words

    def _given_words(self, words: list[str], spelled: list[list[int]], starts: list[int]) -> list[dict]:
        """As [`_words`] for words whose tokens are known."""
        results, first = [], 0
        for word, ids in zip(words, spelled, strict=True):
            spoken = len(ids)
            while spoken > 1 and self._is_punctuation(ids[spoken - 1]):
                spoken -= 1
            if _plain(word):
                results.append({"word": word, "start": starts[first], "end": starts[first + spoken]})
            first += len(ids)
        return results

    def _is_punctuation(self, token: int) -> bool:
        # Half a character may be half a letter.
        return not any(sign.isalnum() or sign == "\ufffd" for sign in self.tokenizer.decode([token]))

    def _transcription(self, pieces: list[tuple[float, np.ndarray, DecodedClip]], stated: bool) -> Transcription:
        """A clip's text from its pieces; the first piece without text says why, if none has one."""
        texts, words, sure, reasons = [], [], [], []
        for offset, samples, heard in pieces:
            found = self._words(heard, heard.language not in _NO_SPACES)
            reason = self._why_not(heard, stated) if found else "no speech"
            if reason is not None:
                reasons.append(reason)
                continue
            texts.append(self.tokenizer.decode(heard.tokens).strip())
            words += _trimmed(found, samples, offset)
            sure.append((heard.log_probability, len(heard.tokens)))
        if not texts:
            return Transcription(None, [], reasons[0], None)
        confidence = float(np.average([p for p, _ in sure], weights=[n for _, n in sure]))
        return Transcription(" ".join(texts), words, None, confidence)

    def _why_not(self, heard: DecodedClip, stated: bool) -> str | None:
        """Why what was heard is not to be written, or `None`."""
        if not _is_speech(heard):
            return "no speech"
        if _loops(heard):
            return "the recognizer repeats itself"
        if self.english_only and not stated and heard.log_probability <= _LEAST_ENGLISH:
            return "not clearly English, and the recognizer knows only English"
        return None

    def _shares(self, sound: np.ndarray, words: list[str]) -> Iterator[tuple[float, np.ndarray, list[str]]]:
        """Pieces of at most 30 s with their offset and their share of the words."""
        pieces = list(_pieces(sound))
        cuts = [0] * len(pieces) + [len(words)]
        if len(pieces) > 1:
            # What is recognized in each piece shows where the given words divide.
            heard = self._decode([samples for _, samples in pieces], None)
            recognized = [self.tokenizer.decode(reading.tokens).split() for reading in heard]
            counts = np.cumsum([0, *map(len, recognized)])
            spoken = [_plain(word) for part in recognized for word in part]
            matches = SequenceMatcher(None, spoken, [_plain(word) for word in words], autojunk=False)
            blocks = matches.get_matching_blocks()
            for k in range(1, len(pieces)):
                cuts[k] = _across(blocks, int(counts[k]))
        for k, (offset, samples) in enumerate(pieces):
            if any(_plain(word) for word in words[cuts[k] : cuts[k + 1]]):
                yield offset, samples, words[cuts[k] : cuts[k + 1]]


def monotonic_starts(scores: np.ndarray) -> list[int]:
    """Divides frames among tokens in order so that the sum of scores is greatest.

    Each token gets one frame or more. Where there are fewer frames than tokens, tokens share them.

    Args:
        scores: `(tokens, frames)`.

    Returns:
        The first frame of each token, `(tokens,)`, not decreasing, the first one 0.
    """
    tokens, frames = scores.shape
    shares = math.ceil(tokens / frames)
    scores = np.repeat(scores, shares, axis=1)
    total = np.cumsum(scores, axis=1)
    best, entries = total[0], []
    for k in range(1, tokens):
        # Entering at frame j adds total[k, end] - total[k, j - 1] to what the tokens before have up to j - 1.
        gain = np.full(best.shape, -np.inf)
        gain[k:] = best[k - 1 : -1] - total[k, k - 1 : -1]
        reached = np.maximum.accumulate(gain)
        new = gain >= reached
        entries.append(np.maximum.accumulate(np.where(new, np.arange(len(gain)), 0)))
        best = reached + total[k]
    starts, frame = [], scores.shape[1] - 1
    for entry in reversed(entries):
        start = int(entry[frame])
        starts.append(start // shares)
        frame = start - 1
    return [0, *reversed(starts)]


def _is_speech(heard: DecodedClip) -> bool:
    return heard.no_speech < _MOST_NO_SPEECH and heard.log_probability > _LEAST_LOG_PROBABILITY


def _loops(heard: DecodedClip) -> bool:
    """Whether the end of the text repeats, and not because it was said so: attention is scattered."""
    tokens = heard.tokens
    return heard.focus < _LEAST_FOCUS and any(
        tokens[-length:-period] == tokens[period - length :]
        for period in range(1, len(tokens) // 2 + 1)
        if (length := max(2 * period, _LOOP_TOKENS)) <= len(tokens)
    )


def _trimmed(words: list[dict], samples: np.ndarray, offset: float) -> list[dict]:
    """Words in frames to words in seconds, without the quiet at their edges, one frame or more each."""
    sounding = _sounding(samples)
    result, before = [], 0
    for word in words:
        start = min(max(word["start"], before), len(sounding) - 1)
        end = max(word["end"], start + 1)
        inside = np.flatnonzero(sounding[start:end])
        if len(inside):
            start, end = start + int(inside[0]), start + int(inside[-1]) + 1
        before = end
        result.append(
            {
                "word": word["word"],
                "start": round(offset + start * _FRAME_SECONDS, 3),
                "end": round(offset + min(end * _FRAME_SECONDS, len(samples) / SAMPLING_RATE), 3),
            }
        )
    return result


def _sounding(samples: np.ndarray) -> np.ndarray:
    """Which frames of 20 ms are not quiet, `(frames,)`: within 35 dB of the loud ones."""
    level = _levels(samples, _FRAME)
    return level > np.quantile(level, 0.95) - 35.0


def _levels(samples: np.ndarray, length: int) -> np.ndarray:
    """Level of each frame in dB below full scale, `(frames,)`; the last frame may be shorter."""
    padded = np.pad(samples, (0, -len(samples) % length)).reshape(-1, length)
    return 10 * np.log10(np.square(padded, dtype=np.float64).mean(1) + 1e-12)


def _pieces(samples: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """A clip in pieces of at most 30 s with their offsets in seconds, cut at the quietest 0.2 s after 20 s."""
    offset = 0
    while len(samples) - offset > _LONGEST * SAMPLING_RATE:
        earliest = offset + int(_EARLIEST_CUT * SAMPLING_RATE)
        level = _levels(samples[earliest : offset + int(_LONGEST * SAMPLING_RATE)], _FRAME)
        smooth = np.convolve(10 ** (level / 10), np.ones(10), mode="valid")
        cut = earliest + (int(smooth.argmin()) + 5) * _FRAME
        yield offset / SAMPLING_RATE, samples[offset:cut]
        offset = cut
    yield offset / SAMPLING_RATE, samples[offset:]


def _spans(text: str, ends: list[int] | None) -> list[tuple[int, int]]:
    """Where words lie in a text: between spaces or, with the ends of the tokens, a token each."""
    if ends is None:
        return [match.span() for match in re.finditer(r"\S+", text)]
    edges = sorted({0, *ends, len(text)})
    spans = []
    for start, end in itertools.pairwise(edges):
        if spans and not any(map(str.isalnum, text[start:end])):
            spans[-1] = (spans[-1][0], end)  # punctuation
        else:
            spans.append((start, end))
    return spans


def _across(blocks: Sequence, index: int) -> int:
    """The place in the second sequence that corresponds to a place in the first one."""
    for block in blocks:
        if index <= block.a:
            return block.b
        if index <= block.a + block.size:
            return block.b + index - block.a
    return blocks[-1].b


def _plain(word: str) -> str:
    return "".join(filter(str.isalnum, word.lower()))


def _checked(sounds: Sequence[np.ndarray]) -> list[np.ndarray]:
    checked = []
    for i, sound in enumerate(sounds):
        try:
            checked.append(load_audio(sound, SAMPLING_RATE))
        except ValueError as error:
            raise ValueError(f"Audio item {i}: {error}") from error
    return checked


def language_code(language: str | None) -> str | None:
    """Whisper's code of a language.

    Args:
        language: A code ("de", "en-US") or an English name ("german"); `None` stays `None`.

    Raises:
        ValueError: Whisper knows no such language.
    """
    if language is None:
        return None
    name = language.lower()
    code = TO_LANGUAGE_CODE.get(name, re.split("[-_]", name)[0])
    if code not in LANGUAGES:
        raise ValueError(f"language={language!r} is none that Whisper knows: give a code such as 'en' or 'de'.")
    return code
