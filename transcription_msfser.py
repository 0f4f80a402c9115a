"""Sound to text with the times of its words, by Whisper of any size at the length of the clip."""

import copy
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from .audio_msfser import SAMPLING_RATE
from .decoded_clip_msfser import DecodedClip
from .decoder_msfser import KeysAndValues, MsfSerDecoder, sound_keys_and_values
from .encoders_msfser import cast, load_recognizer, whisper_states
from .fast_encoders_msfser import speed_up
from .fast_products_msfser import check_precision, in_precision
from .feature_extraction_msfser import MsfSerFeatureExtractor
from .greedy_msfser import DecodedText, SoundToRead, given_text, most_probable_texts
from .inputs_msfser import batches
from .languages_msfser import is_surely_english, language_code
from .word_times_msfser import (
    FRAME,
    LONGEST,
    cut_into_pieces,
    has_no_spaces,
    join_words,
    letters_of,
    matching_index,
    quietest_cut,
    tokens_of,
    trim_quiet_edges,
    word_spans,
    words_of,
)

# The clip is followed by one or two seconds of silence, and by the states of the silence at the end of 30 s.
_SILENCE_AFTER = 1.0
_REST_FRAMES = 500
_BATCH_SIZE = 16
# Tokens of the longest prompt, and the end.
_PROMPT = 5
# Fast speech has about 6 tokens a second; more are a loop.
_TOKENS_PER_SECOND = 10
# What a tokenizer decodes an incomplete character as.
_INCOMPLETE = "\ufffd"
# Seconds: a shorter clip is not divided to find out whether its repeated text was spoken so.
_SHORTEST_TO_HALVE = 1.0

# A part of a clip: its offset in seconds, its samples, and the decoder's output for it.
Piece = tuple[float, np.ndarray, "DecodedClip"]


@dataclass(frozen=True)
class Transcription:
    """The text of a clip, or the reason why there is none."""

    text: str | None  # with punctuation
    words: list[dict[str, Any]]  # `{"word", "start", "end"}` with punctuation, in seconds; empty without a text
    reason: str | None
    confidence: float | None  # mean natural log probability of the tokens, at most 0
    language: str | None = None  # code of that of the text, stated or detected


