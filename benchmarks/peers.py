"""What the project's model is worth beside what people would otherwise use, on the same clips and the same encoder.

    python -m msfser.benchmarks.peers --data FOLDER

FOLDER holds RAVDESS (speech) and EmoDB as they are distributed. Their emotions become **weak labels** by published
norms of emotion words (`corpora/weak_labels.py`), which no listener gave. So beside CCC stand checks that need no
number: the share of matched pairs that lie in the expected order.

| system | what it is |
|---|---|
| `egemaps_svr` | eGeMAPS functionals of openSMILE and support-vector regression; extra `peers`, for research only |
| `last_layer` | mean of the encoder's last layer, linear head: the usual audio-only model on the Hub |
| `asp` | attentive statistics pooling of the last layer: the baseline of the Interspeech 2025 challenge |
| `text` | recognized words and emphasized words alone |
| `ours_audio` | a learned mix of all layers, attentive statistics pooling, expert, heads |
| `ours_full` | the same with all three texts, made from sound by `annotate` |

All but the first hear the outputs of frozen Whisper tiny.en and all-MiniLM-L6-v2, and are fitted alike
(`held_out.py`). Beside the sound, training rarely shows the texts of these fixed sentences (`WITHHELD`). Each speaker
is left out once; then each corpus (`cross/`). Intervals are bootstrap intervals over speakers, paired between systems.
`--probe` does the same on the probe corpus, with its own parts and its given texts, none of which is withheld.

Fits are kept in `outputs/peers` and not repeated; several processes that are given the same command share them. Writes
`benchmarks/results/peers_weak.json`, or `peers_probe.json`.
"""

import argparse
import csv
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from ..annotation.annotate import main as annotate
from ..audio_msfser import SAMPLING_RATE, load_audio
from ..configuration_msfser import LABELS, TENSOR_NAMES
from ..corpora.acted import COLUMNS, read_acted
from ..corpora.probe.corpus import make_probe
from ..corpora.schema import SPLITS
from ..corpora.table import SHARDS, read_table
from ..evaluation.command import shown_command
from ..evaluation.results import RESULTS, bootstrap, merge
from ..loss_msfser import concordance
from ..modeling_msfser import MsfSerModel
from ..processing_msfser import MsfSerProcessor
from ..starter.assemble import AUDIO_ENCODER, TEXT_ENCODER
from ..starter.assemble import SWITCHES as STARTER
from ..training.fitting import Clips, MeanHead, Recipe, encoded, fingerprint, fit, predict

logger = logging.getLogger(__name__)

# What the neural systems are, as switches of the model; the sound alone is the starter.
SWITCHES: dict[str, dict] = {
    "asp": STARTER | {"audio_states": "last"},
    "text": STARTER | {"audio": False, "semantics": ["les", "gs"]},
    "ours_audio": STARTER,
    "ours_full": STARTER | {"semantics": ["les", "gs", "es"]},
}
SYSTEMS = ("egemaps_svr", "last_layer", *SWITCHES)
# Of EmoDB only these are common to all copies: in some, the clips of the others are cut and from another source.
EMODB_EMOTIONS = ("anger", "happiness", "neutral", "sadness")
LANGUAGES = {"ravdess": "en", "emodb": "de"}
# How often training hears each kind. The copies at one level only ask how much an answer leans on level.
HEARD = {"as_recorded": 1.0, "one_level": 0.0}
# A greater weight of the order puts more takes in order and misses more labels.
RECIPE = Recipe(ranking_loss_weight=2.5, mixing_lr_scale=20.0)
# Of a dozen sentences that everybody says in every mood there is nothing to learn about words, and what is learned by
# heart is wrong for the next speaker; so beside the sound training rarely shows these texts.
WITHHELD = {"les": 0.98, "gs": 0.98, "es": 0.9}


