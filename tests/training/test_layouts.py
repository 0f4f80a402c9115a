"""Each layout of a corpus through annotate, train, predict, and ablate, with tiny encoders."""

import io
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
from corpus_trees import write_csv
from tiny_run import command, make_tiny, score_rows

from msfser import LABELS
from msfser.annotation.annotate import main as annotate
from msfser.cli.main import main as msfser
from msfser.evaluation import ablation
from msfser.evaluation.results import read
from msfser.train import main as train
from msfser.training.settings import parse_settings, read_data

RATE = 16_000
COUNTS = {"Train": 9, "Development": 4, "Test1": 4}
ATTRIBUTES = {"valence": "EmoVal", "arousal": "EmoAct", "dominance": "EmoDom"}


def utterances(counts=COUNTS, low=1.0, high=7.0):
    """Rows of a table: every part has three speakers of its own."""
    draw = np.random.default_rng(0)
    rows = []
    for part, count in counts.items():
        for k in range(count):
            row = {"name": f"MSP-PODCAST_{len(rows):04d}.wav", "part": part, "speaker": f"{part}{k % 3}"}
            rows.append(row | {"text": "a b c"} | {label: round(draw.uniform(low, high), 2) for label in LABELS})
    return rows


def voice(number):
    """A voiced sound, so that the describer has something to say."""
    times = np.arange(int((0.4 + number / 100) * RATE)) / RATE
    return sum(0.1 / k * np.sin(2 * np.pi * k * (110 + 5 * number) * times) for k in range(1, 8))


def write_sounds(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        soundfile.write(folder / row["name"], voice(number), RATE)


def write_labels(path, rows, **fixed):
    """The table of MSP-Podcast."""
    table = [
        {"FileName": row["name"], "EmoClass": "NH"[k % 2], **{name: row[label] for label, name in ATTRIBUTES.items()}}
        | {"SpkrID": row["speaker"], "Gender": ("Male", "Female")[k % 2], "Split_Set": row["part"]}
        | fixed
        for k, row in enumerate(rows)
    ]
    write_csv(path, table)


def write_texts(folder, rows):
    folder.mkdir(parents=True)
    for row in rows:
        (folder / row["name"].replace(".wav", ".txt")).write_text(row["text"])


def old_release(folder):
    rows = [row | {"part": row["part"].replace("Development", "Validation")} for row in utterances()]
    write_labels(folder / "Labels" / "labels_concensus.csv", rows)
    write_sounds(folder / "Audio", rows)
    write_texts(folder / "Transcripts", rows)
    return ["--corpus", "msp_podcast"], ["--test", "Test1"], 4


def nested_release(folder):
    rows, inner = utterances(), folder / "MSP-Podcast-1.12"
    write_labels(inner / "Labels" / "Labels" / "labels_consensus.csv", rows)
    write_sounds(inner / "Audios" / "Audios" / "0001", rows)
    write_texts(inner / "Transcripts" / "Transcripts", rows)
    return ["--corpus", "msp_podcast"], ["--test", "Test1"], 4


def challenge(folder):
    rows = utterances({"Train": 9, "Development": 4, "Test3": 3})
    write_labels(folder / "Labels" / "labels_consensus.csv", rows[:13])
    write_sounds(folder / "Audios", rows)
    write_texts(folder / "Transcripts", rows[:13])
    (folder / "Partitions.txt").write_text("".join(f"{row['part']}; {row['name']}\n" for row in rows))
    return ["--corpus", "msp_podcast", "--test", "Development"], ["--test", "Test3"], 3


def whiser(folder):
    rows = utterances({"NA": 17})
    write_labels(folder / "Labels" / "labels_consensus.csv", rows, SpkrID="Unknown")
    write_sounds(folder / "wavs", rows)
    return ["--corpus", "whiser"], [], 17


def hub_shards(folder):
    """Two shards of each part, whose names end with a hash as in older versions of `push_to_hub`."""
    (folder / "data").mkdir(parents=True)
    for number, (part, name) in enumerate({"Train": "train", "Development": "validation", "Test1": "test"}.items()):
        rows = []
        for k, row in enumerate(utterances(low=0.0, high=1.0)):
            if row["part"] == part:
                buffer = io.BytesIO()
                soundfile.write(buffer, voice(k), RATE, format="WAV")
                sound = {"audio": {"bytes": buffer.getvalue(), "path": row["name"]}, "transcript": row["text"]}
                rows.append(sound | {"speaker": row["speaker"]} | {label: row[label] for label in LABELS})
        whole = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio())
        for shard in range(2):
            path = folder / "data" / f"{name}-{shard:05d}-of-00002-{number}{shard}3b2a1cdeadbeef.parquet"
            whole.shard(2, shard).to_parquet(path)
    return [], [], 17


