"""Scores a model on a corpus, or the recipes of several systems with each corpus left out.

    msfser evaluate outputs/mine --data other/metadata.csv --label_range 1 7 --part all --by emotion
    msfser evaluate --leave_out corpus --data FOLDER

The first writes to `outputs/evaluations/NAME`: `predictions.csv`, a row for each item and set of inputs, so that
anyone can recompute the scores, and `results.json`, both with the hash or the commit of the model. NAME is that of the
model unless `--output` names a folder. The second is described in `evaluation/leave_out.py`.
"""

import argparse
import dataclasses
import logging
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
import pandas as pd
import torch
from transformers.hf_argparser import string_to_bool

from ..cli.arguments import CommandParser, column_pair
from ..cli.errors import cli_errors
from ..cli.messages import show_messages
from ..cli.outputs import make_folder, refuse_existing, whole_file
from ..configuration_msfser import LABELS
from ..corpora.registry import CORPORA
from ..corpora.schema import SPLITS
from ..corpora.splits import SPLIT_BY
from ..hub.loading import default_device, load_named
from ..modeling_msfser import MsfSerModel
from ..processing_msfser import MsfSerProcessor
from ..sharding.output_folder import only_run
from ..training.features import encode_parts
from ..training.initialization import warn_of_training_data
from ..training.labels import rated_labels
from ..training.settings import RunSettings, read_data
from .coverage import coverage_rows, ends_of
from .groups import bias_rows, find_groups
from .input_sets import input_sets
from .intervals import resampled_units
from .leave_out import PROTOCOL, SYSTEMS, leave_corpora_out, read_protocol, save
from .predictions import outputs_of
from .results import Row, as_text, ccc_rows, without_paths, write

logger = logging.getLogger(__name__)

# With fewer items a CCC says nothing.
_FEWEST = 10


class Evaluation(NamedTuple):
    """What [`evaluate`] finds.

    The predictions have a row for each item of a part and set of inputs: `part`, `file`, `speaker`, `inputs`, the
    three numbers and the labels as `valence_label` and so on, in 0..1; with intervals also their ends, `valence_low`
    and so on.
    """

    rows: list[Row]
    predictions: pd.DataFrame


def evaluate(
    model: MsfSerModel, processor: MsfSerProcessor, run: RunSettings, part: str = "test", by: Sequence[str] = ()
) -> Evaluation:
    """Predicts a part of a corpus with fewer and with all inputs, and scores it.

    Args:
        model: Its frozen encoders run once; what they give is cached as in training.
        processor: The model's.
        run: The corpus, or several.
        part: `train`, `validation`, or `test`, with further test parts that the run names, or those of each of several
            corpora; or `all` rows of one corpus.
        by: Groupings: `speaker`, or columns of the table.

    Returns:
        Rows `PART/INPUTS/DIMENSION` and, with `by`, `PART/BY=VALUE/DIMENSION` for all inputs: CCC with its 95 %
        interval over speakers where they are known; `bias/PART/BY=VALUE/DIMENSION` and `bias_minus_others/...` by
        [`bias_rows`]. With intervals around the numbers also `intervals/PART/INPUTS/DIMENSION/coverage` and
        `.../width`, and the same of groups.

    Raises:
        ValueError: The corpus cannot be read, or it has no such part or grouping.
    """
    run = dataclasses.replace(run, text_languages=processor.text_languages or [])
    parts = read_data(run, needed=(part,))
    scored = {name: parts[name] for name in parts if name == part or (part == "test" and name not in SPLITS)}
    groups = {name: _groups(run, rows, by, name == part) for name, rows in scored.items()} if by else {}
    encoded = encode_parts(datasets.DatasetDict(scored), model, processor, run.cache_gigabytes)
    rows: list[Row] = []
    tables: list[pd.DataFrame] = []
    for name, items in encoded.items():
        files = [(audio or {}).get("path") for audio in scored[name]["audio"]]
        items = items.add_column("file", files, feature=datasets.Value("string"))
        items = items.add_column("index", range(len(items)))
        of_part = {inputs: _predictions(model, processor, of_set) for inputs, of_set in input_sets(items)}
        if not of_part:
            raise ValueError(f"the {name} part has no input that the model reads: annotate the corpus first.")
        for inputs, table in of_part.items():
            rows += _rows(f"{name}/{inputs}", table, model)
            tables.append(table.assign(part=name, inputs=inputs))
        whole = tables[-1]
        # Of several corpora, one may not have the groups of another.
        for grouping in (grouping for grouping in by if grouping in groups[name]):
            of_items = groups[name][grouping].to_numpy()[whole["index"]]
            of_groups = _group_rows(f"{name}/{grouping}", whole, of_items, model)
            if not of_groups:
                logger.warning(
                    f"--by {grouping}: no group of the {name} part has {_FEWEST} items, the fewest that are scored; "
                    "give a column with larger groups, or more items, such as all by --part all."
                )
            rows += of_groups
    ends = [] if model.intervals is None else [f"{label}_{end}" for label in LABELS for end in ("low", "high")]
    columns = ["part", "file", "speaker", "inputs", *LABELS, *ends, *(f"{label}_label" for label in LABELS)]
    return Evaluation(rows, pd.concat(tables, ignore_index=True)[columns])


