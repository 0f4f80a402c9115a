"""The ablation and the report page, on tiny encoders and made-up predictions."""

import csv
import re
import shlex
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from tiny import noise, tiny_model, tiny_tokenizer
from transformers import WhisperModel

from msfser import LABELS, MsfSerModel, MsfSerProcessor
from msfser.contributions_msfser import INPUTS, input_names
from msfser.evaluation import ablation, predictions, report
from msfser.evaluation.groups import groups_of
from msfser.evaluation.plots import POINTS
from msfser.evaluation.predictions import predict_part
from msfser.evaluation.results import read
from msfser.loss_msfser import UNRATED
from msfser.training.random_emphasis import random_windows
from msfser.training.settings import RunSettings, read_data, read_run

WORDS = ["a", "b", "c", "d", "e", "f"]


def run_of(folder: Path) -> RunSettings:
    return read_run(folder).run


def points_in(plot: ElementTree.Element | ElementTree.ElementTree) -> int:
    """The points of a plot."""
    return len(plot.findall(f".//{{*}}g[@id='{POINTS}']/{{*}}g/{{*}}use"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A folder with two tiny encoders, a corpus of 32 clips, and settings that train them for one epoch."""
    folder = tmp_path_factory.mktemp("tiny")
    model = tiny_model("whisper")
    WhisperModel(model.config.audio_config).save_pretrained(folder / "audio")
    model.text_encoder.save_pretrained(folder / "text")
    tiny_tokenizer().save_pretrained(folder / "text")
    draw = np.random.default_rng(0)
    (folder / "corpus").mkdir()
    with open(folder / "corpus" / "metadata.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "transcript", "emphasis", "description", "speaker", "split", "emotion", *LABELS])
        for i in range(32):
            soundfile.write(folder / "corpus" / f"{i}.wav", noise(0.5, i), 16_000)
            split = ("train", "train", "validation", "test")[i % 4]
            words = draw.permutation(WORDS)
            emotion = ("joy", "<anger>")[i // 4 % 2]
            speaker = f"{split}{i // 4 % 2}"
            labels = draw.random(3).round(3)
            table.writerow([f"{i}.wav", " ".join(words), " ".join(words[:2]), "the", speaker, split, emotion, *labels])
    (folder / "tiny.yaml").write_text(
        f"""
data: {folder}/corpus
audio_encoder: {folder}/audio
text_encoder: {folder}/text
audio_states: weighted
freeze_audio: all
freeze_text: true
fusion_size: 16
num_train_epochs: 1
per_device_train_batch_size: 8
learning_rate: 1.0e-3
dataloader_drop_last: true
eval_strategy: epoch
save_strategy: epoch
load_best_model_at_end: true
use_cpu: true
"""
    )
    return folder


@pytest.fixture(scope="module")
def done(tiny) -> Path:
    """Where an ablation of four rows and two seeds has run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tiny)
        ablation.main(["tiny.yaml", "--seeds", "0", "1", "--rows", "no_audio", "random_window", "weighted_layers"])
    return tiny


def test_every_row_has_its_title():
    titles = {row.title for row in ablation.ROWS.values()}
    assert len(titles) == len(ablation.ROWS) and all(titles)


def test_the_rows_are_those_that_change_something(tiny):
    names = ["full", "weighted_layers", "last_layer", "static_routing", "input_routing", "random_window"]
    kept = ablation.rows_that_differ([str(tiny / "tiny.yaml")], names)
    assert kept == ["full", "random_window", "last_layer", "input_routing"]
    assert len(ablation.rows_that_differ([str(tiny / "tiny.yaml")], list(ablation.ROWS))) == len(ablation.ROWS) - 3
    with pytest.raises(SystemExit, match="msfser ablate: error: There is no row nonsense"):
        ablation.main([str(tiny / "tiny.yaml"), "--rows", "nonsense"])


def test_there_is_no_window_without_emphasis_and_no_row_without_input(tiny):
    names = ["random_window", "audio", "last_layer"]
    for more, kept in (
        (["--semantics", "gs", "es"], ["full", "audio", "last_layer"]),
        (["--audio", "false"], ["full", "random_window", "last_layer"]),
    ):
        assert ablation.rows_that_differ([str(tiny / "tiny.yaml"), *more], names) == kept


def test_one_fold_is_given_as_folds(tiny, capsys):
    for given in (["--fold", "1"], ["--fold=1"]):
        with pytest.raises(SystemExit):
            ablation.main([str(tiny / "tiny.yaml"), *given])
        assert "name the folds with --folds, such as --folds 1" in capsys.readouterr().err


def test_rows_without_inputs_are_left_out_before_the_first_training(tiny, tmp_path, monkeypatch, caplog, capsys):
    """One utterance has no text at all."""
    table = pd.read_csv(tiny / "corpus" / "metadata.csv")
    table.loc[5, ["transcript", "emphasis", "description"]] = None
    table.loc[6, "transcript"] = None
    table.to_csv(tmp_path / "metadata.csv", index=False)
    given = [str(tiny / "tiny.yaml"), "--data", str(tmp_path / "metadata.csv"), "--audio_folder", f"{tiny}/corpus"]
    trained = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ablation, "seconds_of_a_run", lambda _: 0.0)
    monkeypatch.setattr(ablation.Run, "finish", lambda run: trained.append((run.row, run.seed)))
    monkeypatch.setattr(ablation, "summarize", lambda *_: [])
    ablation.main([*given, "--rows", "no_audio", "no_gs", "--seeds", "0", "1"])
    assert set(trained) == {("full", 0), ("full", 1), ("no_gs", 0), ("no_gs", 1)}
    assert caplog.messages == ["row no_audio is left out: items of the corpus have none of its inputs (1 such)"]
    assert "4 of 4 runs are missing" in capsys.readouterr().out
    # What the full model cannot use ends the ablation, with the sentence of the training.
    silent = [*given, "--audio", "false"]
    assert ablation.rows_with_inputs(silent, ["full", "no_gs"]) == ["full"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rows", "foo", "--data", "nosuch"], "There is no row foo; there are full, "),
        (["--rows", "audio", "--data", "nosuch"], "nosuch"),
        (["--folds", "9"], "--folds belongs to the corpus iemocap, not to table; leave it out"),
        (["--chanel", "0"], "unknown settings"),
    ],
)
def test_a_wrong_command_is_refused_by_its_name(tiny, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny / "tiny.yaml", "probe.yaml")  # of the project's own name
    with pytest.raises(SystemExit, match=f"^msfser ablate: error: .*{message}"):
        ablation.main(["probe.yaml", *options])
    with pytest.raises(SystemExit, match=r"^msfser ablate: error: there is no settings file 'nosuch\.yaml'"):
        ablation.main(["nosuch.yaml"])
    assert [path.name for path in tmp_path.iterdir()] == ["probe.yaml"]


