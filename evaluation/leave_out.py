"""Leaves one corpus out: systems are fitted to the other corpora, and are tested on the one that is left out.

    msfser evaluate --leave_out corpus --data FOLDER

The recipe of the open starter, `starter_open`, is that of `starter`, fitted to the corpora that it may use; and
`order/ravdess_levelled` tells how often, in pairs of clips of RAVDESS at one level, the strong one has the higher
arousal.

FOLDER has a folder for each corpus, as it is distributed or with a table, and GoEmotions (`read_corpora`).

The protocol is a file, `evaluation/leave_corpora_out.yaml`: which corpora are trained on in turn, and which are only
tested. Settings are chosen inside ([`HeldOut`]): by leaving out, in turn, the other corpora that are trained on. The
four corpora are all shown. There is no interval over corpora; the intervals are over the speakers of these corpora.

| system | what it is |
|---|---|
| `mean` | the mean of the training labels: CCC 0 |
| `egemaps_svr` | eGeMAPS functionals of openSMILE and support-vector regression |
| `last_layer` | mean of the encoder's last state and a linear head |
| `regressor` | a layer-mix regressor on pooled states, with fixed settings (`evaluation/regressor.py`) |
| `starter` | the recipe of the starter (`starter/material.py`) as it is, with its sentences; tested on sound alone |

Fits are kept in the output folder and not repeated, and processes that are given the same command share them. The
folder also gets `loco.json`, a table of the predictions of each system, and `loco_history.jsonl`, which has a line for
each system and recipe whose outer results were looked at: looking often is choosing, too.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any

import datasets
import numpy as np
import pandas as pd
import torch
import yaml

from ..cli.outputs import make_folder, whole_file, write_text
from ..configuration_msfser import LABELS
from ..corpora.acted import read_acted
from ..corpora.acted_layouts import LAYOUTS
from ..corpora.audio_paths import audio_paths, locate
from ..corpora.columns import check_unique, label_column, speaker_column, text_column
from ..corpora.label_ranges import range_of
from ..corpora.messages import reason
from ..corpora.sources import open_source
from ..hub.encoders import ensure_encoders
from ..starter.assemble import AUDIO_ENCODER, TEXT_ENCODER
from ..starter.material import CLEAN, read_sentences, states_of
from ..training.feature_store import fingerprint
from ..training.fitting import Clips
from .acted import Material, Scores, strong_counterparts
from .baselines import SVR_SYSTEM, egemaps, last_layer_system, mean_system, regressor_system, svr_system
from .held_out import Fold, HeldOut, Split, System, leave_groups_out
from .regressor import pooled_clips, regressor_encoder
from .results import Row, row, write
from .starter_system import starter_system

logger = logging.getLogger(__name__)

PROTOCOL = Path(__file__).with_name("leave_corpora_out.yaml")
RESULTS_FILE, HISTORY_FILE = "loco.json", "loco_history.jsonl"
SYSTEMS = ("mean", SVR_SYSTEM, "last_layer", "regressor", "starter")
_REFERENCE, _STARTER, _OPEN = "regressor", "starter", "starter_open"
_ORDER = "order/ravdess_levelled"
_COLUMNS = ("file_name", "speaker_id", "emotion", *LABELS)
# By the name of the column, what it is called here.
_OPTIONAL = {"intensity": "intensity", "transcription": "sentence"}
# Tables that name emotions by adjectives; all others, as `weak_labels.NORMS`, by nouns.
_NOUNS = {"angry": "anger", "fearful": "fear", "happy": "happiness", "sad": "sadness", "surprised": "surprise"}


@dataclass(frozen=True)
class Protocol:
    """Which corpora there are, and how they are read; the fields of `leave_corpora_out.yaml`."""

    table: str
    trained: Sequence[str]
    tested: Sequence[str] = ()
    label_range: Sequence[float] = (0.0, 1.0)
    emotions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    same_speaker: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    sentences: str | None = None
    open: Sequence[str] = ()


def read_protocol(path: Path = PROTOCOL) -> Protocol:
    """Reads a protocol.

    Raises:
        ValueError: The file is no protocol.
    """
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(fields, dict):
            raise TypeError("it has no fields")
        protocol = Protocol(**{name: value for name, value in fields.items() if value is not None})
        _check_types(protocol)
    except (AttributeError, TypeError, ValueError, yaml.YAMLError) as error:
        why = reason(error)
        raise ValueError(f"{path} is no protocol of corpora ({why}): write it like {PROTOCOL.name}.") from error
    if len(set(protocol.trained)) < 3:
        raise ValueError(f"{path} trains on fewer than three corpora: settings are chosen by leaving out two of them.")
    return protocol


def _check_types(protocol: Protocol) -> None:
    """Raises a `TypeError` or a `ValueError` where a field of a protocol is of another type."""
    lists = {"trained": protocol.trained, "tested": protocol.tested, "open": protocol.open}
    lists |= {f"emotions.{name}": values for name, values in protocol.emotions.items()}
    groups = {f"same_speaker.{name}": values for name, values in protocol.same_speaker.items()}
    lists |= {f"{name}[{i}]": group for name, values in groups.items() for i, group in enumerate(values)}
    for name, values in lists.items():
        if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
            raise TypeError(f"{name} is no list of names")
    if not isinstance(protocol.table, str) or not isinstance(protocol.sentences, str | None):
        raise TypeError("table and sentences are names")
    if not isinstance(protocol.label_range, list | tuple):
        raise TypeError("label_range is two numbers, [LOW, HIGH]")
    try:
        range_of(protocol.label_range)
    except ValueError:
        raise ValueError("label_range is not two finite numbers, the lower one first") from None


def read_corpora(folder: Path, protocol: Protocol) -> pd.DataFrame:
    """The clips of all corpora of a protocol.

    Returns:
        A row for each clip: `corpus`, `file`, `path`, `speaker`, `emotion`, labels in 0..1, and `intensity` and
        `sentence`, which are null where the table does not tell them.

    Raises:
        ValueError: A corpus, a column, a recording or a label is missing or wrong; the sentence says which.
    """
    tables = [_read_corpus(folder / name, protocol) for name in (*protocol.trained, *protocol.tested)]
    return pd.concat(tables, ignore_index=True)


def _read_corpus(folder: Path, protocol: Protocol) -> pd.DataFrame:
    # `read_acted` gives absolute paths, also of a relative folder.
    folder = Path(os.path.abspath(folder))
    name, path = folder.name, folder / protocol.table
    if path.is_file():
        found = _read_table(path, protocol)
    elif folder.is_dir() and name in LAYOUTS:
        found = _as_distributed(folder, protocol)
    else:
        raise ValueError(
            f"{folder} is missing: --data is a folder that has the corpus {name}, as it is distributed or with a "
            f"table {protocol.table}."
        )
    if not len(found):
        raise ValueError(f"{folder} has no clip with an emotion of the protocol: {protocol.emotions[name]}.")
    first = {other: group[0] for group in protocol.same_speaker.get(name, ()) for other in group}
    found["speaker"] = [f"{name}-{first.get(speaker, speaker)}" for speaker in found["speaker"]]
    return found.assign(corpus=name)


def _as_distributed(folder: Path, protocol: Protocol) -> pd.DataFrame:
    """The clips of a corpus whose file names say everything; speakers without the name of the corpus."""
    table: Any = read_acted(folder, [folder.name]).cast_column("audio", datasets.Audio(decode=False)).to_pandas()
    if folder.name in protocol.emotions:
        table = table[table["emotion"].isin(protocol.emotions[folder.name])].reset_index(drop=True)
    paths = [audio["path"] for audio in table["audio"]]
    speakers = table["speaker"].str.removeprefix(f"{folder.name}-")
    files = [Path(path).relative_to(folder).as_posix() for path in paths]
    found = table[["emotion", "intensity", *LABELS]].assign(file=files, path=paths, speaker=speakers)
    return found.assign(sentence=_numbered(found, table["sentence"]))


def _numbered(clips: pd.DataFrame, sentences: Any) -> pd.Series:
    """The sentence of each clip, numbered among those that its speaker says alike.

    Without a number of the repetition, the first of one intensity belongs to the first of the other.
    """
    said = clips[["speaker", "emotion", "intensity"]].assign(sentence=sentences).astype(str)
    return said["sentence"] + said.groupby([*said]).cumcount().astype(str)


def _read_table(path: Path, protocol: Protocol) -> pd.DataFrame:
    """The clips of a table beside the recordings; speakers without the name of the corpus."""
    (part,) = open_source(path).parts
    names = part.table.column_names
    if absent := [column for column in _COLUMNS if column not in names]:
        raise ValueError(f"{path} has no column {absent[0]}: it needs {', '.join(_COLUMNS)}.")
    check_unique(part, [name for name in names if name in (*_COLUMNS, *_OPTIONAL)])
    emotions = pd.Series(text_column(part, "emotion").to_pylist(), dtype=object).replace(_NOUNS)
    if path.parent.name in protocol.emotions:
        used = np.flatnonzero(emotions.isin(protocol.emotions[path.parent.name]))
        part, emotions = part.select(used), emotions.iloc[used].reset_index(drop=True)
    files = audio_paths(part, "file_name")
    if files is None:
        raise ValueError(f"{path} embeds its recordings: the protocol needs files.")
    paths, real = locate(part, files, (path.parent,), missing_ok=True)
    if lost := np.flatnonzero(real == "").tolist():
        raise ValueError(
            f"{part.row(lost[0])} names {files[lost[0]]}, which is missing ({len(lost)} such): restore the recordings."
        )
    if twice := np.flatnonzero(pd.Series(real).duplicated()).tolist():
        raise ValueError(f"{part.row(twice[0])} names {files[twice[0]]}, which another row names, too: remove one.")
    speakers = speaker_column(part, "speaker_id").to_pylist()
    if None in speakers:
        row = part.row(speakers.index(None))
        raise ValueError(f"{row}: speaker_id is unknown; name who speaks, or remove the row.")
    found = pd.DataFrame({"file": files, "path": paths, "emotion": emotions, "speaker": speakers})
    for column, name in _OPTIONAL.items():
        found[name] = text_column(part, column).to_pylist() if column in names else None
    found["sentence"] = _numbered(found, found["sentence"])
    ends = range_of(protocol.label_range)
    # The protocol, not an option, says the range.
    part = replace(part, official=True)
    labels = {name: np.asarray(label_column(part, name, ends, required=True)) for name in LABELS}
    return found.assign(**labels)


def make_systems(
    names: Sequence[str], clips: pd.DataFrame, trained: Sequence[str], folder: Path, sentences: Path
) -> list[System]:
    """The systems of some names, with their features; what was computed before is read from caches.

    Args:
        names: Some of `SYSTEMS`.
        clips: As [`read_corpora`] gives them.
        trained: The corpora that are trained on.
        folder: Where eGeMAPS are kept.
        sentences: The folder of the sentences that the starter is fitted to, too.
    """
    labels, corpora = _labels(clips), clips["corpus"].to_numpy()
    ensure_encoders([AUDIO_ENCODER, TEXT_ENCODER])

    def of_corpora(features: Callable[[list[str]], Any]) -> list[Any]:
        """Features of each corpus by itself, so that another one does not change them."""
        return [features(clips["path"][corpora == name].tolist()) for name in dict.fromkeys(corpora)]

    def pooled() -> torch.Tensor:
        encoder = regressor_encoder()
        return torch.cat(of_corpora(lambda paths: pooled_clips(paths, *encoder)))

    def last_means() -> torch.Tensor:
        states = of_corpora(lambda paths: states_of(paths, CLEAN)["clean"])
        return torch.stack([of_clip[-1].float().mean(0) for of_corpus in states for of_clip in of_corpus])

    made: dict[str, Callable[[], System]] = {
        "mean": lambda: mean_system(labels),
        SVR_SYSTEM: lambda: svr_system(
            np.concatenate(of_corpora(lambda paths: egemaps(paths, folder))), labels, corpora
        ),
        "last_layer": lambda: last_layer_system(last_means(), labels),
        "regressor": lambda: regressor_system(pooled(), labels),
        "starter": lambda: starter_system(clips, trained, read_sentences([sentences])),
    }
    return [made[name]() for name in names]


def leave_corpora_out(
    data: Path,
    names: Sequence[str] = SYSTEMS,
    seeds: Sequence[int] = (0, 1, 2),
    output: Path = Path("outputs/leave_out"),
    protocol: Protocol | None = None,
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Fits and tests systems with each corpus left out; writes their predictions.

    Args:
        data: A folder with a folder for each corpus.
        names: Some of `SYSTEMS`.
        seeds: Of the fits; figures are means over them.
        output: Where fits are kept and results go.
        protocol: That of the project by default.

    Returns:
        The rows `SYSTEM/CORPUS/DIMENSION`, `SYSTEM/mean`, `SYSTEM_minus_regressor` and `.../CORPUS`, those of the open
        starter and of the order, without their command; and a line of the history for each recipe.

    Raises:
        ValueError: The corpora cannot be used.
        ImportError: A package of a baseline is missing.
    """
    protocol = protocol or read_protocol()
    clips = read_corpora(data, protocol)
    make_folder(output)
    start = perf_counter()
    systems = make_systems(names, clips, protocol.trained, output, data / (protocol.sentences or ""))
    ready = perf_counter()
    engine = open_engine(clips, protocol, output)
    folds = engine.folds
    engine.run(systems, seeds)
    logger.info("features: %.0f s, fits: %.0f s", ready - start, perf_counter() - ready)
    rows = []
    for system in systems:
        predictions = engine.gathered([system], seeds)[system.name]
        _write_predictions(output, engine, system, clips, next(iter(predictions.values())), seeds)
    for name in folds:
        scores = Scores(_material(clips), engine.gathered(systems, seeds, [name]))
        for system in systems:
            rows += [_named(found, system.name, f"{system.name}/{name}") for found in scores.ccc_rows(system.name)]
        rows += [
            scores.difference_row(f"{system}_minus_{_REFERENCE}/{name}", system, _REFERENCE)
            for system in _compared(names)
        ]
    everything = Scores(_material(clips), engine.gathered(systems, seeds))
    for system in systems:
        measure = _mean_over_corpora(everything, clips, system.name)
        measured = everything.interval(measure, correlation=True)
        rows.append(row(f"{system.name}/mean", *measured) | engine.budget(system, seeds))
    for name in _compared(names):
        measure = _mean_over_corpora(everything, clips, name, _REFERENCE)
        rows.append(row(f"{name}_minus_{_REFERENCE}", *everything.interval(measure)))
    if _STARTER in names:
        starter = systems[list(names).index(_STARTER)]
        rows += _rows_of_order(everything, clips, starter.name)
    history = [_look(engine, system, system.name, rows, seeds) for system in systems]
    if _STARTER in names and (of_open := engine_of_open_starter(clips, protocol, output)).folds:
        rows += _rows_of_open(of_open, starter, clips, seeds)
        history.append(_look(of_open, starter, _OPEN, rows, seeds))
    return rows, history


