"""Whether a text that nobody asked to be English is left out unless the speech is.

    python -m msfser.benchmarks.english --data FOLDER --english FOLDER ...

fits the decision of `languages_msfser.py`, and prints and writes `benchmarks/results/english.json`: each
share with its exact 95 % interval over speakers. `--data` holds RAVDESS, EmoDB, nEMO and emotiontts_kr, at any depth;
`--english` names folders with `metadata.csv` (`file_name`, and `speaker_id` if known). The probe corpus is generated.

The recognizer's certainty about a few hundred clips of each corpus, speakers balanced, goes through a logistic
regression. It is fitted to RAVDESS and the probe corpus (English), EmoDB (German) and nEMO (Polish), clean and
distorted at random, each corpus with the same weight. Speakers are in five folds. A fold is judged by a fit to the
others, whose own folds in turn give the least strict bias at which no foreign corpus, distorted clips included, has
more than `MOST_FOREIGN` of its clips taken for English. Everything else is judged by the fit to all five folds, which
is the shipped one: no clip of emotiontts_kr (Korean) or of `--english` has a part in it.

| row | meaning |
|---|---|
| `english_for/LANGUAGE` | share of the clips that got an English text |
| `english_left_out/CORPUS` | share of English clips without a text |
| `.../DISTORTION` | the same of distorted clips: all distortions of training at random, telephone, or noise at 10 dB |
| `corpus_left_out/...` | the corpus had no part in the fit, and its speakers none in the bias |
| `log_probability/...` | by the mean log probability alone, over -0.8, as before |
| `entropy_weight`, `least_certainty` | the constants of the shipped decision |

What the recognizer says is kept in `--output_dir`, and a killed run continues.
"""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import optimize, special
from tqdm import tqdm

from ..audio_msfser import load_audio
from ..cli.errors import cli_errors
from ..corpora.acted import read_acted, require_corpora
from ..corpora.probe.corpus import make_probe
from ..evaluation.intervals import resampled_units, share_interval
from ..evaluation.results import Row, row
from ..training.augmentation import Distortion, augment, noise, nothing, telephone
from ..training.features import FEATURES_VERSION
from ..transcription_msfser import MsfSerRecognizer
from .command import load_recognizer, parser_of, record

# The corpora that are fitted to, and the language of those that are not English.
FITTED = ("ravdess", "probe", "emodb", "nemo")
FOREIGN = {"emodb": "german", "nemo": "polish", "emotiontts_kr": "korean"}
SIGNALS = ("log_probability", "entropy")
MOST_FOREIGN = 0.02
FOLDS = 5
_PENALTY = 1e-3
_BEFORE = -0.8
_BATCH_SIZE = 64
# Clips of each speaker, clean and distorted.
_CLIPS = {"ravdess": 12, "probe": 12, "emodb": 30, "nemo": 33, "emotiontts_kr": 40}
_DISTORTED = {
    "augment": {"ravdess": 3, "probe": 2, "emodb": 6, "nemo": 7, "emotiontts_kr": 5},
    "telephone": {"ravdess": 1, "probe": 1, "emodb": 3, "nemo": 3, "emotiontts_kr": 3},
    "noise": {"ravdess": 1, "probe": 1, "emodb": 3, "nemo": 3, "emotiontts_kr": 3},
}