def test_the_ablation_writes_results_and_a_plot(done):
    rows = read(done / "outputs/ablation/tiny/results.json")
    for name in ("full", "no_audio", "random_window", "no_audio_minus_full", "random_window_minus_full"):
        for dimension in (*LABELS, "mean"):
            row = rows[f"{name}/{dimension}"]
            assert row["low"] <= row["high"] and row["command"].startswith("msfser ablate")
    assert rows["items"]["value"] == 8 and rows["speakers"]["value"] == 2
    of_seeds = [rows[f"full/seed{seed}/valence"]["value"] for seed in (0, 1)]
    assert of_seeds[0] != of_seeds[1] and rows["full/valence"]["value"] == pytest.approx(np.mean(of_seeds))
    assert not any(name.startswith("weighted_layers") for name in rows)
    plot = ElementTree.parse(done / "outputs/ablation/tiny/differences.svg")
    assert points_in(plot) == 2 * 4


def test_predictions_are_those_that_training_has_scored(done, monkeypatch):
    monkeypatch.chdir(done)
    folder = done / "outputs/ablation/tiny/full_0"
    table, items, layer_weights, intervals = predict_part(folder)
    assert sum(layer_weights) == pytest.approx(1) and intervals is None  # two speakers are too few
    assert table["file"].tolist() == [audio["path"] for audio in items["audio"]]
    rows = read(folder / "results.json")
    written = pd.read_csv(folder / "test_predictions.csv").assign(speaker=table["speaker"])
    scored = {row["name"]: row["value"] for row in ablation.compare({"full": {0: written}})}
    for label in LABELS:
        assert scored[f"full/{label}"] == pytest.approx(rows[f"test/all/{label}"]["value"], abs=1e-4)
    assert ((table["gate"] > 0) & (table["gate"] < 1)).all()
    shares = [f"routing_valence_{expert}" for expert in ("audio", "semantics", "description")]
    assert table[shares].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)