@dataclass
class Material:
    """A corpus for all systems.

    Args:
        clips: For the neural ones.
        table: A row for each clip: `speaker`, and of acted corpora `corpus`, `emotion`, `intensity`, `sentence`.
        paths: The recordings.
        folds: By name, which clips are held out, `(clips,)` bool.
        folder: Where fits are kept.
    """

    clips: Clips
    table: pd.DataFrame
    paths: Sequence[str]
    folds: Mapping[str, np.ndarray]
    folder: Path

    @cached_property
    def key(self) -> str:
        """The fingerprint of the clips and of what training is told about them."""
        clips = self.clips
        shares = sorted(clips.heard.items()), sorted(clips.withheld.items())
        told = (clips.labels, clips.stronger, *shares, clips.speakers.tolist(), *clips.texts.values())
        return fingerprint(*map(Path, self.paths), *told)


@dataclass(frozen=True)
class Fit:
    """One system fitted to all clips but those of a fold, which it then predicts."""

    system: str
    seed: int
    fold: str

    def finish(self, material: Material) -> None:
        """Fits and predicts, unless that is done or another process is at it."""
        path = self.path(material)
        if path.is_file():
            return
        with suppress(Timeout), FileLock(f"{path}.lock", timeout=0):
            if path.is_file():
                return
            held = np.flatnonzero(material.folds[self.fold])
            rest = np.flatnonzero(~material.folds[self.fold])
            answers = (
                self._svr(material, rest, held)
                if self.system == "egemaps_svr"
                else self._neural(material.clips, rest, held)
            )
            unfinished = path.with_suffix(".part.npz")
            np.savez(unfinished, **answers)
            unfinished.rename(path)

    def path(self, material: Material) -> Path:
        """The file with its predictions, `(held-out clips, 3)` by kind of sound; its name says what they depend on."""
        fitted_by = () if self.system == "egemaps_svr" else (SWITCHES.get(self.system), RECIPE)
        depends = fingerprint(material.key, *fitted_by)
        return material.folder / f"{self.system}_{self.seed}_{self.fold}_{depends[:12]}.npz"

    def _neural(self, clips: Clips, rest: np.ndarray, held: np.ndarray) -> dict[str, np.ndarray]:
        switches = SWITCHES.get(self.system)
        # What the system does not read is not prepared.
        reads = switches["semantics"] if switches else []
        states = {} if self.system == "text" else clips.states
        if self.system in ("last_layer", "asp"):
            states = {kind: [of_clip[-1:] for of_clip in of_kind] for kind, of_kind in states.items()}
        own = Clips(
            clips.labels,
            clips.speakers,
            states,
            clips.heard,
            {name: vectors for name, vectors in clips.texts.items() if name in reads},
            clips.stronger,
            clips.withheld if states else {},
        )
        readable = np.ones(len(clips), bool)
        if not states:
            readable = ~np.all([vectors[:, 0].isnan().numpy() for vectors in own.texts.values()], axis=0)
        learned = rest[readable[rest]]
        # Where there is nothing to read, the mean of the training clips is the best guess.
        kinds = states or ("as_recorded",)
        answers = {kind: np.tile(clips.labels[rest].mean(0), (len(held), 1)) for kind in kinds}
        if len(learned) >= RECIPE.batch:
            size = next(iter(clips.states.values()))[0].shape[-1]
            model = fit(lambda: build(switches) if switches else MeanHead(size), own, learned, self.seed, RECIPE)
            for kind, values in answers.items():
                values[readable[held]] = predict(model, own, held[readable[held]], kind)
        return answers

    def _svr(self, material: Material, rest: np.ndarray, held: np.ndarray) -> dict[str, np.ndarray]:
        from sklearn.model_selection import GridSearchCV, GroupKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVR

        features = egemaps(material)
        answers = np.empty((len(held), len(LABELS)), np.float32)
        for dimension in range(len(LABELS)):
            search = GridSearchCV(
                make_pipeline(StandardScaler(), SVR(epsilon=0.05)), {"svr__C": [0.3, 1.0, 3.0]}, cv=GroupKFold(3)
            )
            search.fit(features[rest], material.clips.labels[rest, dimension], groups=material.clips.speakers[rest])
            answers[:, dimension] = search.predict(features[held])
        return {"as_recorded": answers}