def _groups(run: RunSettings, part: datasets.Dataset, by: Sequence[str], needed: bool) -> dict[str, pd.Series]:
    """The groups of the rows of a part.

    Raises:
        ValueError: One is needed and not there; the sentence says why.
    """
    files = [(audio or {}).get("path") for audio in part["audio"]]
    groups, unused = find_groups(run, files, part["speaker"][:], by)
    if needed and (absent := [grouping for grouping in by if grouping not in groups]):
        unknown = "is not among its further columns" if any(files) else "cannot be found without recordings"
        why = unused.get(absent[0], unknown)
        raise ValueError(f"--by {absent[0]}: it {why}; {run.data} has {', '.join(groups) or 'no groups'}.")
    return groups


def _predictions(model: MsfSerModel, processor: MsfSerProcessor, items: datasets.Dataset) -> pd.DataFrame:
    outputs = outputs_of(model, processor, items)
    logits = torch.cat([output.logits.float() for output in outputs]).cpu().numpy()
    columns = {name: items[name][:] for name in ("index", "file", "speaker")}
    columns |= {label: logits[:, d] for d, label in enumerate(LABELS)}
    if model.intervals is not None:
        for end, values in zip(("low", "high"), ends_of(model.intervals, logits), strict=True):
            columns |= {f"{label}_{end}": values[:, d] for d, label in enumerate(LABELS)}
    return pd.DataFrame(columns | {f"{label}_label": rated_labels(items[label][:]) for label in LABELS})


def _rows(name: str, table: pd.DataFrame, model: MsfSerModel) -> list[Row]:
    units, resampled = resampled_units(table["speaker"])
    given = table[[f"{label}_label" for label in LABELS]].to_numpy(np.float64)
    numbers = table[[*LABELS]].to_numpy(np.float64)
    found = ccc_rows(name, numbers, given, units, resampled)
    if model.intervals is not None:
        found += coverage_rows(name, partial(ends_of, model.intervals, numbers), given, units)
    return [row | {"items": len(table)} for row in found]


def _group_rows(name: str, table: pd.DataFrame, of_items: np.ndarray, model: MsfSerModel) -> list[Row]:
    rows = []
    for value, group in table.groupby(of_items, sort=True):
        if len(group) >= _FEWEST:
            rows += _rows(f"{name}={value}", group, model)
            bias = bias_rows(f"{name}={value}", table, of_items == value)
            rows += [row | {"items": len(group)} for row in bias]
    return rows


def main(argv: Sequence[str]) -> None:
    """Runs `msfser evaluate`."""
    arguments = parse(argv)
    show_messages()
    if arguments.leave_out:
        _leave_out(arguments, argv)
        return
    with cli_errors("evaluate", resume="run the same command again; what the encoders gave is kept"):
        named = load_named(arguments.model)
        known = named.settings
        output = arguments.output or Path("outputs", "evaluations", known["model"].replace("/", "--"))
        _refuse_results(output, arguments.overwrite)
        make_folder(output)
        run = RunSettings(
            data=arguments.data[0],
            more_data=arguments.data[1:],
            corpus=arguments.corpus,
            fold=arguments.fold,
            label_range=list(arguments.label_range),
            test=arguments.test,
            audio_folder=arguments.audio_folder,
            columns=[f"{name}={column}" for name, column in arguments.columns],
            allow_speaker_overlap=arguments.allow_speaker_overlap,
            speaker_from=arguments.speaker_from,
            split_by=arguments.split_by,
        )
        warn_of_training_data(arguments.model, named.source, named.model.config, run, arguments.part)
        named.model.to(default_device())  # type: ignore[arg-type]
        with only_run(output):
            _refuse_results(output, arguments.overwrite)  # another run may just have ended
            found = evaluate(named.model, named.processor, run, arguments.part, arguments.by)
            with whole_file(output / "predictions.csv") as unfinished:
                found.predictions.assign(**known).to_csv(unfinished, index=False)
            write(output / "results.json", [row | known for row in found.rows])
    logger.info(f"{_shown(found.rows)}\nsaved: {output}")


def _refuse_results(output: Path, overwrite: bool) -> None:
    """Raises an `OSError` where the folder has results that are not to be replaced."""
    for name in ("predictions.csv", "results.json"):
        refuse_existing(output / name, overwrite)


def _shown(rows: Sequence[Row]) -> str:
    """The rows as text; what their intervals resample is in the first line, or in each where it is not the same."""
    units = [row.get("resampled") for row in rows]
    if len(known := {*units} - {None}) == 1:
        return f"CCC with 95 % intervals over {known.pop()}:\n{as_text(rows)}"
    lines = zip(as_text(rows).split("\n"), units, strict=True)
    shown = "\n".join(line if unit is None else f"{line}  over {unit}" for line, unit in lines)
    return f"CCC with 95 % intervals:\n{shown}"


