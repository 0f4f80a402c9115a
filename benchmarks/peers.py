"""How the project's model compares with common alternatives, on the same clips and the same encoder.

    python -m msfser.benchmarks.peers --data FOLDER

FOLDER holds RAVDESS (speech) and EmoDB as they are distributed. Each emotion category is mapped to its published VAD
norm (`corpora/weak_labels.py`); no listener rated these clips. Beside the CCC with these **weak labels** the rows
`ranking/...` are pairwise ranking accuracies of matched clips, which need no label.

| system | what it is |
|---|---|
| `egemaps_svr` | eGeMAPS functionals of openSMILE and support-vector regression; extra `peers`, for research only |
| `last_layer` | mean of the encoder's last layer, linear head: the usual audio-only model on the Hub |
| `asp` | attentive statistics pooling of the last layer: the baseline of the Interspeech 2025 challenge |
| `text` | recognized words and emphasized words alone |
| `ours_audio` | a learned mix of all layers, attentive statistics pooling, expert, heads |
| `ours_full` | the same with all three texts, made from sound by `msfser annotate` |

All but the first get the outputs of frozen Whisper tiny.en and all-MiniLM-L6-v2, and are fitted alike
(`training/fitting.py`). Beside the sound, most texts of these fixed sentences are dropped in training
(`TEXT_DROPOUT`). Six groups of speakers are held out in turn, then each corpus (`cross/`). Every system has a small
grid of settings. That of the neural ones is the same: learning rate, epochs, and whether the spread of the labels is
restored. The support-vector regression has kernel, C, standardization, and spread. For each fold they are chosen on
training speakers (`evaluation/held_out.py`). Intervals are over speakers, paired between systems. `--probe` does the
same on the probe corpus, with its own parts and its given texts, without text dropout.

EmoDB is in German and the recognizer is for English, so its clips have descriptions and no words. Descriptions compare
a voice with norms that were measured on six of EmoDB's ten speakers, without labels.

Fits are kept in `outputs/peers` and not repeated; processes that are given the same command share them. Writes
`benchmarks/results/peers_weak.json`, or `peers_probe.json`.
"""

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
import pandas as pd

from ..audio_msfser import load_audio
from ..cli.errors import cli_errors
from ..configuration_msfser import LABELS, TENSOR_NAMES
from ..corpora.acted import COLUMNS
from ..corpora.probe.corpus import make_probe
from ..corpora.schema import SPLITS
from ..corpora.table import read_table
from ..evaluation.acted import Material, Scores, acted_clips, matched_pairs, strong_counterparts
from ..evaluation.baselines import SVR_SYSTEM, egemaps, svr_system
from ..evaluation.held_out import Fold, HeldOut, Split, System, leave_groups_out, speaker_groups
from ..evaluation.results import Row, row
from ..hub.encoders import ensure_encoders
from ..processing_msfser import MsfSerProcessor
from ..starter.assemble import AUDIO_ENCODER, TEXT_ENCODER
from ..training.feature_store import fingerprint
from ..training.features import encode_sounds, encode_texts
from ..training.fitting import Clips
from .annotated import annotated_texts
from .command import parser_of, record
from .peer_systems import NEURAL, SWITCHES, build, neural_system

logger = logging.getLogger(__name__)

SYSTEMS = (SVR_SYSTEM, *NEURAL)
GROUPS = 6
_CORPUS = "corpus_"
LANGUAGES = {"ravdess": "en", "emodb": "de"}
# The clips at one level are only predicted: they tell how much a prediction depends on level.
SAMPLING_WEIGHTS = {"as_recorded": 1.0, "one_level": 0.0}
# A dozen sentences that every speaker says in every emotion teach nothing about words, and what is memorized is wrong
# for the next speaker.
TEXT_DROPOUT = {"les": 0.98, "gs": 0.98, "es": 0.9}


