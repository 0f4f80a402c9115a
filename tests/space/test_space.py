import contextlib
import importlib.metadata
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
from demo_page import SPACE, SPOKEN, FakeRecognizer, load_app
from media import media, playlist, reference_movie
from packaging.requirements import Requirement
from tiny import noise, tiny_model, tiny_processor

from msfser.audio_msfser import SAMPLING_RATE
from msfser.evaluation.results import RESULTS, read

gr = pytest.importorskip("gradio", reason='the demo\'s packages are not installed: pip install -e ".[space]"')
gradio_client = pytest.importorskip("gradio_client")

from stress import space  # noqa: E402 - it needs them

from msfser.benchmarks import space as benchmark  # noqa: E402 - so does this

README = (SPACE / "README.md").read_text(encoding="utf-8")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LABELS = ("valence", "arousal", "dominance")


@pytest.fixture(scope="module")
def app():
    yield load_app()
    del sys.modules["space_app"]


@pytest.fixture(scope="module")
def ser(app, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    # The texts must matter more than they do in a random model.
    model = tiny_model(initializer_range=0.3)
    model.save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return app.load(str(folder), recognizer=FakeRecognizer())


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for i in range(3):
        soundfile.write(folder / f"{i}.wav", noise(1.5 + i, i), SAMPLING_RATE)
    soundfile.write(folder / "long.wav", noise(20.0), SAMPLING_RATE)
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


@pytest.fixture(scope="module")
def page(app, ser, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        built = app.build(ser, "a tiny <b>model</b>")
        built.launch(**app.options(), prevent_thread_lock=True, quiet=True)
        yield built
        built.close()


# What it computes


def test_the_result_is_that_of_the_pipeline(app, ser, clips):
    result = app.predict(ser, str(clips / "0.wav"))
    assert result == ser(str(clips / "0.wav"))
    assert result["transcript"] == SPOKEN and result["texts"]["transcript"] == "recognized"
    assert all(0 <= result[name] <= 1 for name in LABELS)


def test_other_words_or_stress_change_the_numbers(app, ser, clips):
    clip = str(clips / "0.wav")
    result = app.predict(ser, clip)
    for changed in ({"transcript": "the food was dreadful"}, {"emphasis": "dreadful"}, {"description": "a b c"}):
        again = app.predict(ser, clip, **changed)
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
def test_an_unusable_recording_is_a_sentence(app, ser, clips, name, sentence):
    with pytest.raises(gr.Error) as caught:
        app.predict(ser, name and str(clips / name))
    message = caught.value.message
    assert sentence in message and message.endswith(".")
    assert str(clips) not in message and "<b>" not in message


def test_a_recording_of_a_telephone_is_used(app, ser, clips):
    assert app.predict(ser, str(clips / "memo.m4a"))["duration"] == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("name", ["transcript", "emphasis", "description", "language"])
def test_texts_have_a_limit_in_the_function_too(app, ser, clips, name):
    """2 MB of words held the one worker for 16 s."""
    before = time.monotonic()
    for text in ("so it was " * 200_000, "a" * (app.MOST_LETTERS + 1)):
        with pytest.raises(gr.Error, match=f"The {name} is longer than [0-9,]+ characters: shorten it"):
            app.predict(ser, str(clips / "0.wav"), **{name: text})
    with pytest.raises(gr.Error, match=f"The {name} is no text"):
        app.predict(ser, str(clips / "0.wav"), **{name: ["a"] * 10**6})
    assert time.monotonic() - before < 1
    app.predict(ser, str(clips / "0.wav"), transcript="so it was " * 15)


def test_an_error_of_the_pipeline_is_a_sentence_without_paths(app, clips):
    class Refusing:
        def seconds(self, path, most):
            return 1.0

        def __call__(self, item):
            raise ValueError(f"{item['audio']!r} cannot be decoded (no <i>end</i>): convert it.")

    with pytest.raises(gr.Error) as caught:
        app.predict(Refusing(), str(clips / "0.wav"))
    assert caught.value.message == "The recording cannot be decoded (no &lt;i&gt;end&lt;/i&gt;): convert it."


def test_progress_follows_the_windows_of_its_own_request(app, ser, clips):
    seen = []

    def progress(fraction, desc):
        seen.append((fraction, desc))

    app.predict(ser, str(clips / "long.wav"), progress=progress)
    before = len(seen)
    app.predict(ser, str(clips / "0.wav"))
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions) and fractions[-1] <= 1 and before == len(seen) >= 4
    assert "of 20 s" in seen[-1][1]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (-0.01, "very calm"),
        (0.0, "very calm"),
        (0.3, "rather calm"),
        (0.5, "neither calm nor excited"),
        (0.6, "rather excited"),
        (1.0, "very excited"),
    ],
)
def test_numbers_have_plain_words(app, value, words):
    assert app.in_words("arousal", value) == words


