import base64
import contextlib
import html
import importlib.metadata
import io
import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from demo_page import SPACE, SPOKEN, FakeRecognizer
from huggingface_hub import ModelCard
from media import media, playlist, reference_movie
from packaging.requirements import Requirement
from spoken import voice
from tiny import tiny_model, tiny_processor

from msfser import MsfSerModel
from msfser.audio_msfser import SAMPLING_RATE, load_audio
from msfser.corpora.licenses import LICENSES, License
from msfser.evaluation.results import RESULTS, read
from msfser.hub.contents import space_files
from msfser.sound_quality_msfser import speech_warnings
from msfser.starter import assemble

gr = pytest.importorskip("gradio", reason='the demo\'s packages are not installed: pip install -e ".[space]"')
gradio_client = pytest.importorskip("gradio_client")

from stress import space  # noqa: E402 - it needs them

from msfser.benchmarks import space as benchmark  # noqa: E402 - so does this
from msfser.space import analysis, app, figures, live, texts  # noqa: E402
from msfser.space import page as pages  # noqa: E402

README = (SPACE / "README.md").read_text(encoding="utf-8")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LABELS = ("valence", "arousal", "dominance")


@pytest.fixture(scope="module")
def ser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    # The texts must matter more than they do in a random model.
    model = tiny_model(initializer_range=0.3)
    model.save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return analysis.load(str(folder), recognizer=FakeRecognizer())


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for i in range(3):
        soundfile.write(folder / f"{i}.wav", voice(1.5 + i, i), SAMPLING_RATE)
    soundfile.write(folder / "long.wav", voice(20.0), SAMPLING_RATE)
    soundfile.write(folder / "silent.wav", np.zeros(SAMPLING_RATE), SAMPLING_RATE)
    soundfile.write(folder / "too_long.wav", np.zeros(8_000 * 301), 8_000, subtype="PCM_U8")
    soundfile.write(folder / "empty.wav", np.zeros(0), SAMPLING_RATE)
    (folder / "memo.m4a").write_bytes(media("m4a", 2.0))
    (folder / "endless.webm").write_bytes(media("webm", 301.0, live="1"))
    (folder / "list.m4a").write_bytes(playlist(str(folder / "0.wav")))
    (folder / "movie.m4a").write_bytes(reference_movie(f"file://{folder}/0.wav"))
    (folder / "broken.wav").write_bytes(b"RIFF" + b"\0" * 200)
    (folder / "text<b>.wav").write_text("This is no sound.")
    with open(folder / "too_large.wav", "wb") as file:
        file.truncate(64_000_000)
    return folder


@contextlib.contextmanager
def _launched(ser, name):
    built = pages.build(ser, name)
    built.launch(**pages.options(), prevent_thread_lock=True, quiet=True)
    try:
        yield built
    finally:
        built.close()


@pytest.fixture(scope="module")
def page(ser, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        with _launched(ser, "a tiny <b>model</b>") as built:
            yield built


def _function(page, name):
    """What an event of the page does."""
    return next(one.fn for one in page.fns.values() if one.api_name == name)


# What it computes


def test_the_result_is_that_of_the_pipeline(ser, clips):
    result = analysis.predict(ser, str(clips / "0.wav"))
    assert result == ser(str(clips / "0.wav"))
    assert result["transcript"] == SPOKEN and result["texts"]["transcript"] == "recognized"
    assert all(0 <= result[name] <= 1 for name in LABELS)


def test_other_words_or_stress_change_the_numbers(ser, clips):
    clip = str(clips / "0.wav")
    result = analysis.predict(ser, clip)
    for changed in ({"transcript": "the food was dreadful"}, {"emphasis": "dreadful"}, {"description": "a b c"}):
        again = analysis.predict(ser, clip, **changed)
        assert max(abs(again[name] - result[name]) for name in LABELS) > 1e-4, changed
        assert "given" in again["texts"].values()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (None, "There is no recording yet"),
        ("absent.wav", "has been deleted after 10 minutes"),
        ("too_long.wav", "longer than 5 minutes"),
        ("too_large.wav", "larger than 60 MB"),
        ("endless.webm", "longer than 5 minutes"),
        ("list.m4a", "cannot be read as audio"),
        ("movie.m4a", "cannot be read as audio"),
        ("broken.wav", "cannot be read as audio"),
        ("text<b>.wav", "cannot be read as audio"),
        ("empty.wav", "is empty"),
    ],
)
def test_an_unusable_recording_is_a_sentence(ser, clips, name, sentence):
    with pytest.raises(gr.Error) as caught:
        analysis.predict(ser, name and str(clips / name))
    message = caught.value.message
    assert sentence in message and message.endswith(".")
    assert str(clips) not in message and "<b>" not in message


def test_a_recording_of_a_telephone_is_used(ser, clips):
    assert analysis.predict(ser, str(clips / "memo.m4a"))["duration"] == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("name", ["transcript", "emphasis", "description", "language"])
def test_texts_have_a_limit_in_the_function_too(ser, clips, name):
    """2 MB of words held the one worker for 16 s."""
    before = time.monotonic()
    for text in ("so it was " * 200_000, "a" * (analysis.MOST_LETTERS + 1)):
        with pytest.raises(gr.Error, match=f"The {name} is longer than [0-9,]+ characters: shorten it"):
            analysis.predict(ser, str(clips / "0.wav"), **{name: text})
    with pytest.raises(gr.Error, match=f"The {name} is not text"):
        analysis.predict(ser, str(clips / "0.wav"), **{name: ["a"] * 10**6})
    assert time.monotonic() - before < 1
    analysis.predict(ser, str(clips / "0.wav"), transcript="so it was " * 15)


def test_an_error_of_the_pipeline_is_a_sentence_without_paths(clips):
    class Refusing:
        def seconds(self, path, most):
            return 1.0

        def __call__(self, item):
            raise ValueError(f"{item['audio']!r} cannot be decoded (no <i>end</i>): convert it.")

    with pytest.raises(gr.Error) as caught:
        analysis.predict(Refusing(), str(clips / "0.wav"))
    assert caught.value.message == "The recording cannot be decoded (no &lt;i&gt;end&lt;/i&gt;): convert it."


def test_progress_follows_the_windows_of_its_own_request(ser, clips):
    seen = list(analysis.follow(ser, str(clips / "long.wav")))
    fractions = [fraction for fraction, _ in seen if fraction is not None]
    assert seen[0] == (None, "Processing 20 s of audio")
    assert fractions == sorted(fractions) and all(0 < fraction <= 1 for fraction in fractions)
    ends = {round(part["end"]) for part in analysis.predict(ser, str(clips / "long.wav"))["course"]}
    shown = {int(re.search(r"Analyzed (\d+) of 20 s", text)[1]) for fraction, text in seen if fraction is not None}
    assert shown <= ends


def test_a_canceled_request_stops_after_its_window(ser, clips, monkeypatch):
    forward, calls, begun = ser.model.forward, [], threading.Event()

    def slow(*args, **kwargs):
        calls.append(begun.set())
        time.sleep(0.2)
        return forward(*args, **kwargs)

    monkeypatch.setattr(ser.model, "forward", slow)
    steps = analysis.follow(ser, str(clips / "long.wav"))
    next(steps)
    assert begun.wait(30)
    steps.close()
    monkeypatch.setattr(ser.model, "forward", forward)
    # The one worker is free again, long before all windows are done.
    analysis.predict(ser, str(clips / "0.wav"))
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (-0.01, "very calm"),
        (0.0, "very calm"),
        (0.3, "somewhat calm"),
        (0.5, "neither calm nor excited"),
        (0.6, "somewhat excited"),
        (1.0, "very excited"),
    ],
)
def test_numbers_have_plain_words(value, words):
    assert texts.in_words("arousal", value) == words


