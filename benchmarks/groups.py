"""How the recipes of the starters treat groups of speakers that they were not fitted to, and whether they go by words.

    python -m msfser.benchmarks.groups --data FOLDER

FOLDER is that of `benchmarks/starter.py`, whose fits are used where they are kept. The groups are the corpora, which
are also the languages, and in each corpus the women and the men, as its publishers state them; the model does not
guess them. All inputs are read, texts as the default pipeline makes them. All labels are **weak**.

- `STARTER/CORPUS/...`: of all speakers of a corpus; `STARTER/CORPUS/GENDER/...` of its women (`F`) or men (`M`).
- `.../DIMENSION_bias`: mean prediction minus mean label; `.../mean`: CCC, mean over the dimensions; `.../speakers`.
- `STARTER/CORPUS/women_minus_men/DIMENSION_bias`, `.../mean`: the difference between the two.
- `STARTER/CORPUS/words/WHAT/DIMENSION_r`: Pearson's r of the valence of the words alone with WHAT: the number from
  all inputs (`all`), that from sound alone (`sound`), or the label (`labels`); `.../all_minus_labels/...` and
  `.../sound_minus_labels/...` are the differences. A number that goes with the words more than its label does is the
  shortcut of which arXiv 2312.06270 warns. The words are those that the default pipeline recognizes, and their valence
  is what the fitted `starter` says of them without sound; `.../words/clips` counts the clips that have words. A corpus
  with fewer than 20 of them, or whose words all have one valence, has only this row.

- `STARTER/PART/DIMENSION`, `.../mean`: CCC in a part of a corpus: `emotiontts_kr/emotional` and `emotiontts_kr/plain`
  by the kind of the sentences, `ravdess/all`, and `ravdess/sure` without calm and surprise, whose norms of valence are
  doubtful.

Intervals are over speakers and seeds.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..cli.errors import cli_errors
from ..configuration_msfser import LABELS
from ..evaluation.acted import Material, Scores
from ..evaluation.intervals import Interval
from ..evaluation.leave_out import Protocol
from ..evaluation.results import Row, row, rows_of
from ..starter.assemble import STARTER, STARTERS, fitted_starter, starter_processor
from ..training.features import encode_texts
from .command import record
from .starter import RESUME, Recipes, parsed

WOMEN, MEN = "F", "M"
# A correlation over fewer clips says nothing.
_FEWEST_WORDED = 20
# The predictions that are compared with the words.
_KINDS = ("all", "sound")
_SCRIPTS = (("emotiontts_kr", "emotional"), ("emotiontts_kr", "plain"))
_DOUBTFUL = ("calm", "surprise")
_MEASURES = (*(f"{label}_bias" for label in LABELS), "mean")


def column_of(column: str, folder: Path, protocol: Protocol) -> dict[str, str]:
    """What a column of the corpora's tables says by the path of the recording, where a corpus has that column.

    Args:
        column: Such as the `gender` of the speaker.
        folder: Of the corpora.
        protocol: Of the same corpora.
    """
    found: dict[str, str] = {}
    for name in (*protocol.trained, *protocol.tested):
        table = pd.read_csv(folder / name / protocol.table, dtype=str)
        if column in table:
            found |= {
                str(folder / name / file): of for file, of in zip(table["file_name"], table[column], strict=True)
            }
    return found


def rows_of_groups(material: Material, predictions: np.ndarray, genders: Sequence[str | None]) -> Iterator[Row]:
    """The rows of one starter.

    Args:
        material: The clips.
        predictions: `(seeds, clips, 3)`, for speakers that were held out.
        genders: Of the clips; `None` where it is not known.
    """
    corpora, gender = material.table["corpus"].to_numpy(), np.asarray(genders, dtype=object)
    for corpus in dict.fromkeys(corpora):
        within = corpora == corpus
        of_gender = {name: within & (gender == name) for name in (WOMEN, MEN)}
        groups = {corpus: within} | {f"{corpus}/{name}": members for name, members in of_gender.items()}
        for name, members in groups.items():
            if members.any():
                yield from rows_of(
                    [f"{name}/{measure}" for measure in _MEASURES], _measured(material, predictions, members)
                )
                yield row(f"{name}/speakers", len(set(material.clips.speakers[members])))
        if all(members.any() for members in of_gender.values()):
            found = _measured(material, predictions, of_gender[WOMEN], of_gender[MEN])
            yield from rows_of([f"{corpus}/women_minus_men/{measure}" for measure in _MEASURES], found)


def parts_of(clips: pd.DataFrame, scripts: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The parts of corpora that are scored on their own, by name, `(clips,)` bool.

    Args:
        clips: As [`read_corpora`] gives them.
        scripts: By the path of a recording the kind of its sentence, `emotional` or `plain`.
    """
    corpora, script = clips["corpus"], clips["path"].map(scripts)
    parts = {f"{corpus}/{kind}": (corpora == corpus) & (script == kind) for corpus, kind in _SCRIPTS}
    parts["ravdess/all"] = corpora == "ravdess"
    parts["ravdess/sure"] = parts["ravdess/all"] & ~clips["emotion"].isin(_DOUBTFUL)
    return {name: members.to_numpy() for name, members in parts.items() if members.any()}


