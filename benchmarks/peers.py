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
(`TEXT_DROPOUT`). Each speaker is held out once, then each corpus (`cross/`). Intervals are bootstrap intervals over
speakers, paired between systems. `--probe` does the same on the probe corpus, with its own parts and its given texts,
without text dropout.

Fits are kept in `outputs/peers` and not repeated; processes that are given the same command share them. Writes
`benchmarks/results/peers_weak.json`, or `peers_probe.json`.
"""

import csv
import importlib.util
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from ..annotation.annotate import main as annotate
from ..audio_msfser import SAMPLING_RATE, load_audio
from ..cli.errors import cli_errors
from ..configuration_msfser import LABELS, TENSOR_NAMES
from ..corpora.acted import COLUMNS
from ..corpora.probe.corpus import make_probe
from ..corpora.schema import SPLITS
from ..corpora.shards import SHARDS
from ..corpora.table import read_table
from ..evaluation.acted import Material, Scores, acted_clips, matched_pairs, strong_counterparts
from ..evaluation.results import Row, row
from ..hub.encoders import ensure_encoders
from ..modeling_msfser import MsfSerModel
from ..processing_msfser import MsfSerProcessor
from ..starter.assemble import AUDIO_ENCODER, TEXT_ENCODER
from ..starter.assemble import SWITCHES as STARTER
from ..training.feature_store import fingerprint
from ..training.features import encode_sounds
from ..training.fitting import Clips, MeanHead, Recipe, fit, predict
from .command import parser_of, record

logger = logging.getLogger(__name__)

# The neural systems as switches of the model; the sound alone is the starter.
SWITCHES: dict[str, dict[str, Any]] = {
    "asp": STARTER | {"audio_states": "last"},
    "text": STARTER | {"audio": False, "semantics": ["les", "gs"]},
    "ours_audio": STARTER,
    "ours_full": STARTER | {"semantics": ["les", "gs", "es"]},
}
SVR_SYSTEM = "egemaps_svr"
SYSTEMS = (SVR_SYSTEM, "last_layer", *SWITCHES)
LANGUAGES = {"ravdess": "en", "emodb": "de"}
# The clips at one level are only predicted: they tell how much a prediction depends on level.
SAMPLING_WEIGHTS = {"as_recorded": 1.0, "one_level": 0.0}
# A greater weight of the ranking loss ranks more pairs correctly and lowers the CCC.
RECIPE = Recipe(ranking_loss_weight=2.5, mixing_lr_scale=20.0)
# A dozen sentences that every speaker says in every emotion teach nothing about words, and what is memorized is wrong
# for the next speaker.
TEXT_DROPOUT = {"les": 0.98, "gs": 0.98, "es": 0.9}


@dataclass(frozen=True)
class Fits:
    """Systems fitted to all clips but those of a fold, which they then predict; kept in a folder."""

    material: Material
    folder: Path

    def path(self, system: str, seed: int, fold: str) -> Path:
        """The file with the predictions, `(held-out clips, 3)` by kind of sound; named by what they depend on."""
        fitted_by = () if system == SVR_SYSTEM else (SWITCHES.get(system), RECIPE)
        return self.folder / f"{system}_{seed}_{fold}_{fingerprint(self._corpus, *fitted_by)[:12]}.npz"

    @cached_property
    def _corpus(self) -> str:
        clips = self.material.clips
        shares = sorted(clips.sampling_weights.items()), sorted(clips.text_dropout.items())
        data = (clips.labels, clips.stronger, *shares, clips.speakers.tolist(), *clips.texts.values())
        return fingerprint(*map(Path, self.material.paths), *data)

    def finish(self, system: str, seed: int, fold: str) -> bool:
        """Fits and predicts, unless that is done; false if another process is at it."""
        path = self.path(system, seed, fold)
        with suppress(Timeout), FileLock(f"{path}.lock", timeout=0):
            if not path.is_file():
                held_out = self.material.folds[fold]
                rest, held = np.flatnonzero(~held_out), np.flatnonzero(held_out)
                made = self._svr(rest, held) if system == SVR_SYSTEM else self._neural(system, seed, rest, held)
                unfinished = path.with_suffix(".part.npz")
                np.savez(unfinished, **made)  # type: ignore[arg-type]
                unfinished.rename(path)
        return path.is_file()

    def gathered(
        self, systems: Sequence[str], seeds: Sequence[int], folds: Sequence[str]
    ) -> dict[str, dict[str, np.ndarray]]:
        """The predictions of finished fits, for [`Scores`]."""
        shape = (len(seeds), len(self.material.clips), len(LABELS))
        found: dict[str, dict[str, np.ndarray]] = {system: {} for system in systems}
        for system, (place, seed), fold in product(systems, enumerate(seeds), folds):
            with np.load(self.path(system, 0 if system == SVR_SYSTEM else seed, fold)) as file:
                for kind, values in file.items():
                    of_kind = found[system].setdefault(kind, np.full(shape, np.nan, np.float32))
                    of_kind[place, self.material.folds[fold]] = values
        return found

    def _neural(self, system: str, seed: int, rest: np.ndarray, held: np.ndarray) -> dict[str, np.ndarray]:
        clips, switches = self.material.clips, SWITCHES.get(system)
        inputs = switches["semantics"] if switches else []
        states = {} if system == "text" else clips.states
        if system in ("last_layer", "asp"):
            states = {kind: [of_clip[-1:] for of_clip in of_kind] for kind, of_kind in states.items()}
        texts = {name: vectors for name, vectors in clips.texts.items() if name in inputs}
        used = replace(clips, states=states, texts=texts, text_dropout=clips.text_dropout if states else {})
        has_input = np.ones(len(clips), bool)
        if not states:
            has_input = ~np.all([vectors[:, 0].isnan().numpy() for vectors in texts.values()], axis=0)
        learned = rest[has_input[rest]]
        # Without any input, the mean of the training clips is the best prediction.
        kinds = states or ("as_recorded",)
        predictions = {kind: np.tile(clips.labels[rest].mean(0), (len(held), 1)) for kind in kinds}
        if len(learned) >= RECIPE.batch_size:
            size = next(iter(clips.states.values()))[0].shape[-1]
            model = fit(lambda: build(switches) if switches else MeanHead(size), used, learned, seed, RECIPE)
            for kind, values in predictions.items():
                values[has_input[held]] = predict(model, used, held[has_input[held]], kind)
        return predictions

    def _svr(self, rest: np.ndarray, held: np.ndarray) -> dict[str, np.ndarray]:
        from sklearn.model_selection import GridSearchCV, GroupKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVR

        features, clips = self._egemaps(), self.material.clips
        predictions = np.empty((len(held), len(LABELS)), np.float32)
        for dimension in range(len(LABELS)):
            search = GridSearchCV(
                make_pipeline(StandardScaler(), SVR(epsilon=0.05)), {"svr__C": [0.3, 1.0, 3.0]}, cv=GroupKFold(3)
            )
            search.fit(features[rest], clips.labels[rest, dimension], groups=clips.speakers[rest])
            predictions[:, dimension] = search.predict(features[held])
        return {"as_recorded": predictions}

    def _egemaps(self) -> np.ndarray:
        """EGeMAPSv02 functionals by openSMILE of each recording, `(clips, 88)`; kept in the folder."""
        path = self.folder / f"egemaps_{fingerprint(*map(Path, self.material.paths))[:12]}.npy"
        with FileLock(f"{path}.lock"):
            if not path.is_file():
                import opensmile

                smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
                sounds = (load_audio(recording) for recording in tqdm(self.material.paths, desc="eGeMAPS"))
                rows = [smile.process_signal(sound, SAMPLING_RATE).to_numpy()[0] for sound in sounds]
                np.save(path, np.array(rows, np.float32))
        return np.load(path)


def build(switches: Mapping[str, Any]) -> MsfSerModel:
    """The project's model on the frozen encoders."""
    audio = AUDIO_ENCODER if switches.get("audio", True) else None
    text = TEXT_ENCODER if switches["semantics"] else None
    return MsfSerModel.from_encoders(audio, text, freeze_text=True, **switches)


