"""The text branch alone on EmoBank: sentences that people have rated, without sound.

    python -m msfser.benchmarks.emobank --data FOLDER

FOLDER is the GitHub repository JULIELab/EmoBank. Prints CCC and Pearson's r on the authors' test part and writes
`benchmarks/results/emobank.json`. Settings were chosen on the development part, those of `tuned` without a search.

- `ridge`: ridge regression on the frozen text encoder's embeddings, its penalty chosen on the development part.
- `ridge_rescaled`: its predictions with mean and spread of the training labels. Ridge shrinks towards the mean, which
  lowers CCC.
- `frozen`: the text branch of MSF-SER on the same embeddings (`configs/emobank.yaml`).
- `tuned`: the same with the text encoder trained too.
- `human`: the mean rating of the reader's emotion against the mean rating of the writer's.

`low` and `high` are the 95 % interval over the test sentences and the seeds. `frozen` and `tuned` are trained anew for
each seed; their value is the mean over the seeds, and the rows `frozen/seed0/mean` and so on are those of one seed,
over sentences. `tuned_minus_frozen/mean` and `frozen_minus_ridge_rescaled/mean` are paired.
Start the command in the project's folder. A finished run is not repeated, and a killed run is resumed: to measure
changed code or settings, remove `outputs/benchmarks/emobank` first.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..cli.errors import cli_errors
from ..configuration_msfser import LABELS
from ..corpora.emobank import LABEL_RANGE, emobank_folder
from ..corpora.tree import require_whole
from ..evaluation.intervals import ccc_interval, interval
from ..evaluation.predictions import predict_part
from ..evaluation.results import Row, row, rows_of
from ..hub.encoders import ensure_encoders
from ..loss_msfser import concordance
from ..processing_msfser import from_scale
from ..train import main as train
from ..training.collator import FeatureCollator
from ..training.features import encode_parts
from ..training.initialization import build_model
from ..training.settings import parse_settings, read_data
from .command import parser_of, record

CONFIG = "configs/emobank.yaml"
TUNING = (
    *("--freeze_text", "false", "--encoder_learning_rate", "1e-4", "--num_train_epochs", "2"),
    *("--per_device_train_batch_size", "64", "--train_sampling_strategy", "group_by_length"),
)
# About half the time on a CPU that supports it; on a GPU msfser train uses bfloat16 by itself.
ON_CPU = ("--bf16", "true", "--use_cpu", "true")
PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
PAIRS = (("tuned", "frozen"), ("frozen", "ridge_rescaled"))
MEASURES = (*LABELS, "mean", *(f"r/{label}" for label in LABELS))


def embeddings(data: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The frozen text encoder's mean-pooled embeddings `(sentences, size)` and the labels `(sentences, 3)` by part."""
    run, switches, *_ = parse_settings([CONFIG, "--data", data])
    ensure_encoders([run.audio_encoder, run.text_encoder])  # the processor needs both
    model, processor = build_model(run, switches)
    parts = encode_parts(read_data(run), model, processor, run.cache_gigabytes)
    collate = FeatureCollator(processor)
    batches = {name: collate(part.to_list()) for name, part in parts.items()}
    return {
        name: (batch["gs_embedding"].double().numpy(), batch["labels"].double().numpy())
        for name, batch in batches.items()
    }


def fit_ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> Callable[[np.ndarray], np.ndarray]:
    """Ridge regression with an unpenalized offset.

    Args:
        x: `(items, features)`.
        y: `(items, outputs)`.
        penalty: Of the squared weights.

    Returns:
        Features to predictions.
    """
    centered = x - x.mean(0)
    weights = np.linalg.solve(centered.T @ centered + penalty * np.eye(x.shape[1]), centered.T @ (y - y.mean(0)))
    return lambda features: (features - x.mean(0)) @ weights + y.mean(0)


