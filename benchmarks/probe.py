"""The ablation on the probe corpus: the full model and four without one input, each trained anew over three seeds.

    python -m msfser.benchmarks.probe

prints the table and writes `benchmarks/results/probe.json` (means over the seeds; `low` and `high` are the lowest and
the highest seed) and `probe_seeds.json` (each run with the bootstrap interval of its test set). It starts in the
project's folder. A run that is finished is not repeated, and one that was killed goes on: to measure changed code or
settings, remove `outputs/benchmarks/probe` first.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ..configuration_msfser import LABELS
from ..train import main as train
from .results import RESULTS, write

CONFIG = "configs/probe.yaml"
SWITCHES = {
    "full": [],
    "no_les": ["--semantics", "gs", "es"],
    "no_gs": ["--semantics", "les", "es"],
    "no_es": ["--semantics", "les", "gs"],
    "no_audio": ["--audio", "false"],
}


def run(name: str, seed: int, folder: Path, switches: Sequence[str]) -> dict[str, dict[str, object]]:
    """Trains one variant, or finds it, and returns its test rows with all inputs, by dimension."""
    output = folder / f"{name}_{seed}"
    argv = [CONFIG, "--output_dir", str(output), "--seed", str(seed), *switches]
    results = output / "results.json"
    if not results.is_file():
        train(argv)
    rows = json.loads(results.read_text(encoding="utf-8"))
    # The last four rows are those with the most inputs that the variant has.
    return dict(zip((*LABELS, "mean"), rows[-4:], strict=True))


def main() -> None:
    """Runs what is missing, prints and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/benchmarks/probe"))
    arguments = parser.parse_args()
    command = shlex.join(["python", "-m", "msfser.benchmarks.probe", *sys.argv[1:]])
    means, each = [], []
    for name, switches in SWITCHES.items():
        runs = {seed: run(name, seed, arguments.output_dir, switches) for seed in arguments.seeds}
        for dimension in (*LABELS, "mean"):
            values = [rows[dimension]["value"] for rows in runs.values()]
            means.append(
                {
                    "name": f"{name}/{dimension}",
                    "value": sum(values) / len(values),
                    "low": min(values),
                    "high": max(values),
                    "command": command,
                }
            )
            for seed, rows in runs.items():
                each.append(rows[dimension] | {"name": f"{name}/seed{seed}/{dimension}"})
        write(RESULTS / "probe.json", means)
        write(RESULTS / "probe_seeds.json", each)
    for row in means:
        print(f"{row['name']:22} {row['value']:.3f} ({row['low']:.3f}..{row['high']:.3f})")


if __name__ == "__main__":
    main()