def test_an_item_is_its_row_of_the_part(done, monkeypatch):
    monkeypatch.chdir(done)
    parts = read_data(run_of(done / "outputs/ablation/tiny/no_audio_0"))
    texts = dict.fromkeys(("transcript", "emphasis", "description"))
    parts["test"] = parts["test"].map(lambda row, i: texts if i == 2 else {}, with_indices=True)
    monkeypatch.setattr(predictions, "read_data", lambda _: parts)
    monkeypatch.setattr(predictions, "check_identity", lambda *_: None)  # it would notice the changed row
    table, items, *_ = predict_part(done / "outputs/ablation/tiny/no_audio_0")
    assert table.index.tolist() == [0, 1, 3, 4, 5, 6, 7]
    assert table["file"].tolist() == [audio["path"] for audio in items["audio"]]


def test_random_windows_replace_only_the_emphasized_words(done, monkeypatch):
    monkeypatch.chdir(done)
    original = read_data(run_of(done / "outputs/ablation/tiny/full_0"))
    control = read_data(run_of(done / "outputs/ablation/tiny/random_window_0"))
    for name, part in original.items():
        assert part.remove_columns("emphasis").to_list() == control[name].remove_columns("emphasis").to_list()
    columns = original["train"]["emphasis"], control["train"]["emphasis"], original["train"]["transcript"]
    pairs = list(zip(*columns, strict=True))
    assert all(len(window.split()) == len(given.split()) and window in text for given, window, text in pairs)
    assert sum(window == given for given, window, _ in pairs) < len(pairs) / 2
    assert random_windows(original, 0)["train"]["emphasis"] == [window for _, window, _ in pairs]
    assert random_windows(original, 1)["train"]["emphasis"] != [window for _, window, _ in pairs]


def test_windows_come_from_the_timed_words_and_need_a_given_emphasis():
    words = [{"word": word, "start": 0.0, "end": 0.1} for word in ("So,", "it", "was.")]
    part = datasets.Dataset.from_list(
        [
            {"transcript": "other", "emphasis": "was", "words": words},
            {"transcript": "x", "emphasis": None, "words": words},
        ]
    )
    made = random_windows(datasets.DatasetDict({"test": part}), 0)["test"]["emphasis"]
    assert made[0] in ("So", "it", "was") and made[1] is None


def test_a_second_run_trains_nothing_and_other_settings_are_refused(done, monkeypatch):
    monkeypatch.chdir(done)
    results = done / "outputs/ablation/tiny/results.json"
    first = read(results)

    def must_not_run(*_):
        raise AssertionError("there is nothing to train")

    for name in ("train", "predict_part", "seconds_of_a_run"):
        monkeypatch.setattr(ablation, name, must_not_run)
    ablation.main(["tiny.yaml", "--seeds", "0", "1", "--rows", "no_audio"])
    second = read(results)
    assert {name: row["value"] for name, row in first.items()} == {name: row["value"] for name, row in second.items()}
    with pytest.raises(SystemExit, match="holds a run with other settings"):
        ablation.main(["tiny.yaml", "--rows", "full", "--learning_rate", "0.5"])


def test_the_cost_is_printed_first(done, monkeypatch, capsys):
    monkeypatch.chdir(done)

    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ablation.Run, "finish", stop)
    with pytest.raises(SystemExit):
        ablation.main(["tiny.yaml", "--seeds", "0", "7", "--rows", "no_audio", "no_les"])
    out, err = capsys.readouterr()
    printed = re.search(r"4 of 6 runs are missing. One of the full model takes about (\d+) s", out)
    assert printed and int(printed[1]) < 60
    assert "msfser ablate: interrupted: run the same command again to continue." in err


