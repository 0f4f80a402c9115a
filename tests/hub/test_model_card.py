"""The model card: its metadata, its text, and its snippets, run where the package is not installed."""

import json
import re
import shlex
from pathlib import Path

import pytest
import soundfile
import yaml
from hub_server import Hub
from published import WHISPER, link_prepared, needs
from publishing import REPO, as_a_stranger, connect, train, write_results, write_settings
from tiny import noise

from msfser import to_scale
from msfser.hub.card import TEMPLATE, render_card
from msfser.hub.publish import main
from msfser.training.data_identity import write_identity

SNIPPET = re.compile(r"<!-- snippet: (\w+) -->\n```python\n(.*?)```", re.DOTALL)
WARNING = "synthetic speech with constructed labels"


def parts(card: object) -> tuple[dict, str]:
    front, text = re.fullmatch(r"---\n(.*?)\n---\n(.*)", str(card), re.DOTALL).groups()
    return yaml.safe_load(front), text


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("card") / "trained")


@pytest.fixture
def card_of(trained):
    """Renders the card after a run with other settings."""

    def render(*options: str, names: dict[str, str] | None = None, **settings):
        write_settings(trained, *options, audio_encoder="openai/whisper-tiny.en", **settings)
        return parts(render_card(trained, REPO, "v1", **(names or {})))

    yield render
    write_settings(trained)


def test_the_metadata_are_those_of_the_run(trained):
    front, _ = parts(render_card(trained, REPO, "v1"))
    assert front["library_name"] == "transformers" and front["pipeline_tag"] == "audio-classification"
    assert front["language"] == "en" and front["license"] == "apache-2.0"
    assert front["base_model"] == ["openai/whisper-tiny.en", "sentence-transformers/all-MiniLM-L6-v2"]
    (model,) = front["model-index"]
    (result,) = model["results"]
    assert model["name"] == "model" and result["dataset"] == {
        "name": "probe corpus",
        "type": "probe-corpus",
        "split": "test",
    }
    metrics = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert len(metrics) == 12 and set(metrics.values()) == {0.5}
    assert {"CCC valence, audio only", "CCC mean, all inputs"} <= metrics.keys()


def test_the_packages_are_those_that_the_snippets_need(trained, tmp_path):
    """A stranger has none of the project's: what is installed here hides what the card leaves out."""
    _, text = parts(render_card(trained, REPO, "v1"))
    (line,) = re.findall(r"```sh\n(pip install .*)\n```", text)
    assert shlex.split(line)[2:] == ["torch", "transformers>=5.19", "soundfile", "soxr", "silero-vad", "swift-f0"]
    _, text = parts(render_card(train(tmp_path / "sound", semantics=[]), REPO, "v1"))
    (line,) = re.findall(r"```sh\n(pip install .*)\n```", text)
    assert "swift-f0" not in line


@pytest.mark.parametrize(("value", "cells"), [(None, " - | - | - | - |"), (0.7, " 0.70 | 0.70 | 0.70 | 0.70 |")])
def test_scores_of_few_clips_have_no_interval_or_are_undefined(trained, value, cells):
    path = trained / "results.json"
    unknown = {"value": value, "low": None, "high": None}
    path.write_text(json.dumps([row | unknown for row in json.loads(path.read_text())]))
    front, text = parts(render_card(trained, REPO, "v1"))
    write_results(trained)
    assert f"| audio only |{cells}" in text
    # An undefined score is no metric.
    assert bool(front.get("model-index") and front["model-index"][0].get("results")) == (value is not None)


def test_the_first_screen_says_what_the_numbers_are(trained):
    _, text = parts(render_card(trained, REPO, "v1"))
    first = text.split("## Use")[0]
    for needed in ("valence, arousal, dominance; always", "0..1 each", "probe corpus", "apache-2.0", "not for"):
        assert needed in first
    assert "0.50 (0.40..0.60)" in text and "| `data` | probe |" in text
    assert f"0.62 is {to_scale(0.62, 1, 7):.2f} on 1..7" in text


def test_the_probe_is_told_from_a_corpus_of_people(trained, card_of):
    for _, text in (parts(render_card(trained, REPO, "v1")), card_of(data="x/made", names={"corpus_name": "probe"})):
        assert WARNING in text.split("This model predicts valence")[0]
        assert "say nothing about real speech" in text
    for corpus, scale, fold in (("msp_podcast", "1..7", {}), ("iemocap", "1..5", {"fold": 1})):
        front, text = card_of(corpus=corpus, data=f"/srv/{corpus}", **fold)
        assert WARNING not in text and "real speech" not in text
        assert f"on {scale}, the scale of this model's corpus" in text
        # The terms of its owners are not among the Hub's licenses.
        assert front["license"] == "other" and front["license_link"].endswith(f"{REPO}#licenses")


