"""The sets of inputs that a model is scored with: fewer of them, and all."""

from collections.abc import Iterator

import datasets

from ..training.features import has_input, keep_inputs, known_inputs

# A model without a text, or without the sound, has fewer sets.
INPUT_SETS = (("audio",), ("audio", "transcript"), ("audio", "transcript", "emphasis", "description"))


def input_sets(items: datasets.Dataset) -> Iterator[tuple[str, datasets.Dataset]]:
    """The items with fewer and with more of their inputs.

    Args:
        items: Rows of the schema with the inputs that the model has, as themselves or as features.

    Yields:
        The name of the set, such as `audio+transcript` or `all`, and the items that have one of its inputs.
    """
    known = known_inputs(items)
    sets = dict.fromkeys(tuple(name for name in known if name in inputs) for inputs in INPUT_SETS)
    for used in filter(None, sets):
        part = keep_inputs(items, used)
        yield "all" if len(used) > 2 else "+".join(used), part.select(has_input(part).nonzero()[0])