@pytest.fixture
def control(tiny, tmp_path, monkeypatch):
    """Runs the full model and the control with these options; the results, and the predictions of both."""
    (tmp_path / "ours.yaml").write_text((tiny / "tiny.yaml").read_text().replace(f"data: {tiny}/corpus", ""))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ablation, "seconds_of_a_run", lambda _: 0.0)

    def run(*options: str):
        ablation.main(["ours.yaml", "--seeds", "0", "--rows", "random_window", *options])
        names = (tmp_path / f"outputs/ablation/ours/{row}_0" for row in ("full", "random_window"))
        return read(tmp_path / "outputs/ablation/ours/results.json"), *(
            pd.read_csv(name / "test_predictions.csv") for name in names
        )

    return run


def test_the_control_reads_the_corpus_of_the_command_line(tiny, tmp_path, control):
    """Labels on a scale, parts with names of their own, and speakers that are found in the names of the files."""
    table = pd.read_csv(tiny / "corpus" / "metadata.csv").drop(columns="speaker")
    table[[*LABELS]] = 1 + 6 * table[[*LABELS]]
    table["split"] = table["split"].replace({"validation": "Development", "test": "Test1"})
    table.loc[table.index[table["split"] == "Test1"][:4], "split"] = "Test2"
    table.to_csv(tmp_path / "table.csv", index=False)
    options = ["--data", str(tmp_path / "table.csv"), "--audio_folder", str(tiny / "corpus")]
    rows, full, random = control(
        *options, "--label_range", "1", "7", "--test", "Test1", "--speaker_from", r"(\d+)\.wav"
    )
    assert rows["items"]["value"] == rows["speakers"]["value"] == 4 and "random_window_minus_full/mean" in rows
    given = table[table["split"] == "Test1"]
    for found in (full, random):
        assert [Path(file).name for file in found["file"]] == given["file_name"].tolist()
        labels = found[[f"{label}_label" for label in LABELS]].to_numpy()
        assert labels == pytest.approx((given[[*LABELS]].to_numpy() - 1) / 6, abs=1e-6)
    run = run_of(Path("outputs/ablation/ours/random_window_0"))
    assert (run.data, run.more_data, run.random_emphasis) == (str(tmp_path / "table.csv"), [], 0)
    with pytest.raises(SystemExit):
        ablation.main(["ours.yaml", *options, "--random_emphasis", "1"])


def test_corpora_that_rate_different_dimensions_are_compared_on_what_they_rate(tiny, tmp_path, control):
    table = pd.read_csv(tiny / "corpus" / "metadata.csv")
    (tmp_path / "two").mkdir()
    for row in table.index:
        soundfile.write(tmp_path / "two" / table["file_name"][row], noise(0.5, 100 + row), 16_000)
    table.drop(columns="dominance").to_csv(tmp_path / "two" / "metadata.csv", index=False)
    more = f"{{data: {tmp_path}/two, label_range: [valence=0:1, arousal=0:1]}}"
    rows, full, random = control("--data", str(tiny / "corpus"), "--data", more)
    for name, found in (("full", full), ("random_window", random)):
        assert len(found) == 16 and found["dominance_label"].notna().sum() == 8
        alone = {row["name"]: row for row in ablation.compare({"full": {0: found[found["dominance_label"].notna()]}})}
        assert rows[f"{name}/dominance"]["value"] == pytest.approx(alone["full/dominance"]["value"])
    assert rows["full/seed0/dominance"]["value"] == rows["full/dominance"]["value"]


def made_up(seed: int, shift: float = 0.0) -> pd.DataFrame:
    """Predictions of 40 items of four speakers."""
    draw = np.random.default_rng(seed)
    labels = np.random.default_rng(99).random((40, 3))
    table = {"item": np.arange(40), "speaker": [f"s{i % 4}" for i in range(40)]}
    table |= {label: labels[:, i] + 0.1 * draw.standard_normal(40) + shift for i, label in enumerate(LABELS)}
    return pd.DataFrame(table | {f"{label}_label": labels[:, i] for i, label in enumerate(LABELS)})


