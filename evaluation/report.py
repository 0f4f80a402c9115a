"""One page about a finished run: how good its numbers are, for whom, and what they rest on.

    msfser report outputs/probe

writes `report.html` into the run's folder. It needs neither a network nor a script, and it holds names of files and
speakers, so give it only to those who may see the corpus. The run's model predicts the test part again; start it in
the folder in which the run was started. Besides speakers, the groups are the columns of words that the corpus's own
table has beyond the schema, such as `emotion`, with 2 to 20 different values.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from ..configuration_msfser import LABELS
from ..corpora.schema import FEATURES
from ..corpora.table import open_table
from ..loss_msfser import concordance
from ..train import RunSettings
from .plots import Interval, intervals, scatter
from .predictions import Predictions, predict_part, results_of, settings_of
from .results import bootstrap

INPUTS = {"audio": "sound alone", "audio+transcript": "sound and transcript", "all": "everything there is"}
EXPERTS = {"audio": "sound", "semantics": "stressed words, transcript", "description": "description"}
_MOST_GROUPS, _WORST = 30, 10

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 900px; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.5rem }} h2 {{ font-size: 1.15rem; margin-top: 2.2rem }} p {{ max-width: 46rem }}
figure {{ margin: 1rem 0; overflow-x: auto; display: flex; flex-wrap: wrap }} svg {{ flex: none }}
code {{ font-size: .85em; overflow-wrap: anywhere }} table {{ border-collapse: collapse; font-size: .9em }}
td, th {{ padding: .2rem .5rem; text-align: right; border-bottom: 1px solid #d3d9de }}
td:first-child, th:first-child {{ text-align: left; padding-left: 0; white-space: nowrap }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def page(folder: Path) -> str:
    """The page about a finished run as HTML.

    Args:
        folder: The run's, as `train.py` has written it.

    Raises:
        SystemExit: The folder is not that of a finished run, or its corpus cannot be read.
    """
    rows, run = results_of(folder), settings_of(folder)
    found = predict_part(folder)
    table = found.table
    head = (
        f"<p>Test part: {len(table)} utterances, {table['speaker'].nunique()} speakers. Each number lies in 0..1; 0.5 "
        "is the middle of the scale. Intervals are 95 % bootstrap intervals over utterances.</p>"
        f"<p><code>{escape(str(rows[0]['command']))}</code></p>"
    )
    sections = [head, _agreement(table), _by_inputs(rows)]
    sections += [_by_group(name, groups, table) for name, groups in _groups(run, table).items()]
    sections += [_reasons(found), _worst(table)]
    return _PAGE.format(title=f"Report on the run {escape(folder.resolve().name)}", body="\n".join(sections))


def _agreement(table: pd.DataFrame) -> str:
    figures = []
    for label in LABELS:
        given, predicted = table[f"{label}_label"].to_numpy(), table[label].to_numpy()
        ccc = concordance(torch.tensor(predicted), torch.tensor(given)).item()
        error = predicted - given
        notes = (
            f"CCC {ccc:.3f}, r {_pearson(predicted, given):.3f}",
            f"RMSE {np.sqrt(np.mean(error**2)):.3f}, bias {error.mean():+.3f}",
        )
        figures.append(scatter(label, notes, given, predicted, ("given", "predicted")))
    spread = {
        label: f"{table[label].std() / table[f'{label}_label'].std():.2f}"
        for label in LABELS
        if table[f"{label}_label"].std()
    }
    return _section(
        "Predicted against given",
        "On the line both are equal. Bias is the mean of predicted minus given. A spread of predictions below that of "
        "the labels means that the model keeps to the middle: "
        + ", ".join(f"{label} {ratio} times" for label, ratio in spread.items())
        + ".",
        "".join(figures),
    )


def _by_inputs(rows: Sequence[Mapping[str, object]]) -> str:
    cells = {str(row["name"]): (row["value"], row["low"], row["high"]) for row in rows}
    kinds = list(dict.fromkeys(name.split("/")[1] for name in cells))
    names = (*LABELS, "mean")
    shown = {INPUTS.get(kind, kind): [cells[f"test/{kind}/{name}"] for name in names] for kind in kinds}
    words = (
        "CCC where the same model is given fewer of its inputs; the others are replaced by what it learned for them."
    )
    ends = (min(0.0, _ends(shown)[0]), 1.0)
    return _section("Reliability by what is there", words, intervals(shown, [f"{n}, CCC" for n in names], ends=ends))


def _by_group(name: str, groups: pd.Series, table: pd.DataFrame) -> str:
    counts = groups.value_counts()
    kept = sorted(counts.index[:_MOST_GROUPS])
    errors = np.stack([table[label] - table[f"{label}_label"] for label in LABELS], axis=1)

    def shown(measure: Callable[[np.ndarray], float]) -> dict[str, list[Interval]]:
        lines = {}
        for group in kept:
            own = errors[(groups == group).to_numpy()]
            columns = [_interval(lambda drawn, column=column: measure(column[drawn]), len(own)) for column in own.T]
            lines[f"{group} ({counts[group]})"] = columns
        return lines

    words = (
        "The number of utterances stands in brackets. Left of the line in the lower plot the model says too little."
    )
    if len(counts) > len(kept):
        words += f" Shown are the {len(kept)} of {len(counts)} with the most utterances."
    error = shown(lambda of_group: float(np.sqrt(np.mean(of_group**2))))
    bias = shown(lambda of_group: float(of_group.mean()))
    most = max(map(abs, _ends(bias)))
    return _section(
        f"Error by {name}",
        words,
        intervals(error, [f"{label}, RMSE" for label in LABELS], ends=(0.0, _ends(error)[1])),
        intervals(bias, [f"{label}, bias" for label in LABELS], ends=(-most, most), reference=0.0),
    )


def _reasons(found: Predictions) -> str:
    table, figures = found.table, []
    if found.layer_weights:
        bars = {
            f"layer {number}: {share:.3f}": [(share, 0.0, share)] for number, share in enumerate(found.layer_weights)
        }
        figures.append(intervals(bars, ["weight of the encoder's layers"], ends=(0, max(found.layer_weights))))
    if "gate" in table:
        figures.append(intervals({"over utterances": [_spread(table["gate"])]}, ["gate: stressed words"], ends=(0, 1)))
    experts = [name for name in EXPERTS if f"routing_{LABELS[0]}_{name}" in table]
    if experts:
        shares = {
            EXPERTS[expert]: [_spread(table[f"routing_{label}_{expert}"]) for label in LABELS] for expert in experts
        }
        figures.append(intervals(shares, [f"{label}, share" for label in LABELS], ends=(0, 1)))
    if not figures:
        return ""
    return _section(
        "What the numbers rest on",
        "Layer 0 is the input of the encoder's first layer. The gate is the share of the stressed words against the "
        "transcript, 1 is stressed words only. The shares are those of the experts in each dimension. Points are "
        "medians, lines reach from the 5th to the 95th percentile of the utterances; constants have no line. These "
        "are weights inside the model, not causes: take an input away to see what it is worth.",
        *figures,
    )


def _worst(table: pd.DataFrame) -> str:
    errors = np.stack([table[label] - table[f"{label}_label"] for label in LABELS], axis=1)
    order = np.argsort(-np.square(errors).sum(1), kind="stable")[:_WORST]
    cells = "".join(f"<th>{label}, given</th><th>predicted</th>" for label in LABELS)
    lines = [f"<tr><th>file</th><th>speaker</th>{cells}</tr>"]
    for row in table.iloc[order].to_dict("records"):
        numbers = "".join(f"<td>{row[f'{label}_label']:.2f}</td><td>{row[label]:.2f}</td>" for label in LABELS)
        name = escape(Path(row["file"]).name if row["file"] else "-")
        lines.append(f"<tr><td>{name}</td><td>{escape(str(row['speaker'] or '-'))}</td>{numbers}</tr>")
    words = "Listen to these first: a wrong label, a bad recording, or something that the model does not hear."
    return _section(f"The {len(order)} largest errors", words, f"<table>{''.join(lines)}</table>")


def _groups(run: RunSettings, table: pd.DataFrame) -> dict[str, pd.Series]:
    """The columns that part the items: speakers, and what the corpus's own table has beyond the schema."""
    found = {"speaker": table["speaker"]}
    if run.corpus == "table" and run.data != "probe":
        pairs = dict(pair.split("=", 1) for pair in run.columns)
        source = open_table(run.data, columns=pairs, audio_folder=run.audio_folder)
        if source.files is not None:
            of_file = source.table.append_column("file", pa.array(source.files)).to_pandas().set_index("file")
            words = of_file.select_dtypes(["object", "string", "bool"]).drop(
                columns=[*FEATURES, "split"], errors="ignore"
            )
            found |= {name: table["file"].map(_agreed(words[name])) for name in words if _is_words(words[name])}
    shown = {name: groups for name, groups in found.items() if name == "speaker" or _is_category(groups)}
    return {name: groups for name, groups in shown.items() if groups.notna().any()}


