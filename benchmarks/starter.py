"""The starters: their recipe on held-out speakers, and the two that come with the package.

    pip install -e ".[peers]"
    python -m msfser.benchmarks.starter --data FOLDER

FOLDER holds RAVDESS (speech), EmoDB, nEMO, emotiontts_kr, GoEmotions and EmoBank. Rows without a prefix are those of
`starter`, rows `open/...` those of `starter-open`. All labels of voices are **weak**.

- `held_out/...`: speakers in groups, each held out once, and emotiontts_kr, on which nothing is trained. All inputs:
  the sound, the words as the default pipeline recognizes them without being told the language, and a description.
  `sound/...` is the same from sound alone, `full_minus_audio/CORPUS` the paired difference in mean CCC.
- `ranking/...` and `KIND/DIMENSION_r`: matched pairs in the expected order, and the correlation of a distorted sound's
  numbers with those of the clean one, from sound alone.
- `emobank_text/...`: the sentences of EmoBank's test part as text, on which nothing was trained; Pearson's r and CCC
  with the ratings of people. `emobank_ridge/...` is ridge regression from the same vectors to the same weak labels,
  and `emobank_ridge_published/...` from those of the text encoder before it was adapted (`starter/text_encoder.py`).
  `emobank_text_minus_ridge` and `emobank_text_minus_published` are the paired differences in mean r.
- `emobank_spoken/...`: some of these sentences, spoken without emotion by a synthesizer (SVOX Pico), by the default
  pipeline; `emobank_spoken_sound_only/...` without words and description. `emobank_spoken/word_errors` is the
  recognizer's, and `emobank_spoken_length/valence_r` the correlation of the ratings with the seconds alone.
  `emobank_spoken_espeak...` is the same of espeak-ng, whose voice is less natural. Pico's samples differ a little
  with each start of the engine, and with them a few recognized words.
- `swap/INPUT/DIMENSION`: how far the number moves, on average, when one input is exchanged for another clip's.
- `conflict/VOICE_voice_WORDS_words/INPUTS`: the mean valence of acted voices (happiness; anger and sadness) with
  sentences of GoEmotions of the same and of the opposite valence: from both, and from sound and words alone.
- `gain/...`, `silence/...`, `no_speech/...`: samples to numbers.

Fits are kept in `outputs/starter_fits`, and processes that are given the same command share them.
"""

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
from filelock import FileLock
from tqdm import tqdm

from ..annotator_msfser import MsfSerAnnotator
from ..audio_msfser import load_audio
from ..cli.errors import cli_errors
from ..cli.outputs import write_text
from ..configuration_msfser import LABELS
from ..evaluation.acted import Material, Scores, strong_counterparts
from ..evaluation.held_out import Fold, HeldOut, Split, speaker_groups
from ..evaluation.leave_out import read_corpora, read_protocol
from ..evaluation.results import Row, row, rows_of
from ..evaluation.starter_system import starter_system
from ..hub.encoders import ensure_encoders
from ..starter.assemble import AUDIO_ENCODER, STARTERS, TEXT_ENCODER
from ..starter.material import read_sentences
from ..training import augmentation
from ..training.feature_store import fingerprint
from ..training.features import FEATURES_VERSION
from ..training.fitting import Clips
from .command import parser_of, record
from .starter_checks import rows_of_starter

GROUPS = 3
RESUME = "run the same command again; finished fits are kept"
FITS = Path("outputs/starter_fits")
_BATCH = 16  # clips
TESTS: Mapping[str, augmentation.Distortion] = {
    "noise": lambda samples, draw: augmentation.noise(samples, draw, snr=10.0),
    "band": augmentation.telephone,
    "crop": augmentation.crop,
}


def recognized_words(paths: Sequence[str], output: Path) -> dict[str, list[str | None]]:
    """What the default pipeline recognizes without being told the language; each text is kept in the output folder.

    Returns:
        By `les` and `gs` the text of each recording, `None` where there is none.
    """
    kept, names = output / "words.json", [fingerprint(FEATURES_VERSION, Path(path)) for path in paths]
    with FileLock(f"{kept}.lock"):
        words = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
        new = [(path, name) for path, name in zip(paths, names, strict=True) if name not in words]
        annotator = MsfSerAnnotator(AUDIO_ENCODER)
        for start in tqdm(range(0, len(new), _BATCH), desc="recognizer", disable=not new):
            batch = new[start : start + _BATCH]
            found = annotator([load_audio(path) for path, _ in batch])
            words |= {name: (one.emphasis, one.transcript) for (_, name), one in zip(batch, found, strict=True)}
            write_text(kept, json.dumps(words))
    return {"les": [words[name][0] for name in names], "gs": [words[name][1] for name in names]}


def folds_of(clips: pd.DataFrame, trained: Sequence[str]) -> dict[str, Fold]:
    """Groups of speakers of the trained corpora, held out in turn; and the other corpora."""
    is_trained = clips["corpus"].isin(trained).to_numpy()
    groups = np.where(is_trained, speaker_groups(clips["speaker"].to_numpy(), GROUPS), -1)
    folds = {
        f"speakers_{group}": Fold(
            Split(np.flatnonzero(is_trained & (groups != group)), np.flatnonzero(groups == group)), []
        )
        for group in range(GROUPS)
    }
    others = sorted({*clips["corpus"]} - {*trained})
    return folds | {
        name: Fold(Split(np.flatnonzero(is_trained), np.flatnonzero(clips["corpus"] == name)), []) for name in others
    }


