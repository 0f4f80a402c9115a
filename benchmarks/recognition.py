"""How well the offline recognizer hears: words, their times, and whether there is speech at all.

    python -m msfser.benchmarks.recognition --plain FOLDER

prints and writes `benchmarks/results/recognition.json`, each figure with a 95 % bootstrap interval. The folder holds
`metadata.csv` (`file_name`, `transcription`) and `words.csv` (`file_name`, `word`, `start_s`, `end_s`) of English
speech. More rows come with `--speech FOLDER ...` (English, `metadata.csv` alone) and `--foreign FOLDER` (another
language); the probe corpus and sounds without speech are generated. `--one_pass` measures its own rows alone.

| row | meaning |
|---|---|
| `plain/wer` | word errors over words; lower case, no punctuation |
| `plain/median_time_error` | seconds, over starts and ends of recognized words beside reference words |
| `plain/aligned_median_time_error_attention`, `..._sphinx` | the same with the reference words given |
| `validation/stressed_words` | share of the probe's stressed words that stand in the recognized text |
| `speech/false_reject` | share of English clips (plain, probe, `--speech`) taken for no speech |
| `speech/false_reject_unstated` | share of them without text where the language is not stated |
| `nonspeech/false_accept` | share of generated sounds without speech taken for speech |
| `nonspeech/false_accept_unstated` | share of them with a text where the language is not stated |
| `foreign/false_accept_unstated` | share of foreign clips with an English text where the language is not stated |
| `one_pass/wer`, `one_pass/median_time_error` | as `plain/...`, from the states that the speech encoder makes |
| `two_passes/wer`, `two_passes/median_time_error` | the same with a pass of its own, in the same run |
"""

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jiwer
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from ..annotation.aligners import SphinxAligner
from ..audio_msfser import SAMPLING_RATE, load_audio
from ..corpora.probe.corpus import make_probe
from ..evaluation.results import RESULTS, bootstrap, merge, write
from ..transcription_msfser import MsfSerRecognizer, Transcription
from ..word_times_msfser import LONGEST

_BATCH = 32


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description="How well the offline recognizer hears.")
    parser.add_argument("--plain", type=Path, required=True, help="folder with metadata.csv and words.csv, English")
    parser.add_argument("--speech", type=Path, nargs="*", default=[], help="folders with metadata.csv, English")
    parser.add_argument("--foreign", type=Path, help="folder with metadata.csv, another language")
    parser.add_argument("--one_pass", action="store_true", help="only: can the speech encoder's pass be recognized?")
    options = parser.parse_args(arguments)
    needed = [options.plain / "words.csv"]
    needed += [folder / "metadata.csv" for folder in (options.plain, *options.speech, options.foreign) if folder]
    if absent := [str(path) for path in needed if not path.is_file()]:
        parser.error(f"{', '.join(absent)}: there is no such file; name folders that have it.")
    if options.one_pass:
        rows = _one_pass_rows(options.plain)
        _finish(rows, "python -m msfser.benchmarks.recognition --plain FOLDER --one_pass", merge)
        return
    command = "python -m msfser.benchmarks.recognition --plain FOLDER"
    command += " --speech" + " FOLDER" * len(options.speech) if options.speech else ""
    command += " --foreign FOLDER" if options.foreign else ""

    recognizer = MsfSerRecognizer.from_pretrained()
    rows = _plain_rows(recognizer, options.plain)
    folder = make_probe("data/probe")
    table = pd.read_parquet(folder / "metadata.parquet")
    table = table[table["split"] == "validation"]
    probe = [load_audio(folder / name) for name in table["audio"]]
    found = _transcribed(recognizer, probe)
    heard = [
        normalized(row.words[row.stressed_word]["word"])[0] in normalized(result.text or "")
        for row, result in zip(table.itertuples(), found, strict=True)
    ]
    rows["validation/stressed_words"] = _share(heard)
    for path in (options.plain, *options.speech):
        found += _transcribed(recognizer, _sounds(path))
    rows["speech/false_reject"] = _share([result.reason == "no speech" for result in found])
    rows["speech/false_reject_unstated"] = _share([result.text is None for result in found])
    found = _transcribed(recognizer, [sound for _, sound in nonspeech(seed=0)])
    rows["nonspeech/false_accept"] = _share([result.reason != "no speech" for result in found])
    rows["nonspeech/false_accept_unstated"] = _share([result.text is not None for result in found])
    if options.foreign:
        found = _transcribed(recognizer, _sounds(options.foreign))
        rows["foreign/false_accept_unstated"] = _share([result.text is not None for result in found])

    _finish(rows, command, write)


def _finish(rows: dict[str, dict[str, float]], command: str, keep: Callable) -> None:
    """Writes the rows, by `write` or `merge`, and prints them."""
    keep(RESULTS / "recognition.json", [{"name": name} | row | {"command": command} for name, row in rows.items()])
    for name, row in rows.items():
        print(f"{name:45s} {row['value']:.3f} ({row['low']:.3f}..{row['high']:.3f})")


def normalized(text: str) -> list[str]:
    """Words in lower case without punctuation; numbers and spelling as they are."""
    return re.sub(r"[^\w\s']", " ", text.lower()).split()


