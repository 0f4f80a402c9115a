"""One utterance and its texts to tensors: [`MsfSerProcessor`], the same in training and in inference."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from .audio_msfser import as_sounds
from .configuration_msfser import LABELS, TENSOR_NAMES
from .encoders_msfser import feature_settings, is_path, last_part, load_tokenizer, positions_of
from .feature_extraction_msfser import MsfSerFeatureExtractor, check_padding_side, check_unmasked
from .languages_msfser import language_code
from .loss_msfser import check_labels

# The arguments of transformers that are the same for sounds and texts.
_PADDING = {"padding", "truncation", "pad_to_multiple_of", "return_attention_mask"}


class MsfSerProcessor(ProcessorMixin):
    """Feature extractor for the sound and tokenizer for the three texts.

    Args:
        feature_extractor: [`MsfSerFeatureExtractor`].
        tokenizer: The text encoder's.
        max_tokens: Longer texts are truncated to this number of tokens, or to the tokenizer's `model_max_length` if
            that is less.
        annotation: How the texts of the training corpus were made, so that inference makes them in the same way: the
            settings that `msfser annotate` saves with its shards. `None` where they came with the corpus. Addresses
            and paths in it are dropped, because the processor is published with the model.
        text_languages: The languages that the text encoder reads, codes or English names; `None` for any. The pipeline
            and training leave out words whose language is stated and is another one, and the pipeline those whose
            language a multilingual recognizer detects. Descriptions are not meant.

    Raises:
        ValueError: The annotation is no dictionary of dictionaries, or there is no such language.
    """

    def __init__(
        self,
        feature_extractor: MsfSerFeatureExtractor,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int = 256,
        annotation: dict[str, Any] | None = None,
        text_languages: Sequence[str] | None = None,
    ):
        super().__init__(feature_extractor, tokenizer)
        self.max_tokens = min(max_tokens, tokenizer.model_max_length)
        self.annotation = None if annotation is None else _portable(annotation)
        self.text_languages = [str(language_code(name)) for name in text_languages or ()] or None

    @classmethod
    def from_encoders(
        cls,
        audio_encoder: str,
        text_encoder: str,
        annotation: dict[str, Any] | None = None,
        text_languages: Sequence[str] | None = None,
        **feature_options: Any,
    ) -> "MsfSerProcessor":
        """Builds the processor for the encoders of [`MsfSerModel.from_encoders`], each a Hub name or a folder.

        The options are fields of [`MsfSerFeatureExtractor`], such as `max_seconds`.

        Raises:
            OSError: An encoder is not available; the sentence names the remedy.
            ValueError: An encoder is of the other kind, or an option or a language has no such setting.
        """
        extractor = MsfSerFeatureExtractor(**{**feature_settings(audio_encoder), **feature_options})
        tokenizer = load_tokenizer(text_encoder)
        if (longest := positions_of(text_encoder)) is not None:
            tokenizer.model_max_length = min(longest, tokenizer.model_max_length)
        return cls(extractor, tokenizer, annotation=annotation, text_languages=text_languages)

    @property
    def model_input_names(self) -> list[str]:
        """The names of all tensors that this processor can make."""
        texts = [f"{name}_{part}" for name in TENSOR_NAMES.values() for part in ("input_ids", "attention_mask")]
        return [*self.feature_extractor.model_input_names, *texts]

    def __call__(
        self,
        audio: Any = None,
        sampling_rate: int | None = None,
        transcript: str | Sequence[str | None] | None = None,
        emphasis: str | Sequence[str | None] | None = None,
        description: str | Sequence[str | None] | None = None,
        return_tensors: str | None = "pt",
        warn_if_cut: bool = True,
        *,
        audio_kwargs: Mapping[str, Any] | None = None,
        text_kwargs: Mapping[str, Any] | None = None,
        common_kwargs: Mapping[str, Any] | None = None,
        channels_first: bool | None = None,
        channel: int | None = None,
        max_length: int | None = None,
        **both: Any,
    ) -> BatchFeature:
        """Prepares one utterance or a batch of them for `model(**inputs)`.

        Args:
            audio: Path, bytes, array, row of `datasets.Audio` or any other form that [`load_audio`] reads, or a list
                of them; `None` is an item without sound. An array of two axes is a batch, `(clips, samples)`. Sounds
                longer than the feature extractor's `max_seconds` are cut.
            sampling_rate: Rate in Hz of the arrays that do not state their own; files contain theirs.
            transcript: The spoken words (GS), a string or one per item; `None` or empty is an absent text.
            emphasis: The emphasized words (LES), likewise.
            description: A description of the voice (ES), likewise.
            return_tensors: `"pt"`, `"np"` or `None`.
            warn_if_cut: Whether one warning says that sounds were cut.
            audio_kwargs: Arguments for the feature extractor alone, such as `max_length` in samples.
            text_kwargs: Arguments for the tokenizer alone.
            common_kwargs: Arguments for both, such as `return_tensors`, as a dictionary.
            channels_first: Whether arrays of two axes are one sound each; see [`MsfSerFeatureExtractor`].
            channel: The one channel that is used, from 0 on; by default the mean of all.
            max_length: Of the texts, in tokens; by default `max_tokens`.
            **both: `padding`, `truncation`, `pad_to_multiple_of` and `return_attention_mask`, for sounds and texts, as
                in transformers. Without masks the sounds must have one length, and the texts of a kind one number of
                tokens.

        Returns:
            `input_values` or `input_features` with `attention_mask`, and `les_`, `gs_`, `es_` `input_ids` and
            `attention_mask`, as far as any item has them.

        Raises:
            ValueError: A sound cannot be used, the lists differ in length, or an item has no input at all (the
                sentence names the item); an argument is given twice; padding is not on the right; or a mask is needed.
            TypeError: There is no such argument.
        """
        both |= common_kwargs or {}
        return_tensors = both.pop("return_tensors", return_tensors)
        if twice := sorted(set(both) & ({*(text_kwargs or {})} | {*(audio_kwargs or {})})):
            raise ValueError(f"{twice[0]} is given for both and for one: give it once, or in each of the two.")
        if unknown := sorted(set(both) - _PADDING):
            remedy = "transcript, emphasis or description" if unknown[0] == "text" else ", ".join(sorted(_PADDING))
            raise TypeError(f"The processor has no argument {unknown[0]!r}: give {remedy}.")
        text_options = {**both, "max_length": max_length, **(text_kwargs or {})}
        audio_options = {"channels_first": channels_first, "channel": channel, **both, **(audio_kwargs or {})}
        given = {"transcript": transcript, "emphasis": emphasis, "description": description}
        columns: dict[str, list[Any]] = {}
        if audio is not None:
            columns["audio"] = as_sounds(audio, sampling_rate, channels_first)
        for name, text in given.items():
            if text is not None:
                columns[name] = [text] if isinstance(text, str) or not isinstance(text, Iterable) else list(text)
        lengths = {name: len(column) for name, column in columns.items()}
        if not lengths or max(lengths.values()) == 0:
            raise ValueError("There is no input: give audio, transcript, emphasis or description.")
        if len(set(lengths.values())) > 1:
            raise ValueError(f"The inputs differ in length: {lengths}.")
        for name in TENSOR_NAMES:
            texts = columns.get(name, [])
            columns[name] = [text_or_none(text, f"The {name} of item {i}") for i, text in enumerate(texts)]
        for i in range(max(lengths.values())):
            if all(i >= len(column) or column[i] is None for column in columns.values()):
                raise ValueError(f"Item {i} has neither sound nor text.")

        inputs: dict[str, Any] = {}
        if any(sound is not None for sound in columns.get("audio", [])):
            sounds = self.feature_extractor(
                columns["audio"], sampling_rate, return_tensors, warn_if_cut, **audio_options
            )
            inputs.update(sounds)
        for name in TENSOR_NAMES:
            inputs.update(self.tokens(name, columns[name], return_tensors, **text_options))
        return BatchFeature(inputs)

    def is_cut(self, text: str | None) -> bool:
        """Whether a text has more than `max_tokens`, so that only its beginning is read."""
        if text is None or len(text.encode()) + 2 <= self.max_tokens:
            return False
        return len(self.tokenizer(text, verbose=False)["input_ids"]) > self.max_tokens

    def tokens(
        self, name: str, texts: Sequence[str | None], return_tensors: str | None = "pt", **options: Any
    ) -> BatchFeature:
        """Tokenizes the texts of one kind, `transcript`, `emphasis` or `description`; `None` is absent.

        The options are those of the tokenizer, such as `padding`.

        Returns:
            `PREFIX_input_ids` and `PREFIX_attention_mask`, `(batch, tokens)`; an absent text has no token. Nothing
            where all are absent.

        Raises:
            ValueError: An option is impossible, or the mask is needed.
        """
        if all(text is None for text in texts):
            return BatchFeature()
        check_padding_side(options.pop("padding_side", None))
        is_masked = options.pop("return_attention_mask", None) in (None, True)
        options = {"padding": True, "truncation": True, "max_length": None} | options
        if options["max_length"] is None:
            options["max_length"] = self.max_tokens
        if options["max_length"] < 1:
            raise ValueError(f"max_length={options['max_length']} leaves the texts no token: give 1 or more.")
        multiple = options.get("pad_to_multiple_of")
        if multiple and options["padding"] and options["truncation"] and options["max_length"] % multiple:
            if (whole := options["max_length"] // multiple * multiple) == 0:
                raise ValueError(
                    f"pad_to_multiple_of={multiple} is more than max_length={options['max_length']} of the texts: "
                    "give less, or give it in audio_kwargs for the sounds alone."
                )
            options["max_length"] = whole  # texts are cut to what can be padded
        # Whatever the tokenizer's own settings are.
        options |= {"padding_side": "right", "return_attention_mask": True}
        tokens = self.tokenizer([text or "" for text in texts], return_tensors=return_tensors, **options)
        mask = tokens["attention_mask"]
        for i, text in enumerate(texts):
            if text is None:
                mask[i] = [0] * len(mask[i]) if isinstance(mask[i], list) else 0
        parts = {"input_ids": tokens["input_ids"]}
        if is_masked:
            parts["attention_mask"] = mask
        else:
            check_unmasked(mask)
        return BatchFeature({f"{TENSOR_NAMES[name]}_{part}": value for part, value in parts.items()})


class MsfSerCollator:
    """Rows of a corpus to a training batch, for `Trainer(data_collator=...)`.

    A row has `audio`, `transcript`, `emphasis` and `description`, as far as there are any, and `valence`, `arousal`
    and `dominance` in 0..1 if it is labeled. The processor is that of the model that is trained.
    """

    def __init__(self, processor: MsfSerProcessor):
        self.processor = processor

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> BatchFeature:
        """Rows to the processor's tensors, and `labels`, `(batch, 3)`.

        Raises:
            ValueError: See [`MsfSerProcessor`] and [`labels_of`].
        """
        columns = {name: [row.get(name) for row in rows] for name in ("audio", *TENSOR_NAMES)}
        given: dict[str, Any] = {
            name: column for name, column in columns.items() if any(v is not None for v in column)
        }
        batch = self.processor(**given, warn_if_cut=False)
        labels = labels_of(rows)
        if labels is not None:
            batch["labels"] = labels
        return batch


def labels_of(rows: Sequence[Mapping[str, Any]]) -> torch.Tensor | None:
    """Labels `(batch, 3)` float32, valence, arousal, dominance in 0..1; `None` if no row is labeled.

    Raises:
        ValueError: Some labels are there and some are missing, or a value is neither in 0..1 nor `UNRATED`.
    """
    missing = [row.get(name) is None for row in rows for name in LABELS]
    if all(missing):
        return None
    if any(missing):
        row, label = divmod(missing.index(True), len(LABELS))
        raise ValueError(f"Row {row} of the batch has no {LABELS[label]} while others are labeled.")
    labels = torch.tensor([[row[name] for name in LABELS] for row in rows], dtype=torch.float32)
    check_labels(labels, len(rows))
    return labels


def from_scale(values: Any, low: float, high: float) -> Any:
    """A corpus's scale to 0..1: `(y - low) / (high - low)`, such as 1..7 of MSP-Podcast or 1..5 of IEMOCAP.

    Raises:
        ValueError: `low` is not below `high`.
    """
    _check_scale(low, high)
    return (values - low) / (high - low)


def to_scale(predictions: Any, low: float, high: float) -> Any:
    """Predictions in 0..1 to a corpus's scale: `low + p * (high - low)`.

    Raises:
        ValueError: `low` is not below `high`.
    """
    _check_scale(low, high)
    return low + predictions * (high - low)


def _check_scale(low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"A scale runs from its lower to its upper end, not from {low} to {high}.")


def _portable(annotation: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without addresses, and with the last part of a path: its model does not come along."""
    steps: dict[str, Any] = {}
    if not isinstance(annotation, Mapping):
        raise wrong_annotation("annotation", f"it is {annotation!r}")
    for step, settings in annotation.items():
        if not isinstance(settings, Mapping):
            raise wrong_annotation(step, f"it is {settings!r}")
        steps[step] = kept = {name: value for name, value in settings.items() if name != "url"}
        for role in ("recognizer", "aligner", "describer"):
            name = kept.get(role)
            if isinstance(name, str) and is_path(name):
                kept[role] = last_part(name)
                kept.setdefault(f"{role}_sha256", None)
    return steps


def wrong_annotation(name: str, reason: str) -> ValueError:
    """The error of a setting in [`MsfSerProcessor`]'s `annotation`, such as one of an older or a mistyped file."""
    return ValueError(
        f"The setting {name} of the processor's annotation cannot be used ({reason}): copy the settings from the "
        "annotation.json of the training corpus, or set annotation to null in processor_config.json."
    )


def is_missing(value: Any) -> bool:
    """Whether a field of a row has no value: `None`, or NaN, as pandas writes it."""
    return value is None or (isinstance(value, (float, np.floating)) and bool(np.isnan(value)))


def text_or_none(value: Any, name: str) -> str | None:
    """A text as it is tokenized: stripped; an empty or a missing one is `None`.

    Raises:
        ValueError: It is not text; the message calls it by its name.
    """
    if is_missing(value):
        return None
    if not isinstance(value, str):
        raise ValueError(f"{name} is {type(value).__name__}, not text.")
    return value.strip() or None


MsfSerProcessor.register_for_auto_class("AutoProcessor")