def test_differences_are_paired():
    """The same error on top of the full model's: the interval of the difference is far narrower than the scores'."""
    full, worse = ({seed: made_up(seed, shift) for seed in (0, 1, 2)} for shift in (0.0, 0.05))
    rows = {row["name"]: row for row in ablation.compare({"full": full, "audio": worse})}
    row = rows["audio_minus_full/mean"]
    assert row["low"] <= row["value"] <= row["high"] < 0
    assert row["high"] - row["low"] < 0.5 * (rows["full/mean"]["high"] - rows["full/mean"]["low"])
    assert row["value"] == pytest.approx(rows["audio/mean"]["value"] - rows["full/mean"]["value"])


def test_gate_and_attention_are_compared_with_each_other():
    full, gate, attention = ({seed: made_up(seed, shift) for seed in (0, 1, 2)} for shift in (0.0, 0.05, 0.1))
    given = {"full": full, "attention_film": attention, "gate_film": gate}
    rows = {row["name"]: row for row in ablation.compare(given)}
    pair = rows["gate_film_minus_attention_film/mean"]
    assert 0 < pair["low"] <= pair["value"] <= pair["high"]
    assert pair["value"] == pytest.approx(rows["gate_film/mean"]["value"] - rows["attention_film/mean"]["value"])
    assert "minus attention_film: gate_film" in ablation.as_table(list(rows.values()))
    without = ablation.compare({"full": full, "gate_film": gate})
    assert not any("attention" in row["name"] for row in without)


def test_only_items_of_all_rows_are_compared():
    full = {0: made_up(0)}
    rows = {row["name"]: row for row in ablation.compare({"full": full, "audio": {0: made_up(1).iloc[::-1][:30]}})}
    assert rows["items"]["value"] == 30
    with pytest.raises(ValueError, match="audio were trained on other labels"):
        ablation.compare({"full": full, "audio": {0: made_up(1).assign(valence_label=0.5)}})


def test_items_that_are_not_rated_do_not_count():
    """As NaN, which tables have, and as the label that models are trained with."""
    some = {name: made_up(seed) for name, seed in (("full", 0), ("audio", 1))}
    rated = {name: {0: table[table["item"] < 30]} for name, table in some.items()}
    expected = {row["name"]: row["value"] for row in ablation.compare(rated)}
    for unrated in (np.nan, UNRATED):
        part = {name: {0: table.copy()} for name, table in some.items()}
        for of_seeds in part.values():
            of_seeds[0].loc[30:, "arousal_label"] = unrated
        found = {row["name"]: row["value"] for row in ablation.compare(part)}
        for name in ("full/arousal", "audio/seed0/arousal", "audio_minus_full/arousal"):
            assert found[name] == pytest.approx(expected[name])
        of_dimensions = [found[f"full/{label}"] for label in LABELS]
        assert found["full/mean"] == pytest.approx(np.mean(of_dimensions))


def test_two_dimensions_are_compared():
    tables = {name: {0: made_up(seed).assign(arousal_label=UNRATED)} for name, seed in (("full", 0), ("audio", 1))}
    rows = ablation.compare(tables)
    value = {row["name"]: row["value"] for row in rows}
    assert not any("arousal" in name for name in value)
    assert value["full/mean"] == pytest.approx((value["full/valence"] + value["full/dominance"]) / 2)
    assert ablation.as_table(rows).split()[:3] == ["valence", "dominance", "mean"]
    assert points_in(ElementTree.fromstring(ablation.plot(rows))) == 3


def test_items_without_a_speaker_are_drawn_alone():
    rows = {row["name"]: row["value"] for row in ablation.compare({"full": {0: made_up(0).assign(speaker=None)}})}
    assert rows["speakers"] == rows["items"] == 40


def test_folds_are_scored_together(tmp_path):
    for fold in (1, 2):
        run = ablation.Run("full", 0, fold, ("x.yaml",), tmp_path, "test")
        run.output.mkdir()
        made_up(fold).to_csv(run.predictions, index=False)
    runs = [ablation.Run(row, 0, fold, ("x.yaml",), tmp_path, "test") for row in ("full", "audio") for fold in (1, 2)]
    rows = {row["name"]: row for row in ablation.summarize(runs, "python")}
    assert rows["items"]["value"] == 80 and shlex.split(rows["full/valence"]["command"]) == ["python"]
    assert runs[0].argv() == ["x.yaml", "--fold", "1", "--seed", "0", "--output_dir", str(tmp_path / "full_0_1")]