def _told(result):
    """What the page says about a result, without its markup."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", figures.panel(result, "A clip"))).split())


FULL = {
    "intervals": {"valence": [0.1, 0.5], "arousal": [0.4, 0.9], "dominance": [0.3, 0.7]},
    "interval_level": 0.9,
    "percentiles": {
        name: {"labels": 10, "predictions": share} for name, share in zip(LABELS, (30, 78, 50), strict=True)
    },
    "percentiles_of": "a <corpus>",
    "contributions": {name: {"sound": 0.1, "transcript": -0.2, "emphasis": 0.001} for name in LABELS},
    "baseline": dict.fromkeys(LABELS, 0.45),
    "has_speech": True,
}


def test_a_result_has_scales_with_interval_and_rank(ser, clips):
    result = analysis.predict(ser, str(clips / "0.wav")) | FULL | dict(zip(LABELS, (0.25, 0.61, 0.5), strict=True))
    told = _told(result)
    assert "Somewhat negative, somewhat excited, neither submissive nor dominant." in told
    assert "Valence 0.25 90% interval 0.10 to 0.50, more negative than 70% of recordings" in told
    assert "more excited than 78%" in told and "more dominant than 50%" in told
    assert "about 90% of labels lie within it" in told and "the recordings of a <corpus>" in told
    drawn = figures.scales(result)
    assert "left:25.0%" in drawn and "left:10.0%;width:40.0%" in drawn
    assert 'role="img" aria-label="Valence on a scale from 0, negative, to 1, positive: 0.25, 90% interval' in drawn
    assert "<corpus>" not in drawn


def test_a_number_whose_interval_covers_nearly_the_scale_is_not_determined(ser, clips):
    intervals = {"valence": [0.0, 0.95], "arousal": [0.4, 0.9], "dominance": [0.3, 0.7]}
    numbers = dict(zip(LABELS, (0.4, 0.61, 0.5), strict=True))
    result = analysis.predict(ser, str(clips / "0.wav")) | FULL | {"intervals": intervals, "interval_level": 0.8}
    told = _told(result | numbers)
    assert "Somewhat excited, neither submissive nor dominant; valence is not determined." in told
    assert "Valence 0.40 not determined: the 80% interval covers nearly the whole scale negative positive" in told
    assert "80% interval 0.40 to 0.90" in told and "about 80% of labels" in told
    result["intervals"] = {name: [0.0, 1.0] for name in LABELS}
    assert texts.summary(result) == "Valence, arousal, and dominance are not determined."


def test_a_result_without_intervals_ranks_and_contributions_is_shown(ser, clips):
    missing = dict.fromkeys((*FULL, "interval_level"))
    told = _told(analysis.predict(ser, str(clips / "0.wav")) | missing | {"has_speech": True})
    assert "has no prediction intervals" in told and "interval 0" not in told and "What moves" not in told


def test_contributions_are_a_table_that_adds_up(ser, clips):
    result = analysis.predict(ser, str(clips / "0.wav")) | FULL
    shown = _told(result)
    assert "Sound +0.10 +0.10 +0.10 Words \N{MINUS SIGN}0.20" in shown and "Emphasized words 0.00" in shown
    assert "No input (baseline) 0.45 0.45 0.45" in shown and "Description" not in shown.partition("What moves")[2]
    assert 'style="right:50%;width:50.0%"' in figures.contributions(result)


def test_numbers_that_move_show_where_they_were(ser, clips):
    result = analysis.predict(ser, str(clips / "0.wav")) | {"valence": 0.4}
    drawn = figures.scales(result, {"valence": 0.7, "arousal": result["arousal"], "dominance": result["dominance"]})
    assert "was 0.70" in drawn and drawn.count("was ") == 2 and drawn.count("ser-before") == 3


def test_a_course_has_no_numbers_where_nobody_speaks():
    numbers = {"valence": 0.5, "arousal": 0.5, "dominance": 0.5}
    windows = [{"start": 10.0 * i, "end": 10.0 * i + 10, "has_speech": i != 2, **numbers} for i in range(5)]
    drawn = figures.course(windows, 50.0)
    lines = re.findall(r'class="ser-\w+" stroke-dasharray="[^"]*" d="(M[\d][^"]*)"', drawn)
    lines = [line for line in lines if "h.1" in line]
    assert len(lines) == 3 and all(line.count("M") == 2 and "500.0" not in line for line in lines)
    assert "0:20 0.50" not in drawn and "0:30 0.50" in drawn


def test_a_long_recording_has_a_course_with_times_and_words(ser, clips):
    result = analysis.predict(ser, str(clips / "long.wav"))
    drawn = figures.panel(result, "A clip")
    assert ", on average over 0:20." in drawn and ">0:05</span>" in drawn
    assert re.search('<time class="ser-time">0:00</time> (<mark>)?the', drawn)
    assert drawn.count('<circle class="ser-point') == len(result["course"]) >= 2
    assert ">start</text>" in drawn and ">end</text>" in drawn
    paths = re.findall(r'<path class="ser-valence"[^>]* d="([^"]*)"', drawn)
    assert len(paths) == 1 and paths[0].count("L") == len(result["course"]) - 1
    short = figures.panel(analysis.predict(ser, str(clips / "0.wav")), "A clip")
    assert "Over time" not in short and ">start</text>" not in short


def test_emphasized_words_are_marked(ser, clips):
    said = figures.words(analysis.predict(ser, str(clips / "0.wav"), emphasis="food was"))
    assert "the <mark>food</mark> <mark>was</mark> wonderful" in said
    assert "emphasized words: yours" in said and "Words: recognized automatically" in said
    assert "Nothing was recognized." in figures.words(analysis.predict(ser, str(clips / "silent.wav")))


def test_words_cannot_be_markup(ser, clips):
    result = analysis.predict(ser, str(clips / "0.wav"), transcript="<img src=x> ${1+1} {{value}} `b`")
    said = figures.words(result)
    assert "&lt;img" in said and not set("${`") & set(said)


def test_an_audio_only_model_shows_and_asks_for_no_words(clips, tmp_path):
    tiny_model(semantics=[]).save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    ser = analysis.load(str(tmp_path))
    assert "What was said" not in figures.panel(analysis.predict(ser, str(clips / "0.wav")), "A clip")
    built = pages.build(ser, "sound")
    labels = {c["props"].get("label") for c in built.config["components"]}
    assert not {"Words", "Emphasized words (consecutive)", "How it sounds", "Language of the speech"} & labels
    (predict,) = [one for one in built.config["dependencies"] if one["api_name"] == "predict"]
    assert len(predict["inputs"]) == 1


@pytest.mark.parametrize("recognizer", [FakeRecognizer(), None])
def test_the_page_of_a_model_that_reads_only_words_starts(tmp_path, recognizer):
    """There are no words in silence, and without a recognizer none in the first example either."""
    tiny_model(audio=False, semantics=["gs"]).save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    built = pages.build(analysis.load(str(tmp_path), recognizer=recognizer), "words")
    shown = [str(one["props"].get("value")) for one in built.config["components"]]
    assert any("No words are known" in value for value in shown) is (recognizer is None)
    assert (SPOKEN in shown) is (recognizer is not None)
    with pytest.raises(OSError, match="whisper-nowhere"):
        analysis.load(str(tmp_path), recognizer="openai/whisper-nowhere")


def test_it_says_when_nobody_spoke(ser, clips):
    assert "No speech was detected, so the numbers mean nothing." in _told(
        analysis.predict(ser, str(clips / "silent.wav"))
    )
    assert "No speech" not in _told(analysis.predict(ser, str(clips / "0.wav")))
    assert analysis.predict(ser, str(clips / "silent.wav"))["intervals"] is None


def test_numbers_without_speech_get_no_words_and_no_place(ser, clips):
    spoken = analysis.predict(ser, str(clips / "0.wav"))
    for result, has_speech in ((spoken, True), (analysis.predict(ser, str(clips / "silent.wav")), False)):
        shown = figures.panel(result, "A clip")
        assert ("ser-summary" in shown) is ("ser-plane" in shown) is has_speech
        assert (texts.summary(result) in html.unescape(shown)) is has_speech


def test_the_intervals_on_the_plane_lie_below_its_words_and_are_explained(ser, clips):
    drawn = figures.plane(analysis.predict(ser, str(clips / "0.wav")) | FULL)
    places = [drawn.index(f'class="ser-{name}"') for name in ("both", "axis", "quadrant", "landmark")]
    assert places == sorted(places)
    assert "; 90% intervals: valence 0.10 to 0.50, arousal 0.40 to 0.90" in re.search('aria-label="([^"]*)"', drawn)[1]
    assert "Russell, 1980); dashed: both intervals.</p>" in drawn
    for result in (analysis.predict(ser, str(clips / "long.wav")), analysis.predict(ser, str(clips / "0.wav"))):
        drawn = figures.plane(result | {"intervals": result["intervals"] and FULL["intervals"]})
        assert ("ser-both" in drawn) is ("dashed" in drawn) is ("intervals: valence" in drawn)


def test_it_says_how_little_speech_there_is_and_does_not_contradict_itself(ser, clips):
    result = analysis.predict(ser, str(clips / "0.wav")) | {"has_speech": False, "speech_seconds": 0.3}
    only = "Only 0.30 s of speech were detected, so the numbers mean nothing."
    # The second is how an earlier version of a model's code says it.
    for little in (*speech_warnings(0.3), "There is less than 1 s of speech (0.30 s)."):
        result["warnings"] = [little, "The sound is clipped."]
        assert texts.warnings(result) == [only, "The sound is clipped."]
        assert texts.warnings(result | {"has_speech": True}) == result["warnings"]


def _changes(update):
    """Whether an update changes anything but the controls."""
    return any(one != gr.skip() for one in update[4:])


@pytest.mark.parametrize("turn", ["new_recording", "clear_for_example", "begin_example", "cancel"])
def test_a_run_changes_nothing_once_the_visitor_turns_to_something_else(page, ser, clips, monkeypatch, turn):
    """The numbers and words of one recording were shown beside another one."""
    forward, runs = ser.model.forward, pages._Runs()
    monkeypatch.setattr(ser.model, "forward", lambda *args, **kwargs: time.sleep(0.1) or forward(*args, **kwargs))
    number, *_ = _function(page, "begin_new")(runs)
    run = _function(page, "analyze_new")(runs, number, str(clips / "long.wav"), "")
    next(run)
    left = _function(page, turn)(runs, *([str(clips / "0.wav")] if turn == "new_recording" else []))[-4:]
    (last,) = run
    assert not _changes(last)
    # Progress that the page gets too late must not disable them.
    if turn == "cancel":
        assert last[:4] == left


def test_a_recording_that_the_page_tells_of_twice_does_not_end_its_run(page, clips):
    runs, receive = pages._Runs(), _function(page, "new_recording")
    for audio in (None, str(clips / "0.wav")):
        newest = runs.newest
        assert _changes(receive(runs, audio)) and not _changes(receive(runs, audio))
        assert runs.newest == newest + 1
    _function(page, "clear_for_example")(runs)
    assert _changes(receive(runs, str(clips / "0.wav")))


def test_a_run_that_is_canceled_while_it_waits_does_not_start(page, clips, monkeypatch):
    monkeypatch.setattr(pages, "follow", lambda *_, **__: pytest.fail("it has started"))
    runs = pages._Runs()
    number, *_ = _function(page, "begin_new")(runs)
    start, again, cancel, waiting = _function(page, "cancel")(runs)
    assert start.interactive and again.interactive and not cancel.visible and not waiting.visible
    assert not any(map(_changes, _function(page, "analyze_new")(runs, number, str(clips / "0.wav"), "")))


def test_a_result_is_not_sent_again_when_there_is_another_recording(page, clips):
    """Gradio repeats the last update of a run at its end."""
    runs = pages._Runs()
    number, *_ = _function(page, "begin_new")(runs)
    updates = _function(page, "analyze_new")(runs, number, str(clips / "0.wav"), "")
    assert "Valence" in next(one[4] for one in updates if _changes(one))
    _function(page, "new_recording")(runs, str(clips / "1.wav"))
    (last,) = updates
    assert not _changes(last)


def test_an_example_clears_what_belongs_to_the_recording_before(page):
    panel, previous, *fields = _function(page, "clear_for_example")(pages._Runs())
    assert "Ready" in panel and previous is None
    # An example states its language.
    assert sorted(map(str, fields)) == sorted(["", "", "", str(gr.skip())])


def test_a_result_is_saved_as_csv_and_json(ser, clips):
    result = analysis.predict(ser, str(clips / "long.wav"))
    files = dict(
        re.findall(r'download="speech-emotion\.(\w+)" href="data:[^;]*;base64,([^"]*)"', figures.downloads(result))
    )
    assert json.loads(base64.b64decode(files["json"])) == result
    table = pd.read_csv(io.BytesIO(base64.b64decode(files["csv"])))
    assert len(table) == len(result["course"]) and table["end"].is_monotonic_increasing
    assert table["valence"].tolist() == pytest.approx([part["valence"] for part in result["course"]])
    assert {"valence_low", "dominance_high", "transcript"} <= set(table)
    assert table["has_speech"].all() and table["warnings"].isna().all()
    for name in ("silent.wav", "long.wav"):
        result = analysis.predict(ser, str(clips / name)) | {"warnings": ["Clipped.", "No speech was found."]}
        for part in result.get("course", ()):
            part |= {"has_speech": False, "warnings": ["No speech was found."]}
        table = pd.read_csv(io.StringIO(figures.as_csv(result)))
        assert not table["has_speech"].any() and set(table["warnings"]) == {"Clipped.; No speech was found."}


def test_the_card_of_the_loaded_model_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pages, "hf_hub_download", lambda *_, **__: pytest.fail("a folder was looked up on the Hub"))
    Path("outputs/probe").mkdir(parents=True)
    assert pages._prose(pages._card_of("outputs/probe", None)) == ""
    card = "---\nlicense: mit\n---\n# Name\n\nAbout the model.\n\n| a | b |\n\n## Use\n\nNot this."
    (tmp_path / "README.md").write_text(card)
    assert pages._prose(pages._card_of(str(tmp_path), None)) == "About the model."
    for damage in ("license: [", "- a list", "1: 2"):
        (tmp_path / "README.md").write_text(card.replace("license: mit", damage))
        assert pages._prose(pages._card_of(str(tmp_path), None)) == ""


def test_the_license_is_that_of_the_card_or_else_of_the_config():
    def found(stated, license_id):
        return pages._license(ModelCard(f"---\nlicense: {stated}\n---\n# Name\n"), license_id)

    # A model that was fine-tuned has no card yet; its config has the license that it started from.
    assert pages._license(ModelCard(""), "cc-by-nc-sa-4.0") == "cc-by-nc-sa-4.0"
    assert pages._license(ModelCard(""), None) is None
    assert found("mit", "cc-by-4.0") == "mit"
    assert found("other", "cc-by-4.0") == "cc-by-4.0"
    assert found("other\nlicense_name: own", None) == "own"
    assert found("[mit, cc-by-4.0]", None) == "mit, cc-by-4.0"


def test_a_license_is_named_as_elsewhere():
    for license_id, name in LICENSES.items():
        shown, is_free = texts.terms(license_id), not License(license_id).noncommercial
        assert shown.startswith("License: ") is is_free and shown.startswith("No commercial use (") is not is_free
        assert license_id == "odbl" or name in shown


def _head(ser, name):
    """The first lines of the page."""
    return next(
        one["props"]["value"]
        for one in pages.build(ser, name).config["components"]
        if "ser-head" in str(one["props"].get("value"))
    )


def test_the_first_lines_name_license_model_and_paper(ser, tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-sa-4.0\n---\n\n# A <model>\n\nIt is.\n")
    head = _head(ser, str(tmp_path))
    assert "No commercial use (CC BY-NC-SA 4.0)" in head
    # No address is made up: the model is named, with the section that shows its card.
    assert f'A &lt;model&gt; (<a href="#{pages._CARD}">Which model this is</a>)' in head and "huggingface" not in head
    assert re.findall('href="(http[^"]*)"', head) == [pages.PAPER]
    monkeypatch.setattr(pages, "_card_of", lambda *_: ModelCard(""))
    head = _head(ser, "someone/model")
    assert re.findall('href="([^"]*)"', head) == [
        "https://huggingface.co/someone/model",
        pages.PAPER,
        "https://huggingface.co/someone/model/tree/main",
    ]
    assert "License" not in head and "commercial" not in head


def test_without_a_trained_model_no_name_is_looked_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "MODEL", app.STARTER)
    monkeypatch.setattr(app, "load", lambda *_: pytest.fail("a model was looked up"))
    with pytest.raises(SystemExit, match="make starter"):
        app.main()


@pytest.mark.parametrize(
    ("name", "space_id", "is_folder"),
    [
        ("outputs/probe", "", True),
        ("./mine/probe", "", True),
        ("/nowhere/probe", "", True),
        ("someone/probe", "", False),
        ("mine/probe", "mine/probe", False),
    ],
)
def test_a_folder_that_is_not_there_is_no_name(tmp_path, monkeypatch, name, space_id, is_folder):
    def look_up(*_):
        raise OSError("it was looked up.")

    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    monkeypatch.setenv("SPACE_ID", space_id)
    monkeypatch.setattr(app, "MODEL", name)
    monkeypatch.setattr(app, "load", look_up)
    monkeypatch.setattr(app, "own_uploads", lambda: tmp_path / "uploads")
    sentence = f"there is no folder {name}: train or assemble it first" if is_folder else "it was looked up"
    with pytest.raises(SystemExit, match=sentence):
        app.main()


def test_the_page_computes_in_the_precision_of_its_settings(tmp_path, monkeypatch):
    tiny_model(semantics=[]).save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    monkeypatch.setattr(app, "MODEL", str(tmp_path))
    monkeypatch.setattr(app, "own_uploads", lambda: tmp_path / "uploads")
    used = []
    monkeypatch.setattr(app, "build", lambda ser, *_: used.append(ser.model.precision) or pytest.fail("built"))
    for precision, expected in ((None, "float32"), ("bfloat16", "bfloat16")):
        monkeypatch.setattr(app, "PRECISION", precision)
        with pytest.raises(pytest.fail.Exception):
            app.main()
        assert used[-1] == expected
    monkeypatch.setattr(app, "PRECISION", "half")
    with pytest.raises(SystemExit, match="precision='half' is not known: choose 'float32' or 'bfloat16'"):
        app.main()


@pytest.mark.parametrize("start", [["-m", "msfser", "space"], [str(SPACE / "app.py")]], ids=["command", "script"])
def test_the_command_has_a_help(start):
    run = subprocess.run([sys.executable, *start, "--help"], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("usage: msfser space [-h]") and "MSFSER_MODEL" in run.stdout


def test_a_space_needs_no_package(tmp_path):
    """Its files run as a script from a folder of any name."""
    folder = shutil.copytree(SPACE, tmp_path / "any.name", ignore=shutil.ignore_patterns("__pycache__"))
    code = "import sys, runpy; sys.modules['msfser'] = None; sys.argv = ['app.py', '--help']; "
    code += f"runpy.run_path({str(folder / 'app.py')!r}, run_name='__main__')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.stdout.startswith("usage: msfser space"), run.stderr


def test_every_event_has_a_name_and_every_control_a_label(page):
    names = [event["api_name"] for event in page.config["dependencies"]]
    assert all(names) and len(names) == len(set(names))
    for component in page.config["components"]:
        if component["type"] in ("audio", "dropdown", "textbox"):
            assert component["props"]["label"], component["type"]


# What goes to the Hub


def _without_links_to_pages(text):
    """Links to other sites stay."""
    text = re.sub(r"\s*\(\[[^\]]*\]\((?!https)[^)]*\)\)", "", text)
    return re.sub(r"\[([^\]]*)\]\((?!https)[^)]*\)", r"\1", text)


def test_the_space_brings_its_page_on_responsible_use():
    """A Space has only its own folder; of the page in `docs/`, it needs what does not concern commands."""
    assert "README.md" in space_files(SPACE)
    sections = (SPACE.parent / "docs" / "responsible-use.md").read_text(encoding="utf-8").split("\n## ")[1:]
    ours = [part for part in sections if not part.startswith("What is stored")]
    expected = "\n\n".join(f"### {part.strip()}" for part in ours).split("\n\n")
    expected = [part for part in expected if not part.startswith(("**Calls with two channels", "[Evaluation]"))]
    shown = texts.responsible_use().partition("\n\n### What is stored")[0].split("\n\n")
    assert shown == [_without_links_to_pages(part) for part in expected]


def test_the_front_matter_is_that_of_a_space():
    settings = yaml.safe_load(README.split("---")[1])
    assert settings["sdk"] == "gradio" and settings["sdk_version"] == gr.__version__ == _pinned("gradio")
    assert (SPACE / settings["app_file"]).is_file() and settings["suggested_hardware"] == "cpu-basic"
    assert len(settings["short_description"]) <= 60


def test_the_measured_figures_are_those_of_the_results():
    measured = {name: row["value"] for name, row in read(RESULTS / "serving.json").items()}
    text = " ".join(README.split())
    for figure in (
        f"the page is available after {measured['space/cold_start_seconds']:.0f} s",
        f"five seconds of speech take {measured['space/seconds_alone']:.1f} s",
        f"uses {measured['space/peak_memory_mb'] / 1000:.1f} GB",
    ):
        assert figure in text


def _pinned(name):
    lines = (SPACE.parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next((line.partition("==")[2] for line in lines if line.startswith(f"{name}==")), gr.__version__)


def test_the_requirements_fit_a_space_and_this_machine():
    lines = (SPACE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = {one.name: one.specifier for one in map(Requirement, filter(None, lines))}
    assert wanted["torch"].contains("2.12.0") and not wanted["transformers"].contains("5.18.0")
    for name, versions in wanted.items():
        assert versions.contains(importlib.metadata.version(name).partition("+")[0]), name


@pytest.mark.parametrize(
    ("title", "is_starter"),
    [("MSF-SER starter", True), ("MSF-SER starter, open", False), ("MSF-SER starter: EmoDB", False), ("Mine", False)],
)
def test_only_of_the_starter_the_page_says_which_examples_go_wrong(ser, tmp_path, title, is_starter):
    (tmp_path / "README.md").write_text(f"---\nlicense: mit\n---\n\n# {title}\n\nA model.\n")
    shown = str(pages.build(ser, str(tmp_path)).config)
    assert "Examples in a synthetic voice (selected)" in shown and "not bad at all" in shown
    assert ("wrong predictions for the last two" in shown) == ("Wrong prediction: " in shown) == is_starter


def test_the_title_by_which_the_page_knows_the_starter_is_that_of_its_card():
    for one in assemble.STARTERS.values():
        lines = (one.folder / "README.md").read_text(encoding="utf-8").splitlines()
        assert (pages._STARTER in lines) == (one.name == "starter")


def test_the_examples_are_small_and_complete():
    files = {path.name for path in (SPACE / "examples").iterdir()}
    assert files == set(pages.EXAMPLES)
    assert sum((SPACE / "examples" / name).stat().st_size for name in files) < 200_000
    for name in files:
        assert 1 < soundfile.info(SPACE / "examples" / name).duration < 30


# Over the network


def test_the_readme_snippet_runs(page, ser, clips, monkeypatch, tmp_path, capsys):
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(snippets) == 1
    shutil.copy(clips / "1.wav", tmp_path / "speech.wav")
    monkeypatch.chdir(tmp_path)
    exec(snippets[0].replace('"OWNER/NAME"', repr(page.local_url)), {"__name__": "snippet"})
    expected = ser(str(clips / "1.wav"))
    assert capsys.readouterr().out.split()[-6:] == [
        part for name in LABELS for part in (name, f"{expected[name]:.2f}")
    ]


def test_each_user_gets_their_own_result(page, ser, clips):
    results = [None] * 3

    def ask(i):
        client = gradio_client.Client(page.local_url, verbose=False)
        results[i] = client.predict(gradio_client.handle_file(clips / f"{i}.wav"), "", api_name="/predict")

    users = [threading.Thread(target=ask, args=(i,)) for i in range(3)]
    for user in users:
        user.start()
    for user in users:
        user.join(60)
    for i, result in enumerate(results):
        expected = ser(str(clips / f"{i}.wav"))
        assert all(math.isclose(result[name], expected[name], abs_tol=1e-6) for name in LABELS)
        assert result["has_speech"] and result["warnings"] == expected["warnings"]
    client = gradio_client.Client(page.local_url, verbose=False)
    silent = client.predict(gradio_client.handle_file(clips / "silent.wav"), "", api_name="/predict")
    assert silent["has_speech"] is False and silent["warnings"] == ["No speech was found."]


def test_the_server_refuses_a_large_file(page, clips):
    httpx = pytest.importorskip("httpx")
    with open(clips / "too_large.wav", "rb") as file:
        response = httpx.post(f"{page.local_url}gradio_api/upload", files={"files": file})
    assert response.status_code == 413


# In a browser


@pytest.fixture(scope="module")
def chromium():
    """Starts a browser whose microphone plays a file again and again."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed, in which the page is tried")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    options = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with playwright.sync_playwright() as player:
        yield lambda voice: player.chromium.launch(
            executable_path=CHROMIUM, args=[*options, f"--use-file-for-fake-audio-capture={voice}"]
        )


