"""Fine-tuning on clips with words that differ: how often texts have to be dropped in training.

    python -m msfser.benchmarks.finetune_words --data FOLDER

The acted corpora have few sentences, so they cannot show whether a model memorizes the words of its training clips.
Here each clip of a corpus gets a sentence of EmoBank as its transcript, which no other clip has, three neighboring
words of it as its emphasis, and a label that is a mixture: `SHARES` of the variance come from the ratings of the
sentence, `NOISE` is random, and the rest is the weak label of the voice. The material is artificial: it shows what a
setting does, not how good a model is. Fine-tuning is that of `configs/finetune.yaml`, from `starter-open`, to which
both corpora are new. FOLDER has the corpora of `evaluation/leave_corpora_out.yaml` and `emobank`.

    python -m msfser.benchmarks.finetune_words --data FOLDER --choose

prints the mean CCC for each `text_dropout`, on one half of the *training* speakers after training on the other half.
The setting that is the best in the mean was taken.

Writes `benchmarks/results/finetune_words.json`: `CORPUS/words_PERCENT/INPUTS/CLIPS` is the mean CCC on test speakers
with all inputs or with the sound alone, where the words have this share of the variance of valence; `.../none` is the
same without dropping texts, and `minus_none/...` the paired difference.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from ..cli.errors import cli_errors
from ..corpora.emobank import read_emobank
from ..evaluation.intervals import clusters
from ..evaluation.leave_out import read_protocol
from ..evaluation.results import Row
from ..hub.encoders import ensure_encoders
from ..hub.loading import find_named
from ..starter.assemble import AUDIO_ENCODER, TEXT_ENCODER
from ..training.features import keep_inputs
from ..training.settings import parse_settings, read_unit_rows
from .command import parser_of, record, show_errors_alone
from .finetune import (
    CORPORA,
    SETTINGS,
    Corpus,
    ccc_of_draws,
    ccc_row,
    difference_row,
    divided,
    encoded_corpus,
    labels_of,
    predictions,
    predictions_of,
    with_default_texts,
)

# The model to start from, to which both corpora are new.
START = "starter-open"
# The shares of the words in the variance of valence that are tried; arousal and dominance have these parts of it.
SHARES = (0.0, 0.25, 0.5)
OF_SHARE = {"valence": 1.0, "arousal": 0.2, "dominance": 0.4}
NOISE = 0.2
# How many clips of a corpus are used.
CLIPS = 1440
# Draws of each number of clips.
DRAWS = {50: 5, 200: 3, 800: 2}
TUNING_DRAWS = {50: 3, 200: 2, 400: 2}
DROPOUTS = (0.0, 0.3, 0.5, 0.7, 0.9)


def mixture(rows: datasets.Dataset, data: Path, share: float) -> datasets.Dataset:
    """Clips with sentences of EmoBank, and labels that depend on both.

    Args:
        rows: In the schema.
        data: The folder with `emobank`.
        share: Of the words in the variance of valence.
    """
    sentences = read_emobank(data / "emobank")["train"].to_pandas()
    counts = sentences["transcript"].str.split().str.len()
    sentences = sentences[counts.between(4, 25)].drop_duplicates("transcript").sample(len(rows), random_state=0)
    draw = np.random.default_rng(0)
    segments = []
    for words in sentences["transcript"].str.split():
        start = draw.integers(len(words) - 2)
        segments.append(" ".join(words[start : start + 3]))
    for name, of_share in OF_SHARE.items():
        of_words = share * of_share
        mixed = np.sqrt(1 - NOISE - of_words) * _standardized(rows[name])
        mixed += np.sqrt(of_words) * _standardized(sentences[name])
        mixed += np.sqrt(NOISE) * draw.standard_normal(len(rows))
        values = np.clip(0.5 + 0.15 * mixed, 0, 1).astype(np.float32)
        rows = rows.remove_columns(name).add_column(name, values.tolist(), feature=rows.features[name])
    annotation: Any = find_named(START).processor.annotation
    words = {"gs": sentences["transcript"].tolist(), "les": segments}
    return with_default_texts(rows, words, annotation["description"]["norms"])


def _standardized(values: Sequence[float]) -> np.ndarray:
    found = np.asarray(values, np.float64)
    return (found - found.mean()) / found.std()


def read_mixture(name: str, data: Path, share: float, test_speakers: int) -> Corpus:
    """Reads a corpus, gives it sentences and labels as in [`mixture`], and runs the frozen encoders over it.

    Args:
        name: Of the corpus.
        data: The folder of the corpora.
        share: Of the words in the variance of valence.
        test_speakers: How many speakers are tested on.
    """
    protocol = read_protocol()
    options = ["--data", str(data / name / protocol.table), "--label_range", *map(str, protocol.label_range)]
    options += ["--init_from", START, "--cross_validate", "speaker", "--output_dir", f"outputs/{name}"]
    settings = parse_settings([str(SETTINGS), *options])
    rows = read_unit_rows(settings.run)
    drawn = np.random.default_rng(0).permutation(len(rows))[:CLIPS]
    return encoded_corpus(settings, mixture(rows.select(sorted(drawn)), data, share), test_speakers)


def views(corpus: Corpus) -> dict[str, datasets.Dataset]:
    """The tested clips with all inputs, and with the sound alone."""
    tested = corpus.items.select(corpus.tested)
    return {"all": tested, "sound": keep_inputs(tested, ["audio"])}


def choose(name: str, corpora: Mapping[float, Corpus]) -> None:
    """Prints the mean CCC of each setting by share and number of clips, on training speakers alone."""
    for dropout in DROPOUTS:
        found = []
        for corpus in corpora.values():
            tuning = divided(corpus, np.unique(corpus.speakers[corpus.drawn_from])[::2].tolist())
            given, setting = labels_of(tuning), {"text_dropout": dropout}
            for count, draws in TUNING_DRAWS.items():
                found.append(ccc_of_draws(predictions(tuning, count, draws, setting, is_new=False), given))
        cells = " ".join(f"{value:6.3f}" for value in [*found, float(np.mean(found))])
        print(f"{name:10} {dropout:4} {cells}", flush=True)


def rows_of(name: str, share: float, corpus: Corpus) -> list[Row]:
    """The rows of a corpus and a share: the shipped setting, none dropped, and their difference."""
    given, units, rows = labels_of(corpus), clusters(corpus.speakers[corpus.tested].tolist()), []
    for count, draws in DRAWS.items():
        if count > len(corpus.drawn_from):
            continue
        shipped = predictions_of(views(corpus), corpus, count, draws, {})
        without = predictions_of(views(corpus), corpus, count, draws, {"text_dropout": 0.0})
        for inputs in shipped:
            place, pair = f"{name}/words_{round(100 * share)}/{inputs}/{count}", (shipped[inputs], without[inputs])
            rows += [
                *(ccc_row(key, of, given, units) for key, of in zip((place, f"{place}/none"), pair, strict=True)),
                difference_row(f"minus_none/{place}", *pair, given, units),
            ]
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Fine-tunes on the mixtures, and writes the results."""
    parser = parser_of("finetune_words", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the corpora")
    parser.add_argument("--choose", action="store_true", help="try each text_dropout, and write nothing")
    arguments = parser.parse_args(argv)
    show_errors_alone()
    with cli_errors("finetune_words"):
        ensure_encoders([AUDIO_ENCODER, TEXT_ENCODER])
        for name, test_speakers in CORPORA.items():
            corpora = {share: read_mixture(name, arguments.data, share, test_speakers) for share in SHARES}
            if arguments.choose:
                choose(name, corpora)
                continue
            for share, corpus in corpora.items():
                record("finetune_words", rows_of(name, share, corpus), "finetune_words", argv)


if __name__ == "__main__":
    main()
