"""A describer's server that fails: at one recording, or at all."""

import base64
import io
import json

import pytest
import soundfile
from tones import (
    fails,
    journal_fixture,  # noqa: F401 - used by every test
    make_corpus,
    number_of,
    rows_of,
    run,
    state_of,
)

from msfser.annotation import annotate
from msfser.annotation.chat_endpoint import ChatEndpointDescriber, ServerFailure, _Rejection
from msfser.annotation.prompt import FIELDS, render_fields
from msfser.corpora.table import read_table
from msfser.sharding import sharded_table

ARGUMENTS = ["--language", "en", "--describer", "m", "--url", "http://127.0.0.1:1"]


class Describer(ChatEndpointDescriber):
    """Describes tones one after the other, in place of a server.

    Args:
        broken: Numbers of tones at which the server fails.
    """

    def __init__(self, broken):
        super().__init__("http://127.0.0.1:1", "m", concurrency=1)
        self.broken, self.rejected, self.asked = broken, set(), []
        self.lives = 1_000  # requests until it fails at all

    def _request(self, sound, prompt):
        number = number_of(soundfile.read(io.BytesIO(base64.b64decode(sound)))[0])
        self.asked.append(number)
        if number in self.broken or len(self.asked) > self.lives:
            raise ServerFailure(f"the server fails at {number}: run again.")
        if number in self.rejected:
            raise _Rejection("the server rejects the recording.")
        return json.dumps(fields_of(number))


def fields_of(number):
    return dict.fromkeys(FIELDS, f"tone {number}") | {"emotion_class": "neutral"}


def texts_of(*numbers):
    return [render_fields(fields_of(number)) for number in numbers]


@pytest.fixture
def describer(monkeypatch):
    """That of a process; `restart` makes that of the next."""
    made = Describer(set())
    monkeypatch.setattr(annotate, "ChatEndpointDescriber", lambda url, model: made)
    return made


def restart(describer):
    describer.__init__(describer.broken)


def test_a_recording_at_which_the_server_fails_is_a_row_that_is_tried_again(tmp_path, describer, caplog):
    """As reported: it stopped the command each time, which could never end."""
    table, out = make_corpus(tmp_path), tmp_path / "out"
    describer.broken = {0, 4}
    rows = run(table, out, *ARGUMENTS)
    failures = [f"the server fails at {i}: run again." if i in describer.broken else None for i in range(8)]
    assert [row["error"] for row in rows] == failures
    assert "2 rows cannot be used; the first is line 2: the server fails at 0" in caplog.text
    assert [row["description"] for row in rows] == [
        "given" if i == 2 else None if i in describer.broken else texts_of(i)[0] for i in range(8)
    ]
    assert len(read_table(out, label_range=(1, 7), pooled=True)["all"]) == 6
    describer.asked.clear()
    before = state_of(out)
    assert run(table, out, *ARGUMENTS) == rows and state_of(out) == before and describer.asked == [0, 4]
    describer.broken = {4}
    assert [i for i, row in enumerate(run(table, out, *ARGUMENTS)) if row["error"]] == [4]
    describer.broken = set()
    assert run(table, out, *ARGUMENTS) == run(table, tmp_path / "fresh", *ARGUMENTS)


def test_a_server_that_fails_from_some_time_on_stops_the_command(tmp_path, describer):
    """It is asked for the recording that it described last and for one in a finished shard."""
    table, out = make_corpus(tmp_path, 20), tmp_path / "out"
    describer.lives = 5
    assert "error: the server fails at 0: run again" in fails(table, "--output", out, *ARGUMENTS)
    assert describer.asked[:11] == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 5] and describer.asked[-1] == 0
    assert len(describer.asked) <= 13  # the request after the last may be under way
    assert [row["description"] for row in rows_of(out)][3:6] == texts_of(3, 4, 5)
    restart(describer)
    assert run(table, out, *ARGUMENTS) == run(table, tmp_path / "fresh", *ARGUMENTS)


def test_a_server_that_never_describes_stops_the_command(tmp_path, describer):
    table, out = make_corpus(tmp_path, 20), tmp_path / "out"
    describer.broken = {*range(20)}
    assert "error: the server fails at 5: run again" in fails(table, "--output", out, *ARGUMENTS)
    assert describer.asked == [0, 1, 3, 4, 5]  # the fifth is the last of its shard