def test_a_custom_table_tells_nothing_of_the_machine(card_of, tmp_path):
    front, text = card_of(
        *f"--output_dir {tmp_path}/out --run_name cellar --learning_rate 1e-4".split(),
        *("--columns", "speaker=actor", "--text_encoder", "/srv/models/mine", "--seed=7", "--semantics", "gs"),
        data=f"{tmp_path}/voices/metadata.csv",
        audio_folder=f"{tmp_path}/voices",
        label_range=[1, 5],
    )
    assert "a custom table" in text and WARNING not in text
    whole = yaml.safe_dump(front) + text
    for leak in (str(tmp_path), "/srv", "voices", "cellar", "actor", "settings.yaml"):
        assert leak not in whole, leak
    for row in (
        "`learning_rate` | 0.0001",
        "`seed` | 7",
        "`label_range` | 1 5",
        "`audio_encoder` | openai/whisper-tiny.en",
    ):
        assert f"| {row} |" in text
    for hidden in ("data", "columns", "run_name", "output_dir", "text_encoder"):
        assert f"`{hidden}`" not in text
    assert f"0.62 is {to_scale(0.62, 1, 5):.2f} on 1..5" in text
    assert front["license"] == "other" and "language" not in front


def test_a_named_corpus_is_named(card_of):
    settings = {"data": "x.csv", "allow_speaker_overlap": True}
    front, text = card_of(**settings, names={"corpus_name": "someone/voices", "corpus_license": "CC-BY-NC-4.0"})
    assert front["datasets"] == ["someone/voices"] and front["license"] == "cc-by-nc-4.0"
    assert "| corpus: someone/voices | CC-BY-NC-4.0 |" in text
    assert "speakers of the test set are also in the training set" in text
    front, text = card_of(data="x.csv", names={"corpus_name": "Voices of the Valley", "corpus_license": "ask us"})
    assert "datasets" not in front and front["license"] == "other"
    assert front["model-index"][0]["results"][0]["dataset"]["type"] == "voices-of-the-valley"
    assert "also in the training set" not in text
    for names in ({"corpus_name": "Voices"}, {"corpus_license": "mit"}):
        with pytest.raises(ValueError, match="together"):
            card_of(**settings, names=names)
    with pytest.raises(ValueError, match="one line"):
        card_of(**settings, names={"corpus_name": "a\nb", "corpus_license": "mit"})
    with pytest.raises(ValueError, match="trained on the MSP-Podcast"):
        card_of(corpus="msp_podcast", data="x", names={"corpus_name": "Voices", "corpus_license": "mit"})


def test_encoders_without_a_name_on_the_hub_are_not_made_up(tmp_path):
    folder = train(tmp_path / "trained")
    config = folder / "config.json"
    config.write_text(config.read_text().replace("sentence-transformers/all-MiniLM-L6-v2", "mine"))
    front, text = parts(render_card(folder, REPO, "v1"))
    assert front["base_model"] == ["openai/whisper-tiny.en"] and front["license"] == "other"
    assert "weights from a custom text encoder | not stated" in text


def test_a_model_of_texts_is_no_audio_classifier(tmp_path):
    """The task of the Hub, which its filters and `pipeline(model=...)` go by."""
    front, text = parts(render_card(train(tmp_path / "text", audio=False), REPO, "v1"))
    assert front["pipeline_tag"] == "text-classification"
    assert front["model-index"][0]["results"][0]["task"]["type"] == "text-classification"
    assert "audio-classification" not in yaml.safe_dump(front) + text
    front, _ = parts(render_card(train(tmp_path / "sound", semantics=[]), REPO, "v1"))
    assert front["pipeline_tag"] == "audio-classification"


@pytest.mark.parametrize(
    ("noted", "said"), [({}, "utterances"), ({"resampled": "24 speakers"}, "24 speakers")], ids=["older", "speakers"]
)
def test_the_intervals_say_what_was_resampled(tmp_path, noted, said):
    folder = train(tmp_path / "trained")
    rows = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps([row | noted for row in rows]))
    _, text = parts(render_card(folder, REPO, "v1"))
    assert f"95% interval over {said} in parentheses" in " ".join(text.split())


