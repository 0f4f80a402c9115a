import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import tiny_model, tiny_tokenizer

from msfser import LABELS
from msfser.benchmarks import emobank as benchmark
from msfser.corpora.emobank import read_emobank
from msfser.corpora.schema import FEATURES, SPLITS
from msfser.evaluation.results import read
from msfser.training.settings import parse_settings, read_data

COLUMNS = ["id", "split", "V", "A", "D", "text"]
ROWS = [
    ["a_1_9", "train", "1.0", "3.0", "5.0", 'She said "so".'],
    ["a_9_13", "train", "3.44", "2.8", "3.1", "None"],
    ["b_1_9", "dev", "3.0", "3.0", "3.0", "caf\xe9, two\nlines"],
    ["b_9_20", "test", "2.0", "4.0", "3.0", "None"],
]


def write(folder, rows, columns=COLUMNS):
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "emobank.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


@pytest.fixture
def tree(tmp_path):
    write(tmp_path / "EmoBank" / "corpus", ROWS)
    return tmp_path / "EmoBank"


def fails(match, folder):
    with pytest.raises(ValueError, match=match) as caught:
        read_emobank(folder)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_the_authors_parts_in_the_schema(tree):
    result = read_emobank(tree)
    assert {name: len(part) for name, part in result.items()} == {"train": 2, "validation": 1, "test": 1}
    assert list(result) == list(SPLITS)
    assert all(part.features == FEATURES and part.column_names == list(FEATURES) for part in result.values())
    first, second = result["train"]
    assert first["transcript"] == 'She said "so".' and [first[label] for label in LABELS] == [0.0, 0.5, 1.0]
    assert [second[label] for label in LABELS] == pytest.approx([0.61, 0.45, 0.525])
    assert result["validation"]["transcript"][0] == "caf\xe9, two\nlines"
    for name in ("audio", "emphasis", "description", "words", "speaker"):
        assert first[name] is None


def test_the_word_none_is_a_text_and_may_stand_in_two_parts(tree):
    result = read_emobank(str(tree))
    assert result["train"]["transcript"][1] == result["test"]["transcript"][0] == "None"


def test_the_folder_of_the_tables_will_do(tree):
    assert read_emobank(tree / "corpus")["test"].to_list() == read_emobank(tree)["test"].to_list()


def test_one_error_lists_all_that_is_missing(tree, tmp_path):
    fails("there is no such folder; name the one that holds corpus/emobank.csv", tmp_path / "gone")
    shutil.rmtree(tree / "corpus")
    fails("this copy of EmoBank is not whole; missing are the file emobank.csv;", tree)
    write(tree, [row for row in ROWS if row[1] == "train"])
    message = fails("not whole", tree)
    assert "the rows of dev in emobank.csv; the rows of test in emobank.csv" in message
    write(tree, [[row[0], *row[2:]] for row in ROWS], ["id", "V", "A", "D", "sentence"])
    fails("missing are the columns split, text of emobank.csv", tree)


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("A", "0.5", "a_9_13: arousal is '0.5', outside the label_range 1 to 5"),
        ("D", "", "a_9_13: dominance is blank"),
        ("split", "held out", "a_9_13: the split is 'held out'"),
    ],
)
def test_a_wrong_row_is_named(tree, column, value, match):
    rows = [list(row) for row in ROWS]
    rows[1][COLUMNS.index(column)] = value
    write(tree / "corpus", rows)
    fails(match, tree)


def test_the_settings_read_it_as_transcripts_alone(tree):
    run, config, *_ = parse_settings(["configs/emobank.yaml", "--data", str(tree)])
    assert run.corpus == "emobank" and not config.audio and config.semantics == ["gs"]
    assert read_data(run)["train"]["transcript"][1] == "None"
    with pytest.raises(SystemExit, match="label_range: the corpus emobank decides this"):
        parse_settings(["configs/emobank.yaml", "--data", str(tree), "--label_range", "1", "5"])