@pytest.fixture(scope="module")
def browser(chromium, clips):
    started = chromium(clips / "2.wav")
    yield started
    started.close()


@contextlib.contextmanager
def _visit(browser, page):
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(30_000)
    errors = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    try:
        opened.goto(page.local_url)
        opened.get_by_role("button", name="Analyze", exact=True).wait_for()
        yield opened
    finally:
        opened.close()
    assert not errors


@pytest.fixture
def tab(browser, page):
    with _visit(browser, page) as opened:
        yield opened


def _upload(tab, path):
    tab.get_by_role("button", name="Clear").first.click()
    tab.locator("input[type=file]").first.set_input_files(path)
    tab.get_by_text("Ready").wait_for()


def _analyze(tab, button="Analyze"):
    """Presses the button and waits for the result."""
    tab.get_by_role("button", name=button, exact=True).click()
    tab.get_by_role("button", name="Cancel").wait_for()
    tab.get_by_role("button", name="Cancel").wait_for(state="hidden")


def _figures(tab):
    """The numbers of the scales."""
    scales = [tab.get_by_label(re.compile(f"^{name.capitalize()} on a scale")) for name in LABELS]
    for scale in scales:
        scale.wait_for()
    return {
        name: re.search(r": (\d\.\d\d)", scale.get_attribute("aria-label"))[1]
        for name, scale in zip(LABELS, scales, strict=True)
    }