def acted(folder: Path, output: Path) -> Material:
    """RAVDESS and EmoDB under a folder, with texts made from sound, each speaker and each corpus held out."""
    rows = annotated(acted_clips(folder), folder, output)
    table = rows.select_columns([*COLUMNS, "speaker"]).to_pandas()
    folds = {f"speaker_{name}": (table["speaker"] == name).to_numpy() for name in sorted(set(table["speaker"]))}
    if table["corpus"].nunique() > 1:
        folds |= {f"corpus_{name}": (table["corpus"] == name).to_numpy() for name in LANGUAGES}
    clips = in_memory(rows, strong_counterparts(table), SAMPLING_WEIGHTS, TEXT_DROPOUT)
    return Material(clips, table, [audio["path"] for audio in rows["audio"]], folds)


def annotated(rows: datasets.Dataset, folder: Path, output: Path) -> datasets.Dataset:
    """The rows with the texts that `msfser annotate` makes, in the same order; what is made is kept.

    Raises:
        ValueError: The output folder holds the texts of other clips.
    """
    table = output / "clips.csv"
    unfinished = output / f"clips.{os.getpid()}.part"
    root = folder.resolve()
    names = [Path(audio["path"]).resolve().relative_to(root).as_posix() for audio in rows["audio"]]
    with open(unfinished, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["audio", "language"])
        writer.writerows(zip(names, (LANGUAGES[corpus] for corpus in rows["corpus"]), strict=True))
    unfinished.rename(table)  # another process may be reading it
    annotate([str(table), "--audio_folder", str(folder), "--output", str(output / "annotated")])
    shards = sorted(map(str, (output / "annotated").glob(SHARDS)))
    made = pd.concat([pd.read_parquet(shard, columns=["audio", *TENSOR_NAMES]) for shard in shards], ignore_index=True)
    if made["audio"].tolist() != names:
        raise ValueError(f"{output / 'annotated'} holds the texts of other clips: remove it.")
    for name in TENSOR_NAMES:
        texts = [text if isinstance(text, str) else None for text in made[name]]
        rows = rows.remove_columns(name).add_column(name, texts, feature=datasets.Value("string"))
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
    texts = {tensor: _embeddings(rows[name], name, model, processor) for name, tensor in TENSOR_NAMES.items()}
    labels = np.stack([np.asarray(rows[name], np.float32) for name in LABELS], 1)
    return Clips(labels, np.asarray(rows["speaker"]), states, sampling_weights, texts, stronger, text_dropout)


