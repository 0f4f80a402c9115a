"""Hostile audio: several hundred inputs of `make stress`, each read in every way, in a process with a memory limit."""

import io
import sys

import pytest
import soundfile

from msfser.recordings_msfser import fetch
from stress import hostile_audio, isolated

INPUTS = 300


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and devices are those of Linux")
def test_each_hostile_input_gives_a_result_or_a_sentence():
    outcomes = isolated.run("stress.hostile_audio", 0, INPUTS)
    assert [outcome.number for outcome in outcomes] == list(range(INPUTS))
    assert not [outcome for outcome in outcomes if outcome.defect]
    # Both occur, so neither everything nor nothing is refused.
    given = [outcome.given for outcome in outcomes]
    assert min(given.count("result"), given.count("refused")) > INPUTS / 10


def test_what_kills_or_stops_the_process_is_counted_and_the_rest_goes_on(tmp_path, monkeypatch):
    (tmp_path / "victim.py").write_text(
        "import json, os, sys\n"
        "for number in range(int(sys.argv[1]), int(sys.argv[2])):\n"
        "    if number == 2:\n"
        "        os.abort()\n"
        "    if number == 4:\n"
        "        import time; time.sleep(100)\n"
        "    print(json.dumps({'number': number, 'name': 'a', 'given': 'result'}), flush=True)\n"
    )
    monkeypatch.setattr(isolated, "TESTS", tmp_path)
    monkeypatch.setattr(isolated, "_PATIENCE", 2.0)
    outcomes = isolated.run("victim", 0, 6)
    assert [outcome.given for outcome in outcomes] == ["result", "result", "crash", "result", "crash", "result"]
    assert "ended with -6" in outcomes[2].defect and "hung" in outcomes[4].defect


def test_a_small_file_can_hold_more_than_the_bound():
    """So that the inputs above try the bound."""
    data = hostile_audio.long_silence()
    with soundfile.SoundFile(io.BytesIO(data)) as sound:
        assert len(data) < 1_000_000 and sound.frames * sound.channels * 4 > hostile_audio.MOST_BYTES


@pytest.mark.parametrize("address", ["https://", "https:///a.wav", "https://[::1/a.wav", "https://host/\u00e4.wav"])
def test_an_address_that_is_none_is_a_sentence(address):
    with pytest.raises(ValueError, match=r"address is not valid: give https://HOST/PATH"):
        fetch(address)


def test_cases_are_the_same_each_time(tmp_path):
    for number in range(40):
        first, second = (hostile_audio.case(number, tmp_path) for _ in range(2))
        assert first.name == second.name
        if isinstance(first.source, bytes):
            assert first.source == second.source


def test_the_sentences_are_told_from_other_messages():
    assert isolated.is_sentence(ValueError("the sound is empty."))
    for message in ("", "no", "two\nlines.", "<an object at 0x7f>.", "The truth value of an array is ambiguous"):
        assert not isolated.is_sentence(ValueError(message))