def acted(folder: Path, output: Path) -> Material:
    """RAVDESS and EmoDB under a folder, with texts made from sound."""
    rows = annotated(acted_clips(folder), folder, output)
    table = rows.select_columns([*COLUMNS, "speaker"]).to_pandas()
    clips = in_memory(rows, strong_counterparts(table), SAMPLING_WEIGHTS, TEXT_DROPOUT)
    return Material(clips, table, [audio["path"] for audio in rows["audio"]], {})


def folds_of(material: Material) -> dict[str, Fold]:
    """Groups of speakers and each corpus, held out in turn; or the given held-out part.

    Settings are chosen on training speakers: of six groups, three of the five others are left out in turn; inside one
    corpus, thirds of its speakers.
    """
    if material.folds:
        return {name: _held(~held_out, material.clips.speakers) for name, held_out in material.folds.items()}
    speakers = material.clips.speakers
    groups = speaker_groups(speakers, GROUPS)
    folds = {f"speakers_{name}": fold for name, fold in leave_groups_out([*map(str, groups)], step=2).items()}
    corpora = material.table["corpus"].to_numpy()
    if len(set(corpora)) > 1:
        folds |= {f"{_CORPUS}{name}": _held(corpora != name, speakers) for name in LANGUAGES}
    return folds


def _held(training: np.ndarray, speakers: np.ndarray) -> Fold:
    """The fold of these training clips, `(clips,)` bool, with thirds of their speakers inside."""
    thirds = np.full(len(speakers), -1)
    thirds[training] = speaker_groups(speakers[training], 3)
    inner = [
        Split(np.flatnonzero(training & (thirds != third)), np.flatnonzero(thirds == third))
        for third in sorted(set(thirds[training]))
    ]
    return Fold(Split(np.flatnonzero(training), np.flatnonzero(~training)), inner)


def annotated(rows: datasets.Dataset, folder: Path, output: Path) -> datasets.Dataset:
    """The rows with the texts that `msfser annotate` makes, in the same order."""
    paths = [audio["path"] for audio in rows["audio"]]
    texts = annotated_texts(paths, folder, output, [LANGUAGES[corpus] for corpus in rows["corpus"]])
    for name, column in texts.items():
        rows = rows.remove_columns(name).add_column(name, column, feature=datasets.Value("string"))
    return rows


def probe() -> Material:
    """The probe corpus with its given texts; its test part is held out."""
    parts = read_table(make_probe("data/probe"))
    rows = datasets.concatenate_datasets([parts[name] for name in SPLITS])
    split = np.repeat(SPLITS, [len(parts[name]) for name in SPLITS])
    clips = in_memory(rows, np.full(len(rows), -1), {"as_recorded": 1.0}, {})
    paths = [audio["path"] for audio in rows["audio"]]
    return Material(clips, pd.DataFrame({"speaker": rows["speaker"]}), paths, {"test": split == "test"})


def in_memory(
    rows: datasets.Dataset,
    stronger: np.ndarray,
    sampling_weights: Mapping[str, float],
    text_dropout: Mapping[str, float],
) -> Clips:
    """The outputs of the frozen encoders for a corpus."""
    model = build(SWITCHES["ours_full"])
    paths = [audio["path"] for audio in rows["audio"]]
    states = {}
    for kind in sampling_weights:
        processor = MsfSerProcessor.from_encoders(AUDIO_ENCODER, TEXT_ENCODER, normalize_level=kind == "one_level")
        states[kind] = encode_sounds(kind, paths, model, processor)
    texts = {tensor: encode_texts(rows[name], model, processor) for name, tensor in TENSOR_NAMES.items()}
    labels = np.stack([np.asarray(rows[name], np.float32) for name in LABELS], 1)
    return Clips(labels, np.asarray(rows["speaker"]), states, sampling_weights, texts, stronger, text_dropout)


def level_rows(scores: Scores) -> list[Row]:
    """Rankings of arousal by a level meter, as recorded and with every clip at one level."""
    pairs = matched_pairs(scores.material.clips)
    levels = np.zeros(len(scores.material.clips))
    for clip in np.unique(pairs):
        levels[clip] = np.sqrt(np.mean(np.square(load_audio(scores.material.paths[clip]), dtype=np.float64)))
    meter = scores.ranking_row("level/ranking/arousal_raw", levels[None], pairs)
    return [meter, row("level/ranking/arousal_leveled", 0.5)]