def ridge_predictions(parts: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """Test predictions of `ridge` and `ridge_rescaled`, `(sentences, 3)`."""
    fits = [fit_ridge(*parts["train"], penalty) for penalty in PENALTIES]
    x, y = parts["validation"]
    best = max(fits, key=lambda predict: ccc(predict(x), y).mean())
    predicted, fitted, labels = best(parts["test"][0]), best(parts["train"][0]), parts["train"][1]
    rescaled = (predicted - fitted.mean(0)) / fitted.std(0) * labels.std(0) + labels.mean(0)
    return {"ridge": predicted, "ridge_rescaled": rescaled}


def model_predictions(output: Path, data: str, seed: int, switches: Sequence[str]) -> np.ndarray:
    """Trains the text branch, unless that is done, and returns its test predictions, `(sentences, 3)`."""
    if not (output / "results.json").is_file():
        train([CONFIG, "--data", data, "--output_dir", str(output), "--seed", str(seed), *switches])
    return predict_part(output).table[list(LABELS)].to_numpy(np.float64)


def perspectives(data: str) -> tuple[np.ndarray, np.ndarray]:
    """Ratings of the reader's and of the writer's emotion, each `(sentences, 3)` in 0..1, of the test part.

    Raises:
        ValueError: Their files are missing.
    """
    folder = emobank_folder(data)
    files = {name: folder / name for name in ("emobank.csv", "reader.csv", "writer.csv")}
    require_whole("EmoBank", folder, [f"the file {name}" for name, file in files.items() if not file.is_file()])
    whole, reader, writer = (pd.read_csv(file, keep_default_na=False).set_index("id") for file in files.values())
    rated = whole.index[whole["split"] == "test"].intersection(reader.index).intersection(writer.index)
    readers, writers = (
        from_scale(table.loc[rated, ["V", "A", "D"]].to_numpy(np.float64), *LABEL_RANGE) for table in (reader, writer)
    )
    return readers, writers


def ccc(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Concordance of each dimension, `(3,)`."""
    return concordance(torch.from_numpy(predictions), torch.from_numpy(labels)).numpy()


def pearson(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Pearson's r of each dimension, `(3,)`."""
    return np.array([np.corrcoef(*pair)[0, 1] for pair in zip(predictions.T, labels.T, strict=True)])


def scores(name: str, runs: Mapping[str, np.ndarray], labels: np.ndarray) -> list[Row]:
    """Rows of one method, mean over its runs, without their command.

    Args:
        name: Name of the method.
        runs: Predictions `(sentences, 3)` by the name of the run, such as `seed0`.
        labels: `(sentences, 3)`.
    """
    every = np.stack(list(runs.values()))

    def measure(items: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """`MEASURES`, means over the runs."""
        cccs, rs = (np.mean([of(every[seed, items], labels[items]) for seed in seeds], 0) for of in (ccc, pearson))
        return np.concatenate([cccs, [cccs.mean()], rs])

    found = interval(measure, len(labels), seeds=len(every), correlation=True)
    rows = rows_of([f"{name}/{each}" for each in MEASURES], found)
    for run, predicted in runs.items() if len(runs) > 1 else ():
        rows.append(row(f"{name}/{run}/mean", *(end[-1] for end in ccc_interval(predicted, labels, len(labels)))))
    return rows


def difference(name: str, runs: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray], labels: np.ndarray) -> Row:
    """The mean CCC of one method minus that of another, paired by sentences and runs; one run is that of all seeds."""
    every, other = np.broadcast_arrays(*(np.stack(list(of.values())) for of in (runs, others)))

    def measure(items: np.ndarray, seeds: np.ndarray) -> float:
        pairs = [ccc(of[seed, items], labels[items]).mean() for of in (every, other) for seed in seeds]
        return float(np.subtract(*np.reshape(pairs, (2, -1)).mean(1)))

    return row(name, *interval(measure, len(labels), seeds=len(every)))


def main(argv: Sequence[str] | None = None) -> None:
    """Trains what is missing, prints and writes the results."""
    parser = parser_of("emobank", __doc__)
    parser.add_argument("--data", required=True, help="the repository JULIELab/EmoBank, or its folder corpus")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/benchmarks/emobank"))
    arguments = parser.parse_args(argv)
    with cli_errors("emobank"):
        readers, writers = perspectives(arguments.data)
        parts = embeddings(arguments.data)
    labels = parts["test"][1]
    methods = {name: {name: predicted} for name, predicted in ridge_predictions(parts).items()}
    for name, switches in {"frozen": (), "tuned": (*TUNING, *(() if torch.cuda.is_available() else ON_CPU))}.items():
        methods[name] = {
            f"seed{seed}": model_predictions(arguments.output_dir / f"{name}_{seed}", arguments.data, seed, switches)
            for seed in arguments.seeds
        }
    rows = scores("human", {"readers": readers}, writers)
    for name, runs in methods.items():
        rows += scores(name, runs, labels)
    for name, other in PAIRS:
        rows.append(difference(f"{name}_minus_{other}/mean", methods[name], methods[other], labels))
    record("emobank", rows, "emobank", argv)


if __name__ == "__main__":
    main()
