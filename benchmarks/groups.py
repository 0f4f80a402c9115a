"""How the recipes of the starters treat groups of speakers that they were not fitted to.

    python -m msfser.benchmarks.groups --data FOLDER

FOLDER is that of `benchmarks/starter.py`, whose fits are used where they are kept. The groups are the corpora, which
are also the languages, and in each corpus the women and the men, as its publishers state them; the model does not
guess them. All inputs are read, texts as the default pipeline makes them. All labels are **weak**.

- `STARTER/CORPUS/...`: of all speakers of a corpus; `STARTER/CORPUS/GENDER/...` of its women (`F`) or men (`M`).
- `.../DIMENSION_bias`: mean prediction minus mean label; `.../mean`: CCC, mean over the dimensions; `.../speakers`.
- `STARTER/CORPUS/women_minus_men/DIMENSION_bias`, `.../mean`: the difference between the two.

Intervals are over speakers and seeds.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..cli.errors import cli_errors
from ..configuration_msfser import LABELS
from ..evaluation.acted import Material, Scores
from ..evaluation.intervals import Interval
from ..evaluation.leave_out import Protocol
from ..evaluation.results import Row, row, rows_of
from ..starter.assemble import STARTERS
from .command import record
from .starter import RESUME, Recipes, parsed

WOMEN, MEN = "F", "M"
_MEASURES = (*(f"{label}_bias" for label in LABELS), "mean")


def genders_of(folder: Path, protocol: Protocol) -> dict[str, str]:
    """The gender of each recording's speaker by the path of the recording, where its corpus states it.

    Args:
        folder: Of the corpora.
        protocol: Of the same corpora.
    """
    found: dict[str, str] = {}
    for name in (*protocol.trained, *protocol.tested):
        table = pd.read_csv(folder / name / protocol.table, dtype=str)
        if "gender" in table:
            found |= {
                str(folder / name / file): of for file, of in zip(table["file_name"], table["gender"], strict=True)
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
        genders = genders_of(arguments.data, recipes.protocol)
        predictions = {
            starter.name: recipes.predictions(starter.voices, arguments.seeds)["all"] for starter in STARTERS.values()
        }
    material = recipes.material()
    of_clips = [genders.get(path) for path in recipes.clips["path"]]
    rows = [
        found | {"name": f"{starter}/{found['name']}"}
        for starter, of_starter in predictions.items()
        for found in rows_of_groups(material, of_starter, of_clips)
    ]
    record("groups", rows, "groups", argv)


if __name__ == "__main__":
    main()