def test_the_benchmark_ends_with_a_row_for_each_method(tmp_path, monkeypatch):
    draw = np.random.default_rng(0)
    words = ["a", "b", "c", "d", "e", "f"]
    rows, perspectives = [], {"reader": [], "writer": []}
    for i in range(160):
        valence = draw.uniform(1, 5)
        text = " ".join(draw.choice(words[:3] if valence < 3 else words[3:], 4))
        ratings = [valence, *draw.uniform(1, 5, 2)]
        rows.append([f"s_{i}", ("train", "train", "dev", "test")[i % 4], *ratings, text])
        perspectives["reader"].append([f"s_{i}", *ratings])
        perspectives["writer"].append([f"s_{i}", *(6 - np.array(ratings))])
    write(tmp_path / "EmoBank" / "corpus", rows)
    for name, rated in perspectives.items():
        frame = pd.DataFrame(rated, columns=["id", "V", "A", "D"])
        frame.to_csv(tmp_path / "EmoBank" / "corpus" / f"{name}.csv", index=False)
    tiny_model().text_encoder.save_pretrained(tmp_path / "text")
    tiny_tokenizer().save_pretrained(tmp_path / "text")
    settings = Path(benchmark.CONFIG).read_text().replace("per_device_train_batch_size: 128", "learning_rate: 1.0e-3")
    settings = settings.replace("learning_rate: 5.0e-4", "per_device_train_batch_size: 16")
    settings = settings.replace("num_train_epochs: 15", "num_train_epochs: 2")
    settings = settings.replace("sentence-transformers/all-MiniLM-L6-v2", str(tmp_path / "text"))
    (tmp_path / "tiny.yaml").write_text(settings + '\nuse_cpu: true\nlogging_strategy: "no"\n')
    monkeypatch.setattr(benchmark, "CONFIG", str(tmp_path / "tiny.yaml"))
    monkeypatch.setattr("msfser.benchmarks.command.RESULTS", tmp_path)
    command = ["--data", str(tmp_path / "EmoBank"), "--output_dir", str(tmp_path / "runs"), "--seeds", "0", "1"]
    benchmark.main(command)
    made = read(tmp_path / "emobank.json")
    recorded = "python -m msfser.benchmarks.emobank --data FOLDER --output_dir FOLDER --seeds 0 1"
    assert {row["command"] for row in made.values()} == {recorded}
    methods = {"human", "ridge", "ridge_rescaled", "frozen", "tuned"}
    assert {f"{method}/{dimension}" for method in methods for dimension in (*LABELS, "mean")} <= set(made)
    assert made["human/r/valence"]["value"] == pytest.approx(-1)
    assert made["ridge/valence"]["value"] > 0.5
    for method in ("frozen", "tuned"):
        seeds = [made[f"{method}/seed{seed}/mean"]["value"] for seed in (0, 1)]
        assert made[f"{method}/mean"]["value"] == pytest.approx(np.mean(seeds))
        dimensions = [made[f"{method}/{label}"]["value"] for label in LABELS]
        assert made[f"{method}/mean"]["value"] == pytest.approx(np.mean(dimensions))
        assert made[f"{method}/mean"]["low"] <= made[f"{method}/mean"]["value"] <= made[f"{method}/mean"]["high"]

    # A second call trains nothing.
    monkeypatch.setattr(benchmark, "train", lambda argv: pytest.fail(f"trained again: {argv}"))
    benchmark.main(command)


def test_ridge_finds_a_line_with_its_offset_and_rescaling_undoes_its_shrinking():
    draw = np.random.default_rng(0)
    x = draw.standard_normal((400, 5)) + 3
    y = x @ draw.standard_normal((5, 3)) + 7
    assert benchmark.fit_ridge(x, y, 1e-6)(x) == pytest.approx(y, abs=1e-4)
    noisy = y + 4 * draw.standard_normal(y.shape)
    parts = {"train": (x[:200], noisy[:200]), "validation": (x[200:300], noisy[200:300])}
    parts["test"] = x[300:], noisy[300:]
    made = benchmark.ridge_predictions(parts)
    plain, stretched = made["ridge"], made["ridge_rescaled"]
    assert benchmark.pearson(plain, stretched) == pytest.approx(1)
    assert (benchmark.ccc(stretched, noisy[300:]) > benchmark.ccc(plain, noisy[300:])).all()


def test_without_the_ratings_of_readers_and_writers_the_benchmark_says_so(tree):
    with pytest.raises(SystemExit, match=r"missing are the file reader\.csv; the file writer\.csv"):
        benchmark.main(["--data", str(tree)])