def nonspeech(seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Sounds without speech: silence, noises, hums, tones, music, impacts, and what is shaped like speech.

    Args:
        seed: Of the random ones.

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
        return sum(sine(k * frequency) / k for k in range(1, 15))

    syllables = np.clip(np.sin(2 * np.pi * draw.uniform(3, 5) * time), 0, None)
    notes = np.repeat(draw.choice([262, 294, 330, 349, 392, 440], int(4 * seconds) + 1), SAMPLING_RATE // 4)
    return {
        "silence": np.zeros(len(time)),
        "white": draw.standard_normal(len(time)),
        "pink": shaped(lambda frequency: np.maximum(frequency, 1) ** -0.5),
        "brown": shaped(lambda frequency: 1 / np.maximum(frequency, 1)),
        "hum": sum(sine(50.0 * k) / k for k in (1, 2, 3, 5, 7)),
        "tone": sine(draw.uniform(300, 1200)),
        "warble": sine(600 + 200 * np.cos(2 * np.pi * 5 * time)),
        "chord": sum(sine(frequency) for frequency in (220.0, 277.0, 330.0, 440.0)),
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


def _plain_rows(recognizer: MsfSerRecognizer, folder: Path) -> dict[str, dict[str, float]]:
    names = pd.read_csv(folder / "metadata.csv", dtype=str)["file_name"]
    sounds = dict(zip(names, _sounds(folder), strict=True))
    rows = _heard_rows("plain", folder, recognizer(list(sounds.values())))
    times = _word_times(folder)
    timed = [sounds[name] for name in times]
    texts = [" ".join(entry["word"] for entry in words) for words in times.values()]
    given = {"attention": recognizer.align(timed, texts), "sphinx": SphinxAligner()(timed, texts)}
    for aligner, results in given.items():
        errors = [
            error
            for reference, words in zip(times.values(), results, strict=True)
            for error in _time_errors(reference, words or [])
        ]
        rows[f"plain/aligned_median_time_error_{aligner}"] = _median(errors)
    return rows


def _heard_rows(name: str, folder: Path, found: Sequence[Transcription]) -> dict[str, dict[str, float]]:
    """Word errors and time errors of what was heard in all clips of a folder."""
    table = pd.read_csv(folder / "metadata.csv", dtype=str)
    heard = dict(zip(table["file_name"], found, strict=True))
    pairs = [
        jiwer.process_words(" ".join(normalized(text)), " ".join(normalized(heard[file].text or "")))
        for file, text in zip(table["file_name"], table["transcription"], strict=True)
    ]
    counts = np.array([[p.substitutions + p.deletions + p.insertions, len(p.references[0])] for p in pairs])
    errors = [
        error
        for file, reference in _word_times(folder).items()
        for error in _time_errors(reference, heard[file].words)
    ]
    return {
        f"{name}/wer": bootstrap(lambda drawn: float(np.divide(*counts[drawn].sum(0))), len(counts)),
        f"{name}/median_time_error": _median(errors),
    }


class _OnePassRecognizer(MsfSerRecognizer):
    """Reads what the acoustic branch reads: the states of the clip alone, without silence behind it."""

    def _encoded(self, sounds: list[np.ndarray], window: float) -> torch.Tensor:
        # One clip at a time, or in the full window of a second attempt, or to make the states of silence.
        return super()._encoded(sounds, window if window == LONGEST else len(sounds[0]) / SAMPLING_RATE)


def _one_pass_rows(folder: Path) -> dict[str, dict[str, float]]:
    rows = {}
    sounds = _sounds(folder)
    for name, kind in {"one_pass": _OnePassRecognizer, "two_passes": MsfSerRecognizer}.items():
        recognizer = kind.from_pretrained()
        rows |= _heard_rows(name, folder, [recognizer([sound])[0] for sound in sounds])
    return rows


def _word_times(folder: Path) -> dict[str, list[dict]]:
    """File to its words as the recognizer gives them."""
    table = pd.read_csv(folder / "words.csv", dtype={"word": str}, keep_default_na=False)
    table = table.rename(columns={"start_s": "start", "end_s": "end"})
    return {name: group[["word", "start", "end"]].to_dict("records") for name, group in table.groupby("file_name")}


def _median(values: Sequence[float]) -> dict[str, float]:
    values = np.array(values)
    return bootstrap(lambda drawn: float(np.median(values[drawn])), len(values))


def _time_errors(reference: list[dict], found: list[dict]) -> list[float]:
    """Absolute errors in seconds of the starts and ends of words that stand beside each other."""
    spoken, written = ([_joined(entry["word"]) for entry in words] for words in (reference, found))
    if not written:
        return []
    errors = []
    for chunk in jiwer.process_words(" ".join(spoken), " ".join(written)).alignments[0]:
        if chunk.type in ("equal", "substitute"):
            pairs = zip(
                reference[chunk.ref_start_idx : chunk.ref_end_idx],
                found[chunk.hyp_start_idx : chunk.hyp_end_idx],
                strict=True,
            )
            errors += [abs(ours[edge] - theirs[edge]) for theirs, ours in pairs for edge in ("start", "end")]
    return errors


def _joined(word: str) -> str:
    """One word whatever it holds, so that the list and the text have the same places."""
    return re.sub(r"[^\w]", "", word.lower()) or "-"


def _transcribed(recognizer: MsfSerRecognizer, sounds: Sequence[np.ndarray]) -> list[Transcription]:
    """The language is not stated."""
    found = []
    for start in tqdm(range(0, len(sounds), _BATCH), desc="recognition", unit=f"{_BATCH} clips"):
        found += recognizer(sounds[start : start + _BATCH])
    return found


def _sounds(folder: Path) -> list[np.ndarray]:
    return [load_audio(folder / name) for name in pd.read_csv(folder / "metadata.csv", dtype=str)["file_name"]]


def _share(hits: Sequence[bool]) -> dict[str, float]:
    values = np.array(hits, dtype=float)
    return bootstrap(lambda drawn: float(values[drawn].mean()), len(values))


if __name__ == "__main__":
    main()