def held_out_rows(material: Material, predictions: Mapping[str, np.ndarray]) -> list[Row]:
    """Scores of held-out speakers, with all inputs, from sound alone, and of distorted sound.

    Args:
        material: The clips.
        predictions: By kind, `(seeds, clips, 3)`.
    """
    of_inputs = {"held_out": {"all": predictions["all"]}, "sound": {"sound": predictions["sound"]}}
    corpora = material.table["corpus"].to_numpy()
    rows: list[Row] = []
    for name in dict.fromkeys(corpora):
        of_corpus = {
            system: {kind: np.where((corpora == name)[:, None], values, np.nan) for kind, values in kinds.items()}
            for system, kinds in of_inputs.items()
        }
        scores = Scores(material, of_corpus)
        rows.append(scores.difference_row(f"full_minus_audio/{name}", "held_out", "sound"))
        rows += [found | {"name": f"held_out/{name}/mean"} for found in scores.ccc_rows("held_out")[-1:]]
    trained = np.isin(corpora, read_protocol().trained)[:, None]
    within = Scores(
        material,
        {
            name: {kind: np.where(trained, values, np.nan) for kind, values in of_kind.items()}
            for name, of_kind in of_inputs.items()
        },
    )
    rows += [*within.ccc_rows("held_out"), *within.ccc_rows("sound"), *within.ranking_rows("sound")]
    for kind in TESTS:
        pair = predictions[kind], predictions["sound"]

        def measure(drawn: np.ndarray, seeds: np.ndarray, pair: tuple[np.ndarray, np.ndarray] = pair) -> np.ndarray:
            of_seeds = [
                [np.corrcoef(pair[0][seed, drawn, d], pair[1][seed, drawn, d])[0, 1] for d in range(len(LABELS))]
                for seed in seeds
            ]
            return np.mean(of_seeds, axis=0)

        rows += rows_of([f"{kind}/{label}_r" for label in LABELS], within.interval(measure, correlation=True))
    neutral = np.flatnonzero((material.table["emotion"] == "neutral") & trained[:, 0])
    means = predictions["all"][:, neutral].mean((0, 1))
    return rows + [row(f"neutral/{name}", mean) for name, mean in zip(LABELS, means, strict=True)]


def parsed(module: str, doc: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of a benchmark of these fits; their folder is made."""
    parser = parser_of(module, doc)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the corpora")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the fits (0 1 2)")
    parser.add_argument("--output_dir", type=Path, default=FITS, help="where fits are kept")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    datasets.disable_progress_bars()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    return arguments


class Recipes:
    """The recipe of the starters on corpora in a folder, whose fits are kept.

    Args:
        data: The folder with the corpora and GoEmotions.
        output: Where fits and recognized words are kept.

    Raises:
        ValueError: A corpus is missing or wrong; the sentence says which.
        OSError: An encoder cannot be reached.
    """

    def __init__(self, data: Path, output: Path):
        ensure_encoders([AUDIO_ENCODER, TEXT_ENCODER])
        self.protocol = read_protocol()
        self.clips = read_corpora(data, self.protocol)
        self.words = recognized_words(self.clips["path"].tolist(), output)
        self._sentences, self._fits = read_sentences([data]), output / "fits"
        self._labels = self.clips[[*LABELS]].to_numpy(np.float32)

    def predictions(self, trained: Sequence[str], seeds: Sequence[int]) -> Mapping[str, np.ndarray]:
        """By kind what models of some corpora predict for other speakers, `(seeds, clips, 3)`; see [`folds_of`]."""
        system = starter_system(self.clips, trained, self._sentences, self.words, TESTS)
        identity = fingerprint(*map(Path, self.clips["path"]), self._labels)
        engine = HeldOut(self._labels, folds_of(self.clips, trained), identity, self._fits)
        engine.run([system], seeds)
        return engine.gathered([system], seeds)[system.name]

    def material(self) -> Material:
        """The clips without what encoders make of them."""
        speakers, stronger = self.clips["speaker"].to_numpy(), strong_counterparts(self.clips)
        bare = Clips(self._labels, speakers, {}, {}, {}, stronger)
        return Material(bare, self.clips, self.clips["path"].tolist(), {})


def main(argv: Sequence[str] | None = None) -> None:
    """Fits what is missing, prints and writes the results."""
    arguments = parsed("starter", __doc__, argv)
    with cli_errors("starter", resume=RESUME):
        recipes = Recipes(arguments.data, arguments.output_dir)
        predictions = recipes.predictions(recipes.protocol.trained, arguments.seeds)
    material, words = recipes.material(), recipes.words
    rows = held_out_rows(material, predictions)
    for starter in STARTERS.values():
        rows += rows_of_starter(starter, arguments.data, material, words)
    record("starter", rows, "starter", argv)


if __name__ == "__main__":
    main()