def _of(result):
    return {name: f"{result[name]:.2f}" for name in LABELS}


def test_the_first_example_is_there_at_once(tab, ser):
    assert _figures(tab) == _of(ser({"audio": str(SPACE / "examples" / pages.FIRST), "language": "en"}))
    assert tab.get_by_role("heading", level=1).inner_text() == texts.TITLE
    levels = [
        int(heading[1]) for heading in tab.locator("h1, h2, h3, h4").evaluate_all("all => all.map(e => e.tagName)")
    ]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_upload_gives_numbers_and_edited_words_change_them(tab, ser, clips):
    _upload(tab, clips / "1.wav")
    tab.get_by_text("Ready").wait_for()
    _analyze(tab)
    before = _figures(tab)
    assert before == _of(ser(str(clips / "1.wav")))
    words, emphasized = (
        tab.get_by_role("textbox", name=re.compile(f"^{name}")) for name in ("Words", "Emphasized words")
    )
    assert words.input_value() == SPOKEN

    words.fill("the food was dreadful")
    emphasized.fill("dreadful")
    _analyze(tab, "Analyze with these words")
    tab.get_by_text("Words: yours; emphasized words: yours").wait_for()
    given = {"audio": str(clips / "1.wav"), "transcript": "the food was dreadful", "emphasis": "dreadful"}
    assert _figures(tab) == _of(ser(given)) != before
    assert tab.get_by_text(re.compile(r"was 0\.\d\d")).count() >= 1


