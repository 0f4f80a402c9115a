"""The control of the ablation: words of an utterance from a random position in place of its emphasized words."""

from collections.abc import Sequence

import datasets
import numpy as np

from ..emphasis_msfser import bare_word
from ..word_times_msfser import join_words


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


def random_segment(words: Sequence[str], length: int, generator: np.random.Generator) -> str | None:
    """Draws neighboring words: the control that separates the effect of emphasis from that of any short text.

    An entry without a letter or digit is not a word. An utterance with fewer than `length` words is drawn as a whole.

    Returns:
        The words without the punctuation around each; `None` if nothing is left.
    """
    bare = list(filter(None, map(bare_word, words)))
    start = int(generator.integers(max(1, len(bare) - length + 1)))
    return join_words(bare[start : start + length]) or None