def test_a_long_recording_has_a_course(app, ser, clips):
    result = app.predict(ser, str(clips / "long.wav"))
    over_time = app.course(result)
    assert (
        len(over_time) == 3 * len(result["course"]) and len(app.plane(result).dropna()) == len(result["course"]) >= 2
    )
    assert over_time["seconds"].between(0, 20).all() and "(mean over 20 s)." in app.headline(result)
    assert app.course(app.predict(ser, str(clips / "0.wav"))) is None


def test_stressed_words_are_marked(app, ser, clips):
    marked = app.marked(app.predict(ser, str(clips / "0.wav"), emphasis="food was"))
    assert [word.strip() for word, kind in marked if kind == "emphasized"] == ["food", "was"]
    assert "".join(word for word, _ in marked).strip() == SPOKEN
    assert app.marked(app.predict(ser, str(clips / "silent.wav"))) == []


def test_reasons_are_sentences(app, ser, clips):
    result = app.predict(ser, str(clips / "0.wav"))
    alike = {"sound": 0.32, "words": 0.35, "description": 0.33}
    unlike = {"sound": 0.2, "words": 0.1, "description": 0.7}
    text = app.reasons(result | {"routing": {"valence": alike, "arousal": unlike}})
    assert "valence from all almost equally (the words 35%), arousal mostly from the description (70%)." in text
    assert "the emphasized ones have a weight of" in text
    assert "**Transcript:** recognized automatically." in text and "**Description:** none (no describer)." in text
    silent = app.reasons(app.predict(ser, str(clips / "silent.wav")))
    assert "**Transcript:** none (no speech)." in silent and "have a weight" not in silent


def test_an_audio_only_model_shows_no_words(app, clips, tmp_path):
    tiny_model(semantics=[]).save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    ser = app.load(str(tmp_path))
    result = app.predict(ser, str(clips / "0.wav"))
    assert app.reasons(result).startswith("- **Audio only:**") and "Transcript" not in app.reasons(result)
    assert app.experts(result) is None
    labels = {c["props"].get("label"): c["props"] for c in app.build(ser, "sound").config["components"]}
    assert not labels["Transcript"]["visible"] and not labels["Language (optional)"]["visible"]


def test_the_headline_says_when_nobody_spoke(app, ser, clips):
    assert app.headline(app.predict(ser, str(clips / "silent.wav"))).startswith("### No speech was detected")
    assert "No speech" not in app.headline(app.predict(ser, str(clips / "0.wav")))


def test_without_a_trained_model_no_name_is_looked_up(app, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "MODEL", app.STARTER)
    monkeypatch.setattr(app, "load", lambda *_: pytest.fail("a model was looked up"))
    with pytest.raises(SystemExit, match="make starter"):
        app.main()


