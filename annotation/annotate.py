"""Makes transcripts, word times, emphasized words and descriptions for a corpus.

    msfser annotate my/metadata.csv --output my/annotated --language en
    accelerate launch --multi_gpu --num_processes 4 -m msfser.annotation.annotate my/recordings --output my/annotated

The second line starts four processes, without a GPU too (`accelerate launch --cpu` starts several only through MPI).
The input is a table, a folder of recordings, or a corpus as its owners lay it out (`--corpus`). The output is the same
table as Parquet shards, `OUTPUT/data/part-00000.parquet` and so on, with these columns besides its own, ready for
`train.py --data OUTPUT`: `transcript`, `words`, `emphasis`, `emphasis_scores` (one per word), `description`,
`describer` (who wrote it), `absent` (why a text is not there) and `error` (why a recording could not be read).
Texts that the table has are kept.

A shard is written whole or not at all. Give the command again after a kill: what is there stays. With other settings
just that is made anew which depends on them. Processes share the work by shards, so their number does not change the
result.
"""

import argparse
import dataclasses
import functools
import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from accelerate import PartialState
from tqdm import tqdm

from ..annotator_msfser import Annotation, LazyProsody, MsfSerAnnotator
from ..audio_msfser import SAMPLING_RATE, load_audio
from ..corpora.audio_folder import read_audio_folder
from ..corpora.iemocap import read_iemocap
from ..corpora.msp_podcast import read_msp_podcast
from ..corpora.schema import FEATURES, audio_source
from ..corpora.table import SHARDS_NOTE, SourceRows, holds_table, read_source
from ..description_msfser import NORMS, Describer, MeasuredDescriber
from ..emphasis_msfser import EMPHASIS
from ..transcription_msfser import language_code
from .aligners import CtcAligner, SphinxAligner
from .audio_language_model import AudioLanguageModelDescriber
from .chat_endpoint import ChatEndpointDescriber
from .prompt import PROMPT

logger = logging.getLogger(__name__)

ROWS_PER_SHARD = 64
# What is in memory at once, however long the recordings of a shard.
SECONDS_AT_ONCE = 300.0
# Raised when a step gives other results with the same settings.
VERSION = 1

GIVEN = ("transcript", "words", "emphasis", "description", "language")
_WORDS = FEATURES.arrow_schema.field("words").type
MADE = {
    "transcript": pa.string(),
    "words": _WORDS,
    "emphasis": pa.string(),
    "emphasis_scores": pa.list_(pa.float32()),
    "description": pa.string(),
    "describer": pa.string(),
    "absent": pa.string(),
    "error": pa.string(),
}
# The second and the third step each depend on the first.
STEPS = ("transcript", "emphasis", "description")


def main(argv: Sequence[str]) -> None:
    """Annotates what the arguments name."""
    arguments = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # Without being told, several processes without a GPU would each take themselves for the only one.
    state = PartialState(cpu=not torch.accelerator.is_available())
    try:
        source = read(arguments)
        settings = settings_of(arguments)
        work = Work(source, settings, lambda: make_annotator(arguments, str(state.device)), Path(arguments.output))
        with state.main_process_first():
            if state.is_main_process:
                work.prepare(Path(arguments.data))
        work.run(state.process_index, state.num_processes, quiet=not state.is_local_main_process)
        work.finish()
    except (ValueError, OSError, ImportError, pa.ArrowNotImplementedError) as error:
        raise SystemExit(f"annotate: {error}") from error
    finally:
        state.destroy_process_group()


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="annotate", description="Makes transcripts, emphasized words and descriptions for a corpus."
    )
    parser.add_argument("data", help="a table, a folder of recordings, or the folder of a named corpus")
    parser.add_argument("--output", required=True, help="folder for the shards")
    parser.add_argument(
        "--corpus",
        choices=("table", "msp_podcast", "iemocap"),
        default="table",
        help="how the data is laid out: a table or recordings (by default), or a corpus as its owners distribute it",
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="NAME=COLUMN",
        help="columns of the table that have other names, such as speaker=actor",
    )
    parser.add_argument(
        "--audio_folder", help="where the table's relative audio paths start; its own folder by default"
    )
    parser.add_argument(
        "--recognizer",
        default="openai/whisper-tiny.en",
        help="a Whisper by Hub name or folder, or none; by default %(default)s",
    )
    parser.add_argument("--language", help="what is spoken, such as en; a column 'language' goes before")
    parser.add_argument(
        "--aligner",
        default="recognizer",
        help="finds the times of given transcripts: recognizer (by default), sphinx (English), or a CTC model by Hub "
        "name or folder",
    )
    parser.add_argument(
        "--emphasis",
        choices=tuple(EMPHASIS),
        default="peak",
        help="how emphasized words are found: by the paper's formula, or by peaks (by default)",
    )
    parser.add_argument(
        "--describer",
        default="measured",
        help="who writes descriptions: measured (by default), none, an audio language model by Hub name or folder, or "
        "with --url the name of a model that a server has",
    )
    parser.add_argument("--url", help="an OpenAI-compatible server with audio input; its key is in MSFSER_API_KEY")
    parser.add_argument("--norms", type=Path, help="norms of the measured describer (msfser.annotation.norms)")
    arguments = parser.parse_args(argv)
    if wrong := [pair for pair in arguments.columns if "=" not in pair]:
        parser.error(f"columns are given as NAME=COLUMN, not {wrong[0]!r}")
    if arguments.corpus != "table" and (arguments.columns or arguments.audio_folder):
        parser.error(f"the corpus {arguments.corpus} decides columns and audio_folder; leave them out")
    if arguments.norms is not None and arguments.describer != "measured":
        parser.error("--norms belongs to --describer measured")
    try:
        language_code(arguments.language)
    except ValueError as error:
        parser.error(str(error))
    if arguments.url is not None and arguments.describer in ("measured", "none"):
        parser.error("--url needs the name of the server's model as --describer")
    return arguments