def plain_table(folder):
    rows = utterances()
    write_sounds(folder / "sounds", rows)
    names = {"speaker": "speaker", "text": "transcript", **{label: label for label in LABELS}}
    table = [
        {"file_name": f"sounds/{row['name']}", "split": row["part"].lower()} | {names[key]: row[key] for key in names}
        for row in rows
    ]
    write_csv(folder / "metadata.csv", table)
    return ["--label_range", "1", "7"], [], 17


LAYOUTS = (old_release, nested_release, challenge, whiser, hub_shards, plain_table)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def contents(argv):
    """The labels, the speakers and the names of the recordings of each part."""
    parts = read_data(parse_settings(argv).run)
    return {
        name: [
            (Path(row["audio"]["path"]).name, row["speaker"], row["transcript"], *(row[label] for label in LABELS))
            for row in part.select_columns(["audio", "speaker", "transcript", *LABELS])
        ]
        for name, part in parts.items()
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_annotated_trained_on_and_predicted(tiny, tmp_path, monkeypatch, layout):
    monkeypatch.chdir(tmp_path)
    options, part, count = layout(tmp_path / "corpus")
    corpus = options[:2] if "--corpus" in options else []
    fast = [*options, "--per_device_train_batch_size", "4", "--num_train_epochs", "1", "--intervals", "false"]
    annotate(["corpus", *corpus, "--recognizer", "none", "--output", "annotated"])
    runs = {data: command(tiny, tmp_path / f"run_{data}", *fast, "--data", data) for data in ("corpus", "annotated")}
    # What is trained on is the same, before and after, and so is what is tested.
    whole, described = map(contents, runs.values())
    assert whole == described and {*whole} >= {"train", "validation", "test"}
    scored = []
    for data, argv in runs.items():
        train(argv)
        scored.append({row["name"].rpartition("/")[0] for row in score_rows(tmp_path / f"run_{data}", set())})
    assert "test/audio" in scored[0] and len(scored[0]) < len(scored[1])
    shard = pd.read_parquet("annotated/data/part-00000.parquet")
    assert shard["description"].notna().all() and shard["error"].isna().all()
    for number, data in enumerate(("corpus", "annotated")):
        words = ["predict", data, *corpus, *part, "--model", "run_annotated", "--recognizer", "none"]
        msfser([*words, "-o", f"{number}.csv"])
    first, second = pd.read_csv("0.csv"), pd.read_csv("1.csv")
    assert len(first) == count and first[[*LABELS]].stack().between(0, 1).all() and first["error"].isna().all()
    names = [[Path(file).name for file in table["file"]] for table in (first, second)]
    assert names[0] == names[1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_ablated(tiny, tmp_path, monkeypatch, layout):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ablation, "seconds_of_a_run", lambda _: 0.0)
    options, *_ = layout(tmp_path / "corpus")
    corpus = options[:2] if "--corpus" in options else []
    annotate(["corpus", *corpus, "--recognizer", "none", "--output", "annotated"])
    fast = "num_train_epochs: 1\nper_device_train_batch_size: 4\nintervals: false\n"
    Path("tiny.yaml").write_text((tiny / "tiny.yaml").read_text() + fast)
    ablation.main(["tiny.yaml", *options, "--data", "annotated", "--seeds", "0", "--rows", "audio"])
    rows = read(tmp_path / "outputs/ablation/tiny/results.json")
    assert rows["items"]["value"] >= 2
    assert {"full/mean", "audio_minus_full/mean"} <= rows.keys()