def build(switches: Mapping[str, object]) -> MsfSerModel:
    """The project's model on the frozen encoders, with some switches."""
    audio = AUDIO_ENCODER if switches.get("audio", True) else None
    text = TEXT_ENCODER if switches["semantics"] else None
    return MsfSerModel.from_encoders(audio, text, freeze_text=True, **switches)


def egemaps(material: Material) -> np.ndarray:
    """EGeMAPSv02 functionals by openSMILE of each recording, `(clips, 88)`; kept in the folder."""
    path = material.folder / f"egemaps_{material.key[:12]}.npy"
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            import opensmile

            smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
            rows = []
            for recording in tqdm(material.paths, desc="eGeMAPS"):
                rows.append(smile.process_signal(load_audio(recording), SAMPLING_RATE).to_numpy()[0])
            np.save(path, np.array(rows, np.float32))
    return np.load(path)


# Corpora


def acted(folder: Path, own: Path) -> Material:
    """RAVDESS and EmoDB under a folder, with texts made from sound, each speaker and each corpus held out."""
    rows = annotated(acted_clips(folder), folder, own)
    table = rows.select_columns([*COLUMNS, "speaker"]).to_pandas()
    folds = {f"speaker_{name}": (table["speaker"] == name).to_numpy() for name in sorted(set(table["speaker"]))}
    if table["corpus"].nunique() > 1:
        folds |= {f"corpus_{name}": (table["corpus"] == name).to_numpy() for name in LANGUAGES}
    clips = in_memory(rows, stronger_takes(table), HEARD, WITHHELD, own)
    return Material(clips, table, [audio["path"] for audio in rows["audio"]], folds, own)


def acted_clips(folder: Path) -> datasets.Dataset:
    """RAVDESS and the usual emotions of EmoDB under a folder, as `read_acted` gives them."""
    rows = read_acted(folder)
    kept = [c == "ravdess" or e in EMODB_EMOTIONS for c, e in zip(rows["corpus"], rows["emotion"], strict=True)]
    return rows.select(np.flatnonzero(kept))


def annotated(rows: datasets.Dataset, folder: Path, own: Path) -> datasets.Dataset:
    """The rows with the texts that `annotate` makes, in the same order; what is made is kept."""
    table = own / "clips.csv"
    unfinished = own / f"clips.{os.getpid()}.part"
    with open(unfinished, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["audio", "language"])
        root = folder.resolve()
        names = [Path(audio["path"]).resolve().relative_to(root).as_posix() for audio in rows["audio"]]
        writer.writerows(zip(names, (LANGUAGES[corpus] for corpus in rows["corpus"]), strict=True))
    unfinished.rename(table)  # another process may be reading it
    annotate([str(table), "--audio_folder", str(folder), "--output", str(own / "annotated")])
    shards = sorted(map(str, (own / "annotated").glob(SHARDS)))
    made = pd.concat([pd.read_parquet(shard, columns=["audio", *TENSOR_NAMES]) for shard in shards], ignore_index=True)
    if made["audio"].tolist() != names:
        raise ValueError(f"{own / 'annotated'} holds the texts of other clips: remove it.")
    for name in TENSOR_NAMES:
        texts = [text if isinstance(text, str) else None for text in made[name]]
        rows = rows.remove_columns(name).add_column(name, texts, feature=datasets.Value("string"))
    return rows


def stronger_takes(table: pd.DataFrame) -> np.ndarray:
    """For each clip at normal intensity the index of its strong counterpart, else -1.

    Calm is left out: its strong takes are no louder, and calmer if anything.
    """
    key = ["corpus", "speaker", "emotion", "sentence"]
    strong = {tuple(row[key]): index for index, row in table.iterrows() if row["intensity"] == "strong"}
    return np.array(
        [
            strong.get(tuple(row[key]), -1) if row["intensity"] == "normal" and row["emotion"] != "calm" else -1
            for _, row in table.iterrows()
        ]
    )