def test_the_report_is_one_page_with_everything(done, monkeypatch, capsys):
    monkeypatch.chdir(done)
    report.main(["outputs/ablation/tiny/full_0"])
    path = Path(capsys.readouterr().out.strip())
    page = path.read_text(encoding="utf-8")
    for words in (
        "Predicted against given",
        "Error by speaker",
        "Error by emotion",
        "Reliability by input",
        "What the numbers",
        "the others over speakers where they are known",
    ):
        assert words in page
    assert "&lt;anger&gt; (4)" in page and "<anger>" not in page
    assert not re.search(r"<script|https?://(?!www\.w3\.org/(?:2000/svg|1999/xlink))|src=", page)
    plots = [ElementTree.fromstring(plot) for plot in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]
    points = [points_in(plot) for plot in plots]
    # Three scatters, inputs, speaker (error, bias), emotion (error, bias), contributions, layers, gate, routing.
    assert points == [8, 8, 8, 3 * 4, 2 * 3, 2 * 3, 2 * 3, 2 * 3, 4 * 3, 3, 1, 3 * 3]
    assert (
        page.index("What the numbers rest on") < page.index("valence, contribution") < page.index("Internal weights")
    )
    rows = read(path.with_name("results.json"))
    assert f"CCC {rows['test/all/valence']['value']:.3f}" in page


def test_contributions_are_part_of_the_predictions_on_request(done, monkeypatch):
    monkeypatch.chdir(done)
    folder = Path("outputs/ablation/tiny/full_0")
    plain, table = (predict_part(folder, contributions=wanted).table for wanted in (False, True))
    names = [f"contribution_{label}_{name}" for name in INPUTS for label in LABELS]
    assert [*table.columns.difference(plain.columns, sort=False)] == names
    pd.testing.assert_frame_equal(table[plain.columns], plain)
    model, processor = MsfSerModel.from_pretrained(folder), MsfSerProcessor.from_pretrained(folder)
    items = read_data(run_of(folder))["test"]
    texts = {name: items[name][:] for name in ("transcript", "emphasis", "description")}
    with torch.no_grad():
        output = model(**processor([audio["path"] for audio in items["audio"]], **texts), output_contributions=True)
    place = [input_names(model.config).index(tensor) for tensor in INPUTS.values()]
    expected = output.contributions[..., place].mT.flatten(1)  # `(items, inputs * dimensions)`
    np.testing.assert_allclose(table[names], expected, atol=2e-3)


def test_a_report_on_a_run_without_texts_or_sound(done, monkeypatch):
    monkeypatch.chdir(done)
    page = report.page(Path("outputs/ablation/tiny/no_audio_0"))
    assert "weight of the layer" not in page and "gate: emphasized words" in page
    (plot,) = re.findall(r"<svg(?:(?!</svg>).)*valence, contribution.*?</svg>", page, re.DOTALL)
    assert points_in(ElementTree.fromstring(plot)) == 3 * 3


def test_a_recording_in_two_rows_is_in_a_group_where_they_agree(tiny, tmp_path):
    table = pd.read_csv(tiny / "corpus" / "metadata.csv")
    table["notes"] = [["a"]] * 32
    again = table[table["split"] == "test"].iloc[:2].copy()
    again.loc[again.index[1], "emotion"] = "sorrow"
    pd.concat([table, again]).to_json(tmp_path / "metadata.jsonl", orient="records", lines=True)
    run = RunSettings(data=str(tmp_path / "metadata.jsonl"), audio_folder=str(tiny / "corpus"))
    test = read_data(run)["test"]
    items = pd.DataFrame({"file": [audio["path"] for audio in test["audio"]], "speaker": test["speaker"]})
    groups = groups_of(run, items["file"].tolist(), items["speaker"].tolist())
    assert set(groups) == {"speaker", "emotion"}
    given = table.set_index("file_name").loc[[Path(file).name for file in items["file"]], "emotion"].tolist()
    assert given[1] == given[9] and groups["emotion"].tolist()[2:9] == given[2:9] and groups["emotion"][0] == given[0]
    assert groups["emotion"][[1, 9]].isna().all() and len(items) == 10


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"msfser report: error: .* is not the folder of a finished run"):
        report.main([str(tmp_path)])