@pytest.mark.parametrize(
    ("recognizer", "describer", "loads", "texts"),
    [
        (
            {"recognizer": "a/b"},
            {"describer": "measured"},
            "it loads `a/b`",
            "transcripts by `a/b`, descriptions by mea",
        ),
        (
            {"recognizer": "none"},
            {"describer": "c/d"},
            "No recognizer comes with",
            "generated: descriptions by `c/d`.",
        ),
        (
            {"recognizer": "mine", "recognizer_sha256": "0"},
            {"describer": "none"},
            "No recognizer comes with",
            "generated: transcripts by a recognizer that is not on the Hub.",
        ),
    ],
)
def test_what_made_the_texts_is_named_if_others_can_use_it(tmp_path, recognizer, describer, loads, texts):
    folder = train(tmp_path / "trained")
    path = folder / "processor_config.json"
    annotation = {"transcript": recognizer, "emphasis": {}, "description": describer}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotation": annotation}))
    _, text = parts(render_card(folder, REPO, "v1"))
    words = " ".join(text.split())
    assert loads in words and texts in words and "mine" not in words and "`none`" not in words


@pytest.mark.parametrize("learned", [[], ["transcript"], ["emphasis", "transcript", "description"]])
def test_the_card_names_the_texts_that_were_trained(tmp_path, learned):
    folder = train(tmp_path / "trained")
    present = {"audio": 10, "transcript": 0, "emphasis": 0, "description": 0} | dict.fromkeys(learned, 9)
    write_identity(folder, {"training_texts": {"rows": 10, "present": present, "annotations": [None]}})
    text = parts(render_card(folder, REPO, "v1"))[1]
    inputs = ", ".join(["audio", *learned]) + ("; any of them may be missing" if learned else "")
    assert f"| **Inputs** | {inputs} |" in text
    examples = {"transcript": "I never said that.", "emphasis": "never said", "description": "calm but firm"}
    arguments = ['"speech.wav"', *(f'{name}="{examples[name]}"' for name in learned)]
    assert f"inputs = processor({', '.join(arguments)})" in text
    about_texts = ("Pass the texts", "swift-f0", "generates missing texts", "Wrong texts", 'emotion["texts"]')
    assert {words for words in about_texts if words in text} == (set(about_texts) if learned else set())


def test_an_annotation_that_is_none_is_a_sentence(tmp_path):
    folder = train(tmp_path / "trained")
    path = folder / "processor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotation": {"x": ["y"]}}))
    with pytest.raises(ValueError, match=r"processor_config\.json is not what msfser annotate writes"):
        render_card(folder, REPO, "v1")


def test_every_table_has_as_many_cells_in_each_row(trained):
    _, text = parts(render_card(trained, REPO, "v1"))
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 5
    for table in tables:
        lines = table.splitlines()
        assert len({line.count("|") for line in lines}) == 1 and re.fullmatch(r"[|-]+", lines[1]), table
    assert "{{" not in text and "{%" not in text and "\n\n\n\n" not in text
    assert text.count("```python") == len(SNIPPET.findall(text)) == TEMPLATE.read_text().count("```python")


@pytest.mark.parametrize(
    ("switches", "given"),
    [
        ({"semantics": []}, 'processor("speech.wav")'),
        ({"semantics": ["gs"]}, 'processor("speech.wav", transcript="I never said that.")'),
        ({"audio": False, "semantics": ["gs", "es"]}, 'processor(transcript="I never said that.", description='),
    ],
)
def test_the_snippets_give_the_inputs_of_the_model(tmp_path, switches, given):
    _, text = parts(render_card(train(tmp_path / "trained", **switches), REPO, "v1"))
    snippets = dict(SNIPPET.findall(text))
    assert given in snippets["predict"]
    assert ("pipeline" in snippets) == switches.get("audio", True)
    for name, code in snippets.items():
        compile(code, name, "exec")


RUN = """
import json
from pathlib import Path
for name, code in json.loads(Path(sys.argv[1]).read_text()).items():
    print("==", name)
    exec(compile(code, name, "exec"), {"__name__": "snippet"})
"""


@needs(WHISPER)
def test_the_snippets_run_where_there_is_nothing_but_the_hub(trained, tmp_path, monkeypatch):
    link_prepared(tmp_path / "home")
    soundfile.write(tmp_path / "speech.wav", noise(1.2), 16_000)
    with Hub() as hub:
        connect(monkeypatch, hub, hub.token)
        main([str(trained), REPO])
        card = hub.files(REPO, "v1")["README.md"].decode()
        snippets = dict(SNIPPET.findall(card))
        (tmp_path / "snippets.json").write_text(json.dumps(snippets))
        printed = as_a_stranger(hub, RUN, tmp_path, "snippets.json")
    outputs = dict(re.findall(r"== (\w+)\n(.*?)(?=\n==|\Z)", printed, re.DOTALL))
    assert outputs.keys() == snippets.keys() == {"predict", "pipeline", "scale"}
    for name in ("predict", "pipeline"):
        numbers = [float(x) for x in re.findall(r"'(?:valence|arousal|dominance)': ([\d.]+)", outputs[name])]
        assert len(numbers) == 3 and all(0 <= x <= 1 for x in numbers)
    assert [float(x) for x in outputs["scale"].split()] == [4.72, 3.0]
