"""The texts of a corpus, made in shards, so that a killed run can be resumed."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from ..annotator_msfser import Annotation, LazyProsody, MsfSerAnnotator
from ..audio_msfser import SAMPLING_RATE, load_audio
from ..corpora.schema import FEATURES
from ..corpora.table import SourceRows
from ..corpora.text_languages import stated_language
from ..languages_msfser import language_code
from ..sharding.sharded_table import ShardedTable, hashed, recording_of
from ..word_times_msfser import check_words
from .chat_endpoint import ServerFailure


class ShardedAnnotation(ShardedTable):
    """The texts of a corpus in shards. Texts that the source has are kept.

    Args:
        source: The rows.
        settings: Of each step, as [`MsfSerAnnotator.from_settings`] reads them.
        make_annotator: Loads the annotator; called only if there is something to make.
        output: As in [`ShardedTable`].
        folder: As in [`ShardedTable`].
        server: The address and the model of a describer's server, which the settings do not have.
    """

    command = "annotate"
    # The second and the third step each depend on the first.
    steps = ("transcript", "emphasis", "description")
    made = {  # noqa: RUF012
        "transcript": pa.string(),
        "words": FEATURES.arrow_schema.field("words").type,
        "emphasis": pa.string(),
        "emphasis_scores": pa.list_(pa.float32()),
        "description": pa.string(),
        "describer": pa.string(),
        "language": pa.string(),
        "absent": pa.string(),
        "error": pa.string(),
    }
    given = ("transcript", "words", "emphasis", "description", "language")
    retries_errors = True
    # Raised when a step gives other results with the same settings.
    version = 4

    def __init__(
        self,
        source: SourceRows,
        settings: Mapping[str, Mapping[str, Any]],
        make_annotator: Callable[[], MsfSerAnnotator],
        output: Path,
        folder: Path,
        server: tuple[str, str] | None = None,
    ):
        super().__init__(source, settings, output, folder)
        self.make_annotator = make_annotator
        self.server = server
        self._given = source.table.select([name for name in self.given if name in source.table.column_names])

    @functools.cached_property
    def annotator(self) -> MsfSerAnnotator:
        """What makes the texts, loaded at its first use."""
        return self.make_annotator()

    def step_keys(self, rows: range) -> dict[str, str]:
        """See [`ShardedTable.step_keys`]."""
        given = self._given.slice(rows.start, len(rows)).to_pydict()
        spoken = [given.get(name) for name in ("transcript", "words", "language")]
        transcript = hashed(self.version, self.settings["transcript"], [self.identity(row) for row in rows], spoken)
        emphasis = hashed(transcript, self.settings["emphasis"], given.get("emphasis"))
        description = hashed(transcript, self.settings["description"], self.server, given.get("description"))
        return {"transcript": transcript, "emphasis": emphasis, "description": description}

    def make_rows(
        self, rows: range, stale: Sequence[str], stored: Sequence[Mapping[str, Any]] | None
    ) -> list[dict[str, Any]]:
        """See [`ShardedTable.make_rows`]."""
        given = self._given_texts(rows)
        valid = [step for step in self.steps if step not in stale]
        entries = [_Row() for _ in rows] if stored is None else [_Row.of(row, valid) for row in stored]
        made = dict(zip(rows, entries, strict=True))
        failed = [number for number, row in made.items() if row.error is not None]
        made |= {number: _Row() for number in failed}
        whole = [number for number in rows if number not in failed]
        if not stale:
            self._advance(len(whole))
        errors: dict[int, str] = {}
        for decoded in self.decoded(rows if stale else failed, errors):
            for number, sound in decoded.items():
                try:
                    check_words(given[number].get("words") or (), len(sound) / SAMPLING_RATE)
                except ValueError as beyond:
                    errors[number] = str(beyond)
            for numbers, steps in ((failed, self.steps), (whole, stale)):
                chosen = [number for number in decoded if number in numbers and number not in errors]
                if chosen:
                    texts, sounds = [made[number] for number in chosen], [decoded[number] for number in chosen]
                    known = [given[number] for number in chosen]
                    self._make_texts(texts, sounds, known, steps)
        for number, error in errors.items():
            kept: dict[str, Any] = {name: given[number].get(name) for name in self.given}
            made[number] = _Row(**kept, error=error)
        for number, stated in self._stated_languages(rows).items():
            if stated is not None or given[number]["language"] is not None:  # it was not detected
                made[number].language = stated
        return [row.columns() for row in made.values()]

    def _make_texts(
        self,
        texts: Sequence["_Row"],
        sounds: Sequence[np.ndarray],
        given: Sequence[Mapping[str, Any]],
        steps: Sequence[str],
    ) -> None:
        """Runs some steps for some rows."""
        prosody = LazyProsody(sounds)
        if "transcript" in steps:
            self.annotator.transcribe(texts, sounds, given)
        if "emphasis" in steps:
            self.annotator.emphasize(texts, prosody, given)
        if "description" in steps:
            self._describe(texts, sounds, prosody, given)

    def _describe(
        self,
        texts: Sequence["_Row"],
        sounds: Sequence[np.ndarray],
        prosody: LazyProsody,
        given: Sequence[Mapping[str, Any]],
    ) -> None:
        """Describes some rows; one at which the server fails has an error.

        Raises:
            ServerFailure: The server is broken.
        """
        failures: dict[int, OSError] = {}
        try:
            self.annotator.describe(texts, sounds, prosody, given, failures)
        except ServerFailure:
            # Perhaps only recordings at which it fails were left: one that a run described tells.
            described = self._described()
            if described is None or self.annotator.describer is None:
                raise
            self.annotator.describer([load_audio(recording_of(self.source, described))], [None])
            self.annotator.describe(texts, sounds, prosody, given, failures)
        for place, failure in failures.items():
            texts[place].error = str(failure)

    def _described(self) -> int | None:
        """A row of a finished shard that the describer described."""
        for number in range(self.count):
            if self.stored_keys(number).get("description") == self.keys(number)["description"]:
                names = pyarrow.parquet.read_table(self.shard(number), columns=["describer"])["describer"].to_pylist()
                for row, name in zip(self.rows(number), names, strict=True):
                    if name is not None:
                        return row
        return None

    def _given_texts(self, rows: range) -> dict[int, dict[str, Any]]:
        """The texts that the source has, and the language that it or else the run states, by row."""
        given = dict(zip(rows, self._given.slice(rows.start, len(rows)).to_pylist(), strict=True))
        for number, stated in self._stated_languages(rows).items():
            given[number]["language"] = stated or self.settings["transcript"]["language"]
        return given

    def _stated_languages(self, rows: range) -> dict[int, str | None]:
        """The language that the source states, by row."""
        if "language" not in self._given.column_names:
            return dict.fromkeys(rows)
        values = self._given["language"].slice(rows.start, len(rows)).to_pylist()
        return dict(zip(rows, map(stated_language, values), strict=True))

    def check(self, shards: Sequence[int], surplus: Sequence[Path]) -> None:
        """Asks for a language before hours of work.

        Raises:
            ValueError: A language is unknown, or unknown to the recognizer that has to transcribe it; or that knows
                only English, which nobody stated: it would write English whatever is spoken.
        """
        known = set()
        for number in shards:
            if self.stored_keys(number).get("transcript") == self.keys(number)["transcript"]:
                continue
            for row, texts in self._given_texts(self.rows(number)).items():
                language, wants_transcript = texts["language"], not (texts.get("transcript") or texts.get("words"))
                if (language, wants_transcript) in known:
                    continue
                known.add((language, wants_transcript))
                recognizer = self.annotator.recognizer if wants_transcript else None
                if language is None and recognizer is not None and recognizer.english_only:
                    raise ValueError(
                        f"{self.settings['transcript']['recognizer']} knows only English, and the table does not say "
                        "what is spoken: give --language en if it is English, or name a multilingual --recognizer."
                    )
                try:
                    language_code(language)
                    if recognizer is not None:
                        recognizer([], language=language)
                except ValueError as error:
                    raise ValueError(f"{self.source.row(row)}: {error}") from error


@dataclass
class _Row(Annotation):
    """The texts of one row, and why its recording could not be read or described."""

    error: str | None = None

    @classmethod
    def of(cls, stored: Mapping[str, Any], valid: Sequence[str]) -> "_Row":
        """What the valid steps, the transcript among them, left in a shard."""
        row = cls(stored["transcript"], stored["words"], language=stored["language"], error=stored["error"])
        if "emphasis" in valid:
            row.emphasis, row.scores = stored["emphasis"], stored["emphasis_scores"]
        if "description" in valid:
            row.description, row.describer = stored["description"], stored["describer"]
        absent = json.loads(stored["absent"] or "{}")
        row.absent = {name: absent[name] for name in (*valid, "words") if name in absent}
        return row

    def columns(self) -> dict[str, Any]:
        """The values of `ShardedAnnotation.made`."""
        absent = json.dumps(self.absent, sort_keys=True) if self.absent else None
        return vars(self) | {"emphasis_scores": self.scores, "absent": absent}
