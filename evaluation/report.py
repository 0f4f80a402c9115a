"""One page about a finished run: how good its predictions are, for whom, and what they rest on.

    msfser report outputs/probe

writes `report.html` into the run's folder. The page needs neither a network nor a script. It shows names of files and
speakers, so give it only to those who may see the corpus. The run's model predicts the test part again; start the
command in the folder in which the run was started. Items are grouped by speaker and by the text columns of the
corpus's table beyond the schema, such as `emotion`, that have 2 to 20 different values.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from ..cli.arguments import CommandParser
from ..cli.errors import cli_errors
from ..cli.outputs import write_text
from ..configuration_msfser import LABELS
from ..contributions_msfser import INPUTS as CONTRIBUTING
from ..training.run_file import RUN_FILE
from ..training.settings import read_run
from .coverage import EndsAt
from .groups import groups_of, mean_of_known
from .intervals import concordance_of_rated
from .plots import NOT_RATED, Ends, intervals, scatter
from .predictions import Predictions, predict_part, predictions_of_folds, rated_dimensions, results_of
from .report_intervals import calibration_plots, coverage_by_group, ends_over_speakers, risk_plot
from .results import Row, of_test, resampled

INPUTS = {"audio": "audio only", "audio+transcript": "audio and transcript", "all": "all inputs"}
EXPERTS = {"audio": "audio", "semantics": "emphasized words, transcript", "description": "description"}
_MOST_GROUPS, _WORST = 30, 10
_TITLE = "Report on the run"

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 900px; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.5rem }} h2 {{ font-size: 1.15rem; margin-top: 2.2rem }} p {{ max-width: 46rem }}
figure {{ margin: 1rem 0; overflow-x: auto; display: flex; flex-wrap: wrap }} svg {{ flex: none }}
pre {{ font-size: .85em; overflow-x: auto }} table {{ border-collapse: collapse; font-size: .9em }}
td, th {{ padding: .2rem .5rem; text-align: right; border-bottom: 1px solid #d3d9de }}
td:first-child, th:first-child {{ text-align: left; padding-left: 0; white-space: nowrap }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def page(folder: Path) -> str:
    """The page about the finished run in a folder, as HTML.

    Raises:
        ValueError: The folder is not that of a finished run, or its corpus cannot be used.
        OSError: A file cannot be read.
    """
    rows = of_test(results_of(folder))
    run, _, _ = read_run(folder)
    found = predict_part(folder, contributions=True) if run.cross_validate is None else predictions_of_folds(folder)
    table = found.table
    settings = (folder / RUN_FILE).read_text(encoding="utf-8")
    part = "Test part" if run.cross_validate is None else "Cross-validation, each utterance by a model without it"
    head = (
        f"<p>{part}: {len(table)} utterances, {table['speaker'].nunique()} speakers. Every value is in 0..1; 0.5 "
        f"is the middle of the scale. Intervals are 95 % intervals, those of the CCC over {resampled(rows)}, the "
        "others over speakers where they are known, and over utterances where they are not or where there is only one "
        f"speaker.{_unrated(table)}</p>"
        f"<details><summary>Settings of the run</summary><pre>{escape(settings)}</pre></details>"
    )
    sections = [head, _agreement(table), _by_inputs(rows)]
    groups = groups_of(run, table["file"].tolist(), table["speaker"].tolist())
    sections += [_by_group(name, of_items.set_axis(table.index), table) for name, of_items in groups.items()]
    if found.ends_at is not None:
        of_items = {name: group.set_axis(table.index) for name, group in groups.items()}
        sections.append(_intervals(table, found.ends_at, of_items, run.cross_validate is not None))
    sections += [_contributions(table), _internal_weights(found), _worst(table)]
    return _PAGE.format(title=f"{_TITLE} {escape(folder.resolve().name)}", body="\n".join(sections))


def _unrated(table: pd.DataFrame) -> str:
    """What the labels that are not there mean for the page; "" where all are."""
    words = ""
    for label in LABELS:
        rated = table[f"{label}_label"].count()
        if not rated:
            words += f" No utterance has a label of {label}, so that nothing is shown of it."
        elif rated < len(table):
            words += f" {rated} utterances have a label of {label}; the others do not count in it."
    return words


def _agreement(table: pd.DataFrame) -> str:
    figures, spread = [], []
    for label in rated_dimensions(table):
        rated = table[table[f"{label}_label"].notna()]
        given, predicted = rated[f"{label}_label"].to_numpy(), rated[label].to_numpy()
        ccc = concordance_of_rated(predicted[:, None], given[:, None])[0]
        error = predicted - given
        r = np.corrcoef(predicted, given)[0, 1] if predicted.std() and given.std() else np.nan
        rmse = np.sqrt(np.mean(error**2))
        notes = (f"CCC {_shown(ccc)}, r {_shown(r)}", f"RMSE {rmse:.3f}, bias {error.mean():+.3f}")
        figures.append(scatter(label, notes, given, predicted, ("given", "predicted")))
        if given.std():
            spread.append(f"{label} {predicted.std() / given.std():.2f} times")
    return _section(
        "Predicted against given",
        "On the line both are equal. Bias is the mean of predicted minus given. A standard deviation of the "
        "predictions below that of the labels means that the model stays near the middle of the scale: "
        f"{', '.join(spread)}.",
        *figures,
    )


def _by_inputs(rows: Sequence[Row]) -> str:
    found: dict[str, dict[str, Ends]] = {}
    for row in rows:
        _, inputs, dimension = row["name"].split("/")
        found.setdefault(INPUTS.get(inputs, inputs), {})[dimension] = row["value"], row["low"], row["high"]
    names = [name for name in (*LABELS, "mean") if any(name in of_inputs for of_inputs in found.values())]
    shown = {title: [of_inputs.get(name, NOT_RATED) for name in names] for title, of_inputs in found.items()}
    words = "CCC of the same model with fewer of its inputs; missing inputs are replaced by their learned embeddings."
    ends = (min(0.0, _range(shown)[0]), 1.0)
    return _section("Reliability by input", words, intervals(shown, [f"{name}, CCC" for name in names], ends=ends))


def _by_group(name: str, groups: pd.Series, table: pd.DataFrame) -> str:
    counts = groups.value_counts()
    kept = sorted(counts.index[:_MOST_GROUPS])
    labels = rated_dimensions(table)
    errors, speakers = _errors(table), table["speaker"].to_numpy()
    rmse: dict[str, list[Ends]] = {}
    bias: dict[str, list[Ends]] = {}
    for group in kept:
        in_group = (groups == group).to_numpy()
        for shown, measure in ((rmse, _root_mean_square), (bias, np.mean)):
            shown[f"{group} ({counts[group]})"] = [
                ends_over_speakers(measure, column[in_group], speakers[in_group]) for column in errors.T
            ]
    words = "The number of utterances is in brackets. In the lower plot, predictions left of the line are too low."
    if len(counts) > len(kept):
        words += f" Shown are the {len(kept)} of {len(counts)} groups with the most utterances."
    most = max(map(abs, _range(bias)))
    return _section(
        f"Error by {name}",
        words,
        intervals(rmse, [f"{label}, RMSE" for label in labels], ends=(0.0, _range(rmse)[1])),
        intervals(bias, [f"{label}, bias" for label in labels], ends=(-most, most), reference=0.0),
    )


def _intervals(table: pd.DataFrame, ends_at: EndsAt, groups: Mapping[str, pd.Series], is_of_folds: bool) -> str:
    of_folds = (
        " Here the intervals of each fold are calibrated on the other folds; those of a final model are calibrated on "
        "all folds."
    )
    return _section(
        "Intervals around the numbers",
        "First, the share of labels that the intervals contain, against their level: on the line they are right, "
        "below it too narrow. Then the same at the level 0.9, by group. Last, the mean absolute error if only those "
        "with the narrowest intervals are kept: where it falls, the widths tell which numbers to trust. What is "
        "promised is about speakers like those of the calibration, on average over all of them, not for each group."
        f"{of_folds if is_of_folds else ''}",
        *calibration_plots(table, ends_at),
        *coverage_by_group(groups, table, ends_at),
        risk_plot(table, ends_at),
    )


def _contributions(table: pd.DataFrame) -> str:
    labels, speakers = rated_dimensions(table), table["speaker"].to_numpy()
    shown = {
        name: [
            ends_over_speakers(np.mean, table[f"contribution_{label}_{name}"].abs().to_numpy(), speakers)
            for label in labels
        ]
        for name in CONTRIBUTING
        if f"contribution_{labels[0]}_{name}" in table
    }
    if not shown:
        return ""
    return _section(
        "What the numbers rest on",
        "The mean absolute contribution of each input: how far it moves the number when it comes in, up or down, on "
        "average over all orders in which the inputs can come in (Shapley values). An input that is not there "
        "contributes 0.",
        intervals(shown, [f"{label}, contribution" for label in labels], ends=(0.0, _range(shown)[1])),
    )


def _internal_weights(found: Predictions) -> str:
    table, figures = found.table, []
    labels = rated_dimensions(table)
    if found.layer_weights:
        bars = {f"layer {n}: {weight:.3f}": [(weight, 0.0, weight)] for n, weight in enumerate(found.layer_weights)}
        figures.append(intervals(bars, ["weight of the layer"], ends=(0, max(found.layer_weights))))
    if "gate" in table:
        spread = {"over utterances": [_spread(table["gate"])]}
        figures.append(intervals(spread, ["gate: emphasized words"], ends=(0, 1)))
    shares = {
        title: [_spread(table[f"routing_{label}_{expert}"]) for label in labels]
        for expert, title in EXPERTS.items()
        if f"routing_{labels[0]}_{expert}" in table
    }
    if shares:
        figures.append(intervals(shares, [f"{label}, weight" for label in labels], ends=(0, 1)))
    if not figures:
        return ""
    return _section(
        "Internal weights",
        "These are weights inside the model, not reasons: a large weight need not move the number. Layer 0 is the "
        "input of the speech encoder's first layer. The gate is the weight of the emphasized words against the "
        "transcript; 1 is emphasized words only. The last plot shows the weights of the experts in each dimension. "
        "Points are medians, lines reach from the 5th to the 95th percentile of the utterances; constants have no "
        "line.",
        *figures,
    )


def _worst(table: pd.DataFrame) -> str:
    order = np.argsort(-mean_of_known(np.square(_errors(table)).T), kind="stable")[:_WORST]
    rows = table.iloc[order]
    names = [Path(file).name if file else "-" for file in rows["file"]]
    shown = {"file": names, "speaker": rows["speaker"].fillna("-")}
    for label in rated_dimensions(table):
        shown |= {f"{label}, given": rows[f"{label}_label"], f"{label}, predicted": rows[label]}
    with pd.option_context("display.max_colwidth", None):
        listed = pd.DataFrame(shown).to_html(index=False, border=0, float_format="{:.2f}".format, na_rep="-")
    words = "Check these first: the label may be wrong, the recording bad, or the model may miss something."
    return _section(f"The {len(order)} largest errors", words, listed)


def _shown(number: float) -> str:
    return "-" if np.isnan(number) else f"{number:.3f}"


def _errors(table: pd.DataFrame) -> np.ndarray:
    """Predicted minus given, `(utterances, rated dimensions)`; NaN where there is no label."""
    return np.stack([table[label] - table[f"{label}_label"] for label in rated_dimensions(table)], axis=1)


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _section(title: str, words: str, *figures: str) -> str:
    drawn = "".join(f"<figure>{figure}</figure>" for figure in figures)
    return f"<h2>{escape(title)}</h2><p>{escape(words)}</p>{drawn}"


def _range(shown: Mapping[str, Sequence[Ends]]) -> tuple[float, float]:
    """The range of all that is shown, and of 0; intervals over few speakers may reach beyond -1..1."""
    found = np.array(list(shown.values()), float).clip(-1, 1)
    return float(np.nanmin(found, initial=0)), float(np.nanmax(found, initial=0))


def _spread(values: pd.Series) -> Ends:
    low, middle, high = values.quantile([0.05, 0.5, 0.95])
    return middle, low, high


def main(argv: Sequence[str]) -> None:
    """Writes the page; ends with a sentence if the arguments are wrong or the run cannot be used."""
    parser = CommandParser(
        prog="msfser report", description="Write report.html, a page about a finished run, into its folder."
    )
    parser.add_argument("folder", type=Path, help="output folder of msfser train, such as outputs/probe")
    folder = parser.parse_args(argv).folder
    output = folder / "report.html"
    with cli_errors("report"):
        if output.exists() and _TITLE not in output.read_text(encoding="utf-8", errors="replace"):
            raise ValueError(f"{output} is not a report of msfser: move it away.")
        write_text(output, page(folder))
    print(output)