def rows_of_parts(material: Material, predictions: np.ndarray, parts: Mapping[str, np.ndarray]) -> Iterator[Row]:
    """CCC of one starter in parts of corpora; the predictions `(seeds, clips, 3)` are for speakers held out."""
    for name, members in parts.items():
        yield from Scores(material, {name: {"all": np.where(members[:, None], predictions, np.nan)}}).ccc_rows(name)


@torch.inference_mode()
def valence_of_words(texts: Sequence[str | None]) -> np.ndarray:
    """What the fitted starter says of texts without sound: valence `(texts,)`, NaN where there is no text."""
    spoken = [index for index, text in enumerate(texts) if text]
    found = np.full(len(texts), np.nan)
    model = fitted_starter(STARTERS[STARTER])
    vectors = encode_texts([texts[index] for index in spoken], model, starter_processor())
    logits = model(gs_embedding=vectors, gs_attention_mask=torch.ones(len(vectors), 1).long()).logits
    found[spoken] = logits[:, LABELS.index("valence")].double().numpy()
    return found


def rows_of_words(material: Material, predictions: Mapping[str, np.ndarray], valence: np.ndarray) -> Iterator[Row]:
    """How much the numbers of one starter, and the labels, go with the valence of the words alone.

    Args:
        material: The clips.
        predictions: By what they are made from, `(seeds, clips, 3)`, for speakers that were held out.
        valence: Of the words of each clip, `(clips,)`; NaN without words.
    """
    corpora = material.table["corpus"].to_numpy()
    for corpus in dict.fromkeys(corpora):
        members = (corpora == corpus) & ~np.isnan(valence)
        if not members.any():
            continue
        yield row(f"{corpus}/words/clips", members.sum())
        if members.sum() >= _FEWEST_WORDED and np.ptp(valence[members]) > 0:
            for found in _word_rows(material, predictions, valence, members):
                yield found | {"name": f"{corpus}/words/{found['name']}"}


def _word_rows(
    material: Material, predictions: Mapping[str, np.ndarray], valence: np.ndarray, members: np.ndarray
) -> Iterator[Row]:
    some = next(iter(predictions.values()))
    scores = Scores(material, {"all": {"all": np.where(members[:, None], some, np.nan)}})

    def measure(clips: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        of_numbers = [
            np.mean([_correlations(numbers[seed, clips], valence[clips]) for seed in seeds], axis=0)
            for numbers in predictions.values()
        ]
        return np.stack([*of_numbers, _correlations(material.clips.labels[clips], valence[clips])])

    def difference(clips: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        found = measure(clips, seeds)
        return found[:-1] - found[-1]

    of_names = {
        (*predictions, "labels"): scores.interval(measure, correlation=True),
        tuple(f"{kind}_minus_labels" for kind in predictions): scores.interval(difference),
    }
    for names, found in of_names.items():
        for place, name in enumerate(names):
            yield from rows_of([f"{name}/{label}_r" for label in LABELS], Interval(*(end[place] for end in found)))


def _correlations(numbers: np.ndarray, valence: np.ndarray) -> np.ndarray:
    """Pearson's r of numbers `(clips, 3)` with a valence `(clips,)`, `(3,)`; NaN where one of the two is constant."""
    first, second = (values - values.mean(0, dtype=np.float64) for values in (numbers, valence[:, None]))
    varies = (np.ptp(numbers, axis=0) > 0) & (np.ptp(valence) > 0)
    sizes = np.sqrt((first**2).sum(0) * (second**2).sum(0))
    return np.divide((first * second).sum(0), sizes, out=np.full(sizes.shape, np.nan), where=varies)


def _measured(
    material: Material, predictions: np.ndarray, members: np.ndarray, others: np.ndarray | None = None
) -> Interval:
    """Bias of each dimension and mean CCC of a group, or of the group minus another one; arrays `(4,)`."""
    both = members if others is None else members | others
    scores = Scores(material, {"all": {"all": np.where(both[:, None], predictions, np.nan)}})
    errors = predictions - material.clips.labels

    def of_group(clips: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        return np.append(errors[np.ix_(seeds, clips)].mean((0, 1)), scores.ccc("all", clips, seeds).mean())

    def measure(clips: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        if others is None:
            return of_group(clips, seeds)
        return of_group(clips[members[clips]], seeds) - of_group(clips[others[clips]], seeds)

    return scores.interval(measure)


def main(argv: Sequence[str] | None = None) -> None:
    """Fits what is missing, prints and writes the results."""
    arguments = parsed("groups", __doc__, argv)
    with cli_errors("groups", resume=RESUME):
        recipes = Recipes(arguments.data, arguments.output_dir)
        genders, scripts = (column_of(name, arguments.data, recipes.protocol) for name in ("gender", "script"))
        predictions = {
            starter.name: recipes.predictions(starter.voices, arguments.seeds) for starter in STARTERS.values()
        }
        valence = valence_of_words(recipes.words["gs"])
    material = recipes.material()
    parts = parts_of(recipes.clips, scripts)
    of_clips = [genders.get(path) for path in recipes.clips["path"]]
    rows = [
        found | {"name": f"{starter}/{found['name']}"}
        for starter, of_starter in predictions.items()
        for found in (
            *rows_of_groups(material, of_starter["all"], of_clips),
            *rows_of_parts(material, of_starter["all"], parts),
            *rows_of_words(material, {kind: of_starter[kind] for kind in _KINDS}, valence),
        )
    ]
    record("groups", rows, "groups", argv)


if __name__ == "__main__":
    main()