def test_stress_that_was_found_is_found_again_for_other_words(tab, ser, clips):
    _upload(tab, clips / "1.wav")
    tab.get_by_text("Ready").wait_for()
    _analyze(tab)
    tab.get_by_role("textbox", name="Words", exact=True).fill("the food was dreadful")
    _analyze(tab, "Analyze with these words")
    assert _figures(tab) == _of(ser({"audio": str(clips / "1.wav"), "transcript": "the food was dreadful"}))


def test_a_recording_gives_numbers(tab):
    tab.get_by_role("button", name="Clear").first.click()
    tab.get_by_role("button", name="Record audio").click()
    tab.get_by_role("button", name="Record", exact=True).first.click()
    tab.wait_for_timeout(1500)
    tab.get_by_role("button", name="Stop", exact=True).first.click()
    tab.get_by_text("Ready").wait_for()
    _analyze(tab)
    assert len(_figures(tab)) == 3


def test_without_sound_there_is_nothing_to_press(tab, clips):
    tab.get_by_role("button", name="Clear").first.click()
    tab.get_by_role("heading", name="No recording yet").wait_for()
    assert tab.get_by_role("button", name="Analyze", exact=True).is_disabled()


def test_a_broken_file_is_a_sentence_at_once(tab, clips):
    tab.get_by_role("button", name="Clear").first.click()
    tab.locator("input[type=file]").first.set_input_files(clips / "broken.wav")
    alert = tab.get_by_role("alert")
    alert.wait_for()
    assert "This file cannot be read as audio: save it as WAV, FLAC, OGG, MP3 or M4A" in alert.inner_text()
    assert alert.get_by_role("heading").inner_text() == texts.FAILED
    assert "Traceback" not in tab.content()
    assert tab.get_by_role("button", name="Analyze", exact=True).is_disabled()


