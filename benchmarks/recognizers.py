"""How fast the recognizer is against faster-whisper and the library's own pipeline, with word times, and how accurate.

    pip install -e ".[peers]"
    OMP_NUM_THREADS=2 python -m msfser.benchmarks.recognizers --plain FOLDER --faster_whisper FOLDER

All decode greedily with the weights of Whisper tiny.en, the language stated; `--faster_whisper` is a folder with them
in CTranslate2's format. The clips are those of 2 to 10 s in `--plain` (`benchmarks/recognition.py`), in the order of
its table. Ratios are of times, measured interleaved: the median of the repeats with the lowest and the highest. The
rows are added to `results/speed.json`, each with its machine, versions and threads.

- `recognizer_vs_faster_whisper/ratio`: faster-whisper in int8 against ours, both clip by clip; `..._float32/ratio`:
  in float32; `recognizer_vs_faster_whisper_batch/ratio`: in int8, against ours in batches of 8 clips.
- `recognizer_batch_vs_faster_whisper_batch/ratio`: both in batches of 8, faster-whisper in int8 on the joined clips.
- `recognizer_vs_transformers/ratio`: the library's pipeline with its own layers, which pads each clip to 30 s.
- `recognizer_bf16_vs_faster_whisper/ratio`, `..._in_batches/ratio`: in int8, clip by clip, against ours in bfloat16;
  `recognizer_bf16_batch_vs_faster_whisper_batch/ratio`: both in batches.
- `recognizer_wer/SYSTEM`: word errors over words; `recognizer_times/SYSTEM`: the median over the clips with word times
  of their median errors, in seconds.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from transformers import AutomaticSpeechRecognitionPipeline, WhisperFeatureExtractor

from ..audio_msfser import SAMPLING_RATE, load_audio
from ..evaluation.results import Row
from ..fast_encoders_msfser import slow_down
from ..fast_products_msfser import has_bfloat16
from ..transcription_msfser import MsfSerRecognizer
from .command import check_repeats, load_recognizer, parser_of, record
from .recognition import time_error_row, word_error_row, word_times
from .speed import interleaved, machine, ratio

_SHORTEST, _LONGEST = 2.0, 10.0  # seconds
_BATCH = 8
_FRAMES_PER_SECOND = 100  # of faster-whisper


class Recognized(NamedTuple):
    """The text of a clip, and its words as in [`Transcription`]."""

    text: str
    words: list[dict[str, Any]]


System = Callable[[Sequence[np.ndarray]], list[Recognized]]


def ours(recognizer: MsfSerRecognizer, batch: int) -> System:
    """The recognizer, in batches."""

    def recognized(sounds: Sequence[np.ndarray]) -> list[Recognized]:
        batches = (sounds[start : start + batch] for start in range(0, len(sounds), batch))
        return [Recognized(found.text or "", found.words) for some in batches for found in recognizer(some, "en")]

    return recognized


def faster_whisper(folder: Path, kind: str, batch: int = 1) -> System:
    """faster-whisper in `"int8"` or `"float32"`, clip by clip or in batches.

    Raises:
        ImportError: It is missing.
    """
    try:
        from faster_whisper import BatchedInferencePipeline, WhisperModel
    except ImportError as error:
        raise ImportError('faster-whisper is missing: pip install "msfser[peers]".') from error
    # Without temperature 0, unsure clips are decoded again, at random.
    options: dict[str, Any] = {"language": "en", "beam_size": 1, "temperature": 0.0}
    options |= {"word_timestamps": True, "without_timestamps": True}
    model = WhisperModel(str(folder), device="cpu", compute_type=kind, cpu_threads=torch.get_num_threads())

    def one_by_one(sounds: Sequence[np.ndarray]) -> list[Recognized]:
        return [_of_segments(model.transcribe(sound, **options)[0], 0.0) for sound in sounds]

    def in_batches(sounds: Sequence[np.ndarray]) -> list[Recognized]:
        # Batches are parts of one sound, which are given; their ends in samples are rounded down.
        ends = (np.cumsum([len(sound) for sound in sounds]) + 0.5) / SAMPLING_RATE
        starts = [0.0, *ends[:-1]]
        parts = [{"start": start, "end": end} for start, end in zip(starts, ends, strict=True)]
        joined = BatchedInferencePipeline(model)
        segments, _ = joined.transcribe(np.concatenate(sounds), clip_timestamps=parts, batch_size=batch, **options)
        of_clips: list[list[Any]] = [[] for _ in sounds]
        for segment in segments:  # `seek` is the frame in which its part starts, and times are counted from there
            clip = np.searchsorted(starts, (segment.seek + 1) / _FRAMES_PER_SECOND, side="right") - 1
            of_clips[clip].append(segment)
        return [_of_segments(of, of[0].seek / _FRAMES_PER_SECOND if of else 0.0) for of in of_clips]

    return one_by_one if batch == 1 else in_batches


def _of_segments(segments: Iterable[Any], start: float) -> Recognized:
    """What faster-whisper found in a clip that starts there."""
    segments = [*segments]
    words = [word for segment in segments for word in segment.words or ()]
    times = [{"word": word.word.strip(), "start": word.start - start, "end": word.end - start} for word in words]
    return Recognized("".join(segment.text for segment in segments).strip(), times)


def library(recognizer: MsfSerRecognizer) -> System:
    """The library's pipeline with its own layers, clip by clip."""
    model = slow_down(copy.deepcopy(recognizer.model))
    model.set_attn_implementation("eager")  # others do not return the weights, which word times need
    recognize = AutomaticSpeechRecognitionPipeline(
        model=model, tokenizer=recognizer.tokenizer, feature_extractor=WhisperFeatureExtractor()
    )

    def recognized(sounds: Sequence[np.ndarray]) -> list[Recognized]:
        results = []
        for sound in sounds:
            found: Any = recognize(
                {"raw": sound, "sampling_rate": SAMPLING_RATE},
                return_timestamps="word",
                generate_kwargs={"num_beams": 1},
            )
            times = [(chunk["text"].strip(), *chunk["timestamp"]) for chunk in found["chunks"]]
            words = [
                {"word": word, "start": start, "end": start if end is None else end} for word, start, end in times
            ]
            results.append(Recognized(found["text"].strip(), words))
        return results

    return recognized