def _look(engine: HeldOut, system: System, name: str, rows: Sequence[Row], seeds: Sequence[int]) -> dict[str, Any]:
    """The line of the history for a recipe that the rows report by a name."""
    chosen = {fold: engine.chosen(system, fold) for fold in engine.folds}
    of_corpora = re.compile(rf"{re.escape(name)}/([^/]+)/mean")
    outer = {match[1]: row["value"] for row in rows if (match := of_corpora.fullmatch(row["name"]))}
    if name == _STARTER:
        outer |= {row["name"]: row["value"] for row in rows if row["name"] == _ORDER}
    return {
        "date": date.today().isoformat(),
        "system": name,
        "recipe": engine.recipe(system)[:16],
        "seeds": len(seeds),
        "chosen": {fold: str(found.choice) for fold, found in chosen.items()},
        "inner": {fold: {key: round(v, 4) for key, v in c.tried.items()} for fold, c in chosen.items()},
        "outer": {of: round(value, 4) for of, value in outer.items()},
    }


def open_engine(clips: pd.DataFrame, protocol: Protocol, output: Path) -> HeldOut:
    """The engine whose folds leave each corpus out; its fits are kept in the output folder.

    Args:
        clips: As [`read_corpora`] gives them.
        protocol: Says which corpora are trained on.
        output: The folder.
    """
    return _engine(clips, protocol, output, leave_groups_out(clips["corpus"].tolist(), protocol.trained))


