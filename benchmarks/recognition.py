"""How well the offline recognizer works: words, their times, and whether there is speech at all.

    python -m msfser.benchmarks.recognition --plain FOLDER

prints and writes `benchmarks/results/recognition.json`, each figure with its 95 % interval. The folder holds
`metadata.csv` (`file_name`, `transcription`) and `words.csv` (`file_name`, `word`, `start_s`, `end_s`) of English
speech. More clips come with `--speech FOLDER ...` (English, `metadata.csv` alone); the probe corpus and sounds without
speech are generated. English is stated as the language; what happens where none is stated is measured in `english.py`.

| row | meaning |
|---|---|
| `plain/wer` | word errors over words; lower case, no punctuation |
| `plain/median_time_error` | seconds, over starts and ends of recognized words matched to reference words: the median
over the clips in `words.csv` of their medians; the interval is over these clips, whose number is in the row |
| `plain/aligned_median_time_error_attention`, `..._sphinx` | the same with the reference words given |
| `validation/stressed_words` | share of the probe's stressed words that are in the transcript |
| `speech/false_reject` | share of English clips (plain, probe, `--speech`) classified as no speech |
| `nonspeech/false_accept` | share of generated sounds without speech classified as speech |
| `nonspeech/KIND/...` | the same of one kind of sound |
| `bfloat16/...` | five of these in bfloat16, where the CPU has it |
| `bfloat16/changed_words` | words that it changes, over those that float32 recognizes in English clips |
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pandas as pd
from tqdm import tqdm

from ..annotation.aligners import SphinxAligner
from ..audio_msfser import SAMPLING_RATE, load_audio
from ..corpora.probe.corpus import make_probe
from ..evaluation.intervals import interval, median_interval, resampled_units, share_interval
from ..evaluation.results import Row, row
from ..fast_products_msfser import has_bfloat16
from ..transcription_msfser import MsfSerRecognizer, Transcription
from .command import load_recognizer, parser_of, record

_BATCH_SIZE = 32
_IN_BFLOAT16 = (
    "plain/wer",
    "plain/median_time_error",
    "validation/stressed_words",
    "speech/false_reject",
    "nonspeech/false_accept",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints and writes."""
    parser = parser_of("recognition", __doc__)
    parser.add_argument("--plain", type=Path, required=True, help="folder with metadata.csv and words.csv, English")
    parser.add_argument("--speech", type=Path, nargs="*", default=[], help="folders with metadata.csv, English")
    options = parser.parse_args(argv)
    needed = [options.plain / "words.csv"]
    needed += [folder / "metadata.csv" for folder in (options.plain, *options.speech)]
    if absent := [str(path) for path in needed if not path.is_file()]:
        parser.error(f"{', '.join(absent)}: there is no such file; name folders that have it.")
    rows, found = measure(load_recognizer(), options.plain, options.speech)
    if has_bfloat16():
        reduced, found_in_bfloat16 = measure(load_recognizer("bfloat16"), options.plain, options.speech)
        rows += [one | {"name": f"bfloat16/{one['name']}"} for one in reduced if one["name"] in _IN_BFLOAT16]
        texts = [(one.text, other.text or "") for one, other in zip(found, found_in_bfloat16, strict=True) if one.text]
        rows.append(word_error_row("bfloat16/changed_words", *zip(*texts, strict=True)))
    record("recognition", rows, "recognition", argv)


def measure(
    recognizer: MsfSerRecognizer, plain: Path, speech: Sequence[Path]
) -> tuple[list[Row], list[Transcription]]:
    """The rows of a recognizer, and what it recognized in the English clips."""
    rows = _plain_rows(recognizer, plain)
    folder = make_probe("data/probe")
    table = pd.read_parquet(folder / "metadata.parquet")
    table = table[table["split"] == "validation"]
    found = _transcribed(recognizer, [load_audio(folder / name) for name in table["audio"]])
    recognized = [
        normalized(item.words[item.stressed_word]["word"])[0] in normalized(result.text or "")
        for item, result in zip(table.itertuples(), found, strict=True)
    ]
    speakers: list[str | None] = [f"probe {speaker}" for speaker in table["speaker"]]
    rows.append(_share("validation/stressed_words", recognized, speakers))
    for path in (plain, *speech):
        found += _transcribed(recognizer, _sounds(path))
        speakers += _speakers(path)
    rows.append(_share("speech/false_reject", [result.reason == "no speech" for result in found], speakers))
    kinds, sounds = zip(*nonspeech(seed=0), strict=True)
    of_sounds = _transcribed(recognizer, sounds)
    for name in ("", *dict.fromkeys(kinds)):
        prefix = f"nonspeech/{name}/".replace("//", "/")
        of_kind = [result for result, kind in zip(of_sounds, kinds, strict=True) if name in ("", kind)]
        rows.append(_share(f"{prefix}false_accept", [result.reason != "no speech" for result in of_kind]))
    return rows, found


