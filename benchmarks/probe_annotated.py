"""The probe corpus with texts that `msfser annotate` made in place of its original texts.

    python -m msfser.benchmarks.probe_annotated

trains the full model on three versions of the corpus, each over three seeds, and writes
`benchmarks/results/probe_annotated.json`: the test CCC `VERSION/DIMENSION`, mean over the seeds, and its paired
difference to the model on the original texts, `VERSION_minus_original/DIMENSION`. Intervals are over speakers and
seeds.

- `original`: the corpus's original texts.
- `true_times`: the emphasized words are LEMF's, on the true times of the words.
- `recognized`: transcript, word times and emphasized words come from the sound alone.

The descriptions are always the original ones. Start the command in the project's folder.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..annotation.annotate import main as annotate
from ..corpora.probe.corpus import make_probe
from ..evaluation.ablation import FULL, compare
from ..evaluation.predictions import predict_part
from ..train import main as train
from .command import parser_of, record

ORIGINAL = "original"
# The columns that are removed before the annotation.
VERSIONS: dict[str, list[str]] = {
    ORIGINAL: [],
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
    predictions: dict[str, dict[int, pd.DataFrame]] = {}
    for name, removed in VERSIONS.items():
        data = str(probe)
        if removed:
            folder = arguments.output_dir / name
            folder.mkdir(parents=True, exist_ok=True)
            table, data = folder / "without.parquet", str(folder / "annotated")
            pd.read_parquet(probe / "metadata.parquet").drop(columns=[*removed, "stressed_word"]).to_parquet(table)
            annotate([str(table), "--audio_folder", str(probe), "--output", data, "--language", "en"])
        for seed in arguments.seeds:
            output = arguments.output_dir / f"{name}_{seed}"
            if not (output / "results.json").is_file():
                train(["configs/probe.yaml", "--data", data, "--seed", str(seed), "--output_dir", str(output)])
            table_of_run = predict_part(output).table.rename_axis("item").reset_index()
            predictions.setdefault(FULL if name == ORIGINAL else name, {})[seed] = table_of_run
    rows = [row | {"name": row["name"].replace(FULL, ORIGINAL)} for row in compare(predictions)]
    record("probe_annotated", rows, "probe_annotated", argv)


if __name__ == "__main__":
    main()