@torch.inference_mode()
def _embeddings(
    column: Sequence[str | None], name: str, model: MsfSerModel, processor: MsfSerProcessor
) -> torch.Tensor:
    """The text encoder's embedding of each text, `(rows, width)`, NaN where there is none."""
    made = torch.full((len(column), model.config.text_config.hidden_size), float("nan"))
    present = [row for row, text in enumerate(column) if text]
    for start in range(0, len(present), 64):
        some = present[start : start + 64]
        tokens = processor.tokens(name, [column[row] for row in some])
        parts = (tokens[f"{TENSOR_NAMES[name]}_{part}"] for part in ("input_ids", "attention_mask"))
        made[some] = model.encode_text(*parts)
    return made.clone()


def level_rows(scores: Scores) -> list[Row]:
    """Rankings of arousal by a level meter, as recorded and with every clip at one level."""
    pairs = matched_pairs(scores.material.clips)
    levels = np.zeros(len(scores.material.clips))
    for clip in np.unique(pairs):
        levels[clip] = np.sqrt(np.mean(np.square(load_audio(scores.material.paths[clip]), dtype=np.float64)))
    meter = scores.ranking_row("level/ranking/arousal_raw", levels[None], pairs)
    return [meter, row("level/ranking/arousal_leveled", 0.5)]


def rows_of_fits(fits: Fits, systems: Sequence[str], seeds: Sequence[int]) -> list[Row]:
    """All rows of the results file, without their command."""
    folds = fits.material.folds
    within = Scores(
        fits.material, fits.gathered(systems, seeds, [name for name in folds if not name.startswith("corpus_")])
    )
    results = [row for system in systems for row in within.ccc_rows(system)]
    if {"ours_audio", "ours_full"} <= set(systems):
        results.append(within.difference_row("full_minus_audio", "ours_full", "ours_audio"))
    for peer in systems:
        if "ours_audio" in systems and not peer.startswith("ours"):
            results.append(within.difference_row(f"audio_minus_{peer}", "ours_audio", peer))
    if "corpus" not in fits.material.table:
        return results
    for system in systems:
        if system != "text":
            results += within.ranking_rows(system, f"{system}/")
    results += level_rows(within)
    for fold in (name for name in folds if name.startswith("corpus_")):
        across = Scores(fits.material, fits.gathered(systems, seeds, [fold]))
        for system in systems:
            name, mean = f"cross/{fold.removeprefix('corpus_')}/{system}", across.ccc_rows(system)[-1]
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
    systems = list(arguments.systems)
    if SVR_SYSTEM in systems and not all(map(importlib.util.find_spec, ("opensmile", "sklearn"))):
        systems.remove(SVR_SYSTEM)
        logger.warning('without eGeMAPS: pip install -e ".[peers]" installs openSMILE, whose license is for research.')
    output = arguments.output_dir / ("probe" if arguments.probe else "acted")
    output.mkdir(parents=True, exist_ok=True)
    with cli_errors("peers"):
        ensure_encoders([AUDIO_ENCODER, TEXT_ENCODER])
        fits = Fits(probe() if arguments.probe else acted(arguments.data, output), output)
    # Support-vector regression has no seed.
    wanted = dict.fromkeys(
        (system, 0 if system == SVR_SYSTEM else seed, fold)
        for seed, system, fold in product(arguments.seeds, systems, fits.material.folds)
    )
    waiting = [one for one in tqdm(wanted, desc="fits") if not fits.finish(*one)]
    if waiting:
        logger.info("other processes work on %d fits: give the command again when they are done.", len(waiting))
        return
    rows = rows_of_fits(fits, systems, arguments.seeds)
    record("peers_probe" if arguments.probe else "peers_weak", rows, "peers", argv)


if __name__ == "__main__":
    main()