def error_rows(
    systems: Mapping[str, System], sounds: Mapping[str, np.ndarray], texts: Mapping[str, str], folder: Path
) -> list[Row]:
    """Word errors, and errors of word times.

    Args:
        systems: By name.
        sounds: By file.
        texts: What is said, by file.
        folder: With the times of words.
    """
    rows = []
    references = {file: words for file, words in word_times(folder).items() if file in sounds}
    for name, recognized in systems.items():
        found = dict(zip(sounds, recognized([*sounds.values()]), strict=True))
        rows.append(word_error_row(f"recognizer_wer/{name}", texts.values(), [found[file].text for file in texts]))
        words = [found[file].words for file in references]
        rows.append(time_error_row(f"recognizer_times/{name}", references.values(), words))
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints the rows and adds them to `benchmarks/results/speed.json`."""
    parser = parser_of("recognizers", __doc__)
    parser.add_argument("--plain", type=Path, required=True, help="folder with metadata.csv and words.csv, English")
    parser.add_argument(
        "--faster_whisper", type=Path, required=True, help="folder with the weights for faster-whisper"
    )
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats (5)")
    arguments = parser.parse_args(argv)
    check_repeats(parser, arguments.repeats)
    for needed in (arguments.plain / "words.csv", arguments.faster_whisper / "model.bin"):
        if not needed.is_file():
            parser.error(f"{needed}: there is no such file; name a folder that has it.")
    table = pd.read_csv(arguments.plain / "metadata.csv", dtype=str).set_index("file_name")
    sounds = {file: load_audio(arguments.plain / file) for file in table.index}
    sounds = {file: sound for file, sound in sounds.items() if _SHORTEST <= len(sound) / SAMPLING_RATE <= _LONGEST}
    recognizer = load_recognizer()
    systems = {
        "ours": ours(recognizer, 1),
        "ours_in_batches": ours(recognizer, _BATCH),
        "faster_whisper_int8": faster_whisper(arguments.faster_whisper, "int8"),
        "faster_whisper_int8_in_batches": faster_whisper(arguments.faster_whisper, "int8", _BATCH),
        "faster_whisper_float32": faster_whisper(arguments.faster_whisper, "float32"),
        "transformers": library(recognizer),
    }
    if has_bfloat16():
        reduced = load_recognizer("bfloat16")
        systems |= {"ours_bfloat16": ours(reduced, 1), "ours_bfloat16_in_batches": ours(reduced, _BATCH)}
    rows = error_rows(systems, sounds, {file: table["transcription"][file] for file in sounds}, arguments.plain)
    clips = [*sounds.values()]
    tasks = {name: lambda recognized=recognized: recognized(clips) for name, recognized in systems.items()}
    spent = interleaved(tasks, arguments.repeats)
    batched = spent["faster_whisper_int8_in_batches"]
    rows += [
        ratio("recognizer_vs_faster_whisper/ratio", spent["faster_whisper_int8"], spent["ours"]),
        ratio("recognizer_vs_faster_whisper_float32/ratio", spent["faster_whisper_float32"], spent["ours"]),
        ratio("recognizer_vs_faster_whisper_batch/ratio", spent["faster_whisper_int8"], spent["ours_in_batches"]),
        ratio("recognizer_batch_vs_faster_whisper_batch/ratio", batched, spent["ours_in_batches"]),
        ratio("recognizer_vs_transformers/ratio", spent["transformers"], spent["ours"]),
    ]
    for kind in ("", "_in_batches"):
        if f"ours_bfloat16{kind}" in spent:
            name = f"recognizer_bf16_vs_faster_whisper{kind}/ratio"
            rows.append(ratio(name, spent["faster_whisper_int8"], spent[f"ours_bfloat16{kind}"]))
    if has_bfloat16():
        name = "recognizer_bf16_batch_vs_faster_whisper_batch/ratio"
        rows.append(ratio(name, batched, spent["ours_bfloat16_in_batches"]))
    beside = {**machine(), "seconds_of_sound": round(sum(map(len, clips)) / SAMPLING_RATE, 1)}
    record("speed", [{**beside, **one} for one in rows], "recognizers", argv)


if __name__ == "__main__":
    main()