def test_recordings_at_which_a_working_server_fails_do_not_stop_the_command(tmp_path, describer, monkeypatch):
    """As reported: with five too long recordings at its end, a shard was never written."""
    monkeypatch.setattr(sharded_table.ShardedTable, "rows_per_shard", 20)
    table, out = make_corpus(tmp_path, 20), tmp_path / "out"
    describer.broken = {*range(13, 20)}
    rows = run(table, out, *ARGUMENTS)
    assert [i for i, row in enumerate(rows) if row["error"]] == [*range(13, 20)]
    assert describer.asked == [i for i in range(18) if i != 2] + [12, 18, 19]
    restart(describer)
    assert run(table, out, *ARGUMENTS) == rows
    assert describer.asked[-8:] == [*range(13, 18), 0, 18, 19]
    assert {*describer.asked[:-8]} - {18} == {0, *range(13, 18)} and len(describer.asked) <= 15
    describer.broken = set()
    assert run(table, out, *ARGUMENTS) == run(table, tmp_path / "fresh", *ARGUMENTS)


def test_a_killed_run_of_which_only_such_recordings_are_left_ends(tmp_path, describer):
    table, out = make_corpus(tmp_path, 20), tmp_path / "out"
    describer.broken = {*range(12, 20)}
    rows = run(table, out, *ARGUMENTS)
    for number in (4, 5, 6):
        (out / "data" / f"part-0000{number}.parquet").unlink()
    restart(describer)
    assert run(table, out, *ARGUMENTS) == rows and {*describer.asked} == {0, *range(12, 20)}


def test_recordings_that_failed_before_stop_nothing(tmp_path, describer):
    """They alone are tried again, one after the other, and one that was described tells that the server works."""
    table, out = make_corpus(tmp_path, 20), tmp_path / "out"
    describer.broken = {*range(1, 20, 2)}
    rows = run(table, out, *ARGUMENTS)
    assert [i for i, row in enumerate(rows) if row["error"]] == [*describer.broken]
    (out / "data" / "part-00006.parquet").unlink()
    restart(describer)
    assert run(table, out, *ARGUMENTS) == rows and {*describer.asked} == {0, *range(1, 20, 2), 18}
    restart(describer)
    describer.lives = 0
    assert "the server fails at 0" in fails(table, "--output", out, *ARGUMENTS)
    assert describer.asked[:5] == [1, 3, 5, 7, 9] and describer.asked[-1] == 0 and len(describer.asked) <= 7
    assert rows_of(out) == rows


def test_a_rejection_is_a_response(tmp_path, describer):
    table, out = make_corpus(tmp_path, 20), tmp_path / "out"
    describer.rejected = {5, 9, 14, 18}
    describer.broken = {*range(1, 20)} - describer.rejected
    rows = run(table, out, *ARGUMENTS)
    assert describer.asked == [i for i in range(20) if i != 2]
    assert [i for i, row in enumerate(rows) if not row["error"]] == [0, 2, 5, 9, 14, 18]


def test_a_rejection_is_none_of_a_server_that_described_before(tmp_path, describer):
    table, out = make_corpus(tmp_path, 4), tmp_path / "out"
    describer.broken = {3}
    run(table, out, *ARGUMENTS)
    restart(describer)
    describer.broken, describer.rejected = set(), {3}
    rows = run(table, out, *ARGUMENTS)
    assert (rows[3]["error"], rows[3]["description"]) == (None, None) and describer.asked == [3, 0, 3]
    restart(describer)
    describer.rejected = {*range(4)}
    assert "the server rejects the recording" in fails(table, "--output", tmp_path / "other", *ARGUMENTS)


def test_recordings_that_the_server_describes_are_between(tmp_path, describer):
    """A text that is given says nothing of the server."""
    table = make_corpus(tmp_path, 20, description=lambda i: "given" if i % 3 == 1 else "")
    describer.broken = {i for i in range(20) if i not in (6, 14)}
    errors = [i for i, row in enumerate(run(table, tmp_path / "out", *ARGUMENTS)) if row["error"]]
    assert errors == [i for i in range(20) if i % 3 != 1 and i not in (6, 14)]
    restart(describer)
    describer.broken.add(6)
    assert "the server fails" in fails(table, "--output", tmp_path / "other", *ARGUMENTS)
