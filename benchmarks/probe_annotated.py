"""The probe corpus with texts that `annotate` made, in place of its own.

    python -m msfser.benchmarks.probe_annotated

trains the full model on three versions of the corpus, each over three seeds, and writes
`benchmarks/results/probe_annotated.json`: the mean over the seeds of the test CCC (`low` and `high` are the lowest and
the highest seed), and by how much it is below that of the model on the corpus's own texts.

- `own`: the corpus's own texts.
- `true_times`: the emphasized words are LEMF's, on the true times of the words.
- `recognized`: transcript, word times and emphasized words come from the sound alone.

The descriptions are the corpus's own. It starts in the project's folder.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from ..annotation.annotate import main as annotate
from ..configuration_msfser import LABELS
from ..corpora.probe.corpus import make_probe
from ..evaluation.command import shown_command
from ..evaluation.predictions import results_of
from ..evaluation.results import RESULTS, write
from ..train import main as train

WITHHELD = {"own": [], "true_times": ["emphasis"], "recognized": ["emphasis", "words", "transcript"]}


def main() -> None:
    """Annotates and trains what is missing, prints and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/benchmarks/probe_annotated"))
    arguments = parser.parse_args()
    probe = make_probe("data/probe")
    rows, own, command = [], {}, shown_command("probe_annotated", sys.argv[1:])
    for name, withheld in WITHHELD.items():
        made = str(probe)
        if withheld:
            data = arguments.output_dir / name
            data.mkdir(parents=True, exist_ok=True)
            table, made = data / "without.parquet", str(data / "annotated")
            pd.read_parquet(probe / "metadata.parquet").drop(columns=[*withheld, "stressed_word"]).to_parquet(table)
            annotate([str(table), "--audio_folder", str(probe), "--output", made, "--language", "en"])
        runs = []
        for seed in arguments.seeds:
            output = arguments.output_dir / f"{name}_{seed}"
            if not (output / "results.json").is_file():
                train(["configs/probe.yaml", "--data", made, "--seed", str(seed), "--output_dir", str(output)])
            runs.append({row["name"]: row["value"] for row in results_of(output)})
        for dimension in (*LABELS, "mean"):
            values = [of_seed[f"test/all/{dimension}"] for of_seed in runs]
            mean = sum(values) / len(values)
            row = {"name": f"{name}/{dimension}", "value": mean, "low": min(values), "high": max(values)}
            rows.append(row | {"command": command})
            lost = {"name": f"{name}/lost_{dimension}", "value": own.setdefault(dimension, mean) - mean}
            if withheld:
                rows.append(lost | {"low": None, "high": None, "command": command})
    write(RESULTS / "probe_annotated.json", rows)
    for row in rows:
        print(f"{row['name']:28} {row['value']:.3f}")


if __name__ == "__main__":
    main()
