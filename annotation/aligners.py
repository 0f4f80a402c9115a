"""Times of the words of a given transcript: PocketSphinx for English, any CTC model of transformers for the rest."""

import itertools
import re
from collections.abc import Sequence

import numpy as np
import torch
from transformers import AutoModelForCTC, AutoTokenizer

from ..audio_msfser import SAMPLING_RATE, load_audio
from ..encoders_msfser import feature_settings
from ..feature_extraction_msfser import MsfSerFeatureExtractor

try:
    import pocketsphinx
except ImportError:  # needed by one of the aligners
    pocketsphinx = None


_SPHINX_FRAME_SECONDS = 0.01


class SphinxAligner:
    """English, on the CPU, with the acoustic model and the dictionary that come with PocketSphinx.

    Its search gives up on some clips, synthetic voices above all, and it does not know words outside its dictionary;
    the result for such clips is `None`.

    Raises:
        ImportError: PocketSphinx is not installed.
    """

    def __init__(self):
        if pocketsphinx is None:
            raise ImportError("Aligning English with PocketSphinx needs it: pip install pocketsphinx.")
        self._decoder = pocketsphinx.Decoder(samprate=SAMPLING_RATE, lm=None, loglevel="FATAL")

    def __call__(self, sounds: Sequence[np.ndarray], transcripts: Sequence[str]) -> list[list[dict] | None]:
        """See [`Aligner`]."""
        sounds = _checked(sounds, transcripts)
        return [self._align(sound, _words(text)) for sound, text in zip(sounds, transcripts, strict=True)]

    def _align(self, sound: np.ndarray, words: list[str]) -> list[dict] | None:
        if not words:
            return []
        # "well-known" is two words of the dictionary, "rock'n'roll." one of the user's.
        parts = [re.findall(r"[a-z0-9']*[a-z0-9][a-z0-9']*", word.lower().replace("\u2019", "'")) for word in words]
        spoken = [part for group in parts for part in group]
        if not all(parts) or any(self._decoder.lookup_word(part) is None for part in spoken):
            return None
        segments = self._search(sound, spoken)
        # An unfinished search gives only the beginning of the text.
        if [_without_variant(segment[0]) for segment in segments] != spoken:
            return None
        results, queue = [], iter(segments)
        for word, group in zip(words, parts, strict=True):
            mine = list(itertools.islice(queue, len(group)))
            start, end = mine[0][1] * _SPHINX_FRAME_SECONDS, (mine[-1][2] + 1) * _SPHINX_FRAME_SECONDS
            results.append(_entry(word, start, end, len(sound)))
        return results

    def _search(self, sound: np.ndarray, spoken: list[str]) -> list[tuple[str, int, int]]:
        """Words with their first and last frame, without pauses; empty where nothing was found."""
        pcm = (np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes()
        # Else the noise of one clip is taken out of the next.
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


class CtcAligner:
    """Any language for which there is a CTC model in transformers, such as a fine-tuned wav2vec 2.0.

    The best path of the transcript's letters through the model's frames (Viterbi). Letters that the model lacks
    are skipped; a word without any other takes the gap between its neighbors.

    Args:
        name: Hub name or folder.
        device: Where it runs; the CPU by default.

    Raises:
        OSError: It is nowhere to be had; the sentence says what to do.
        ValueError: It is no CTC model.
    """

    def __init__(self, name: str, device: str | torch.device | None = None):
        settings = feature_settings(name)
        if settings["kind"] != "waveform":
            raise ValueError(f"{name!r} is a Whisper, which is no CTC model: its own align() gives word times.")
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

    def __call__(self, sounds: Sequence[np.ndarray], transcripts: Sequence[str]) -> list[list[dict] | None]:
        """See [`Aligner`]; clip by clip, since many of these models answer differently beside padding."""
        sounds = _checked(sounds, transcripts)
        return [self._align(sound, _words(text)) for sound, text in zip(sounds, transcripts, strict=True)]

    def _align(self, sound: np.ndarray, words: list[str]) -> list[dict] | None:
        if not words:
            return []
        labels, owners = [], []  # the letters to be said, and whose each is (None: between words)
        for k, word in enumerate(words):
            ids = [self._letter(letter) for letter in word]
            ids = [index for index in ids if index is not None]
            if ids and labels and self._space is not None:
                labels.append(self._space)
                owners.append(None)
            labels += ids
            owners += [k] * len(ids)
        frames = None if not labels else ctc_path(self._log_probabilities(sound), labels, self._blank)
        if frames is None:
            return None
        seconds = self.model.config.inputs_to_logits_ratio / SAMPLING_RATE
        times: list[tuple[float, float] | None] = [None] * len(words)
        for (first, last), owner in zip(frames, owners, strict=True):
            if owner is not None:
                start = first * seconds if times[owner] is None else times[owner][0]
                times[owner] = (start, (last + 1) * seconds)
        filled = _filled(times, len(sound) / SAMPLING_RATE)
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
    """The most probable way in which a CTC model says some labels, all frames used (Viterbi; Graves et al. 2006).

    Args:
        log_probabilities: `(frames, classes)`, natural logarithms.
        labels: Classes in order, at least one, none of them the blank.
        blank: The class that says nothing.

    Returns:
        First and last frame of each label, or `None` where there are too few frames.
    """
    # Blanks may stand before, between and after the labels: states 0, 2, 4, ... are blanks.
    states = np.full(2 * len(labels) + 1, blank)
    states[1::2] = labels
    # A blank may be left out between different labels.
    may_skip = np.zeros(len(states), dtype=bool)
    may_skip[3::2] = states[3::2] != states[1:-2:2]
    emitted = log_probabilities[:, states]
    best = np.full(len(states), -np.inf)
    best[:2] = emitted[0, :2]
    steps = np.zeros(emitted.shape, dtype=np.int8)  # how many states lie between a frame's state and the last one's
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
    filled, before = [], 0.0
    for known, group in itertools.groupby(range(len(times)), key=lambda k: times[k] is not None):
        group = list(group)
        if known:
            filled += [times[k] for k in group]
            before = times[group[-1]][1]
        else:
            after = times[group[-1] + 1][0] if group[-1] + 1 < len(times) else end
            edges = np.linspace(before, max(before, after), len(group) + 1).tolist()
            filled += list(itertools.pairwise(edges))
    return filled


def _entry(word: str, start: float, end: float, samples: int) -> dict:
    length = samples / SAMPLING_RATE
    return {"word": word, "start": round(min(start, length), 3), "end": round(min(end, length), 3)}


def _words(transcript: str) -> list[str]:
    return [word for word in transcript.split() if any(map(str.isalnum, word))]


def _without_variant(word: str) -> str:
    """The dictionary counts further pronunciations: "the(2)"."""
    return re.sub(r"\(\d+\)$", "", word)


def _checked(sounds: Sequence[np.ndarray], transcripts: Sequence[str]) -> list[np.ndarray]:
    if len(sounds) != len(transcripts):
        raise ValueError(f"There are {len(sounds)} sounds and {len(transcripts)} transcripts: give one for each.")
    checked = []
    for i, sound in enumerate(sounds):
        try:
            checked.append(load_audio(sound, SAMPLING_RATE))
        except ValueError as error:
            raise ValueError(f"Audio item {i}: {error}") from error
    return checked