def normalized(text: str) -> list[str]:
    """Words in lower case without punctuation; numbers and spelling as they are."""
    return re.sub(r"[^\w\s']", " ", text.lower()).split()


def nonspeech(seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Sounds without speech: silence, noises, hums, tones, music, impacts, and sounds shaped like speech.

    Args:
        seed: Seed of the random sounds.

    Yields:
        18 kinds of 6 lengths (0.4 to 20 s) at peaks of -50, -30 and -6 dB (silence once), mono float32 at 16 kHz.
    """
    draw = np.random.default_rng(seed)
    for seconds in (0.4, 1.0, 2.5, 4.0, 8.0, 20.0):
        for name, sound in _kinds(seconds, draw).items():
            peak = np.abs(sound).max()
            if peak == 0:
                yield name, sound.astype(np.float32)
                continue
            for level in (-50, -30, -6):
                # The faint noise of a recorder.
                hiss = 1e-5 * draw.standard_normal(len(sound))
                yield name, (sound / peak * 10 ** (level / 20) + hiss).astype(np.float32)


def _kinds(seconds: float, draw: np.random.Generator) -> dict[str, np.ndarray]:
    time = np.arange(int(seconds * SAMPLING_RATE)) / SAMPLING_RATE

    def shaped(gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """White noise with a gain for each frequency in Hz."""
        frequency = np.fft.rfftfreq(len(time), 1 / SAMPLING_RATE)
        return np.fft.irfft(np.fft.rfft(draw.standard_normal(len(time))) * gain(frequency), len(time))

    def band(low: float, high: float) -> np.ndarray:
        return shaped(lambda frequency: (frequency >= low) & (frequency <= high))

    def impacts(rate: float, decay: float) -> np.ndarray:
        """Bursts of noise at random moments, `rate` a second, that fade in `decay` seconds."""
        sound = np.zeros(len(time))
        for start in draw.integers(0, len(time), max(1, int(rate * seconds))):
            tail = time[: min(len(time) - start, int(10 * decay * SAMPLING_RATE))]
            sound[start : start + len(tail)] += (
                draw.standard_normal(len(tail)) * np.exp(-tail / decay) * draw.uniform(0.3, 1)
            )
        return sound

    def sine(frequency: float | np.ndarray) -> np.ndarray:
        return np.sin(2 * np.pi * np.cumsum(np.broadcast_to(frequency, time.shape)) / SAMPLING_RATE)

    def buzz(frequency: float | np.ndarray) -> np.ndarray:
        return np.add.reduce([sine(k * frequency) / k for k in range(1, 15)])

    syllables = np.clip(np.sin(2 * np.pi * draw.uniform(3, 5) * time), 0, None)
    notes = np.repeat(draw.choice([262, 294, 330, 349, 392, 440], int(4 * seconds) + 1), SAMPLING_RATE // 4)
    return {
        "silence": np.zeros(len(time)),
        "white": draw.standard_normal(len(time)),
        "pink": shaped(lambda frequency: np.maximum(frequency, 1) ** -0.5),
        "brown": shaped(lambda frequency: 1 / np.maximum(frequency, 1)),
        "hum": np.add.reduce([sine(50.0 * k) / k for k in (1, 2, 3, 5, 7)]),
        "tone": sine(draw.uniform(300, 1200)),
        "warble": sine(600 + 200 * np.cos(2 * np.pi * 5 * time)),
        "chord": np.add.reduce([sine(frequency) for frequency in (220.0, 277.0, 330.0, 440.0)]),
        "melody": sine(notes[: len(time)]) * np.clip(np.sin(2 * np.pi * 4 * time) + 0.8, 0, 1),
        "clicks": impacts(3, 0.001),
        "claps": impacts(2.5, 0.02),
        "rain": impacts(200, 0.002),
        "rumble": band(20, 150),
        "hiss": band(4000, 7900),
        "breath": band(500, 6000) * (0.5 + 0.5 * np.sin(2 * np.pi * 0.35 * time)) ** 2,
        "noise in syllables": band(300, 3000) * syllables,
        "buzz in syllables": buzz(120 + 20 * np.sin(2 * np.pi * 0.5 * time)) * syllables,
        "engine": buzz(40 + 5 * np.sin(2 * np.pi * 0.3 * time)) + 0.3 * draw.standard_normal(len(time)),
    }


def _plain_rows(recognizer: MsfSerRecognizer, folder: Path) -> list[Row]:
    """Word errors, and time errors of recognized and of aligned words."""
    table = pd.read_csv(folder / "metadata.csv", dtype=str)
    sounds = dict(zip(table["file_name"], _sounds(folder), strict=True))
    transcribed = dict(zip(sounds, recognizer(list(sounds.values()), "en"), strict=True))
    texts_found = [transcribed[file].text or "" for file in table["file_name"]]
    references = word_times(folder)
    timed = [sounds[file] for file in references]
    texts = [" ".join(entry["word"] for entry in words) for words in references.values()]
    found = {
        "plain/median_time_error": [transcribed[file].words for file in references],
        "plain/aligned_median_time_error_attention": recognizer.align(timed, texts),
        "plain/aligned_median_time_error_sphinx": SphinxAligner()(timed, texts),
    }
    return [
        word_error_row("plain/wer", table["transcription"], texts_found),
        *(time_error_row(name, references.values(), of_files) for name, of_files in found.items()),
    ]


def word_error_row(name: str, spoken: Iterable[str], written: Iterable[str]) -> Row:
    """The row of word errors over words, without case and punctuation; its interval, from 0 up, is over texts."""
    pairs = [
        jiwer.process_words(" ".join(normalized(text)), " ".join(normalized(found_text)))
        for text, found_text in zip(spoken, written, strict=True)
    ]
    counts = np.array([[p.substitutions + p.deletions + p.insertions, len(p.references[0])] for p in pairs])
    value, low, high = interval(lambda items: np.divide(*counts[items].sum(0)), len(counts))
    return row(name, value, max(0.0, low), high) | {"clips": len(counts)}


def time_error_row(
    name: str, references: Iterable[Sequence[Mapping[str, Any]]], found: Iterable[Sequence[Mapping[str, Any]] | None]
) -> Row:
    """The row of the median over clips of the median errors of word times, in seconds.

    Args:
        name: Of the row.
        references: The words of each clip with their true times.
        found: Those of a recognizer or aligner; `None` for none.
    """
    errors = [_time_errors(reference, words or []) for reference, words in zip(references, found, strict=True)]
    medians = [np.median(of_clip) for of_clip in errors if of_clip]
    return row(name, *median_interval(medians)) | {"clips": len(medians)}


def word_times(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """File to its words as the recognizer gives them."""
    table = pd.read_csv(folder / "words.csv", dtype={"word": str}, keep_default_na=False)
    table = table.rename(columns={"start_s": "start", "end_s": "end"})
    return {name: group[["word", "start", "end"]].to_dict("records") for name, group in table.groupby("file_name")}


def _time_errors(reference: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> list[float]:
    """Absolute errors in seconds of the starts and ends of words that are matched."""
    spoken, written = ([_joined(entry["word"]) for entry in words] for words in (reference, found))
    if not written:
        return []
    errors = []
    for chunk in jiwer.process_words(" ".join(spoken), " ".join(written)).alignments[0]:
        if chunk.type in ("equal", "substitute"):
            ours = found[chunk.hyp_start_idx : chunk.hyp_end_idx]
            pairs = zip(reference[chunk.ref_start_idx : chunk.ref_end_idx], ours, strict=True)
            errors += [abs(made[edge] - true[edge]) for true, made in pairs for edge in ("start", "end")]
    return errors


def _joined(word: str) -> str:
    """The word without what would split it, so that the list and the text have the same indices."""
    return re.sub(r"[^\w]", "", word.lower()) or "-"


def _transcribed(recognizer: MsfSerRecognizer, sounds: Sequence[np.ndarray]) -> list[Transcription]:
    """Transcriptions of what is stated to be English."""
    found: list[Transcription] = []
    for start in tqdm(range(0, len(sounds), _BATCH_SIZE), desc="recognition", unit=f"{_BATCH_SIZE} clips"):
        found += recognizer(sounds[start : start + _BATCH_SIZE], "en")
    return found


def _sounds(folder: Path) -> list[np.ndarray]:
    return [load_audio(folder / name) for name in pd.read_csv(folder / "metadata.csv", dtype=str)["file_name"]]


def _speakers(folder: Path) -> list[str | None]:
    """The speaker of each clip, `None` where the table does not say it."""
    table = pd.read_csv(folder / "metadata.csv", dtype=str)
    names = table["speaker_id"] if "speaker_id" in table else pd.Series([None] * len(table), dtype=object)
    return [None if pd.isna(name) else f"{folder} {name}" for name in names]


def _share(name: str, hits: Sequence[bool], speakers: Sequence[str | None] = ()) -> Row:
    """The row of a share, its interval over speakers where they are known, otherwise over clips."""
    units, of = resampled_units(speakers)
    found = share_interval(hits, None if isinstance(units, int) else units)
    return row(name, *found) | {"clips": len(hits), "resampled": of if speakers else "clips"}


if __name__ == "__main__":
    main()