def _leave_out(arguments: argparse.Namespace, argv: Sequence[str]) -> None:
    output = arguments.output or Path("outputs", "leave_out")
    with cli_errors("evaluate", resume="run the same command again; fits that are finished are kept"):
        protocol = read_protocol(arguments.protocol or PROTOCOL)
        names, seeds = arguments.systems or SYSTEMS, range(arguments.seeds or 3)
        rows, history = leave_corpora_out(Path(arguments.data[0]), names, seeds, output, protocol)
        for folder in dict.fromkeys((output, arguments.results or output)):
            save(folder, rows, history, shlex.join(["msfser", "evaluate", *without_paths(argv)]))
    logger.info(f"mean CCC with 95 % intervals over the speakers of these corpora:\n{as_text(rows)}\nsaved: {output}")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the command line."""
    parser = CommandParser(
        prog="msfser evaluate",
        usage="msfser evaluate MODEL --data DATA [OPTIONS]\n       "
        "msfser evaluate --leave_out corpus --data FOLDER [OPTIONS]",
        description="Scores a model on a corpus: CCC with intervals, by set of inputs and by group. Or fits and tests "
        "several systems, with each corpus left out in turn.",
    )
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="a folder, a name on the Hub, starter, or starter-open"
    )
    parser.add_argument(
        "--data",
        action="append",
        required=True,
        help="a table, a folder with one, or that of a named corpus, as in train; again for several, scored together "
        "and apart",
    )
    parser.add_argument("--corpus", choices=tuple(CORPORA), default="table", help="reader (default: %(default)s)")
    parser.add_argument("--fold", type=int, help="session of iemocap to test on, 1 to 5")
    parser.add_argument(
        "--part",
        choices=("train", "validation", "test", "all"),
        default="test",
        help="part of the corpus, or all rows (default: %(default)s)",
    )
    parser.add_argument(
        "--by", nargs="+", default=[], metavar="COLUMN", help="score groups, too: speaker, or columns of the table"
    )
    parser.add_argument(
        "--label_range",
        nargs="+",
        default=[0.0, 1.0],
        metavar="RANGE",
        help="scale of the labels, such as 1 7, or valence=-1:1 arousal=0:1",
    )
    parser.add_argument(
        "--test", nargs="+", default=[], metavar="PART", help="test parts by their names in the corpus, such as Test1"
    )
    parser.add_argument(
        "--columns", nargs="+", type=column_pair, default=[], metavar="NAME=COLUMN", help="columns with other names"
    )
    parser.add_argument("--audio_folder", metavar="FOLDER", help="start of the table's relative audio paths")
    parser.add_argument("--speaker_from", metavar="REGEX", help="finds the speaker in a file name")
    parser.add_argument(
        "--split_by", choices=SPLIT_BY, default=SPLIT_BY[0], help="what parts are made by (default: %(default)s)"
    )
    parser.add_argument(
        "--allow_speaker_overlap",
        nargs="?",
        type=string_to_bool,
        const=True,
        default=False,
        metavar="true",
        help="accept speakers in more than one part",
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="outputs/evaluations/NAME by default")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results in the folder")
    recipes = parser.add_argument_group("without MODEL")
    recipes.add_argument("--leave_out", choices=("corpus",), help="fit systems with each corpus of --data left out")
    recipes.add_argument("--systems", nargs="+", choices=SYSTEMS, help="what is compared (default: all)")
    recipes.add_argument("--seeds", type=_count, metavar="N", help="fits of each system and fold (default: 3)")
    recipes.add_argument("--protocol", type=Path, metavar="FILE", help="the corpora, as YAML (default: the project's)")
    recipes.add_argument("--results", type=Path, metavar="FOLDER", help="also write loco.json and its history there")
    arguments = parser.parse_args(argv)
    if arguments.leave_out and arguments.model:
        parser.error("MODEL and --leave_out are two evaluations: give one of them.")
    if not arguments.leave_out and not arguments.model:
        parser.error("name the MODEL to score, or give --leave_out corpus to fit and test the systems.")
    if arguments.leave_out and len(arguments.data) > 1:
        parser.error("--leave_out reads one folder with all corpora: give --data once.")
    of_model = (
        *("corpus", "fold", "part", "by", "label_range", "test", "columns", "audio_folder"),
        *("speaker_from", "split_by", "allow_speaker_overlap", "overwrite"),
    )
    of_recipes = ("systems", "seeds", "protocol", "results")
    for name in of_model if arguments.leave_out else of_recipes:
        if getattr(arguments, name) != parser.get_default(name):
            parser.error(
                f"--{name} belongs to the evaluation {'of a MODEL' if arguments.leave_out else 'by --leave_out'}"
            )
    return arguments


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)
