"""The model that a run starts from: a new one, or a trained one (`init_from`), and what of that the run may set."""

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from ..corpora.licenses import License, joined
from ..corpora.shards import annotation_settings
from ..corpora.sources import TABLE_SUFFIXES
from ..encoders_msfser import hub_options
from ..hub.licenses import licenses_of
from ..hub.loading import FoundModel, find_named
from ..hub.model_names import content_hash
from ..modeling_msfser import MsfSerModel
from ..processing_msfser import MsfSerProcessor
from ..starter.assemble import fitted_voices
from .crops import FRAMES_PER_SECOND
from .data_identity import INITIAL, Identity
from .settings import ModelSettings, RunSettings, read_run

logger = logging.getLogger(__name__)

# The weights of a model are made for these switches; a run that starts from them cannot change them.
_FIXED = (
    *("audio", "semantics", "intra_fusion", "cross_fusion", "film_position", "routing", "audio_states"),
    "fusion_size",
)


def adopt_settings(values: dict[str, Any], given: frozenset[str], switches: Sequence[str]) -> None:
    """Sets the model settings that were not given to those of the model that the run starts from.

    Args:
        values: The value of every setting; changed in place.
        given: Names of the settings that were given.
        switches: Names of the model settings.

    Raises:
        ValueError: A setting contradicts the model.
        OSError: There is no such model.
    """
    named = find_named(values["init_from"])
    loaded = {name: getattr(named.config, name) for name in switches}
    for part in ("audio", "text"):
        config = getattr(named.config, f"{part}_config")
        if config is not None and config._name_or_path:
            loaded[f"{part}_encoder"] = config._name_or_path
    loaded["max_seconds"] = named.processor.feature_extractor.max_seconds
    loaded["text_languages"] = named.processor.text_languages or []
    for name, value in loaded.items():
        if name not in given:
            values[name] = value
        elif (name in _FIXED or name.endswith("_encoder")) and not _are_equal(values[name], value):
            raise ValueError(
                f"{name} is {_shown(values[name])}, and that of the model {values['init_from']} is {_shown(value)}: "
                "leave it out, or leave out init_from"
            )


def identity_of_initial(run: RunSettings) -> Identity:
    """What tells, beside the data of a run, whether the folder of the model that it starts from has changed.

    Returns:
        `init_from` with the hash of its content, as the parts of [`identity_of`]; empty without a folder.

    Raises:
        ValueError, OSError: As [`find_named`] does.
    """
    source = find_named(run.init_from).source if run.init_from else ""
    return {INITIAL: {"rows": 1, "model": content_hash(Path(source))}} if os.path.isdir(source) else {}


def license_of(found: FoundModel) -> License | None:
    """The strictest license that a model states; `None` where it states none."""
    return next(iter(licenses_of(found.source, found.config)), None)


def warn_of_training_data(name: str, source: str, config: PreTrainedConfig, run: RunSettings, part: str) -> None:
    """Says which scores are too high because a model was trained on what they are of.

    Args:
        name: What the user calls the model.
        source: Its folder, or its name on the Hub.
        config: The model's.
        run: The corpus, or several, that are scored.
        part: That is scored; `all` rows of a cross-validation.
    """
    if voices := fitted_voices(config):
        logger.info(f"{name} was fitted to {joined(voices)}: scores on their speakers are too high.")
    try:
        trained = read_run(source).run
    except (OSError, ValueError):  # no run, or that of another version
        return
    if part not in ("train", "all") and trained.cross_validate is None:
        return
    of_run = [Path(data).resolve() for data in (trained.data, *trained.more_data)]
    for data in (run.data, *run.more_data):
        if any(_is_same(Path(data).resolve(), other) for other in of_run):
            logger.warning(f"{name} was trained on rows of {data}: their scores are too high.")


def _is_same(data: Path, other: Path) -> bool:
    """Whether two paths are those of one corpus; a table may be given by its folder."""
    tables = [path for path in (data, other) if path.suffix.lower() in TABLE_SUFFIXES]
    return data == other or any(table.parent in (data, other) for table in tables)


def build_model(run: RunSettings, switches: ModelSettings) -> tuple[MsfSerModel, MsfSerProcessor]:
    """The model that a run starts from, a trained one or a new one on pretrained encoders, and its processor.

    Raises:
        OSError: A model or an encoder cannot be found; the sentence says what to do.
        ValueError: It is not one of this kind, or its speech encoder reads less than `max_seconds`.
    """
    model, processor = load_initial(run, switches) if run.init_from else _new_model(run, switches)
    if switches.audio and model.config.is_mel:
        longest = model.config.audio_config.max_source_positions / FRAMES_PER_SECOND
        if run.max_seconds > longest:
            raise ValueError(
                f"max_seconds cannot be {run.max_seconds:g}, as a Whisper encoder reads {longest:g} s; give "
                f"{longest:g} or less"
            )
    return model, processor


def _new_model(run: RunSettings, switches: ModelSettings) -> tuple[MsfSerModel, MsfSerProcessor]:
    model = MsfSerModel.from_encoders(
        run.audio_encoder if switches.audio else None,
        run.text_encoder if switches.semantics else None,
        **dataclasses.asdict(switches),
    )
    processor = MsfSerProcessor.from_encoders(
        run.audio_encoder,
        run.text_encoder,
        annotation=annotation_settings(run.data),
        text_languages=run.text_languages,
        max_seconds=run.max_seconds,
    )
    return model, processor


def load_initial(run: RunSettings, switches: ModelSettings) -> tuple[MsfSerModel, MsfSerProcessor]:
    """The trained model that a run starts from, with the settings of the run, and its processor.

    The model keeps the license of its weights.

    Raises:
        ValueError, OSError: As [`find_named`] does.
    """
    assert run.init_from is not None
    named = find_named(run.init_from)
    options = {**dataclasses.asdict(switches), **hub_options(named.source)}
    model = MsfSerModel.from_pretrained(named.source, **options).eval().uncalibrate()
    if (license := license_of(named)) is not None:
        license.add_to(model.config)
    named.processor.feature_extractor.max_seconds = run.max_seconds
    named.processor.text_languages = run.text_languages or None
    named.processor.annotation = annotation_settings(run.data) or named.processor.annotation
    return model, named.processor


def _are_equal(given: Any, loaded: Any) -> bool:
    return sorted(given) == sorted(loaded) if isinstance(given, list) else bool(given == loaded)


def _shown(value: Any) -> str:
    return (" ".join(value) or "none") if isinstance(value, list) else str(value)