def test_cancel_ends_the_wait(tab, ser, clips, monkeypatch):
    forward = ser.model.forward

    def slow(*args, **kwargs):
        time.sleep(1)
        return forward(*args, **kwargs)

    monkeypatch.setattr(ser.model, "forward", slow)
    _upload(tab, clips / "long.wav")
    tab.get_by_text("Ready").wait_for()
    tab.get_by_role("button", name="Analyze", exact=True).click()
    tab.get_by_text(re.compile(r"Analyzed \d+ of 20 s")).wait_for()
    progress = tab.get_by_role("progressbar")
    assert 0 < float(progress.get_attribute("value")) <= 1
    tab.get_by_role("button", name="Cancel").click()
    progress.wait_for(state="hidden")
    assert tab.get_by_role("button", name="Analyze", exact=True).is_enabled()
    monkeypatch.setattr(ser.model, "forward", forward)
    _analyze(tab)
    assert len(_figures(tab)) == 3


def test_a_run_in_progress_does_not_overwrite_a_new_recording(tab, ser, clips, monkeypatch):
    forward = ser.model.forward
    monkeypatch.setattr(ser.model, "forward", lambda *args, **kwargs: time.sleep(1) or forward(*args, **kwargs))
    _upload(tab, clips / "long.wav")
    tab.get_by_role("button", name="Analyze", exact=True).click()
    tab.get_by_text(re.compile(r"Analyzed \d+ of 20 s")).wait_for()
    _upload(tab, clips / "1.wav")
    monkeypatch.setattr(ser.model, "forward", forward)
    tab.get_by_role("button", name="Cancel").wait_for(state="hidden")
    tab.wait_for_timeout(3000)
    assert tab.get_by_role("heading", name="Ready").is_visible()
    assert tab.get_by_role("textbox", name="Words", exact=True).input_value() == ""
    _analyze(tab)
    assert _figures(tab) == _of(ser(str(clips / "1.wav")))


def test_a_recording_that_comes_while_the_page_clears_the_one_before_is_taken(tab, clips, monkeypatch):
    def slow_message(title, *args):
        time.sleep(1)
        return message(title, *args)

    message = figures.message
    monkeypatch.setattr(figures, "message", slow_message)
    _upload(tab, clips / "1.wav")
    assert tab.get_by_role("button", name="Analyze", exact=True).is_enabled()


def test_a_run_that_waits_for_its_turn_is_canceled_at_once(tab, page, ser, clips, monkeypatch):
    forward, begun, may_go_on = ser.model.forward, threading.Event(), threading.Event()

    def held(*args, **kwargs):
        begun.set()
        assert may_go_on.wait(60)
        return forward(*args, **kwargs)

    monkeypatch.setattr(ser.model, "forward", held)
    other = gradio_client.Client(page.local_url, verbose=False)
    job = other.submit(gradio_client.handle_file(clips / "0.wav"), "", api_name="/predict")
    try:
        assert begun.wait(30)
        _upload(tab, clips / "1.wav")
        analyze, cancel = (tab.get_by_role("button", name=name, exact=True) for name in ("Analyze", "Cancel"))
        analyze.click()
        cancel.click()
        cancel.wait_for(state="hidden")
        assert analyze.is_enabled() and not job.done()
        analyze.click()
        cancel.wait_for()
        assert not job.done()
    finally:
        may_go_on.set()
    cancel.wait_for(state="hidden")
    assert _figures(tab) == _of(ser(str(clips / "1.wav")))


def test_it_fits_a_phone_with_the_result_before_examples_and_notices(tab, clips):
    tab.set_viewport_size({"width": 390, "height": 844})
    texts_in_order = ("What was said", "Valence and arousal", "Download this result")
    below = ("What if it had", "Examples in a", "What this is not for")
    tops = [tab.get_by_text(text).first.bounding_box()["y"] for text in (*texts_in_order, *below)]
    assert tops == sorted(tops) and tops[3] < 2 * 844
    plane = tab.locator(".ser-plane").bounding_box()
    assert plane["y"] + plane["height"] < 2 * 844
    assert not tab.get_by_text("They do not tell what anybody feels").is_visible()
    _upload(tab, clips / "long.wav")
    tab.get_by_text("Ready").wait_for()
    _analyze(tab)
    tab.get_by_text("Over time").first.wait_for()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_it_works_by_keyboard(tab):
    tab.get_by_role("button", name=re.compile("slow, low")).focus()
    tab.keyboard.press("Enter")
    tab.get_by_role("heading", name="Example: The first one in a calm voice").wait_for()
    assert len(_figures(tab)) == 3


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """The accessibility checker's script."""
    script = benchmark.axe(tmp_path_factory.mktemp("axe"))
    if script is None:
        pytest.skip("axe-core cannot be fetched: npm or its registry is missing")
    return script


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_an_accessibility_checker_finds_nothing_serious(tab, page, axe, theme):
    tab.goto(f"{page.local_url}?__theme={theme}")
    _figures(tab)
    assert benchmark.violations(tab, axe) == []
    tab.get_by_role("tab", name="Live").click()
    tab.get_by_text("Before you start").wait_for()
    assert benchmark.violations(tab, axe) == []


def test_responsible_use_is_folded_under_both_tabs(tab):
    prohibited = tab.get_by_text("not to detect lies or deception")
    for name in ("Recording", "Live"):
        tab.get_by_role("tab", name=name).click()
        tab.get_by_role("button", name="Responsible use").click()
        prohibited.wait_for()
        tab.get_by_role("button", name="Responsible use").click()
        prohibited.wait_for(state="hidden")


def _live(tab):
    """Opens the tab and presses Record."""
    tab.get_by_role("tab", name="Live").click()
    tab.get_by_text("Before you start").wait_for()
    tab.get_by_role("button", name="Record", exact=True).last.click()


def _course(tab):
    """Presses Stop; what is downloaded then."""
    tab.get_by_role("button", name="Stop", exact=True).last.click()
    tab.get_by_role("link", name="CSV").last.wait_for()
    tab.get_by_text(re.compile(r"0:\d\d analyzed")).wait_for()
    return json.loads(base64.b64decode(tab.get_by_role("link", name="JSON").last.get_attribute("href").split(",")[1]))


def _by_chunk(chunks, sampling_rate, skip, language):
    """A result for each piece of sound, as if it were a second."""
    for i, _ in enumerate(chunks, 1):
        yield _live_result(i)


def test_the_live_tab_reads_the_microphone_and_keeps_no_sound(tab, ser, monkeypatch):
    read_chunk, chunks_read, languages = live._taken, [], []

    def stream(chunks, sampling_rate, skip, language):
        languages.append(language)
        return _by_chunk(chunks, sampling_rate, skip, language)

    def taken(chunk):
        chunks_read.append(Path(chunk))
        return read_chunk(chunk)

    monkeypatch.setattr(ser, "stream", stream)
    monkeypatch.setattr(live, "_taken", taken)
    _live(tab)
    language = tab.get_by_label("Language of the speech").last
    tab.get_by_text("Over time").last.wait_for()
    assert language.input_value() == "English" and language.is_disabled()
    tab.wait_for_timeout(3000)
    saved = _course(tab)
    assert languages == ["en"]
    assert len(saved["course"]) >= 3
    assert [word["word"] for word in saved["words"]] == [f"w{i}" for i in range(1, len(saved["course"]) + 1)]
    # Gradio drops chunks of a busy page: those are deleted like other uploads.
    assert len(chunks_read) >= 3 and not any(chunk.exists() for chunk in chunks_read)
    assert language.is_enabled()
    tab.get_by_role("button", name="Record", exact=True).last.click()
    tab.get_by_role("heading", name="Waiting for sound").wait_for()
    tab.get_by_text("w1", exact=True).wait_for()
    assert len(languages) == 2