class MsfSerRecognizer:
    """Whisper with word times from its cross-attention.

    The encoder's input is the clip, brought to one level, and one or two seconds of silence, not 30 s. The decoder
    also attends to the states of the silence that ends a window of 30 s, without which it repeats the text of short
    clips. A text whose end repeats while the attention is scattered is stopped and decoded again in the full window,
    and then in halves: it is a loop of the decoder unless each half, cut at a pause, has most of what is repeated.

    **Non-speech.** A piece counts as speech if Whisper's no-speech token has a probability under 0.5 and the tokens a
    mean log probability over -1.3; the thresholds were chosen on a third of the clips of `benchmarks/recognition.py`.
    Singing, crowds and animals were not tried.

    **Other languages.** An English recognizer writes English words for any language, but is unsure of them. If no
    language is stated, a text of which it is not sure enough ([`is_surely_english`]) is left out. Some foreign speech
    still gets an English text, and some unclear English none, so state the language wherever it is known.
    `docs/recognition.md` has the error rates.

    **Word times.** A word lies where the mean attention of the alignment heads is greatest, with the words in order
    and at least one frame of 20 ms each. It is moved 80 ms earlier, as the attention lags (measured with tiny.en on
    synthetic speech only), and quiet edges are cut off.

    Args:
        model: A complete Whisper with its generation config (special ids, alignment heads). Its layers are replaced by
            faster ones, in place.
        tokenizer: Its tokenizer.
        precision: `"float32"`, or `"bfloat16"`, which is faster for many sounds at once on a CPU with AVX512-BF16 or
            AMX; a single sound gains little or becomes slower, depending on the CPU. The choice of a word stays in
            float32, but some texts change.

    Raises:
        ValueError: The generation config lists no alignment heads, there is no such precision, or the weights are not
            in float32 and another one is asked for.
    """

    def __init__(
        self, model: WhisperForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, precision: str = "float32"
    ):
        check_precision(precision)
        if precision != "float32" and model.dtype != torch.float32:
            raise ValueError(f"The recognizer has weights in {model.dtype}, and precision= needs weights in float32.")
        self.ids: Any = model.generation_config
        if not getattr(self.ids, "alignment_heads", None):
            raise ValueError(
                "The generation config lists no alignment_heads, which word times need: use the one of the published "
                "Whisper of this size."
            )
        self.model: Any = speed_up(model.eval())
        self.precision = precision
        self.tokenizer: Any = tokenizer
        self.english_only = not getattr(self.ids, "is_multilingual", False)
        self._silence: tuple[torch.Tensor, KeysAndValues] | None = None
        self._hop: float | None = None  # seconds to the next clip, if clips overlap
        self._guess: list[int] = []  # its tokens, by the clip before

    @classmethod
    def from_pretrained(
        cls,
        name: str = "openai/whisper-tiny.en",
        device: str | torch.device | None = None,
        precision: str = "float32",
    ) -> "MsfSerRecognizer":
        """Loads a Whisper of any size by its Hub name or folder; by default it runs on the CPU.

        Raises:
            OSError: It cannot be found; the message names the remedy.
            ValueError: It is not a Whisper, or has no alignment heads, or there is no such precision.
        """
        model, tokenizer = load_recognizer(name)
        return cls(model.to(device or "cpu"), tokenizer, precision)  # type: ignore[arg-type]

    def following(self, hop: float) -> "MsfSerRecognizer":
        """The same recognizer for windows of a stream, each usually so many seconds after the one before.

        It guesses that a window has words of the one before it, and checks several tokens at once: the same texts, but
        for rounding, in less time. A wrong guess only costs time.
        """
        other = copy.copy(self)
        other._hop = hop
        return other

    def __call__(self, sounds: Sequence[np.ndarray], language: str | None = None) -> list[Transcription]:
        """Transcribes clips of any length; a clip's result does not depend on the others, but for rounding.

        The sounds are `(samples,)` each, float32 in -1..1 at 16 kHz, not empty, from [`load_audio`]. The language is a
        code or an English name ("de", "german"); without it a multilingual recognizer detects the language, and an
        English one assumes English.

        Returns:
            One transcription for each clip; `text` is `None` if there is no speech or the recognizer does not know
            the language.

        Raises:
            ValueError: The language is unknown.
        """
        code = language_code(language)
        if self.english_only and code not in (None, "en"):
            return [Transcription(None, [], "the recognizer knows only English", None)] * len(sounds)
        if code is not None and not self.english_only and not self._knows(code):
            raise ValueError(
                f"This recognizer does not know language={language!r}: use another recognizer, or leave it out."
            )
        return [self._transcription(clip, stated=code is not None) for clip in self.decode(sounds, code)]

    def decode(self, sounds: Sequence[np.ndarray], code: str | None = None) -> list[list[Piece]]:
        """The pieces of each clip with the decoder's output, whether or not it becomes a text ([`why_rejected`]).

        Sounds are as in `__call__`; the code of the language is one that the recognizer knows.
        """
        pieces = [list(cut_into_pieces(sound)) for sound in sounds]
        sounds = [samples for clip in pieces for _, samples in clip]
        decoded = iter(self._decode(sounds, [code] * len(sounds)))
        clips = [[(offset, samples, next(decoded)) for offset, samples in clip] for clip in pieces]
        parts = iter(self._spoken_repetitions([piece for clip in clips for piece in clip]))
        return [[part for _ in clip for part in next(parts)] for clip in clips]

    def align(
        self, sounds: Sequence[np.ndarray], transcripts: Sequence[str], languages: Sequence[str | None] | None = None
    ) -> list[list[dict[str, Any]]]:
        """Finds the times of given words, in any language that the recognizer knows, by feeding them to the decoder.

        Sounds and languages are as in `__call__`, the latter one for each sound; where none is stated, or the
        recognizer does not know it, a multilingual one detects it.

        Returns:
            For each clip `{"word", "start", "end"}` in order, one for each part of the transcript between spaces that
            has a letter or digit, in its spelling; in scripts without spaces, one for each letter. None for an empty
            transcript.

        Raises:
            ValueError: The numbers of sounds, transcripts and languages differ, a language is unknown, or a transcript
                is too long for its clip (the message names the item).
        """
        languages = [None] * len(sounds) if languages is None else languages
        if not len(sounds) == len(transcripts) == len(languages):
            raise ValueError(
                f"There are {len(sounds)} sounds, {len(transcripts)} transcripts and {len(languages)} languages: give "
                "one for each."
            )
        codes = [code if self._knows(code) else None for code in map(language_code, languages)]
        shares = []  # (item, offset in seconds, samples, words)
        for i, (sound, transcript) in enumerate(zip(sounds, transcripts, strict=True)):
            shares += [(i, *share) for share in self._shares(sound, words_of(transcript), codes[i])]
        spelled = [[self._tokenize(word) for word in words] for *_, words in shares]
        tokens = [list(itertools.chain(*parts)) for parts in spelled]
        for (i, *_), ids in zip(shares, tokens, strict=True):
            if len(ids) > self._room():
                raise ValueError(f"The transcript of item {i} is too long for its sound: cut both into shorter clips.")
        results: list[list[dict[str, Any]]] = [[] for _ in sounds]
        decoded = self._decode([samples for _, _, samples, _ in shares], [codes[i] for i, *_ in shares], tokens)
        for (i, offset, samples, words), parts, clip in zip(shares, spelled, decoded, strict=True):
            results[i] += trim_quiet_edges(self._given_words(words, parts, clip.starts), samples, offset)
        return results

    # Decoding

    def _spoken_repetitions(self, pieces: Sequence[Piece]) -> list[list[Piece]]:
        """Each piece, or its halves if its text repeats and each half, decoded alone, has most of what is repeated.

        Attention scatters over sentences that are spoken several times as it does in a loop.
        """
        parts = [[piece] for piece in pieces]
        # What is repeated, by the number of the piece.
        repeating: dict[int, set[str]] = {}
        halves = []
        for i, (offset, samples, clip) in enumerate(pieces):
            if clip.period is not None and clip.is_speech and len(samples) >= _SHORTEST_TO_HALVE * SAMPLING_RATE:
                repeating[i] = self._letters(self.tokenizer.decode(clip.tokens[-clip.period :]))
                cut = quietest_cut(samples, len(samples) // 3, 2 * len(samples) // 3)
                halves += [(offset, samples[:cut]), (offset + cut / SAMPLING_RATE, samples[cut:])]
        if not repeating:
            return parts
        languages = [pieces[i][2].language for i in repeating for _ in range(2)]
        decoded = self._decode([samples for _, samples in halves], languages)
        of_halves = iter(self._spoken_repetitions([(*half, clip) for half, clip in zip(halves, decoded, strict=True)]))
        for i, repeated in repeating.items():
            both = [next(of_halves), next(of_halves)]
            if all(self._has_most(half, repeated) for half in both):
                parts[i] = [part for half in both for part in half]
        return parts

    def _has_most(self, half: Sequence[Piece], repeated: set[str]) -> bool:
        """Whether all parts of a half have texts, with most of the words that are repeated."""
        spoken = set().union(*(self._letters(self._text(part)) for _, _, part in half))
        is_text = all(part.is_speech and not part.loops for _, _, part in half)
        return is_text and 2 * len(repeated & spoken) >= len(repeated)

    def _letters(self, text: str) -> set[str]:
        return {letters_of(word) for word in words_of(text)}

    def _decode(
        self, sounds: list[np.ndarray], languages: Sequence[str | None], tokens: list[list[int]] | None = None
    ) -> list[DecodedClip]:
        """Decodes clips of at most 30 s, with their languages where known; given tokens replace generated ones."""
        lengths = [float(min(LONGEST, math.ceil(len(sound) / SAMPLING_RATE + _SILENCE_AFTER))) for sound in sounds]
        # Long texts start first, so that few are left at the end.
        order = sorted(range(len(sounds)), key=lengths.__getitem__, reverse=True)
        with in_precision(self.precision, self.model.device):
            results = self._decode_in_windows(sounds, lengths, lengths, order, languages, tokens)
            if tokens is None:
                loops = [i for i in order if results[i].is_speech and results[i].loops]
                windows = [LONGEST] * len(sounds)
                results |= self._decode_in_windows(sounds, windows, lengths, loops, languages, None)
        return [results[i] for i in range(len(sounds))]

    @torch.no_grad()
    def _decode_in_windows(
        self,
        sounds: Sequence[np.ndarray],
        windows: Sequence[float],
        lengths: Sequence[float],
        order: Sequence[int],
        languages: Sequence[str | None],
        tokens: Sequence[list[int]] | None,
    ) -> dict[int, DecodedClip]:
        """Decodes some clips, each in a window, with a text as long as `lengths` allow, both in seconds.

        Clips of the same window, which are neighbors in the order, are encoded together, so that none needs padding.
        """
        if not order:
            return {}
        codes: dict[int, str | None] = {}
        most = {i: min(self._room(), int(_TOKENS_PER_SECOND * lengths[i])) for i in order}

        def to_read() -> Iterator[SoundToRead]:
            for window, alike in itertools.groupby(order, windows.__getitem__):
                for batch in batches(alike, _BATCH_SIZE):
                    states = self._encode([sounds[i] for i in batch], window)
                    codes.update(zip(batch, self._codes(states, [languages[i] for i in batch]), strict=True))
                    for row, i in enumerate(batch):
                        sound = self._keys_and_values(states[row : row + 1])
                        yield SoundToRead(sound, self._prompt(codes[i]), most[i])

        def is_loop(number: int, text: DecodedText) -> bool:
            i = order[number]
            return DecodedClip.from_text(text, len(sounds[i]), codes[i]).loops

        rows = min(_BATCH_SIZE, len(order)) if tokens is None else 1
        seconds = min(LONGEST, max(windows[i] for i in order) + _REST_FRAMES * FRAME / SAMPLING_RATE)
        longest = max(most.values()) if tokens is None else max(map(len, tokens))
        decoder = MsfSerDecoder(self.model, rows, round(seconds * SAMPLING_RATE / FRAME), longest + _PROMPT)
        if tokens is None:
            texts = most_probable_texts(decoder, to_read(), is_loop, self._guess)
        else:
            texts = [given_text(decoder, sound, tokens[i]) for i, sound in zip(order, to_read(), strict=True)]
        clips = {
            i: DecodedClip.from_text(text, len(sounds[i]), codes[i]) for i, text in zip(order, texts, strict=True)
        }
        if self._hop is not None:
            last = clips[max(order)]
            started = zip(last.tokens, last.starts, strict=False)
            self._guess = [token for token, start in started if start * FRAME >= self._hop * SAMPLING_RATE]
        return clips

    def _encode(self, sounds: list[np.ndarray], window: float) -> torch.Tensor:
        """The encoder's states `(batch, window / 20 ms, size)`, with silence after each sound.

        All sounds are brought to one level: otherwise a louder recording of the same speech may give other words.
        """
        extract = MsfSerFeatureExtractor(
            kind="log_mel",
            feature_size=self.model.config.num_mel_bins,
            normalize_level=True,
            min_seconds=window,
            max_seconds=LONGEST,
        )
        features = extract(sounds, SAMPLING_RATE, return_tensors="pt").to(self.model.device)
        encoder = self.model.model.encoder
        states, _ = whisper_states(
            encoder, cast(features["input_features"], encoder), features["attention_mask"].bool()
        )
        return states[-1]

    @torch.no_grad()
    def _silent_end(self) -> tuple[torch.Tensor, KeysAndValues]:
        """The states of the silence at the end of 30 s, `(1, frames, size)`, and what the decoder attends to in them.

        Whisper was trained on clips that end so. Without the silence the decoder treats the end of a short window as a
        cut and repeats the text. Its states hardly depend on the clip, so they are computed once.
        """
        if self._silence is None:
            # Not only digital silence: the features are scaled by the loudest moment.
            sound = np.zeros(int(LONGEST * SAMPLING_RATE), np.float32)
            sound[:SAMPLING_RATE] = 0.05 * np.random.default_rng(0).standard_normal(SAMPLING_RATE)
            states = self._encode([sound], LONGEST)[:, -_REST_FRAMES:]
            self._silence = states, sound_keys_and_values(self.model, states)
        return self._silence

    def _append_silence(self, states: torch.Tensor) -> torch.Tensor:
        """Appends the states of the silent end."""
        rest = self._silent_end()[0][:, _first_rest(states) :]
        return torch.cat([states, rest.to(states).expand(len(states), -1, -1)], dim=1)

    def _keys_and_values(self, states: torch.Tensor) -> KeysAndValues:
        """What the decoder attends to in sounds and the silent end."""
        _, of_silence = self._silent_end()
        first = _first_rest(states)

        def joined(part: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
            return torch.cat([part, end[:, :, first:].to(part).expand(len(part), -1, -1, -1)], dim=2)

        of_sound = sound_keys_and_values(self.model, states)
        return [
            (joined(keys, silent_keys), joined(values, silent_values))
            for (keys, values), (silent_keys, silent_values) in zip(of_sound, of_silence, strict=True)
        ]

    def _codes(self, states: torch.Tensor, languages: Sequence[str | None]) -> list[str | None]:
        """The language of each clip, which may be known; an English recognizer detects none."""
        if self.english_only or None not in languages:
            return [*languages]
        detected = self._languages(self._append_silence(states))
        return [known or code for known, code in zip(languages, detected, strict=True)]

    def _languages(self, states: torch.Tensor) -> list[str]:
        # As the choice of a word, in the precision of the weights.
        with torch.autocast(states.device.type, enabled=False):
            output = BaseModelOutput(last_hidden_state=states.to(self.model.dtype))
            ids = self.model.detect_language(encoder_outputs=output).tolist()
        codes = {index: token.strip("<|>") for token, index in self.ids.lang_to_id.items()}
        return [codes[index] for index in ids]

    def _knows(self, code: str | None) -> bool:
        """Whether a multilingual recognizer has a token for a language."""
        return not self.english_only and f"<|{code}|>" in self.ids.lang_to_id

    def _prompt(self, code: str | None) -> list[int]:
        ids = [self.ids.decoder_start_token_id]
        if not self.english_only:
            ids += [self.ids.lang_to_id[f"<|{code}|>"], self.ids.task_to_id["transcribe"]]
        return [*ids, self.ids.no_timestamps_token_id]

    def _room(self) -> int:
        """How many tokens fit in addition to the prompt and the end."""
        return int(self.model.config.max_target_positions) - _PROMPT

    def _tokenize(self, word: str) -> list[int]:
        """The tokens of a word after a space, or without one in scripts without spaces; none crosses words."""
        text = word if has_no_spaces(word) else f" {word}"
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    # Words

    def _token_ends(self, tokens: Sequence[int]) -> tuple[list[int], list[bool]]:
        """Where the complete characters end after each token, and whether an incomplete one follows."""
        decoded = [self.tokenizer.decode(tokens[: i + 1]) for i in range(len(tokens))]
        ends = [len(text.rstrip(_INCOMPLETE)) for text in decoded]
        return ends, [len(text) > end for text, end in zip(decoded, ends, strict=True)]

    def _words(self, clip: DecodedClip) -> list[dict[str, Any]]:
        """Recognized words with their frames."""
        text = self.tokenizer.decode(clip.tokens)
        ends, is_incomplete = self._token_ends(clip.tokens)
        words = []
        for start, end in word_spans(text, ends):
            tokens = tokens_of(text, start, end, ends, is_incomplete)
            if tokens is not None:
                spelling = text[start:end].replace(_INCOMPLETE, "")
                words.append({"word": spelling, "start": clip.starts[tokens[0]], "end": clip.starts[tokens[1]]})
        return words

    def _given_words(self, words: list[str], spelled: list[list[int]], starts: list[int]) -> list[dict[str, Any]]:
        """As [`_words`] for words whose tokens are known."""
        results, first = [], 0
        for word, ids in zip(words, spelled, strict=True):
            text = self.tokenizer.decode(ids)
            # A tokenizer may not know the letters.
            tokens = tokens_of(text, 0, len(text), *self._token_ends(ids)) or (0, len(ids))
            if letters_of(word):
                results.append({"word": word, "start": starts[first + tokens[0]], "end": starts[first + tokens[1]]})
            first += len(ids)
        return results

    def _text(self, clip: DecodedClip) -> str:
        """The recognized text; a character that is cut off at the end is left out."""
        return str(self.tokenizer.decode(clip.tokens)).replace(_INCOMPLETE, "").strip()

    def _transcription(self, pieces: list[Piece], stated: bool) -> Transcription:
        """The text of a clip from its pieces; if none has a text, the reason is that of the first piece."""
        texts, words, confidences, reasons = [], [], [], []
        said: Counter[str] = Counter()  # tokens in each language
        for offset, samples, clip in pieces:
            reason = self.why_rejected(clip, stated)
            if reason is not None:
                reasons.append(reason)
                continue
            texts.append(self._text(clip))
            words += trim_quiet_edges(self._words(clip), samples, offset)
            confidences.append((clip.log_probability, len(clip.tokens)))
            said[clip.language] += len(clip.tokens)
        if not texts:
            return Transcription(None, [], reasons[0], None)
        confidence = float(np.average([p for p, _ in confidences], weights=[n for _, n in confidences]))
        return Transcription(join_words(texts), words, None, confidence, said.most_common(1)[0][0])

    def why_rejected(self, clip: DecodedClip, stated: bool) -> str | None:
        """Why the decoder's output is no text; `None` if it is one. The language may be stated."""
        if not clip.is_speech or not letters_of(self._text(clip)):
            return "no speech"
        if clip.loops:
            return "the recognizer repeats itself"
        if self.english_only and not (stated or is_surely_english(clip.log_probability, clip.entropy)):
            return "not clearly English, and the recognizer knows only English"
        return None

    def _shares(
        self, sound: np.ndarray, words: list[str], code: str | None
    ) -> Iterator[tuple[float, np.ndarray, list[str]]]:
        """Pieces of at most 30 s with their offset and their share of the words, in a language that may be known."""
        pieces = list(cut_into_pieces(sound))
        cuts = [0] * len(pieces) + [len(words)]
        if len(pieces) > 1:
            # The words recognized in each piece show where to divide the given ones.
            decoded = self._decode([samples for _, samples in pieces], [code] * len(pieces))
            recognized = [words_of(self._text(clip)) for clip in decoded]
            counts = np.cumsum([0, *map(len, recognized)])
            found, given = ([letters_of(word) for word in part] for part in (itertools.chain(*recognized), words))
            blocks = SequenceMatcher(None, found, given, autojunk=False).get_matching_blocks()
            for k in range(1, len(pieces)):
                cuts[k] = matching_index(blocks, int(counts[k]))
        for k, (offset, samples) in enumerate(pieces):
            if any(letters_of(word) for word in words[cuts[k] : cuts[k + 1]]):
                yield offset, samples, words[cuts[k] : cuts[k + 1]]


def _first_rest(states: torch.Tensor) -> int:
    """From which frame on the states of the silent end follow those of a clip, so that both have at most 30 s."""
    return max(0, states.shape[1] + _REST_FRAMES - int(LONGEST * SAMPLING_RATE / FRAME))