def _noise(samples: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    return noise(samples, draw, snr=10.0)


DISTORTIONS: dict[str, Distortion] = {
    "": nothing,
    "augment": augment,
    "telephone": telephone,
    "noise": _noise,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, fits, prints and writes."""
    parser = parser_of("english", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the four corpora of acted speech")
    parser.add_argument("--english", type=Path, nargs="*", default=[], help="folders with metadata.csv, English")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/english"), help="where certainties are kept")
    options = parser.parse_args(argv)
    with cli_errors("english", resume="run the same command again; what the recognizer was sure of is kept"):
        read = [english_clips(folder) for folder in options.english]
        clips = pd.concat([acted_clips(options.data), probe_clips(), *read], ignore_index=True)
        pieces = certainties(with_distortions(clips), options.output_dir / f"certainties_{FEATURES_VERSION}.jsonl")
    rows = rows_of(pieces)
    record("english", rows, "english", argv)
    # What the recipe of the starter decides, beside its other figures.
    record("starter", [found for found in rows if found["name"].startswith("english_for/")], "english", argv)


def acted_clips(folder: Path) -> pd.DataFrame:
    """`corpus`, `speaker` and `path` of every clip of the acted corpora.

    Raises:
        ValueError: There is no such folder, or no clip of one of the corpora in it.
    """
    names = ("ravdess", *FOREIGN)
    columns = read_acted(folder, names).select_columns(["corpus", "speaker", "audio"]).to_pandas()
    require_corpora(folder, names, columns["corpus"])
    return columns.assign(path=[audio["path"] for audio in columns.pop("audio")])


def probe_clips() -> pd.DataFrame:
    """The same of the probe corpus."""
    folder = make_probe("data/probe")
    table = pd.read_parquet(folder / "metadata.parquet").sort_values("audio")
    paths = [str(folder / name) for name in table["audio"]]
    return pd.DataFrame({"corpus": "probe", "speaker": "probe-" + table["speaker"], "path": paths})


def english_clips(folder: Path) -> pd.DataFrame:
    """The same of a folder of English speech; an unknown speaker counts as another one each time.

    Raises:
        ValueError: There is no `metadata.csv` in the folder.
    """
    if not (folder / "metadata.csv").is_file():
        raise ValueError(f"{folder}: there is no metadata.csv in it; name a folder that has one.")
    table = pd.read_csv(folder / "metadata.csv", dtype=str)
    speakers = table["speaker_id"] if "speaker_id" in table else pd.Series(None, table.index, dtype=object)
    speakers = speakers.fillna(table["file_name"])
    paths = [str(folder / name) for name in table["file_name"]]
    return pd.DataFrame({"corpus": folder.name, "speaker": f"{folder.name}-" + speakers, "path": paths})


def with_distortions(clips: pd.DataFrame) -> pd.DataFrame:
    """As many clips of each speaker as are wanted clean and with each distortion, named in `distortion`."""
    drawn = []
    for distortion in DISTORTIONS:
        wanted = _DISTORTED.get(distortion, _CLIPS)
        for (corpus, _), of_speaker in clips.groupby(["corpus", "speaker"], sort=False):
            count = min(wanted.get(corpus, len(of_speaker)), len(of_speaker))
            drawn.append(of_speaker.sample(count, random_state=0).assign(distortion=distortion))
    return pd.concat(drawn, ignore_index=True)


def certainties(clips: pd.DataFrame, kept: Path) -> pd.DataFrame:
    """The clips with `signals`: of each piece with a text in which the recognizer trusts, `SIGNALS`.

    Args:
        clips: `corpus`, `path` and `distortion`.
        kept: A JSON line for each clip that was recognized; new ones are added.
    """
    keys = [f"{clip.corpus} {Path(clip.path).stem} {clip.distortion}".strip() for clip in clips.itertuples()]
    found = {}
    if kept.is_file():
        found = {line["clip"]: line["signals"] for line in map(json.loads, kept.read_text().splitlines())}
    todo = [i for i, key in enumerate(keys) if key not in found]
    recognizer = load_recognizer()
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.open("a") as file:
        for start in tqdm(range(0, len(todo), _BATCH_SIZE), desc="recognition", unit=f"{_BATCH_SIZE} clips"):
            batch = todo[start : start + _BATCH_SIZE]
            sounds = [_sound(clips["path"][i], clips["distortion"][i]) for i in batch]
            for i, signals in zip(batch, signals_of(recognizer, sounds), strict=True):
                found[keys[i]] = signals
                file.write(json.dumps({"clip": keys[i], "signals": signals}) + "\n")
            file.flush()
    return clips.assign(signals=[found[key] for key in keys])


def signals_of(recognizer: MsfSerRecognizer, sounds: Sequence[np.ndarray]) -> list[list[list[float]]]:
    """`SIGNALS` of each piece of each clip that would have a text if English were stated."""
    return [
        [
            [getattr(decoded, name) for name in SIGNALS]
            for _, _, decoded in pieces
            if recognizer.why_rejected(decoded, stated=True) is None
        ]
        for pieces in recognizer.decode(sounds)
    ]


def _sound(path: str, distortion: str) -> np.ndarray:
    draw = np.random.default_rng(zlib.crc32(f"{distortion} {Path(path).stem}".encode()))
    return DISTORTIONS[distortion](load_audio(path), draw)


class Decision(NamedTuple):
    """A text is taken for English above 0 of the weighted sum of `SIGNALS`, `(2,)`, and the bias."""

    weights: np.ndarray
    bias: float

    def scores(self, clips: pd.DataFrame) -> np.ndarray:
        """The highest score of the pieces of each clip, `(clips,)`; minus infinity without a text."""
        return np.array([np.max(np.array(s) @ self.weights + self.bias) if s else -np.inf for s in clips["signals"]])


def fitted(clips: pd.DataFrame) -> Decision:
    """The logistic regression of English against foreign texts; each corpus of a class has the same weight."""
    clips = clips[clips["signals"].astype(bool)]
    x = np.concatenate([np.array(signals) for signals in clips["signals"]])
    pieces = clips.loc[clips.index.repeat(clips["signals"].map(len))]
    y = np.where(pieces["corpus"].isin(FOREIGN), -1.0, 1.0)
    weight = 1 / pieces.groupby("corpus")["corpus"].transform("size").to_numpy()
    for side in (-1, 1):
        weight[y == side] /= weight[y == side].sum()
    mean = np.average(x, axis=0, weights=weight)
    deviation = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight))

    z = np.column_stack([(x - mean) / deviation, np.ones(len(x))])
    penalty = np.append(np.full(x.shape[1], _PENALTY), 0)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """The penalized loss and its gradient."""
        margin = y * (z @ parameters)
        value = weight @ np.logaddexp(0, -margin) + penalty @ parameters**2
        return value, 2 * penalty * parameters - (weight * y * special.expit(-margin)) @ z

    *found, bias = optimize.minimize(loss, np.zeros(z.shape[1]), jac=True).x
    weights = np.array(found) / deviation
    return Decision(weights, float(bias - weights @ mean))


def decided(clips: pd.DataFrame) -> Decision:
    """A fit with the least strict bias that holds `MOST_FOREIGN` on speakers that its folds were not fitted to.

    Args:
        clips: Those that are fitted to, with `fold`.
    """
    scores = np.empty(len(clips))
    for fold in clips["fold"].unique():
        inside = (clips["fold"] == fold).to_numpy()
        scores[inside] = fitted(clips[~inside]).scores(clips[inside])
    bounds = []
    for corpus in FOREIGN:
        of_corpus = np.sort(scores[(clips["corpus"] == corpus).to_numpy()])[::-1]
        bounds += of_corpus[int(MOST_FOREIGN * len(of_corpus)) :][:1].tolist()
    decision = fitted(clips)
    return decision._replace(bias=decision.bias - max(bounds))


def rows_of(clips: pd.DataFrame) -> list[Row]:
    """The rows of the docstring."""
    clips = clips.assign(fold=_folds(clips))
    is_fitted = clips["corpus"].isin(FITTED).to_numpy()
    to_fit = is_fitted & clips["distortion"].isin(("", "augment")).to_numpy()
    final = decided(clips[to_fit])
    scores = final.scores(clips)
    for fold in range(FOLDS):
        inside = is_fitted & (clips["fold"] == fold).to_numpy()
        scores[inside] = decided(clips[to_fit & ~inside]).scores(clips[inside])
    rows = _shares("", clips, scores > 0)
    for corpus in FITTED:
        left_out = clips[clips["corpus"] == corpus]
        scores = decided(clips[to_fit & (clips["corpus"] != corpus)]).scores(left_out)
        rows += _shares("corpus_left_out/", left_out, scores > 0)
    before = Decision(np.array([1.0, 0.0]), -_BEFORE).scores(clips)
    rows += _shares("log_probability/", clips, before > 0)
    of_log_probability, of_entropy = final.weights
    constants = {
        "entropy_weight": -of_entropy / of_log_probability,
        "least_certainty": -final.bias / of_log_probability,
    }
    return rows + [row(name, value) for name, value in constants.items()]


def _folds(clips: pd.DataFrame) -> np.ndarray:
    """The fold of each clip: the speakers of each corpus in turn."""
    of_speaker: dict[str, int] = {}
    for _, speakers in clips.groupby("corpus")["speaker"]:
        of_speaker |= {speaker: k % FOLDS for k, speaker in enumerate(sorted(speakers.unique()))}
    return clips["speaker"].map(of_speaker).to_numpy()


def _shares(start: str, clips: pd.DataFrame, has_text: np.ndarray) -> list[Row]:
    """The share of each corpus and distortion that is decided wrongly."""
    rows = []
    for (distortion, corpus), of_corpus in clips.reset_index(drop=True).groupby(["distortion", "corpus"], sort=False):
        hits = has_text[of_corpus.index]
        kind = f"english_for/{FOREIGN[corpus]}" if corpus in FOREIGN else f"english_left_out/{corpus}"
        units, resampled = resampled_units(of_corpus["speaker"].tolist())
        found = share_interval(hits if corpus in FOREIGN else ~hits, None if isinstance(units, int) else units)
        name = f"{start}{kind}/{distortion}".rstrip("/")
        rows.append(row(name, *found) | {"clips": len(hits), "resampled": resampled})
    return rows


if __name__ == "__main__":
    main()