def read(arguments: argparse.Namespace) -> SourceRows:
    """The rows to annotate, with all their columns."""
    if arguments.corpus == "msp_podcast":
        return _of_corpus(read_msp_podcast(arguments.data), arguments.data)
    if arguments.corpus == "iemocap":
        parts = read_iemocap(arguments.data, fold=1)
        # Each fold has other parts, so the shards name none: train.py --corpus iemocap --fold makes them.
        whole = datasets.concatenate_datasets(list(parts.values()))
        return _of_corpus({"": whole}, arguments.data)
    if os.path.isdir(arguments.data) and not holds_table(arguments.data):
        if arguments.columns or arguments.audio_folder:
            raise ValueError(
                f"{arguments.data}: there is no table in this folder; leave out columns and audio_folder."
            )
        return _of_corpus({"": read_audio_folder(arguments.data)}, arguments.data)
    return read_source(
        arguments.data,
        columns=dict(pair.split("=", 1) for pair in arguments.columns),
        audio_folder=arguments.audio_folder,
    )


def _of_corpus(parts: Mapping[str, datasets.Dataset], folder: str) -> SourceRows:
    """Parts of the schema as rows with paths from the corpus's folder."""
    root = os.path.abspath(folder)
    tables = []
    for name, part in parts.items():
        rows = part.with_format("arrow")[:]
        tables.append(
            rows.append_column("split", pa.nulls(len(rows), pa.string()) if not name else pa.repeat(name, len(rows)))
        )
    table = pa.concat_tables(tables)
    files = [audio["path"] for audio in table["audio"].to_pylist()]
    names = pa.array([os.path.relpath(file, root) for file in files])
    return SourceRows(table.set_column(table.column_names.index("audio"), "audio", names), files, None, Path(root))


