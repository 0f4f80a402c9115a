"""What the tests of `annotate` share: tones as recordings, a stub recognizer, and a journal of the steps."""

import csv
import dataclasses
import io
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from msfser.annotation import annotate
from msfser.annotator_msfser import MsfSerAnnotator
from msfser.sharding import sharded_table
from msfser.transcription_msfser import MsfSerRecognizer

RATE = 16_000


def tone(number, seconds=0.5):
    """A voiced sound whose pitch tells its number."""
    times = np.arange(int(seconds * RATE)) / RATE
    return (0.1 * sum(np.sin(2 * np.pi * k * (120 + 10 * number) * times) / k for k in range(1, 8))).astype(np.float32)


def number_of(sound):
    return round((np.abs(np.fft.rfft(sound, RATE)).argmax() - 120) / 10)


def write_tone(path, number, seconds=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(number, seconds), RATE, subtype="FLOAT")
    return path


def tone_bytes(number):
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(number), RATE, format="WAV")
    return buffer.getvalue()


@dataclasses.dataclass
class Transcript:
    text: str | None
    words: list
    reason: str | None = None
    language: str | None = None


def words_of(text, sound):
    words = text.split()
    edges = np.linspace(0, len(sound) / RATE, len(words) + 1).tolist()
    return [{"word": w, "start": edges[i], "end": edges[i + 1]} for i, w in enumerate(words)]


class Recognizer:
    """Transcribes a tone by its number, and finds no speech in silence; a multilingual one detects en or ko."""

    def __init__(self, name, english_only):
        self.name, self.english_only = name, english_only

    def __call__(self, sounds, language=None):
        if self.english_only and language not in (None, "en"):
            return [Transcript(None, [], "the recognizer knows only English") for _ in sounds]
        return [self._transcribe_segments(sound, language) for sound in sounds]

    def _transcribe_segments(self, sound, language):
        if not np.abs(sound).max():
            return Transcript(None, [], "no speech")
        number = number_of(sound)
        text = f"the sound number {number} by {self.name} in {language}"
        detected = None if self.english_only else ("en", "ko")[number % 2]
        return Transcript(text, words_of(text, sound), language=language or detected)

    def align(self, sounds, transcripts, languages=None):
        if "impossible" in " ".join(transcripts):
            raise ValueError("The transcript of item 0 is too long for its sound: cut both into shorter clips.")
        return [words_of(text, sound) for text, sound in zip(transcripts, sounds, strict=True)]


class Journal(list):
    """Which steps were done, with how many clips; and how often an annotator was made."""

    made = 0

    @property
    def steps(self):
        return {step for step, _ in self}


@pytest.fixture(name="journal", autouse=True)
def journal_fixture(monkeypatch, tmp_path_factory):
    journal, make = Journal(), annotate.make_annotator
    monkeypatch.setattr(sharded_table.ShardedTable, "rows_per_shard", 3)
    monkeypatch.setattr(annotate, "ensure_encoders", lambda names: None)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(MsfSerRecognizer, "from_pretrained", lambda name, *_: Recognizer(name, name.endswith(".en")))
    for step in ("transcribe", "emphasize", "describe"):
        original = getattr(MsfSerAnnotator, step)

        def recorded(self, annotations, *arguments, step=step, original=original):
            journal.append((step, len(annotations)))
            original(self, annotations, *arguments)

        monkeypatch.setattr(MsfSerAnnotator, step, recorded)

    def counted(*arguments):
        journal.made += 1
        return make(*arguments)

    monkeypatch.setattr(annotate, "make_annotator", counted)
    return journal


def run(data, output, *options):
    annotate.main([str(data), "--output", str(output), *options])
    return rows_of(output)


def rows_of(output):
    """What is in the shards, in order, and the shards' whole bytes are valid."""
    return [row for shard in sorted(Path(output).glob("data/*")) for row in pq.ParquetFile(shard).read().to_pylist()]


def state_of(output):
    """Every file below a folder: its content, and what tells whether it was written again."""
    files = sorted(path for path in Path(output).rglob("*") if path.is_file())
    return {str(path.relative_to(output)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def contents_of(output):
    return {name: content for name, (content, _) in state_of(output).items()}


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def make_corpus(folder, count=8, **columns):
    """A CSV with aliases, labels from 1 to 7 and a custom column; some rows have texts."""
    rows = []
    for i in range(count):
        write_tone(folder / "audio" / f"{i}.wav", i)
        rows.append(
            {
                "file_name": f"audio/{i}.wav",
                "transcription": "what was really said" if i % 3 == 1 else "",
                "description": "given" if i == 2 else " ",
                "speaker_id": f"{i % 4:02d}",
                "valence": "1.5",
                "arousal": "4",
                "dominance": "7",
                "room": f"room {i}",
            }
            | {name: value(i) if callable(value) else value for name, value in columns.items()}
        )
    return write_csv(folder / "metadata.csv", rows)


def fails(*arguments):
    """Runs the command, which ends with one sentence."""
    with pytest.raises(SystemExit) as caught:
        annotate.main([str(argument) for argument in arguments])
    message = str(caught.value.code)
    assert message.startswith("msfser annotate: error: ") and message.endswith(".") and "\n" not in message, message
    return message
