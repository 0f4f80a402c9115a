"""What tells that the data of a run have changed."""

import datasets
import pyarrow as pa
import pytest

from msfser.corpora.schema import FEATURES
from msfser.training.data_identity import differences, identity_of

BYTES = bytes(range(256)) * 64  # four samples long


def part(audio, **columns) -> datasets.Dataset:
    row = {"valence": 0.5, "arousal": 0.5, "dominance": 0.5, "transcript": "a", "audio": audio} | columns
    return datasets.Dataset(pa.Table.from_pylist([row], schema=FEATURES.arrow_schema))


def identity(audio, **columns):
    return identity_of({"train": part(audio, **columns)}, ["audio", "transcript"])


@pytest.mark.parametrize("place", ["start", "middle", "end"])
@pytest.mark.parametrize("embedded", [True, False])
def test_a_recording_that_changed_is_seen_and_one_that_moved_is_the_same(tmp_path, embedded, place):
    def given(name: str, content: bytes):
        if embedded:
            return {"bytes": content, "path": None}
        (tmp_path / name).write_bytes(content)
        return {"bytes": None, "path": str(tmp_path / name)}

    at = {"start": 0, "middle": len(BYTES) // 2, "end": len(BYTES) - 1}[place]
    changed = BYTES[:at] + bytes([BYTES[at] ^ 1]) + BYTES[at + 1 :]
    assert identity(given("a", BYTES)) == identity(given("b", BYTES))
    assert differences(identity(given("a", BYTES)), identity(given("c", changed))) == "train: audio"
    for other in (BYTES[:-1], b"", BYTES[:5]):
        assert differences(identity(given("a", BYTES)), identity(given("d", other))) == "train: audio"
    assert differences(identity(given("a", BYTES)), identity(None)) == "train: audio"


def test_columns_rows_and_parts_that_differ_are_named():
    before = identity(None)
    assert differences(before, identity(None)) == ""
    assert differences(before, identity(None, valence=0.6, transcript="b")) == "train: valence, transcript"
    two = identity_of({"train": datasets.concatenate_datasets([part(None)] * 2)}, ["audio", "transcript"])
    assert differences(before, two) == "train: 1 -> 2 rows"
    assert differences(before | {"test": two["train"]}, two) == "train: 1 -> 2 rows"