def settings_of(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What the result of each step depends on besides the table and the steps before it."""
    description: dict[str, Any] = {"describer": arguments.describer}
    if arguments.describer == "measured":
        description["norms"] = NORMS if arguments.norms is None else _read_norms(arguments.norms)
    elif arguments.describer != "none":
        description |= {"url": arguments.url, "prompt": hashlib.sha256(PROMPT.encode()).hexdigest()}
    return {
        "transcript": {
            "recognizer": arguments.recognizer,
            "language": arguments.language,
            "aligner": arguments.aligner,
        },
        "emphasis": EMPHASIS[arguments.emphasis].to_dict(),
        "description": description,
    }


def make_annotator(arguments: argparse.Namespace, device: str) -> MsfSerAnnotator:
    """Loads who makes the texts; the recognizer is loaded at its first use."""
    describer: Describer | None
    if arguments.describer == "none":
        describer = None
    elif arguments.describer == "measured":
        describer = MeasuredDescriber(NORMS if arguments.norms is None else _read_norms(arguments.norms))
    elif arguments.url is not None:
        describer = ChatEndpointDescriber(arguments.url, arguments.describer)
    else:
        describer = AudioLanguageModelDescriber(arguments.describer, device=device)
    if arguments.aligner == "recognizer":
        aligner = None
    else:
        aligner = SphinxAligner() if arguments.aligner == "sphinx" else CtcAligner(arguments.aligner, device=device)
    return MsfSerAnnotator(
        recognizer=None if arguments.recognizer == "none" else arguments.recognizer,
        emphasis=EMPHASIS[arguments.emphasis],
        describer=describer,
        aligner=aligner,
        device=device,
    )


def _read_norms(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: the norms are not readable JSON ({error}).") from error


class Work:
    """The shards of one corpus: which there are, what each depends on, and how each is made.

    Args:
        source: The rows.
        settings: Of each of `STEPS`.
        make: Loads the annotator; called when there is something to make.
        output: The folder that holds `data` and the note on the shards.
    """

    def __init__(
        self,
        source: SourceRows,
        settings: Mapping[str, Mapping[str, Any]],
        make: Callable[[], MsfSerAnnotator],
        output: Path,
    ):
        self.source = source
        self.settings = settings
        self.make = make
        self.output = output
        kept = [name for name in source.table.column_names if name not in MADE]
        self.table = source.table.select(kept)
        # What an earlier run made is made anew, or comes from its shards; texts that were given count as given.
        self.given = source.table.select([name for name in GIVEN if name in source.table.column_names])
        self.count = -(-len(source.table) // ROWS_PER_SHARD)
        self._keys: dict[int, dict[str, str]] = {}

    @functools.cached_property
    def annotator(self) -> MsfSerAnnotator:
        """Who makes the texts."""
        return self.make()

    def prepare(self, data: Path) -> None:
        """Makes the output folder and notes what will be in it.

        Raises:
            ValueError: The folder holds other things, or what is to be annotated.
        """
        output = self.output.resolve()
        if data.exists() and output in (data.resolve(), *data.resolve().parents):
            raise ValueError(f"the output {str(self.output)!r} holds what is to be annotated: name another folder.")
        note, shards = self.output / SHARDS_NOTE, self.output / "data"
        # A killed run may have left an unfinished note and nothing else.
        if output.is_dir() and not note.is_file() and not all(p.name.startswith(note.name) for p in output.iterdir()):
            raise ValueError(f"the output {str(self.output)!r} holds other things: name an empty or a new folder.")
        table = self.source.table
        replaced = [c for c in MADE if c not in GIVEN and c in table.column_names and table[c].null_count < len(table)]
        if replaced:
            logger.warning(f"the table's columns {', '.join(replaced)} are not passed on: annotate writes its own.")
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise OSError(
                f"the output {str(self.output)!r} cannot be made ({reason}): name another folder."
            ) from error
        known = {self.shard(number) for number in range(self.count)}
        surplus = [path for path in shards.glob("part-*") if path not in known]
        if surplus or not note.is_file():
            self._note(complete=False)
        shards.mkdir(exist_ok=True)
        for path in (*surplus, *self.output.glob(f"{note.name}.*.unfinished")):
            path.unlink()

    def run(self, process: int, processes: int, quiet: bool) -> None:
        """Makes the shards of one process.

        Raises:
            ValueError: A recognizer that knows only English would have to guess the language.
            OSError: A recognizer, a describer or its server is not to be had.
        """
        mine = range(process, self.count, processes)
        stale = [number for number in mine if self.stored(number) != self.keys(number)]
        total = sum(len(self.rows(number)) for number in mine)
        done = total - sum(len(self.rows(number)) for number in stale)
        self._check_languages(stale)
        if stale:
            self._note(complete=False)
        with tqdm(total=total, initial=done, desc="annotate", unit="clip", disable=quiet) as bar:
            for number in stale:
                self.make_shard(number)
                bar.update(len(self.rows(number)))

    def finish(self) -> None:
        """Notes that all is there, once it is, and says what is in it."""
        missing = [number for number in range(self.count) if self.stored(number) != self.keys(number)]
        if missing:
            logger.info(
                f"{self.count - len(missing)} of {self.count} shards are there; other processes make the rest."
            )
            return
        self._note(complete=True)
        columns = [*STEPS, "error"]
        made = pa.concat_tables(
            [pyarrow.parquet.read_table(self.shard(n), columns=columns) for n in range(self.count)]
        )
        there = {name: len(made) - made[name].null_count for name in STEPS}
        logger.info(
            f"{len(made)} clips in {self.output}: {', '.join(f'{n} with {name}' for name, n in there.items())}."
        )
        errors = [(row, error) for row, error in enumerate(made["error"].to_pylist(), start=1) if error is not None]
        if errors:
            logger.warning(
                f"{len(errors)} recordings could not be read; the first is of row {errors[0][0]}: {errors[0][1]}"
            )

    # Shards

    def rows(self, number: int) -> range:
        """The numbers of a shard's rows."""
        start = number * ROWS_PER_SHARD
        return range(start, min(start + ROWS_PER_SHARD, len(self.table)))

    def shard(self, number: int) -> Path:
        """Where a shard is."""
        return self.output / "data" / f"part-{number:05d}.parquet"

    def stored(self, number: int) -> dict[str, str]:
        """The keys with which a shard was made; none if it is not there, or is not whole."""
        try:
            return json.loads(pyarrow.parquet.read_schema(self.shard(number)).metadata[b"msfser"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def keys(self, number: int) -> dict[str, str]:
        """A hash per step of all that it depends on, and one of the columns that are passed on."""
        # Kept from before the recordings are heard: one that changes meanwhile is heard again by the next run.
        if number not in self._keys:
            self._keys[number] = self._make_keys(number)
        return self._keys[number]

    def _make_keys(self, number: int) -> dict[str, str]:
        rows = self.rows(number)
        given = self.given.slice(rows.start, len(rows)).to_pydict()
        recordings = [self._identity(row) for row in rows]
        keys = {"table": _hash(self.table.schema.to_string(), self.table.slice(rows.start, len(rows)).to_pylist())}
        heard = [given.get(name) for name in ("transcript", "words", "language")]
        keys["transcript"] = _hash(VERSION, self.settings["transcript"], recordings, heard)
        for step in ("emphasis", "description"):
            keys[step] = _hash(keys["transcript"], self.settings[step], given.get(step))
        return keys

    def make_shard(self, number: int) -> None:
        """Makes a shard: what it has already and still holds is taken from it."""
        keys, stored = self.keys(number), self.stored(number)
        stale = [step for step in STEPS if stored.get(step) != keys[step]]
        rows = self.rows(number)
        if len(stale) < len(STEPS):
            old = pyarrow.parquet.read_table(self.shard(number), columns=list(MADE)).to_pylist()
            entries = [_entry(row, [step for step in STEPS if step not in stale]) for row in old]
        else:
            entries = [Entry() for _ in rows]
        if stale:
            self._annotate(rows, entries, stale)
        self._write(number, entries, keys)

    def _annotate(self, rows: range, entries: Sequence["Entry"], stale: Sequence[str]) -> None:
        given = self._given(rows)
        for group in self._groups(rows, entries):
            items, sounds = [rows.index(row) for row, _ in group], [sound for _, sound in group]
            annotations = [entries[i].annotation for i in items]
            known = [given[i] for i in items]
            prosody = LazyProsody(sounds)
            if "transcript" in stale:
                self.annotator.transcribe(annotations, sounds, known)
            if "emphasis" in stale:
                self.annotator.emphasize(annotations, prosody, known)
            if "description" in stale:
                self.annotator.describe(annotations, sounds, prosody, known)
        for entry, texts in zip(entries, given, strict=True):
            if entry.error is not None:
                entry.annotation = Annotation(**{name: texts.get(name) for name in GIVEN if name != "language"})

    def _given(self, rows: range) -> list[dict[str, Any]]:
        """What the table has of some rows, and the language of each."""
        given = self.given.slice(rows.start, len(rows)).to_pylist()
        for texts in given:
            own = "" if texts.get("language") is None else str(texts["language"]).strip()
            texts["language"] = own or self.settings["transcript"]["language"]
        return given

    def _groups(self, rows: range, entries: Sequence["Entry"]) -> Iterator[list[tuple[int, np.ndarray]]]:
        """Recordings that are heard together, short ones first; one that cannot be read is noted."""
        group, seconds = [], 0.0
        for row in sorted(rows, key=self._size):
            entry = entries[rows.index(row)]
            if entry.error is not None:
                continue
            try:
                sound = load_audio(self._recording(row))
            except (ValueError, OSError) as error:
                entry.error = " ".join(str(error).split())
                continue
            if group and seconds + len(sound) / SAMPLING_RATE > SECONDS_AT_ONCE:
                yield group
                group, seconds = [], 0.0
            group.append((row, sound))
            seconds += len(sound) / SAMPLING_RATE
        if group:
            yield group

    def _write(self, number: int, entries: Sequence["Entry"], keys: Mapping[str, str]) -> None:
        """Writes a shard whole or not at all."""
        rows = self.rows(number)
        table = self.table.slice(rows.start, len(rows))
        if self.source.embedded is not None:
            recordings = self.source.embedded.select(rows).with_format("arrow")[:]["audio"]
            table = table.set_column(table.column_names.index("audio"), "audio", recordings)
        columns = [_columns(entry) for entry in entries]
        for name, kind in MADE.items():
            table = table.append_column(name, pa.array([row[name] for row in columns], kind))
        table = table.replace_schema_metadata({"msfser": json.dumps(keys)})
        _write_whole(self.shard(number), lambda file: pyarrow.parquet.write_table(table, file))

    def _note(self, complete: bool) -> None:
        note = {
            "audio_folder": None if self.source.files is None else str(self.source.audio_folder),
            "rows": len(self.table),
            "complete": complete,
            "settings": self.settings,
        }
        path, content = self.output / SHARDS_NOTE, json.dumps(note, indent=1).encode() + b"\n"
        if not path.is_file() or path.read_bytes() != content:
            _write_whole(path, lambda file: file.write(content))

    # Recordings

    def _recording(self, row: int) -> bytes | str:
        if self.source.files is None:
            return audio_source(self.source.embedded[row]["audio"])
        if not self.source.files[row]:
            raise ValueError(f"{self.table['audio'][row].as_py()!r} is not there.")
        return self.source.files[row]

    def _size(self, row: int) -> int:
        """Bytes of a recording: those of a kind grow with its length."""
        if self.source.files is None:
            return len(self.source.embedded[row]["audio"]["bytes"])
        try:
            return os.path.getsize(self.source.files[row])
        except OSError:
            return 0

    def _identity(self, row: int) -> list[Any]:
        """What tells that a recording is the same as before."""
        if self.source.files is None:
            return [hashlib.sha256(self.source.embedded[row]["audio"]["bytes"]).hexdigest()]
        try:
            found = os.stat(self.source.files[row])
        except OSError:
            return [self.source.files[row]]
        return [self.source.files[row], found.st_size, found.st_mtime_ns]

    def _check_languages(self, shards: Sequence[int]) -> None:
        """An English recognizer writes English whatever it hears: somebody must say that it is English.

        A language that the recognizer cannot take is better said now than after hours.
        """
        known = set()
        for number in shards:
            if self.stored(number).get("transcript") == self.keys(number)["transcript"]:
                continue
            rows = self.rows(number)
            for row, texts in zip(rows, self._given(rows), strict=True):
                language = texts["language"]
                if texts.get("transcript") or texts.get("words") or language in known:
                    continue
                recognizer = self.annotator.recognizer
                if recognizer is None:
                    return
                if language is None and recognizer.english_only:
                    raise ValueError(
                        f"{self.settings['transcript']['recognizer']} knows only English, and the table does not say "
                        "what is spoken: give --language en if it is English, or name a multilingual --recognizer."
                    )
                try:
                    recognizer([], language=language)
                except ValueError as error:
                    raise ValueError(f"row {row + 1}: {error}") from error
                known.add(language)


@dataclasses.dataclass
class Entry:
    """One row of a shard: its texts, or why its recording could not be read."""

    annotation: Annotation = dataclasses.field(default_factory=Annotation)
    error: str | None = None


def _entry(row: Mapping[str, Any], valid: Sequence[str]) -> Entry:
    """What the valid steps, the transcript among them, left in a row."""
    annotation = Annotation(row["transcript"], row["words"])
    if "emphasis" in valid:
        annotation.emphasis, annotation.scores = row["emphasis"], row["emphasis_scores"]
    if "description" in valid:
        annotation.description, annotation.describer = row["description"], row["describer"]
    absent = json.loads(row["absent"] or "{}")
    annotation.absent = {name: absent[name] for name in (*valid, "words") if name in absent}
    return Entry(annotation, row["error"])


def _columns(entry: Entry) -> dict[str, Any]:
    """A row of `MADE`."""
    made = entry.annotation
    return {
        "transcript": made.transcript,
        "words": made.words,
        "emphasis": made.emphasis,
        "emphasis_scores": made.scores,
        "description": made.description,
        "describer": made.describer,
        "absent": json.dumps(made.absent, sort_keys=True) if made.absent else None,
        "error": entry.error,
    }


def _write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file whole or not at all."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        with open(unfinished, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise OSError(
            f"{path} cannot be written ({error.strerror or error}): once it can, give the same command again; what is "
            "there stays."
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


if __name__ == "__main__":
    main(sys.argv[1:])