def _agreed(values: pd.Series) -> pd.Series:
    """One value for each recording; those whose rows differ are left out."""
    pairs = pd.DataFrame({"file": values.index, "value": values.array}).drop_duplicates()
    return pairs.drop_duplicates("file", keep=False).set_index("file")["value"]


def _is_words(values: pd.Series) -> bool:
    return all(isinstance(value, (str, bool)) for value in values.dropna())


def _is_category(values: pd.Series) -> bool:
    return _is_words(values) and 2 <= values.nunique() <= 20


def _section(title: str, words: str, *figures: str) -> str:
    drawn = "".join(f"<figure>{figure}</figure>" for figure in figures)
    return f"<h2>{escape(title)}</h2><p>{escape(words)}</p>{drawn}"


def _ends(shown: Mapping[str, Sequence[Interval]]) -> tuple[float, float]:
    """The lowest and the highest end of all intervals."""
    found = np.array(list(shown.values()))
    return float(found.min()), float(found.max())


def _interval(measure: Callable[[np.ndarray], float], items: int) -> Interval:
    found = bootstrap(measure, items)
    return found["value"], found["low"], found["high"]


def _spread(values: pd.Series) -> Interval:
    low, middle, high = values.quantile([0.05, 0.5, 0.95])
    return middle, low, high


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1]) if x.std() and y.std() else float("nan")


def main(argv: Sequence[str]) -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Of a finished run of train.py, such as outputs/probe.")
    folder = parser.parse_args(argv).folder
    (folder / "report.html").write_text(page(folder), encoding="utf-8")
    print(folder / "report.html")


if __name__ == "__main__":
    main(sys.argv[1:])