def probe(own: Path) -> Material:
    """The probe corpus with its given texts; its test part is held out."""
    parts = read_table(make_probe("data/probe"))
    rows = datasets.concatenate_datasets([parts[name] for name in SPLITS])
    split = np.repeat(SPLITS, [len(parts[name]) for name in SPLITS])
    table = pd.DataFrame({"speaker": rows["speaker"]})
    clips = in_memory(rows, np.full(len(rows), -1), {"as_recorded": 1.0}, {}, own)
    return Material(clips, table, [audio["path"] for audio in rows["audio"]], {"test": split == "test"}, own)


def in_memory(
    rows: datasets.Dataset, stronger: np.ndarray, heard: Mapping[str, float], withheld: Mapping[str, float], own: Path
) -> Clips:
    """What the frozen encoders make of a corpus; what the speech encoder makes is kept in the folder."""
    model = build(SWITCHES["ours_full"])
    paths = [audio["path"] for audio in rows["audio"]]
    states = {}
    for kind in heard:
        options = {"normalize_level": kind == "one_level"}
        processor = MsfSerProcessor.from_encoders(AUDIO_ENCODER, TEXT_ENCODER, **options)
        states[kind] = encoded(own / f"{kind}.safetensors", paths, model, processor)
    texts = {prefix: _embeddings(rows[name], name, model, processor) for name, prefix in TENSOR_NAMES.items()}
    labels = np.stack([np.asarray(rows[name], np.float32) for name in LABELS], 1)
    return Clips(labels, np.asarray(rows["speaker"]), states, heard, texts, stronger, withheld)


@torch.inference_mode()
def _embeddings(
    column: Sequence[str | None], name: str, model: MsfSerModel, processor: MsfSerProcessor
) -> torch.Tensor:
    """What the text encoder makes of each text, `(rows, width)`, NaN where there is none."""
    made = torch.full((len(column), model.config.text_config.hidden_size), float("nan"))
    there = [row for row, text in enumerate(column) if text]
    for start in range(0, len(there), 64):
        some = there[start : start + 64]
        tokens = processor.tokens(name, [column[row] for row in some])
        made[some] = model.encode_text(
            *(tokens[f"{TENSOR_NAMES[name]}_{part}"] for part in ("input_ids", "attention_mask"))
        )
    return made.clone()


# Scores


class Scores:
    """What predictions for clips that were held out are worth.

    Args:
        material: The corpus.
        answers: By system and kind of sound, `(seeds, clips, 3)`; NaN where a clip was not held out.
    """

    def __init__(self, material: Material, answers: Mapping[str, Mapping[str, np.ndarray]]):
        self.material, self.answers = material, answers
        some = next(iter(next(iter(answers.values())).values()))
        self.held = np.flatnonzero(~np.isnan(some[0, :, 0]))
        speakers = material.clips.speakers[self.held]
        self._clips_of = [self.held[speakers == name] for name in sorted(set(speakers))]

    def ccc(self, system: str, clips: np.ndarray) -> np.ndarray:
        """CCC per dimension over some clips of the first kind, `(3,)`, the mean over the seeds."""
        labels = torch.as_tensor(self.material.clips.labels[clips], dtype=torch.float64)
        of_seeds = next(iter(self.answers[system].values()))[:, clips].astype(np.float64)
        return np.mean([concordance(torch.as_tensor(answers), labels).numpy() for answers in of_seeds], axis=0)

    def interval(self, measure: Callable[[np.ndarray], float]) -> dict[str, float]:
        """A measure of clips with its bootstrap interval over speakers; the same draws for every measure."""
        return bootstrap(
            lambda drawn: measure(np.concatenate([self._clips_of[i] for i in drawn])), len(self._clips_of)
        )

    def rows_of_ccc(self, system: str) -> Iterator[dict[str, object]]:
        """`SYSTEM/DIMENSION` and `SYSTEM/mean`."""
        for index, name in enumerate(LABELS):
            yield {"name": f"{system}/{name}", **self.interval(lambda c, i=index: float(self.ccc(system, c)[i]))}
        yield {"name": f"{system}/mean", **self.interval(lambda c: float(self.ccc(system, c).mean()))}

    def row_of_difference(self, name: str, system: str, other: str) -> dict[str, object]:
        """How far one system lies above another, paired."""
        return {
            "name": name,
            **self.interval(lambda c: float(self.ccc(system, c).mean() - self.ccc(other, c).mean())),
        }

    def row_of_order(self, name: str, values: np.ndarray, pairs: np.ndarray) -> dict[str, object]:
        """The share of pairs in which the second has the higher value, over speakers.

        Args:
            name: Of the row.
            values: `(seeds, clips)`.
            pairs: `(pairs, 2)`, indices of clips of one speaker.
        """
        right = (values[:, pairs[:, 1]] > values[:, pairs[:, 0]]).mean(0)
        speakers = self.material.clips.speakers[pairs[:, 0]]
        of_speaker = [right[speakers == speaker] for speaker in sorted(set(speakers))]
        return {
            "name": name,
            **bootstrap(lambda drawn: float(np.concatenate([of_speaker[i] for i in drawn]).mean()), len(of_speaker)),
        }