def engine_of_open_starter(clips: pd.DataFrame, protocol: Protocol, output: Path) -> HeldOut:
    """The engine whose one fold leaves out all corpora that the open starter is not fitted to; as [`open_engine`]."""
    return _engine(clips, protocol, output, _open_folds(clips, protocol))


def _engine(clips: pd.DataFrame, protocol: Protocol, output: Path, folds: Mapping[str, Fold]) -> HeldOut:
    described = clips.drop(columns=["path", "file"]).to_csv()
    identity = fingerprint(*map(Path, clips["path"]), described, sorted(protocol.trained))
    return HeldOut(_labels(clips), folds, identity, output / "fits")


def save(folder: Path, rows: Sequence[Row], history: Sequence[Mapping[str, Any]], command: str) -> None:
    """Writes the rows, and appends the lines of the history that are new: by recipe, seeds, or figures."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / RESULTS_FILE, [{**found, "command": command} for found in rows])
    path = folder / HISTORY_FILE
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    # A line that a killed command left unfinished has no end.
    looks = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    # The same recipe may give other figures on another processor, or with faster kernels.
    known = [{**look, "date": None} for look in looks]
    looks += [look for look in history if {**look, "date": None} not in known]
    write_text(path, "".join(f"{json.dumps(look)}\n" for look in looks))


def _rows_of_order(scores: Scores, clips: pd.DataFrame, system: str) -> list[Row]:
    """How often, in RAVDESS, the strong clip of a pair has the higher arousal; calm is left out."""
    stronger = strong_counterparts(clips)
    normal = np.flatnonzero((stronger >= 0) & (clips["corpus"] == "ravdess"))
    pairs = np.stack([normal, stronger[normal]], 1)
    (predictions,) = scores.predictions[system].values()
    return [scores.ranking_row(_ORDER, predictions[..., 1], pairs)] if len(pairs) else []


def _open_folds(clips: pd.DataFrame, protocol: Protocol) -> dict[str, Fold]:
    """One fold: the corpora of the open starter train, all others are held out."""
    is_open = clips["corpus"].isin(protocol.open).to_numpy()
    split = Split(np.flatnonzero(is_open), np.flatnonzero(~is_open))
    return {"open": Fold(split, [])} if is_open.any() else {}


def _rows_of_open(engine: HeldOut, system: System, clips: pd.DataFrame, seeds: Sequence[int]) -> list[Row]:
    """The recipe fitted to the corpora of the open starter alone, on each of the others."""
    rows: list[Row] = []
    for fold in engine.folds.values():
        engine.run([system], seeds)
        (predictions,) = engine.gathered([system], seeds)[system.name].values()
        corpora = clips["corpus"].to_numpy()
        for name in dict.fromkeys(corpora[fold.split.held]):
            there = np.where((corpora == name)[:, None], predictions, np.nan)
            scores = Scores(_material(clips), {_OPEN: {"sound": there}})
            rows += [_named(found, _OPEN, f"{_OPEN}/{name}") for found in scores.ccc_rows(_OPEN)]
    return rows


def _labels(clips: pd.DataFrame) -> np.ndarray:
    return clips[[*LABELS]].to_numpy(np.float32)


def _material(clips: pd.DataFrame) -> Material:
    bare = Clips(_labels(clips), clips["speaker"].to_numpy(), {}, {}, {}, np.full(len(clips), -1))
    return Material(bare, clips, clips["path"].tolist(), {})


def _named(found: Row, old: str, new: str) -> Row:
    return {**found, "name": new + found["name"].removeprefix(old)}


def _compared(names: Sequence[str]) -> list[str]:
    """The systems that are compared with the reference, if that is there."""
    return [name for name in names if name not in (_REFERENCE, "mean") and _REFERENCE in names]


def _mean_over_corpora(
    scores: Scores, clips: pd.DataFrame, system: str, less: str | None = None
) -> Callable[[np.ndarray, np.ndarray], float]:
    """The mean over the corpora of the mean CCC there, minus that of another system if one is named."""
    corpora = clips["corpus"].to_numpy()

    def measure(drawn: np.ndarray, chosen: np.ndarray) -> float:
        parts = [drawn[corpora[drawn] == name] for name in dict.fromkeys(corpora)]
        ccc = [scores.ccc(system, part, chosen) for part in parts if len(part)]
        others = [scores.ccc(less, part, chosen) for part in parts if len(part)] if less else [0.0]
        return float(np.mean(ccc) - np.mean(others))

    return measure


def _write_predictions(
    output: Path,
    engine: HeldOut,
    system: System,
    clips: pd.DataFrame,
    predictions: np.ndarray,
    seeds: Sequence[int],
) -> None:
    """A row for each clip and seed, with the hash of the recipe."""
    given = clips[["corpus", "file", "speaker", "emotion"]]
    given = given.assign(**{f"{label}_label": clips[label] for label in LABELS})
    tables = [
        given.assign(**dict(zip(LABELS, values.T, strict=True)), seed=seed, recipe=engine.recipe(system)[:16])
        for seed, values in zip(seeds, predictions, strict=True)
    ]
    with whole_file(output / f"predictions_{system.name}.csv") as unfinished:
        pd.concat(tables).to_csv(unfinished, index=False)