def make_systems(names: Sequence[str], material: Material, folder: Path) -> list[System]:
    """The systems of some names, on one corpus."""
    labels, corpora = material.clips.labels, material.table.get("corpus", pd.Series("", material.table.index))
    return [
        svr_system(egemaps(material.paths, folder), labels, corpora.to_numpy())
        if name == SVR_SYSTEM
        else neural_system(name, material.clips)
        for name in names
    ]


def identity(clips: Clips, paths: Sequence[str]) -> str:
    """A hash of recordings, labels, and speakers."""
    return fingerprint(*map(Path, paths), clips.labels, clips.stronger, clips.speakers.tolist())


def rows_of_fits(engine: HeldOut, material: Material, fitted: Sequence[System], seeds: Sequence[int]) -> list[Row]:
    """All rows of the results file, without their command; those of the mean CCC have budget and chosen settings."""
    systems = [system.name for system in fitted]
    speakers = [name for name in engine.folds if not name.startswith(_CORPUS)]
    within = Scores(material, engine.gathered(fitted, seeds, speakers))
    results = []
    for made in fitted:
        *dimensions, mean = within.ccc_rows(made.name)
        chosen = {fold: str(engine.chosen(made, fold).choice) for fold in engine.folds}
        results += [*dimensions, mean | engine.budget(made, seeds) | {"chosen": chosen}]
    if {"ours_audio", "ours_full"} <= set(systems):
        results.append(within.difference_row("full_minus_audio", "ours_full", "ours_audio"))
    for peer in systems:
        if "ours_audio" in systems and not peer.startswith("ours"):
            results.append(within.difference_row(f"audio_minus_{peer}", "ours_audio", peer))
    if "corpus" not in material.table:
        return results
    for system in systems:
        if system != "text":
            results += within.ranking_rows(system, f"{system}/")
    results += level_rows(within)
    for fold in (name for name in engine.folds if name.startswith(_CORPUS)):
        across = Scores(material, engine.gathered(fitted, seeds, [fold]))
        for system in systems:
            name, mean = f"cross/{fold.removeprefix(_CORPUS)}/{system}", across.ccc_rows(system)[-1]
            drop = within.ccc(system, across.held_out).mean() - mean["value"]
            results += [{**mean, "name": f"{name}/mean"}, row(f"{name}/drop", drop)]
    return results


def main(argv: Sequence[str] | None = None) -> None:
    """Fits what is missing, prints and writes the results."""
    parser = parser_of("peers", __doc__)
    corpus = parser.add_mutually_exclusive_group(required=True)
    corpus.add_argument("--data", type=Path, help="the folder with RAVDESS and EmoDB")
    corpus.add_argument("--probe", action="store_true", help="the probe corpus instead")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the fits (0 1 2)")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS, help="all by default")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/peers"), help="where fits are kept")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    datasets.disable_progress_bars()
    names = list(arguments.systems)
    if SVR_SYSTEM in names and not all(map(importlib.util.find_spec, ("opensmile", "sklearn"))):
        names.remove(SVR_SYSTEM)
        logger.warning('without eGeMAPS: pip install -e ".[peers]" installs openSMILE, whose license is for research.')
    output = arguments.output_dir / ("probe" if arguments.probe else "acted")
    output.mkdir(parents=True, exist_ok=True)
    with cli_errors("peers"):
        ensure_encoders([AUDIO_ENCODER, TEXT_ENCODER])
        material = probe() if arguments.probe else acted(arguments.data, output)
        systems = make_systems(names, material, output)
    engine = HeldOut(material.clips.labels, folds_of(material), identity(material.clips, material.paths), output)
    engine.run(systems, arguments.seeds)
    rows = rows_of_fits(engine, material, systems, arguments.seeds)
    record("peers_probe" if arguments.probe else "peers_weak", rows, "peers", argv)


if __name__ == "__main__":
    main()