def gathered(
    material: Material, systems: Sequence[str], seeds: Sequence[int], folds: Sequence[str]
) -> dict[str, dict[str, np.ndarray]]:
    """The predictions of finished fits, for [`Scores`]."""
    answers = {}
    for system in systems:
        kinds: dict[str, np.ndarray] = {}
        for place, seed in enumerate(seeds):
            for fold in folds:
                with np.load(Fit(system, 0 if system == "egemaps_svr" else seed, fold).path(material)) as found:
                    for kind, values in found.items():
                        empty = np.full((len(seeds), len(material.clips), len(LABELS)), np.nan, np.float32)
                        kinds.setdefault(kind, empty)[place, material.folds[fold]] = values
        answers[system] = kinds
    return answers


def pairs_of_emotions(table: pd.DataFrame, low: Sequence[str], high: Sequence[str]) -> np.ndarray:
    """All pairs of clips of one speaker, sentence and intensity with an emotion of `low` and one of `high`."""
    table = table.assign(clip=np.arange(len(table)), intensity=table["intensity"].fillna(""))
    key = ["corpus", "speaker", "sentence", "intensity"]
    # EmoDB has several takes of some; all of them are paired.
    both = table[table["emotion"].isin(low)].merge(table[table["emotion"].isin(high)], on=key)
    return both[["clip_x", "clip_y"]].to_numpy()


def order_rows(scores: Scores, system: str, prefix: str = "") -> list[dict[str, object]]:
    """The checks that need no number, for one system."""
    table, stronger = scores.material.table, scores.material.clips.stronger
    takes = np.stack([np.flatnonzero(stronger >= 0), stronger[stronger >= 0]], 1)
    answers = scores.answers[system]
    sound = next(iter(answers.values()))
    rows = [scores.row_of_order(f"{prefix}order/arousal_raw", sound[..., 1], takes)]
    if "one_level" in answers:
        rows.append(scores.row_of_order(f"{prefix}order/arousal_leveled", answers["one_level"][..., 1], takes))
    ravdess = (table["corpus"] == "ravdess").to_numpy()
    for name, dimension, low, high in (
        ("arousal_emotions", 1, ("sadness", "calm"), ("anger", "happiness")),
        ("valence", 0, ("anger", "sadness"), ("happiness",)),
    ):
        pairs = pairs_of_emotions(table, low, high)
        rows.append(scores.row_of_order(f"{prefix}order/{name}", sound[..., dimension], pairs))
        if name == "valence":
            pairs = pairs[ravdess[pairs[:, 0]]]
            rows.append(scores.row_of_order(f"{prefix}order/{name}_ravdess", sound[..., dimension], pairs))
    return rows


