"""Datasets without a length: `MsfSerTrainer` and the plain `Trainer` make of them what they make of their rows."""

import datasets
import numpy as np
import pytest
import soundfile
import torch
from tiny import NO_DROPOUT, noise, tiny_model, tiny_processor
from transformers import Trainer, TrainingArguments

from msfser import MsfSerCollator
from msfser.training.trainer import MsfSerTrainer

LABELS = ("valence", "arousal", "dominance")


class Stream(torch.utils.data.IterableDataset):
    """Rows one by one."""

    def __init__(self, rows: datasets.Dataset):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> datasets.Dataset:
    """Ten recordings of different lengths with transcripts."""
    folder, draw = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    audio = []
    for i in range(10):
        soundfile.write(folder / f"{i}.wav", noise(0.3 + 0.05 * i, i), 16_000)
        audio.append({"path": str(folder / f"{i}.wav"), "bytes": None})
    columns = {"audio": audio, "transcript": ["a b", "c d e"] * 5}
    return datasets.Dataset.from_dict(columns | {name: draw.random(10).tolist() for name in LABELS})


@pytest.fixture(scope="module")
def streams(corpus, tmp_path_factory) -> dict[str, object]:
    path = tmp_path_factory.mktemp("parquet") / "corpus.parquet"
    corpus.to_parquet(path)
    streamed = datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
    return {"iterable": corpus.to_iterable_dataset(), "streaming": streamed, "torch": Stream(corpus)}


def trained(kind, folder, rows, **more) -> Trainer:
    model = tiny_model("whisper", semantics=["gs"], cross_fusion="film", **NO_DROPOUT)
    options = {
        **{"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "learning_rate": 1e-2, "max_steps": 3},
        **{"remove_unused_columns": False, "train_sampling_strategy": "sequential", "use_cpu": True},
    }
    own = {"encoder_learning_rate": 1e-2} if kind is MsfSerTrainer else {}
    trainer = kind(
        model,
        TrainingArguments(str(folder), **options | more),
        MsfSerCollator(tiny_processor("whisper")),
        rows,
        rows,
        compute_metrics=lambda found: {"ccc_mean": 0.0, **{f"ccc_{name}": 0.0 for name in LABELS}},
        **own,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("kind", [MsfSerTrainer, Trainer])
@pytest.mark.parametrize("name", ["iterable", "streaming", "torch"])
def test_a_stream_trains_like_its_rows(kind, name, corpus, streams, tmp_path):
    torch.manual_seed(0)
    stream = trained(kind, tmp_path / "stream", streams[name])
    rows = trained(kind, tmp_path / "rows", corpus)
    expected = dict(rows.model.named_parameters())
    assert all(torch.equal(weight, expected[name]) for name, weight in stream.model.named_parameters())
    start = tiny_model("whisper", semantics=["gs"], cross_fusion="film", **NO_DROPOUT)
    assert not torch.equal(start.heads.state_dict()[first(start)], stream.model.heads.state_dict()[first(start)])
    scored, predicted = stream.evaluate(), stream.predict(streams[name])
    assert scored["eval_loss"] == pytest.approx(rows.evaluate()["eval_loss"])
    np.testing.assert_allclose(predicted.label_ids, np.stack([corpus[name] for name in LABELS], axis=1), atol=1e-6)
    np.testing.assert_allclose(predicted.predictions, rows.predict(corpus).predictions, atol=1e-6)


def first(model) -> str:
    return next(iter(model.heads.state_dict()))


@pytest.mark.parametrize("more", [{"max_steps": -1}, {"max_steps": 3, "batch_seconds": 2.0}])
def test_what_a_stream_cannot_do_is_said(more, streams, tmp_path):
    seconds = {"batch_seconds": more.pop("batch_seconds")} if "batch_seconds" in more else {}
    arguments = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=4, remove_unused_columns=False, use_cpu=True, **more
    )
    words = "batch_seconds needs a datasets.Dataset" if seconds else "max_steps has to be specified"
    with pytest.raises(ValueError, match=words):
        MsfSerTrainer(
            tiny_model("whisper"),
            arguments,
            MsfSerCollator(tiny_processor("whisper")),
            streams["iterable"],
            encoder_learning_rate=1e-5,
            **seconds,
        ).train()


def test_rows_without_lengths_are_no_stream(corpus, tmp_path):
    """A list of rows, and parts by name, as the library accepts them."""
    rows = list(corpus)
    trainer = trained(MsfSerTrainer, tmp_path, rows)
    trainer.eval_dataset = {"one": corpus, "other": rows}
    scored = trainer.evaluate()
    assert scored["eval_one_loss"] == pytest.approx(scored["eval_other_loss"])
    np.testing.assert_allclose(trainer.predict(rows).predictions, trainer.predict(corpus).predictions, atol=1e-6)