def test_a_third_live_visitor_is_told_to_wait_and_gets_a_turn(browser, page, ser, monkeypatch):
    monkeypatch.setattr(ser, "stream", _by_chunk)
    with contextlib.ExitStack() as visits:
        first, second, third = (visits.enter_context(_visit(browser, page)) for _ in range(3))
        for visitor in (first, second):
            _live(visitor)
            visitor.get_by_text("Over time").last.wait_for()
        _live(third)
        waiting = third.get_by_text("While 2 others are live, your turn comes when one of them stops")
        waiting.wait_for()
        third.wait_for_timeout(2500)
        assert waiting.is_visible()
        _course(first)
        third.get_by_text("Over time").last.wait_for()
        assert not waiting.is_visible()
        for visitor in (second, third):
            _course(visitor)


@pytest.fixture(scope="module")
def starter(tmp_path_factory):
    try:
        MsfSerModel.from_encoders(assemble.AUDIO_ENCODER, assemble.TEXT_ENCODER)
    except OSError as error:
        pytest.skip(f"the pretrained encoders are not on this machine: {error}")
    folder = tmp_path_factory.mktemp("real") / "starter"
    assemble.assemble(folder)
    return analysis.load(str(folder))


def test_the_starter_predicts_for_the_examples_what_their_labels_say(starter):
    found = {name: analysis.predict(starter, str(SPACE / "examples" / name), language="en") for name in pages.EXAMPLES}
    lively, other, calm, thanks, sorry, long, not_bad, irony = found.values()
    words = {name: " ".join(re.findall(r"\w+", result["transcript"].lower())) for name, result in found.items()}
    assert words["dreadful.mp3"] == words["calm.mp3"]
    assert words["dreadful.mp3"] == "it was a merry lucky morning the food was wonderful but the service was dreadful"
    assert "wonderful" in lively["emphasis"] and "wonderful" in calm["emphasis"]
    assert "dreadful" in other["emphasis"] and lively["valence"] > other["valence"] + 0.2
    assert calm["arousal"] < 0.45 and calm["arousal"] < lively["arousal"] - 0.2
    assert thanks["valence"] > 0.7 and sorry["valence"] < 0.4
    assert words["sorry.mp3"] == "i am so sorry what a terrible evening"
    assert long["course"][-1]["arousal"] > long["course"][0]["arousal"] + 0.04
    assert list(found)[-pages._WRONG :] == ["not_bad.mp3", "irony.mp3"]
    assert words["not_bad.mp3"] == "that was not bad at all i cannot complain" and not_bad["valence"] < 0.4
    assert "great another wonderful delay" in words["irony.mp3"] and irony["valence"] > 0.7