def level_rows(scores: Scores) -> list[dict[str, object]]:
    """What a level meter would say of arousal, as recorded and with every clip at one level."""
    stronger = scores.material.clips.stronger
    takes = np.stack([np.flatnonzero(stronger >= 0), stronger[stronger >= 0]], 1)
    levels = np.zeros(len(scores.material.clips))
    for clip in np.unique(takes):
        levels[clip] = np.sqrt(np.mean(np.square(load_audio(scores.material.paths[clip]), dtype=np.float64)))
    meter = scores.row_of_order("level/order/arousal_raw", levels[None], takes)
    return [meter, {"name": "level/order/arousal_leveled", "value": 0.5, "low": None, "high": None}]


def main() -> None:
    """Fits what is missing, prints and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    corpus = parser.add_mutually_exclusive_group(required=True)
    corpus.add_argument("--data", type=Path, help="the folder with RAVDESS and EmoDB")
    corpus.add_argument("--probe", action="store_true", help="the probe corpus instead")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the fits (0 1 2)")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS, help="all by default")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/peers"), help="where fits are kept")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    datasets.disable_progress_bars()
    systems = list(arguments.systems)
    missing = [name for name in ("opensmile", "sklearn") if importlib.util.find_spec(name) is None]
    if "egemaps_svr" in systems and missing:
        systems.remove("egemaps_svr")
        logger.warning('without eGeMAPS: pip install -e ".[peers]" brings openSMILE, whose license is for research.')
    own = arguments.output_dir / ("probe" if arguments.probe else "acted")
    own.mkdir(parents=True, exist_ok=True)
    try:
        material = probe(own) if arguments.probe else acted(arguments.data, own)
    except (ValueError, OSError) as error:
        raise SystemExit(f"peers: {error}") from error
    fits = [
        Fit(system, seed, fold)
        for seed in arguments.seeds
        for system in systems
        if system != "egemaps_svr" or seed == arguments.seeds[0]
        for fold in material.folds
    ]
    fits = [one if one.system != "egemaps_svr" else Fit(one.system, 0, one.fold) for one in fits]
    for one in tqdm(fits, desc="fits"):
        one.finish(material)
    if waiting := [one for one in fits if not one.path(material).is_file()]:
        logger.info("%d fits are with other processes: give the command again when they are done.", len(waiting))
        return
    command = shown_command("peers", sys.argv[1:])
    results = rows(material, systems, arguments.seeds, arguments.probe)
    merge(
        RESULTS / f"peers_{'probe' if arguments.probe else 'weak'}.json", [r | {"command": command} for r in results]
    )
    for row in results:
        interval = "" if row["low"] is None else f" ({row['low']:.3f}..{row['high']:.3f})"
        print(f"{row['name']:48s} {row['value']:.3f}{interval}")


def rows(material: Material, systems: Sequence[str], seeds: Sequence[int], is_probe: bool) -> list[dict[str, object]]:
    """All rows of the results file, without their command."""
    speakers = [name for name in material.folds if not name.startswith("corpus_")]
    within = Scores(material, gathered(material, systems, seeds, speakers))
    results = [row for system in systems for row in within.rows_of_ccc(system)]
    if {"ours_audio", "ours_full"} <= set(systems):
        results.append(within.row_of_difference("full_minus_audio", "ours_full", "ours_audio"))
    for peer in systems:
        if "ours_audio" in systems and not peer.startswith("ours"):
            results.append(within.row_of_difference(f"audio_minus_{peer}", "ours_audio", peer))
    if is_probe:
        return results
    for system in systems:
        if system != "text":
            results += order_rows(within, system, "" if system == "ours_audio" else f"{system}/")
    results += level_rows(within)
    for name in material.folds:
        if name.startswith("corpus_"):
            across = Scores(material, gathered(material, systems, seeds, [name]))
            for system in systems:
                place = f"cross/{name.removeprefix('corpus_')}/{system}"
                row = list(across.rows_of_ccc(system))[-1]
                lost = within.ccc(system, across.held).mean() - row["value"]
                results.append(row | {"name": f"{place}/mean"})
                results.append({"name": f"{place}/lost", "value": float(lost), "low": None, "high": None})
    return results


if __name__ == "__main__":
    main()