@pytest.mark.parametrize("start", [["-m", "msfser", "space"], [str(SPACE / "app.py")]], ids=["command", "script"])
def test_the_command_has_a_help(start):
    run = subprocess.run([sys.executable, *start, "--help"], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("usage: msfser space [-h]") and "MSFSER_MODEL" in run.stdout


def test_every_event_has_a_name_and_every_control_a_label(page):
    names = [event["api_name"] for event in page.config["dependencies"]]
    assert all(names) and len(names) == len(set(names))
    for component in page.config["components"]:
        if component["type"] in ("audio", "dropdown", "textbox", "highlightedtext", "nativeplot", "json"):
            assert component["props"]["label"], component["type"]


# What goes to the Hub


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


def test_the_examples_are_small_and_complete(app):
    files = {path.name for path in (SPACE / "examples").iterdir()}
    assert files == set(app.EXAMPLES)
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
        results[i] = client.predict(gradio_client.handle_file(clips / f"{i}.wav"), "", api_name="/predict")[-1]

    users = [threading.Thread(target=ask, args=(i,)) for i in range(3)]
    for user in users:
        user.start()
    for user in users:
        user.join(60)
    for i, result in enumerate(results):
        expected = ser(str(clips / f"{i}.wav"))
        assert all(math.isclose(result[name], expected[name], abs_tol=1e-6) for name in LABELS)


def test_the_server_refuses_a_large_file(page, clips):
    httpx = pytest.importorskip("httpx")
    with open(clips / "too_large.wav", "rb") as file:
        response = httpx.post(f"{page.local_url}gradio_api/upload", files={"files": file})
    assert response.status_code == 413


# In a browser


@pytest.fixture(scope="module")
def browser(clips):
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed, in which the page is tried")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    options = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    options.append(f"--use-file-for-fake-audio-capture={clips / '2.wav'}")
    with playwright.sync_playwright() as player:
        started = player.chromium.launch(executable_path=CHROMIUM, args=options)
        yield started
        started.close()


@pytest.fixture
def tab(browser, page):
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(15_000)
    errors = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(page.local_url)
    opened.get_by_role("button", name="Analyze").wait_for()
    yield opened
    opened.close()
    assert not errors


def _upload(tab, path):
    tab.locator("input[type=file]").first.set_input_files(path)
    tab.get_by_label("Play", exact=True).wait_for()


def _figures(tab):
    """The numbers of the headline, which are those of the bars."""
    headline = tab.get_by_role("heading", name=re.compile("It comes across as"))
    headline.wait_for()
    shown = re.findall(r"(valence|arousal|dominance) (\d\.\d\d)", headline.text_content())
    for name, number in shown:
        bar = tab.locator(f"path[aria-label*='{name.capitalize()}'][aria-label*='0 to 1']").first
        value = float(re.search(r"\d\.\d+$", bar.get_attribute("aria-label"))[0])
        assert value == pytest.approx(float(number), abs=0.0051)
    return dict(shown)


def _of(result):
    return {name: f"{result[name]:.2f}" for name in LABELS}


def test_upload_gives_numbers_and_edited_words_change_them(tab, ser, clips):
    _upload(tab, clips / "1.wav")
    tab.get_by_role("button", name="Analyze").click()
    before = _figures(tab)
    assert before == _of(ser(str(clips / "1.wav")))
    words, stressed = (
        tab.get_by_role("textbox", name=re.compile(f"^{name}")) for name in ("Words", "Emphasized words")
    )
    assert words.input_value() == SPOKEN

    words.fill("the food was dreadful")
    stressed.fill("dreadful")
    tab.get_by_role("button", name="Run again with these words").click()
    tab.get_by_text("as you wrote it").first.wait_for()
    given = {"audio": str(clips / "1.wav"), "transcript": "the food was dreadful", "emphasis": "dreadful"}
    assert _figures(tab) == _of(ser(given)) != before


def test_a_recording_gives_numbers(tab):
    tab.get_by_role("button", name="Record audio").click()
    tab.get_by_role("button", name="Record", exact=True).click()
    tab.wait_for_timeout(1500)
    tab.get_by_role("button", name="Stop", exact=True).click()
    tab.get_by_label("Play", exact=True).wait_for()
    tab.get_by_role("button", name="Analyze").click()
    assert len(_figures(tab)) == 3


def test_a_broken_file_is_a_sentence(tab, clips):
    tab.locator("input[type=file]").first.set_input_files(clips / "broken.wav")
    tab.get_by_role("button", name="Reset audio").or_(tab.get_by_role("button", name="Clear")).first.wait_for()
    tab.get_by_role("button", name="Analyze").click()
    toast = tab.get_by_text("This file cannot be read as audio: save it as WAV, FLAC, OGG, MP3 or M4A")
    toast.wait_for()
    assert "Traceback" not in tab.content()


def test_it_fits_a_phone_with_the_course_of_a_long_recording(tab, clips):
    tab.set_viewport_size({"width": 390, "height": 844})
    _upload(tab, clips / "long.wav")
    tab.get_by_role("button", name="Analyze").click()
    assert len(_figures(tab)) == 3
    tab.get_by_text("Over time").wait_for()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390

    tab.get_by_text("Slow, low and quiet").click()
    tab.get_by_text("Over time").wait_for(state="hidden")
    assert len(_figures(tab)) == 3


def test_it_works_by_keyboard(tab):
    tab.get_by_role("button", name=re.compile("Slow, low")).focus()
    tab.keyboard.press("Enter")
    assert len(_figures(tab)) == 3


def test_uploads_are_deleted_and_examples_stay(tab, page, clips):
    from gradio.route_utils import delete_files_created_by_app

    _upload(tab, clips / "0.wav")
    delete_files_created_by_app(page, age=-1)
    tab.get_by_role("button", name="Analyze").click()
    tab.get_by_text("has been deleted after 10 minutes").wait_for()
    tab.get_by_text("Slow, low and quiet").click()
    assert len(_figures(tab)) == 3
    assert {path.name for path in (SPACE / "examples").iterdir()} >= {"calm.mp3", "long.mp3"}


def test_interrupted_uploads_are_deleted_and_nothing_else(app, tmp_path):
    old = time.time() - 1000
    (tmp_path / "kept").mkdir()
    (tmp_path / "emptied").mkdir()
    (tmp_path / "just made").mkdir()
    for name in ("tmp_broken", "kept/a.wav", "tmp_coming"):
        (tmp_path / name).write_bytes(b"RIFF")
    for name in ("tmp_broken", "kept/a.wav", "kept", "emptied"):
        os.utime(tmp_path / name, (old, old))
    app.delete_leftovers(tmp_path, 600)
    assert {path.name for path in tmp_path.rglob("*")} == {"kept", "a.wav", "just made", "tmp_coming"}
    app.delete_leftovers(tmp_path / "not there", 600)


def test_a_visitor_can_read_no_upload_and_no_file_of_the_server(page, clips):
    assert space.leaks(page.local_url, Path(os.environ["GRADIO_TEMP_DIR"]), clips / "0.wav") == []


def test_the_benchmark_records_its_model(monkeypatch, tmp_path):
    texts = ["transcript", "emphasis", "description"]
    rows = [{"audio": f"{i}.wav", "split": "test"} | dict.fromkeys(texts, "x") for i in range(benchmark.USERS)]
    pd.DataFrame(rows).to_parquet(tmp_path / "metadata.parquet")

    def result_of(clip, *_, **__):
        return [{"transcript": str(clip)} | dict.fromkeys(LABELS, 0.5)]

    client = SimpleNamespace(
        submit=lambda clip, *_, **__: SimpleNamespace(result=lambda timeout: result_of(clip)), predict=result_of
    )
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=1e6))
    monkeypatch.setattr(benchmark, "make_probe", lambda _: tmp_path)
    monkeypatch.setattr(benchmark, "_server", lambda _: contextlib.nullcontext(("", process, 1.0)))
    monkeypatch.setattr(benchmark, "Client", lambda *_, **__: client)
    monkeypatch.setattr(benchmark, "handle_file", str)
    monkeypatch.setattr(benchmark, "pipeline", lambda *_, **__: lambda item: result_of(item["audio"])[0])
    monkeypatch.setattr(benchmark, "_difference", lambda *_: 0.0)
    monkeypatch.setattr("msfser.benchmarks.command.RESULTS", tmp_path)
    monkeypatch.setattr(benchmark.torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr("sys.argv", ["benchmark", "nobody/nothing"])
    benchmark.main()
    made = read(tmp_path / "serving.json")
    assert made["space/wrong_answers"]["value"] == 0
    assert {row["command"] for row in made.values()} == {"python -m msfser.benchmarks.space nobody/nothing"}
