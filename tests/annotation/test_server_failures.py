"""A describer's server that fails: at one recording, or at all."""

import pytest
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
from msfser.annotation.chat_endpoint import ServerFailure
from msfser.corpora.table import read_table

ARGUMENTS = ["--language", "en", "--describer", "m", "--url", "http://127.0.0.1:1"]


class Describer:
    """Describes tones but for some, at which the server fails.

    Args:
        broken: Their numbers.
    """

    name = "chat:m"

    def __init__(self, broken):
        self.broken, self.asked = broken, []

    def __call__(self, sounds, transcripts):
        descriptions = []
        for sound in sounds:
            number = number_of(sound)
            self.asked.append(number)
            if number in self.broken:
                raise ServerFailure(f"the server fails at {number}: run again.")
            descriptions.append(f"tone {number}")
        return descriptions


@pytest.fixture
def describer(monkeypatch):
    made = Describer(set())
    monkeypatch.setattr(annotate, "ChatEndpointDescriber", lambda url, model: made)
    return made


def test_a_recording_at_which_the_server_fails_is_a_row_that_is_tried_again(tmp_path, describer, caplog):
    """As reported: it stopped the command each time, which could never end."""
    table, out = make_corpus(tmp_path), tmp_path / "out"
    describer.broken = {0, 4}
    rows = run(table, out, *ARGUMENTS)
    failures = [f"the server fails at {i}: run again." if i in describer.broken else None for i in range(8)]
    assert [row["error"] for row in rows] == failures
    assert "2 rows cannot be used; the first is line 2: the server fails at 0" in caplog.text
    assert [row["description"] for row in rows] == [
        "given" if i == 2 else None if i in describer.broken else f"tone {i}" for i in range(8)
    ]
    assert len(read_table(out, label_range=(1, 7), pooled=True)["all"]) == 6
    describer.asked.clear()
    before = state_of(out)
    assert run(table, out, *ARGUMENTS) == rows and state_of(out) == before and describer.asked == [0, 4]
    describer.broken = {4}
    assert [i for i, row in enumerate(run(table, out, *ARGUMENTS)) if row["error"]] == [4]
    describer.broken = set()
    assert run(table, out, *ARGUMENTS) == run(table, tmp_path / "fresh", *ARGUMENTS)


def test_a_server_that_fails_at_five_recordings_in_a_row_stops_the_command(tmp_path, describer):
    table, out = make_corpus(tmp_path, 20), tmp_path / "out"
    describer.broken = {*range(6, 20)}
    assert "error: the server fails at 10: run again" in fails(table, "--output", out, *ARGUMENTS)
    assert [row["description"] for row in rows_of(out)][3:6] == ["tone 3", "tone 4", "tone 5"]
    describer.broken = set()
    assert run(table, out, *ARGUMENTS) == run(table, tmp_path / "fresh", *ARGUMENTS)


def test_recordings_that_failed_before_stop_nothing(tmp_path, describer):
    """Only they are tried again, one after the other."""
    table, out = make_corpus(tmp_path, 20), tmp_path / "out"
    describer.broken = {*range(1, 20, 2)}
    rows = run(table, out, *ARGUMENTS)
    assert [i for i, row in enumerate(rows) if row["error"]] == [*describer.broken]
    (out / "data" / "part-00006.parquet").unlink()
    describer.asked.clear()
    assert run(table, out, *ARGUMENTS) == rows and {*describer.asked} == {*range(1, 20, 2), 18}


def test_recordings_that_the_server_describes_are_between(tmp_path, describer):
    """A text that is given says nothing of the server."""
    table = make_corpus(tmp_path, 20, description=lambda i: "given" if i % 3 == 1 else "")
    describer.broken = {i for i in range(20) if i not in (6, 14)}
    errors = [i for i, row in enumerate(run(table, tmp_path / "out", *ARGUMENTS)) if row["error"]]
    assert errors == [i for i in range(20) if i % 3 != 1 and i not in (6, 14)]
    describer.broken.add(6)
    assert "the server fails" in fails(table, "--output", tmp_path / "other", *ARGUMENTS)
