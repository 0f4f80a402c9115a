"""Reasons by removal: what each input contributes to each number, as exact Shapley values.

A number is explained as a game of the inputs. `v(S)` is the number that the model gives if only the inputs in `S` are
there; each other input is replaced by its missing-input embedding, as one that an item does not have. Input `i` of `n`
contributes

    phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! * (v(S + i) - v(S))

(Shapley, 1953), the mean change of the number when `i` comes in, over all orders in which the inputs can come in. The
contributions add up to the number minus the baseline `v()`, the number without any input; an input that changes
nothing, or that an item does not have, contributes 0. Sound and three texts have 16 sets, which the fusion computes in
one batch from encodings that exist already.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .configuration_msfser import LABELS
from .word_times_msfser import join_words, words_of

# What users call the inputs, in the order in which they are shown.
INPUTS = {"sound": "audio", "transcript": "gs", "emphasis": "les", "description": "es"}
# And the experts.
_EXPERTS = {"audio": "sound", "semantics": "words", "description": "description"}
# So many parts of a transcript are left out at most, one after the other, and so many in one batch.
_MOST_PARTS, _BATCH = 40, 8


def input_names(config: Any) -> tuple[str, ...]:
    """The tensor names of a model's inputs: `audio` and the texts, as far as the model has them."""
    return (*(["audio"] if config.audio else []), *config.semantics)


def shapley_values(values: torch.Tensor) -> torch.Tensor:
    """Exact Shapley values from the value of each set of players.

    Args:
        values: `(2 ** players, ...)`; bit `i` of an index says whether player `i` is in the set.

    Returns:
        `(..., players)`, which add up to `values[-1] - values[0]`.
    """
    players = len(values).bit_length() - 1
    sets = range(len(values))
    shares = []
    for player in range(players):
        without = [index for index in sets if not index >> player & 1]
        weights = [1 / (players * math.comb(players - 1, index.bit_count())) for index in without]
        gains = values[[index | 1 << player for index in without]] - values[without]
        shares.append(torch.einsum("s,s...->...", gains.new_tensor(weights), gains))
    return torch.stack(shares, dim=-1)


