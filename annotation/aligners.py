"""Word times of given transcripts: PocketSphinx for English, any CTC model of transformers for other languages."""

import abc
import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCTC, AutoTokenizer

from ..audio_msfser import SAMPLING_RATE
from ..encoders_msfser import feature_settings
from ..feature_extraction_msfser import MsfSerFeatureExtractor

try:
    import pocketsphinx
except ImportError:  # only SphinxAligner needs it
    pocketsphinx = None

_SPHINX_FRAME_SECONDS = 0.01
# The number of a pronunciation, as in "the(2)".
_VARIANT = re.compile(r"\(\d+\)$")


class _ClipByClip(abc.ABC):
    def __call__(self, sounds: Sequence[np.ndarray], transcripts: Sequence[str]) -> list[list[dict[str, Any]] | None]:
        """See [`Aligner`]; clip by clip, since many CTC models give other results with padding."""
        words = [[word for word in text.split() if any(map(str.isalnum, word))] for text in transcripts]
        return [self._align(*pair) if pair[1] else [] for pair in zip(sounds, words, strict=True)]

    @abc.abstractmethod
    def _align(self, sound: np.ndarray, words: list[str]) -> list[dict[str, Any]] | None:
        """The words, at least one, with their times; `None` where they are not found."""


class SphinxAligner(_ClipByClip):
    """Aligns English on the CPU, with the acoustic model and the dictionary of PocketSphinx.

    Its search fails on some clips, above all on synthetic voices, and it does not know words outside its dictionary;
    the result for such clips is `None`.

    Raises:
        ImportError: PocketSphinx is not installed.
    """

    def __init__(self) -> None:
        if pocketsphinx is None:
            raise ImportError("the aligner sphinx needs PocketSphinx: pip install pocketsphinx.")
        self._decoder = pocketsphinx.Decoder(samprate=SAMPLING_RATE, lm=None, loglevel="FATAL")

    def _align(self, sound: np.ndarray, words: list[str]) -> list[dict[str, Any]] | None:
        # "well-known" is two words of the dictionary, and one of the transcript.
        parts = [re.findall(r"[a-z0-9']*[a-z0-9][a-z0-9']*", word.lower().replace("\u2019", "'")) for word in words]
        spoken = [part for group in parts for part in group]
        if not all(parts) or any(self._decoder.lookup_word(part) is None for part in spoken):
            return None
        segments = self._search(sound, spoken)
        # An unfinished search finds only the beginning of the text.
        if [_VARIANT.sub("", segment[0]) for segment in segments] != spoken:
            return None
        results, queue = [], iter(segments)
        for word, group in zip(words, parts, strict=True):
            of_word = list(itertools.islice(queue, len(group)))
            start, end = of_word[0][1] * _SPHINX_FRAME_SECONDS, (of_word[-1][2] + 1) * _SPHINX_FRAME_SECONDS
            results.append(_entry(word, start, end, len(sound)))
        return results

    def _search(self, sound: np.ndarray, spoken: list[str]) -> list[tuple[str, int, int]]:
        """Words with their first and last frame, without pauses; empty if the search fails."""
        pcm = (np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes()
        # Otherwise the noise estimate of one clip is applied to the next.
        self._decoder.reinit_feat()
        self._decoder.set_align_text(" ".join(spoken))
        self._decoder.start_utt()
        try:
            self._decoder.process_raw(pcm, full_utt=True)
        finally:
            self._decoder.end_utt()
        if self._decoder.hyp() is None:
            return []
        found = [(segment.word, segment.start_frame, segment.end_frame) for segment in self._decoder.seg()]
        return [segment for segment in found if not segment[0].startswith(("<", "["))]


class CtcAligner(_ClipByClip):
    """Aligns any language for which there is a CTC model in transformers, such as a fine-tuned wav2vec 2.0.

    Finds the best path of the transcript's letters through the model's frames (Viterbi). Letters that the model lacks
    are skipped; a word that has no other letters fills the gap between its neighbors.

    Args:
        name: Hub name or folder.
        device: Where it runs; the CPU by default.

    Raises:
        OSError: The model is not available; the sentence says what to do.
        ValueError: It is not a CTC model.
    """

    def __init__(self, name: str, device: str | torch.device | None = None):
        settings = feature_settings(name)
        if settings["kind"] != "waveform":
            raise ValueError(
                f"{name!r} is a Whisper model, not a CTC model: give it as the recognizer, which aligns too."
            )
        self.model, report = AutoModelForCTC.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
        if report["missing_keys"]:
            raise ValueError(
                f"{name!r} has no trained CTC head: give a model that was fine-tuned to recognize speech."
            )
        self.model = self.model.eval().to(device or "cpu")
        tokenizer = AutoTokenizer.from_pretrained(name)
        self._letters = tokenizer.get_vocab()
        self._blank = tokenizer.pad_token_id
        self._space = self._letters.get(tokenizer.word_delimiter_token)
        self._extract = MsfSerFeatureExtractor(**settings, max_seconds=86_400.0)

    def _align(self, sound: np.ndarray, words: list[str]) -> list[dict[str, Any]] | None:
        labels: list[int] = []
        owners: list[int | None] = []  # the word of each label; None between words
        for k, word in enumerate(words):
            ids = [index for index in map(self._letter, word) if index is not None]
            if ids and labels and self._space is not None:
                labels.append(self._space)
                owners.append(None)
            labels += ids
            owners += [k] * len(ids)
        frames = None if not labels else ctc_path(self._log_probabilities(sound), labels, self._blank)
        if frames is None:
            return None
        seconds = self.model.config.inputs_to_logits_ratio / SAMPLING_RATE
        times: dict[int | None, tuple[float, float]] = {}
        for (first, last), owner in zip(frames, owners, strict=True):
            start, _ = times.get(owner, (first * seconds, 0.0))
            times[owner] = (start, (last + 1) * seconds)
        filled = _filled([times.get(k) for k in range(len(words))], len(sound) / SAMPLING_RATE)
        return [_entry(word, *time, len(sound)) for word, time in zip(words, filled, strict=True)]

    @torch.no_grad()
    def _log_probabilities(self, sound: np.ndarray) -> np.ndarray:
        """`(frames, letters)`."""
        values = self._extract(sound, SAMPLING_RATE, return_tensors="pt")["input_values"]
        return self.model(values.to(self.model.device)).logits[0].log_softmax(-1).cpu().numpy()

    def _letter(self, letter: str) -> int | None:
        # Models know one case or the other.
        forms = (letter, letter.upper(), letter.lower()) if letter.isalnum() or letter in "'-" else ()
        return next((self._letters[form] for form in forms if form in self._letters), None)


def ctc_path(log_probabilities: np.ndarray, labels: Sequence[int], blank: int) -> list[tuple[int, int]] | None:
    """The most probable path of labels through all frames of a CTC model (Viterbi; Graves et al., 2006).

    Args:
        log_probabilities: `(frames, classes)`, natural logarithms.
        labels: Classes in order, at least one, none of them the blank.
        blank: The class of no label.

    Returns:
        First and last frame of each label, or `None` if there are too few frames.
    """
    # Blanks are possible before, between and after the labels: states 0, 2, 4, ... are blanks.
    states = np.full(2 * len(labels) + 1, blank)
    states[1::2] = labels
    # The blank between different labels may be skipped.
    may_skip = np.zeros(len(states), dtype=bool)
    may_skip[3::2] = states[3::2] != states[1:-2:2]
    emitted = log_probabilities[:, states]
    best = np.full(len(states), -np.inf)
    best[:2] = emitted[0, :2]
    steps = np.zeros(emitted.shape, dtype=np.int8)  # by how many states a frame's state is after the previous one's
    for frame in range(1, len(emitted)):
        ways = np.full((3, len(states)), -np.inf)
        ways[0] = best
        ways[1, 1:] = best[:-1]
        ways[2, 2:] = np.where(may_skip[2:], best[:-2], -np.inf)
        steps[frame] = ways.argmax(0)
        best = ways.max(0) + emitted[frame]
    state = len(states) - 1 if best[-1] >= best[-2] else len(states) - 2
    if not np.isfinite(best[state]):
        return None
    path = np.empty(len(emitted), dtype=int)
    for frame in range(len(emitted) - 1, -1, -1):
        path[frame] = state
        state -= steps[frame, state]
    where = [np.flatnonzero(path == 2 * k + 1) for k in range(len(labels))]
    return [(int(frames[0]), int(frames[-1])) for frames in where]


def _filled(times: list[tuple[float, float] | None], end: float) -> list[tuple[float, float]]:
    """Words without a time share the gap between their neighbors evenly."""
    filled: list[tuple[float, float]] = []
    gap = 0
    for time in (*times, (end, end)):
        if time is None:
            gap += 1
            continue
        before = filled[-1][1] if filled else 0.0
        filled += itertools.pairwise(np.linspace(before, max(before, time[0]), gap + 1).tolist())
        filled.append(time)
        gap = 0
    return filled[:-1]


def _entry(word: str, start: float, end: float, samples: int) -> dict[str, Any]:
    length = samples / SAMPLING_RATE
    return {"word": word, "start": round(min(start, length), 3), "end": round(min(end, length), 3)}
