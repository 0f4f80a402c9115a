"""The one schema of every corpus.

A reader returns a `datasets.DatasetDict` whose keys are among `SPLITS` and whose parts all have `FEATURES`:

| column        | type                                | null | meaning                                          |
|---------------|-------------------------------------|------|--------------------------------------------------|
| `audio`       | `{"bytes": binary, "path": string}` | yes  | the encoded recording, or its absolute path      |
| `transcript`  | string                              | yes  | what is said (global semantics, GS)              |
| `emphasis`    | string                              | yes  | the emphasized words (local emphasized, LES)     |
| `description` | string                              | yes  | how it is said, in words (extended, ES)          |
| `words`       | list of `{"word", "start", "end"}`  | yes  | the spoken words with their times in seconds     |
| `valence`     | float32                             | yes  | 0 (negative) to 1 (positive)                     |
| `arousal`     | float32                             | yes  | 0 (calm) to 1 (excited)                          |
| `dominance`   | float32                             | yes  | 0 (submissive) to 1 (dominant)                   |
| `speaker`     | string                              | yes  | who speaks; text, so that leading zeros survive  |

Every column is always there; what a corpus does not have is null in all rows, so that corpora can be concatenated.
Labels are null only in corpora that are read without labels, and one of the three in corpora that do not rate it;
audio is null only in corpora of text. Texts are never empty.

`audio` is the undecoded form of `datasets.Audio(decode=False)`: either `bytes` holds the encoded file and `path` is
only a name, or `bytes` is null and `path` names a file on this machine. `audio_source` gives what a loader accepts.

Tables may use the names of `ALIASES` and `SPLIT_ALIASES` instead, which are those of the AudioFolder convention, and
those of `DISTRIBUTED`, which are those of public copies of MSP-Podcast, WHiSER and other corpora.
"""

from collections.abc import Mapping

import pyarrow as pa
from datasets import Audio, Dataset, DatasetInfo, Features, List, Value

from ..configuration_msfser import LABELS, TENSOR_NAMES

SPLITS: tuple[str, str, str] = ("train", "validation", "test")

FEATURES = Features(
    {
        "audio": Audio(decode=False),
        **{name: Value("string") for name in TENSOR_NAMES},
        "words": List({"word": Value("string"), "start": Value("float64"), "end": Value("float64")}),
        **{name: Value("float32") for name in LABELS},
        "speaker": Value("string"),
    }
)
SCHEMA: pa.Schema = FEATURES.arrow_schema.remove_metadata()

ALIASES: dict[str, tuple[str, ...]] = {
    "audio": ("file_name",),
    "transcript": ("transcription", "text"),
    "speaker": ("speaker_id",),
}
DISTRIBUTED: dict[str, tuple[str, ...]] = {
    "audio": ("FileName",),
    "valence": ("EmoVal",),
    "arousal": ("EmoAct", "activation"),
    "dominance": ("EmoDom",),
    "speaker": ("SpkrID",),
    "split": ("Split_Set",),
}
SPLIT_ALIASES: dict[str, str] = {
    "training": "train",
    **dict.fromkeys(("dev", "development", "val", "valid", "eval"), "validation"),
    **dict.fromkeys(("testing", "test1", "test2", "test3"), "test"),
}
# What tables write where something is not known.
UNKNOWN: tuple[str, ...] = ("na", "n/a", "unknown")


def audio_source(audio: Mapping[str, bytes | str | None] | None) -> bytes | str | None:
    """Return the embedded recording of an item of the `audio` column, or else its path; `None` without audio."""
    if audio is None:
        return None
    return audio["path"] if audio["bytes"] is None else audio["bytes"]


def file_audio(path: str) -> dict[str, bytes | str | None]:
    """Return the item of the `audio` column for a file, given its absolute path."""
    return {"bytes": None, "path": path}


def make_dataset(rows: pa.Table | list[dict[str, object]], extra: Mapping[str, Value] | None = None) -> Dataset:
    """Make a dataset of columns of the schema and extra ones; in rows, absent columns are null."""
    features = Features({**FEATURES, **(extra or {})})
    if isinstance(rows, list):
        rows = pa.Table.from_pylist(rows, schema=features.arrow_schema.remove_metadata())
    features = Features({name: features[name] for name in rows.column_names})
    return Dataset(rows, info=DatasetInfo(features=features))
