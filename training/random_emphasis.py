"""The control of the ablation: words of an utterance from a random position in place of its emphasized words."""

import datasets
import numpy as np

from ..emphasis_msfser import random_segment


def random_windows(parts: datasets.DatasetDict, seed: int) -> datasets.DatasetDict:
    """The corpus with as many neighboring words from a random position in place of each row's emphasized words.

    The words are those with times, otherwise those of the transcript; a row that has neither, or no emphasized words,
    gets none. Seed, name of the part and order of its rows decide the positions.
    """
    made = {}
    for name, part in parts.items():
        generator = np.random.default_rng([seed, *name.encode()])
        texts = []
        for item in part.select_columns(["transcript", "emphasis", "words"]):
            words = [word["word"] for word in item["words"] or ()] or (item["transcript"] or "").split()
            drawn = random_segment(words, len((item["emphasis"] or "").split()), generator)
            texts.append(drawn if item["emphasis"] else None)
        replaced = part.remove_columns("emphasis").add_column("emphasis", texts, feature=datasets.Value("string"))
        made[name] = replaced.select_columns(part.column_names)
    return datasets.DatasetDict(made)