@torch.no_grad()
def contributions_of(
    model: Any,
    vectors: Mapping[str, torch.Tensor],
    present: Mapping[str, torch.Tensor],
    frames: torch.Tensor | None,
    frame_mask: torch.Tensor | None,
) -> torch.Tensor:
    """What each input of each item contributes, from the encodings that [`MsfSerModel.forward`] has made.

    Args:
        model: [`MsfSerModel`].
        vectors: By text, `(batch, text width)`.
        present: By input, the texts first and then the sound, which items have it, `(batch,)` bool.
        frames: Of the sound, after the layer mix, `(batch, frames, size)`; `None` for a model without sound.
        frame_mask: `(batch, frames)`, bool.

    Returns:
        `(batch, 3, inputs)`, the inputs in the order of [`input_names`].

    Raises:
        ValueError: The model is in training mode, where dropout changes each pass.
    """
    if model.training:
        raise ValueError("Contributions compare passes that dropout changes: call model.eval() first.")
    names = list(present)
    some = present[names[0]]
    indices = torch.arange(2 ** len(names), device=some.device)
    used = {name: ((indices >> i & 1).bool()[:, None] & present[name]).flatten() for i, name in enumerate(names)}
    sources, _ = model.fuse_texts({name: _repeated(vector, len(indices)) for name, vector in vectors.items()}, used)
    pooled = None
    if frames is not None:
        # The texts that modulate frames come first, so that the first sets have all conditions that there are.
        distinct = 2 ** sum(_modulates(model, name) for name in vectors)
        first = {name: source[: distinct * len(some)] for name, source in sources.items()}
        pooled = model.pool_sound(_repeated(frames, distinct), _repeated(frame_mask, distinct), first)
        pooled = _repeated(pooled, len(indices) // distinct)
    logits = model.numbers(sources, pooled, used)[0]
    found = shapley_values(logits.view(len(indices), len(some), len(LABELS)))
    # Equal rows of a batch may be rounded otherwise: what is absent contributes nothing at all.
    found = torch.where(torch.stack([*present.values()], dim=-1)[:, None], found, 0.0)
    return found[..., [names.index(name) for name in input_names(model.config)]]


def explained(
    model: Any,
    processor: Any,
    inputs: Mapping[str, torch.Tensor],
    transcripts: Sequence[str | None],
    interval_level: float,
) -> dict[str, Any]:
    """The output of a model with all of its explanations.

    Args:
        model: [`MsfSerModel`].
        processor: Its processor.
        inputs: Of its forward.
        transcripts: For each item the transcript whose words are to be left out one after the other, or `None`.
        interval_level: Level of the intervals.

    Returns:
        The fields of [`MsfSerOutput`] that are not `None`, and `word_contributions`, a list by [`words_left_out`] or
        `None` for each item.
    """
    inputs = _encoded(model, inputs, with_sound=any(transcripts))
    output = model(
        **inputs,
        output_explanations=True,
        output_contributions=len(input_names(model.config)) > 1,
        interval_level=interval_level,
        return_dict=True,
    )
    of_words = [
        words_left_out(model, processor, {name: tensor[row : row + 1] for name, tensor in inputs.items()}, transcript)
        if transcript and "gs" in model.config.semantics
        else None
        for row, transcript in enumerate(transcripts)
    ]
    return {**output, "word_contributions": of_words}


def words_left_out(
    model: Any, processor: Any, inputs: Mapping[str, torch.Tensor], transcript: str
) -> list[dict[str, Any]] | None:
    """What the words of a transcript contribute: the number, minus the number that the model gives without them.

    A transcript of more than 40 words is cut into 40 phrases or fewer. The other inputs stay as they are, the emphasis
    too. Unlike the contributions of the inputs, these need not add up to anything.

    Args:
        model: [`MsfSerModel`].
        processor: Its processor.
        inputs: Of its forward, one item, with encodings in place of sound and token ids.
        transcript: Of this item, with a word at least.

    Returns:
        `{"text", "valence", "arousal", "dominance"}` for each word or phrase in order; `None` for a single word
        where there is no sound: nothing would be left.
    """
    words = words_of(transcript)
    if len(words) < 2 and not model.config.audio:
        return None
    size = -(-len(words) // _MOST_PARTS)
    starts = range(0, len(words), size)
    others = {name: tensor for name, tensor in inputs.items() if not name.startswith("gs_")}
    variants = [transcript, *(join_words(words[:start] + words[start + size :]) or None for start in starts)]
    numbers: list[list[float]] = []
    for first in range(0, len(variants), _BATCH):
        some = variants[first : first + _BATCH]
        tokens = processor.tokens("transcript", some).to(model.device)
        repeated = {name: tensor.expand(len(some), *tensor.shape[1:]) for name, tensor in others.items()}
        numbers += model(**repeated, **tokens, return_dict=True).logits.tolist()
    return [
        {
            "text": join_words(words[start : start + size]),
            **{label: numbers[0][d] - without[d] for d, label in enumerate(LABELS)},
        }
        for start, without in zip(starts, numbers[1:], strict=True)
    ]


def reasons_of(model: Any, output: Mapping[str, Any], row: int, texts: Mapping[str, str | None]) -> dict[str, Any]:
    """The explanations of one item in plain values.

    Args:
        model: [`MsfSerModel`].
        output: By [`explained`].
        row: The index of the item.
        texts: Those that the item has, by their names in the data.

    Returns:
        `contributions`, by dimension and input, and `baseline`, by dimension, which are `None` for a model with one
        input; `word_contributions`; `gate`, the mean over the features, and `routing`, by dimension and expert.
    """
    reasons: dict[str, Any] = dict.fromkeys(("contributions", "baseline", "gate", "routing"))
    reasons["word_contributions"] = output["word_contributions"][row]
    if "contributions" in output:
        places = {name: place for place, name in enumerate(input_names(model.config))}
        has = {name: places[of] for name, of in INPUTS.items() if of in places and (of == "audio" or texts.get(name))}
        found = zip(LABELS, output["contributions"][row].tolist(), strict=True)
        reasons["contributions"] = {label: {name: of[i] for name, i in has.items()} for label, of in found}
        reasons["baseline"] = dict(zip(LABELS, output["baseline"][row].tolist(), strict=True))
    if "gate" in output and texts.get("emphasis") and texts.get("transcript"):
        reasons["gate"] = output["gate"][row].float().mean().item()
    if "routing" in output:
        experts = [_EXPERTS[name] for name in model.cross_fusion.experts]
        found = zip(LABELS, output["routing"][row].tolist(), strict=True)
        reasons["routing"] = {label: dict(zip(experts, of, strict=True)) for label, of in found}
    return reasons


def _encoded(model: Any, inputs: Mapping[str, torch.Tensor], with_sound: bool) -> dict[str, torch.Tensor]:
    """Inputs of [`MsfSerModel.forward`] with encodings in place of token ids and, if it is used again, of sound."""
    names = [name for name in model.config.semantics if f"{name}_input_ids" in inputs]
    texts = {name: (inputs[f"{name}_input_ids"], inputs[f"{name}_attention_mask"]) for name in names}
    kept = {name: tensor for name, tensor in inputs.items() if not name.endswith("_input_ids")}
    for name, embedding in model.encode_texts(texts).items():
        kept[f"{name}_embedding"] = embedding
        kept[f"{name}_attention_mask"] = texts[name][1].any(-1, keepdim=True).long()
    if model.config.audio and with_sound:
        sound = (kept.pop("input_values", None), kept.pop("input_features", None), kept.pop("attention_mask", None))
        kept["audio_states"], kept["attention_mask"] = model.encode_audio(*sound)
    return kept


def mean_reasons(windows: Sequence[Any], weights: np.ndarray) -> dict[str, Any]:
    """The contributions and the baseline of a recording: weighted means over its windows.

    An input contributes 0 to a window that does not have it.

    Args:
        windows: `contributions` and `baseline` of each, as attributes.
        weights: Of each, `(windows,)`.
    """
    if windows[0].contributions is None:
        return dict.fromkeys(("contributions", "baseline"))
    shares = weights / weights.sum()
    names = [name for name in INPUTS if any(name in window.contributions[LABELS[0]] for window in windows)]

    def mean(values: Iterable[float]) -> float:
        return float(np.dot(shares, [*values]))

    return {
        "contributions": {
            label: {name: mean(window.contributions[label].get(name, 0.0) for window in windows) for name in names}
            for label in LABELS
        },
        "baseline": {label: mean(window.baseline[label] for window in windows) for label in LABELS},
    }


def _modulates(model: Any, text: str) -> bool:
    """Whether a text modulates the frames of the sound."""
    if model.film is None or model.config.film_position != "frames":
        return False
    return ("description" if text == "es" else "semantics") in model.film_sources


def _repeated(tensor: Any, times: int) -> torch.Tensor:
    """The whole batch so many times."""
    return tensor.expand(times, *tensor.shape).flatten(0, 1)
