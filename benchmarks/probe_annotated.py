"""The probe corpus with texts that `msfser annotate` made in place of its original texts.

    python -m msfser.benchmarks.probe_annotated

trains the full model on three versions of the corpus, each over three seeds, and writes
`benchmarks/results/probe_annotated.json`: the mean over the seeds of the test CCC (`low` and `high` are the lowest and
the highest seed), and `drop_DIMENSION`, how far it is below that of the model on the original texts.

- `original`: the corpus's original texts.
- `true_times`: the emphasized words are LEMF's, on the true times of the words.
- `recognized`: transcript, word times and emphasized words come from the sound alone.

The descriptions are always the original ones. Start the command in the project's folder.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..annotation.annotate import main as annotate
from ..configuration_msfser import LABELS
from ..corpora.probe.corpus import make_probe
from ..evaluation.predictions import results_of
from ..evaluation.results import Row, row
from ..train import main as train
from .command import parser_of, record

# The columns that are removed before the annotation.
VERSIONS: dict[str, list[str]] = {
    "original": [],
    "true_times": ["emphasis"],
    "recognized": ["emphasis", "words", "transcript"],
}


def main(argv: Sequence[str] | None = None) -> None:
    """Annotates and trains what is missing, prints and writes the results."""
    parser = parser_of("probe_annotated", __doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/benchmarks/probe_annotated"))
    arguments = parser.parse_args(argv)
    probe = make_probe("data/probe")
    rows: list[Row] = []
    original: dict[str, float] = {}
    for name, removed in VERSIONS.items():
        data = str(probe)
        if removed:
            folder = arguments.output_dir / name
            folder.mkdir(parents=True, exist_ok=True)
            table, data = folder / "without.parquet", str(folder / "annotated")
            pd.read_parquet(probe / "metadata.parquet").drop(columns=[*removed, "stressed_word"]).to_parquet(table)
            annotate([str(table), "--audio_folder", str(probe), "--output", data, "--language", "en"])
        runs = []
        for seed in arguments.seeds:
            output = arguments.output_dir / f"{name}_{seed}"
            if not (output / "results.json").is_file():
                train(["configs/probe.yaml", "--data", data, "--seed", str(seed), "--output_dir", str(output)])
            runs.append({of_run["name"]: of_run["value"] for of_run in results_of(output)})
        for dimension in (*LABELS, "mean"):
            values = [of_seed[f"test/all/{dimension}"] for of_seed in runs]
            mean = float(np.mean(values))
            rows.append(row(f"{name}/{dimension}", mean, min(values), max(values)))
            if removed:
                rows.append(row(f"{name}/drop_{dimension}", original[dimension] - mean))
            else:
                original[dimension] = mean
    record("probe_annotated", rows, "probe_annotated", argv)


if __name__ == "__main__":
    main()