def test_the_live_course_follows_a_change_of_voice(chromium, starter, tmp_path, monkeypatch):
    """The microphone plays ten seconds of a slow and low voice, and then a lively one with the same words."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    voices = [load_audio(str(SPACE / "examples" / name)) for name in ("calm.mp3", "wonderful.mp3")]
    # The browser suppresses a quiet voice in part.
    voices = [np.resize(one * 0.5 / np.abs(one).max(), 160_000) for one in voices]
    soundfile.write(tmp_path / "voices.wav", np.concatenate(voices), 16_000)
    with contextlib.ExitStack() as opened:
        page = opened.enter_context(_launched(starter, "starter"))
        browser = opened.enter_context(contextlib.closing(chromium(tmp_path / "voices.wav")))
        tab = opened.enter_context(_visit(browser, page))
        _live(tab)
        tab.get_by_text("0:15").last.wait_for(timeout=120_000)
        tab.wait_for_timeout(3000)
        windows = _course(tab)["course"]
    course = [part for part in windows if part["arousal"] is not None]
    if len(windows) < 12:
        pytest.skip(f"this machine is too busy for a live course: {len(windows)} results in 18 s")
    # Some sound may be lost, and with it the time moves.
    calm = [part["arousal"] for part in course if 3 <= part["end"] <= 9]
    lively = [part["arousal"] for part in course if part["start"] >= 11 and part["end"] <= 18]
    assert len(calm) >= 2 and len(lively) >= 2
    assert np.median(lively) > np.median(calm) + 0.2
    # The course is most like a step where a window holds the tenth second, in which the voice changes.
    full = [part for part in course if part["end"] >= 4]
    arousal = np.array([part["arousal"] for part in full])
    change = min(range(1, len(full)), key=lambda i: sum(len(x) * x.var() for x in (arousal[:i], arousal[i:])))
    assert full[change]["start"] - 1 <= 10 <= full[change]["end"] + 1


def _live_result(end, **changed):
    numbers = dict.fromkeys(LABELS, 0.5)
    words = [{"word": f"w{end:.0f}", "start": end - 1, "end": end, "emphasized": True}]
    result = {"start": max(0.0, end - 4), "end": float(end), "skipped": 0, "words": words, "tentative": [], **numbers}
    result |= {"speech_seconds": 3.0, "warnings": []}
    return {**result, "has_speech": changed.get("valence", 0.5) is not None, **changed}


def test_a_live_session_keeps_results_and_no_sound(monkeypatch):
    def stream(chunks, sampling_rate, skip, language):
        assert sampling_rate == 8000 and skip and language is None
        for i, _ in enumerate(chunks, 1):
            yield _live_result(i, **(dict.fromkeys(LABELS) if i == 2 else {}), skipped=int(i == 3))
        yield _live_result(i, words=[{"word": "last", "start": 2.0, "end": 3.0, "emphasized": False}])

    session = live.Session(SimpleNamespace(stream=stream), 8000)
    for _ in range(3):
        session.add(np.zeros(8000, np.float32), 8000)
    session.stop()
    assert not session.is_open and len(session.results) == 3
    assert all(not isinstance(value, np.ndarray) for one in session.results for value in one.values())
    shown = live.panel(session, is_over=True)
    assert "0:03 analyzed" in shown and "1 result was left out" in shown
    session.skipped = 2
    assert "2 results were left out" in live.panel(session)
    assert "<mark>w1</mark> <mark>w2</mark> <mark>w3</mark> last" in shown
    saved = json.loads(base64.b64decode(re.search(r'live\.json" href="data:[^;]*;base64,([^"]*)"', shown)[1]))
    assert [word["word"] for word in saved["words"]] == ["w1", "w2", "w3", "last"]
    assert shown.count("L") and "speech-emotion-live.csv" in shown
    # The second has no numbers, as nobody speaks.
    # The line is broken where there are no numbers.
    assert re.search(r'<path class="ser-arousal"[^>]* d="([^"]*)"', shown)[1].count("M") == 2


def test_a_live_window_with_too_little_speech_is_not_called_a_model_without_intervals():
    none = {"intervals": None, "interval_level": None}

    def stream(chunks, sampling_rate, skip, language):
        yield _live_result(1, **none, has_speech=False)
        yield _live_result(2, **none, has_speech=True)

    for count, is_said in ((1, False), (2, True)):
        session = live.Session(SimpleNamespace(stream=lambda *a, n=count, **k: [*stream(*a, **k)][:n]), 8000)
        session.stop()
        assert ("has no prediction intervals" in live.panel(session)) is is_said


def test_a_live_part_without_numbers_says_why():
    for warnings, why in ((["No speech was found."], "No speech was found."), (["No <i>language</i>."], "&lt;i&gt;")):
        result = _live_result(1, **dict.fromkeys(LABELS), warnings=warnings)
        session = live.Session(SimpleNamespace(stream=lambda *_, one=result, **__: [one]), 8000)
        session.stop()
        assert "No numbers" in live.panel(session) and why in live.panel(session)
    little = _live_result(1, has_speech=False, intervals=None, speech_seconds=0.3)
    session = live.Session(SimpleNamespace(stream=lambda *_, **__: [little]), 8000)
    session.stop()
    assert "Only 0.30 s of speech were detected" in live.panel(session)


def test_a_live_recording_without_any_result_is_none():
    session = live.Session(SimpleNamespace(stream=lambda *_, **__: []), 8000)
    session.stop()
    assert live.panel(session, is_over=True) == live.panel(None)


def _piece():
    path = Path(os.environ["GRADIO_TEMP_DIR"]) / "piece.wav"
    soundfile.write(path, np.zeros(8000), 8000)
    return str(path)


def test_a_live_session_that_fails_says_so_at_once_and_keeps_what_it_has(page, ser, monkeypatch):
    """The next piece of sound started another session, which dropped results and words, again and again."""
    may_fail, streams = threading.Event(), []

    def stream(chunks, sampling_rate, skip, language):
        streams.append(language)
        yield _live_result(1)
        assert may_fail.wait(30)
        raise RuntimeError("no")

    monkeypatch.setattr(ser, "stream", stream)
    add = _function(page, "add_sound")
    session, _ = add(_piece(), None, 1, "de")
    may_fail.set()
    session._thread.join(30)
    again, shown = add(_piece(), session, 1, "de")
    assert again is session and streams == ["de"]
    assert texts.FAILED in shown and "press Stop and start again" in shown
    assert "<mark>w1</mark>" in shown and "speech-emotion-live.json" in shown
    # Record pressed again starts anew.
    take, waiting, _ = _function(page, "start")(1)
    assert take == 2 and "when one of them stops" in waiting
    anew, _ = add(_piece(), session, take, "")
    assert anew is not session and streams == ["de", None]


def test_sound_that_has_waited_for_its_turn_does_not_get_into_a_later_recording(page, ser, monkeypatch):
    monkeypatch.setattr(ser, "stream", _by_chunk)
    add, stop = _function(page, "add_sound"), _function(page, "stop")
    late, _ = add(_piece(), None, 1, "en")
    assert stop(late, 2)[1] == live.panel(None)
    session, _ = add(_piece(), late, 2, "en")
    assert session is not late
    assert "0:01 analyzed" in stop(session, 2)[1]


def test_a_live_session_is_closed_when_the_visitor_has_gone(monkeypatch):
    monkeypatch.setattr(live, "_PATIENCE", 0.2)
    session = live.Session(SimpleNamespace(stream=lambda chunks, *_, **__: (one for one in chunks if 0)), 8000)
    session.add(np.zeros(100, np.float32), 8000)
    session._thread.join(5)
    assert not session.is_open and "No sound has arrived" in live.panel(session)


def test_a_piece_of_the_microphone_is_deleted_when_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    piece, broken = tmp_path / "a.wav", tmp_path / "b.wav"
    soundfile.write(piece, np.full((100, 2), 0.5), 8000)
    samples, rate = live._taken(str(piece))
    assert samples.shape == (100,) and rate == 8000 and not piece.exists()
    broken.write_bytes(b"no")
    with pytest.raises(gr.Error, match="cannot be read"):
        live._taken(str(broken))
    assert not broken.exists()


def test_a_live_visitor_can_delete_no_file_that_the_page_serves(page, tmp_path):
    """Gradio lets the path of an example in without an upload."""
    example = Path(shutil.copy(SPACE / "examples" / pages.FIRST, tmp_path))
    with pytest.raises(gr.Error, match="is not a piece of a recording"):
        _function(page, "add_sound")(str(example), None, 1, "en")
    assert example.exists()


def test_uploads_are_deleted_and_examples_stay(tab, page, clips):
    from gradio.route_utils import delete_files_created_by_app

    _upload(tab, clips / "0.wav")
    tab.get_by_text("Ready").wait_for()
    delete_files_created_by_app(page, age=-1)
    # This is over before Cancel can be seen.
    tab.get_by_role("button", name="Analyze", exact=True).click()
    tab.get_by_role("alert").get_by_text("has been deleted after 10 minutes").wait_for()
    tab.get_by_text("The first one in a calm voice").click()
    assert len(_figures(tab)) == 3
    assert {path.name for path in (SPACE / "examples").iterdir()} >= {"calm.mp3", "long.mp3"}


def test_what_an_earlier_page_left_is_deleted_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    (tmp_path / "of another program.wav").write_bytes(b"RIFF")
    uploads = app.own_uploads()
    assert os.environ["GRADIO_TEMP_DIR"] == str(uploads) and uploads.parent == tmp_path
    old = time.time() - 1000
    for name in ("kept", "emptied", "just made"):
        (uploads / name).mkdir()
    for name in ("tmp_broken", "kept/a.wav", "kept/new.wav", "tmp_coming"):
        (uploads / name).write_bytes(b"RIFF")
    for name in ("tmp_broken", "kept/a.wav", "emptied", "../of another program.wav"):
        os.utime(uploads / name, (old, old))
    app.delete_old(uploads, 600)
    assert {path.name for path in uploads.rglob("*")} == {"kept", "new.wav", "just made", "tmp_coming"}
    assert (tmp_path / "of another program.wav").exists()
    app.delete_old(tmp_path / "not there", 600)


def test_uploads_go_only_into_a_folder_of_this_user(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    assert app.own_uploads().stat().st_mode & 0o777 == 0o700
    others, file, link = (tmp_path / name for name in ("others", "file", "link"))
    file.touch()
    for folder in (others, link):
        folder.mkdir()
    (link / f"msfser-space-{app._USER}").symlink_to(tmp_path)
    (others / "msfser-space-4711").mkdir()
    for folder, user in ((file, app._USER), (link, app._USER), (others, 4711)):
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
        monkeypatch.setattr(app, "_USER", user)
        with pytest.raises(SystemExit, match=rf"{folder}/msfser-space-\d+ .*: set GRADIO_TEMP_DIR to another folder"):
            app.own_uploads()
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)


def test_a_visitor_can_read_no_upload_and_no_file_of_the_server(page, clips):
    assert space.leaks(page.local_url, Path(os.environ["GRADIO_TEMP_DIR"]), clips / "0.wav") == []


def test_the_benchmark_records_its_model(monkeypatch, tmp_path):
    texts = ["transcript", "emphasis", "description"]
    rows = [{"audio": f"{i}.wav", "split": "test"} | dict.fromkeys(texts, "x") for i in range(benchmark.USERS)]
    pd.DataFrame(rows).to_parquet(tmp_path / "metadata.parquet")

    def result_of(clip, *_, **__):
        return {"transcript": str(clip)} | dict.fromkeys(LABELS, 0.5)

    client = SimpleNamespace(
        submit=lambda clip, *_, **__: SimpleNamespace(result=lambda timeout: result_of(clip)), predict=result_of
    )
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=1e6))
    monkeypatch.setattr(benchmark, "make_probe", lambda _: tmp_path)
    monkeypatch.setattr(benchmark, "_server", lambda _: contextlib.nullcontext(("", process, 1.0)))
    monkeypatch.setattr(benchmark, "browser", lambda _: contextlib.nullcontext(None))
    monkeypatch.setattr(benchmark, "Client", lambda *_, **__: client)
    monkeypatch.setattr(benchmark, "handle_file", str)
    monkeypatch.setattr(benchmark, "pipeline", lambda *_, **__: lambda item: result_of(item["audio"]))
    monkeypatch.setattr(benchmark, "_difference", lambda *_: 0.0)
    monkeypatch.setattr("msfser.benchmarks.command.RESULTS", tmp_path)
    monkeypatch.setattr(benchmark.torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr("sys.argv", ["benchmark", "nobody/nothing"])
    benchmark.main()
    made = read(tmp_path / "serving.json")
    assert made["space/wrong_answers"]["value"] == 0
    assert {row["command"] for row in made.values()} == {"python -m msfser.benchmarks.space nobody/nothing"}
