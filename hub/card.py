"""The model card of a trained folder, rendered from `model_card.md` with the settings and results of its run."""

import dataclasses
import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..configuration_msfser import LABELS, TENSOR_NAMES, MsfSerConfig
from ..corpora.licenses import License
from ..corpora.registry import CORPORA, Corpus
from ..evaluation.results import CROSS_VALIDATED, INTERVALS, Row, of_test, read, resampled, with_ends
from ..starter.assemble import STARTERS
from ..training.data_identity import DATA_FILE, INITIAL, TEXTS, read_identity
from ..training.run_folder import check_weights
from ..training.settings import ModelSettings, RunSettings, SavedRun, read_run

TEMPLATE = Path(__file__).parents[1] / "model_card.md"

# For other encoders the card refers to their page.
ENCODER_LICENSES = {
    "openai/whisper-tiny.en": "mit, as OpenAI's repository states (the Hub says apache-2.0)",
    "sentence-transformers/all-MiniLM-L6-v2": "apache-2.0",
    "FacebookAI/roberta-large": "mit",
}

# Identifiers of the Hub that a corpus is likely to have.
_HUB_LICENSES = frozenset(
    ["apache-2.0", "mit", "cc0-1.0", "odc-by", "odbl", "pddl", "cdla-permissive-2.0"]
    + [f"cc-{kind}-{version}" for kind in ("by", "by-sa", "by-nc") for version in ("2.0", "3.0", "4.0")]
    + [f"cc-{kind}-{version}" for kind in ("by-nd", "by-nc-sa", "by-nc-nd") for version in ("3.0", "4.0")]
)

# Settings that tell something about the trainer's machine or account, and nothing about the model.
_PRIVATE = re.compile(
    r"data|init_from|audio_folder|columns|group_file|project|deepspeed|.*(_dir|_name|_id|_path|token|key|from_checkpoint|_config)"
)
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_.+-]{1,24}")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

_MADE = {"recognizer": "transcripts", "describer": "descriptions"}
_ENCODERS = {"audio_config": "speech encoder", "text_config": "text encoder"}
_SWITCHES = ("audio", "semantics", "intra_fusion", "cross_fusion", "film_position", "routing", "audio_states")

# Of each set of inputs (`audio`, `audio+transcript`, `all`) the rows of `results.json`, by dimension.
Scores = dict[str, dict[str, dict[str, float | None]]]


def render_card(
    folder: Path, repo: str, tag: str, corpus_name: str | None = None, corpus_license: str | None = None
) -> ModelCard:
    """Renders the card of a trained folder.

    Args:
        folder: Output of `msfser train`.
        repo: `OWNER/NAME` on the Hub, for the snippets.
        tag: The revision that the snippets are pinned to.
        corpus_name: Title of the corpus of a table; "probe" is the probe corpus in any form.
        corpus_license: Its license, as an identifier of the Hub or in words.

    Raises:
        OSError: A file is missing.
        ValueError: A file cannot be read, the weights are not those of the results, or a title is given to a corpus
            that has one.
    """
    rows, saved = _read_rows(folder), read_run(folder)
    scores = _scores(rows)
    corpus = _corpus(saved.run, folder, corpus_name, corpus_license)
    config, processor = read_json(folder / "config.json"), read_json(folder / "processor_config.json")
    names = {part: str(config[part].get("_name_or_path") or "") for part in _ENCODERS if config.get(part)}
    encoders = {part: name if _HUB_NAME.fullmatch(name) else None for part, name in names.items()}
    known_encoders = [name for name in encoders.values() if name]
    # The Hub has no task for text with numbers as the answer; regression is part of this one.
    task = "audio-classification" if config["audio"] else "text-classification"
    data = ModelCardData(
        language=corpus.language,
        library_name="transformers",
        pipeline_tag=task,
        tags=["speech-emotion-recognition", "valence-arousal-dominance", "msf-ser", "custom_code", "arxiv:2510.05749"],
        base_model=known_encoders or None,
        datasets=[corpus.title] if _HUB_NAME.fullmatch(corpus.title) else None,
        metrics=["ccc"],
        model_name=repo.split("/")[1],
        eval_results=_eval_results(scores, corpus, task, saved.run),
        **_license(corpus, [*encoders.values(), *([None] if saved.run.init_from else [])], repo),
    )
    scale = corpus.label_range or (0, 1)
    low, high = scale if scale != (0, 1) else (1, 7)
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        repo=repo,
        name=repo.split("/")[1],
        tag=tag,
        corpus=corpus,
        is_unit_scale=scale == (0, 1),
        corpus_scale="..".join(f"{end:g}" for end in scale),
        low=f"{low:g}",
        high=f"{high:g}",
        example=f"{low + 0.62 * (high - low):.2f}",
        sound=bool(config["audio"]),
        unrated=config.get("unrated") or [],
        texts=_learned_texts(folder, config["semantics"]),
        encoder_licenses={name: ENCODER_LICENSES.get(name, "see its page on the Hub") for name in known_encoders},
        initial=_initial_model(saved.run.init_from, folder, MsfSerConfig.from_dict(config)),
        custom_encoders=[_ENCODERS[part] for part, name in encoders.items() if name is None],
        max_seconds=f"{processor['feature_extractor']['max_seconds']:g}",
        texts_by=_texts_by(folder / "processor_config.json", processor.get("annotation")),
        training_inputs=_training_inputs(folder),
        generated=_generated(folder, saved.run, processor.get("annotation")),
        scores={_inputs_in_words(inputs): _cells(rows) for inputs, rows in scores.items()},
        resampled=resampled(rows),
        left_out=_left_out(saved.run),
        intervals=bool(config.get("intervals")),
        intervals_cells=_coverage(read(folder / "results.json")),
        allow_speaker_overlap=saved.run.allow_speaker_overlap,
        switches={name: _in_words(config[name]) for name in _SWITCHES},
        settings=_public_settings(saved),
    )


def _coverage(rows: Mapping[str, Row]) -> dict[str, list[str]]:
    """What the card shows of the intervals on the test set or over all folds; nothing without such rows."""
    shown = {"share of labels in the interval": "coverage", "mean width": "width"}
    starts = (f"{INTERVALS}test/", f"{INTERVALS}{CROSS_VALIDATED}")
    start = next((start for start in starts if any(name.startswith(start) for name in rows)), None)
    if start is None:
        return {}
    names = {words: [f"{start}{label}/{kind}" for label in LABELS] for words, kind in shown.items()}
    return {
        words: [f"{rows[name]['value']:.2f}" if name in rows else "-" for name in of_kind]
        for words, of_kind in names.items()
    }


def read_json(path: Path) -> dict[str, Any]:
    """Reads an object from a file of a saved model; an `OSError` if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OSError(f"{path} is damaged: save the model again.") from error


def _read_rows(folder: Path) -> list[Row]:
    """The rows of the test set or of a cross-validation; a dimension that nobody rated has none."""
    path = folder / "results.json"
    if not path.is_file():
        raise OSError(f"{folder} has no results.json: train and evaluate the model with msfser train.")
    check_weights(folder)
    try:
        rows = of_test(json.loads(path.read_text(encoding="utf-8")))
        if not rows or not all({"mean"} <= of.keys() <= {*LABELS, "mean"} for of in _scores(rows).values()):
            raise ValueError("rows are missing")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not what msfser train writes: train again.") from error
    return rows


def _scores(rows: Iterable[Row]) -> Scores:
    scores: Scores = {}
    for row in rows:
        _, inputs, dimension = row["name"].split("/")
        scores.setdefault(inputs, {})[dimension] = {
            key: None if row[key] is None else float(row[key]) for key in ("value", "low", "high")
        }
    return scores


def _left_out(run: RunSettings) -> str | None:
    """What a fold of the run's cross-validation left out, in words; `None` without one."""
    return run.cross_validate if run.cross_validate in (None, "speaker", "session", "corpus") else "group"


def _learned_texts(folder: Path, semantics: Collection[str]) -> list[str]:
    """The texts that a model can read, without those that the training data are known to lack.

    Args:
        folder: The run's.
        semantics: Those of the model.
    """
    readable = [text for text, name in TENSOR_NAMES.items() if name in semantics]
    noted = read_identity(folder).get(TEXTS)
    return readable if noted is None else [text for text in readable if noted["present"].get(text)]


def _training_inputs(folder: Path) -> list[str]:
    """The inputs that the training data had, in words; empty for a run of an older version, which noted none."""
    noted = read_identity(folder).get(TEXTS)
    if noted is None:
        return []
    shares = {name: count / noted["rows"] for name, count in noted["present"].items() if count}
    return [name if share == 1 else f"{name} ({share:.0%} of the utterances)" for name, share in shares.items()]


def _generated(folder: Path, run: RunSettings, inherited: Any) -> list[str]:
    """What made the texts that the training data lacked, in words for each way; empty where nothing did.

    Args:
        folder: The run's.
        run: Its settings.
        inherited: The annotation of the processor: that of the data, unless the run started from a trained model.
    """
    noted = read_identity(folder).get(TEXTS)
    if noted is not None:
        path, annotations = folder / DATA_FILE, noted["annotations"]
    else:
        path, annotations = folder / "processor_config.json", [None if run.init_from else inherited]
    ways = [made for annotation in annotations if (made := _texts_by(path, annotation))]
    phrases = [", ".join(f"{_MADE[role]} by {_maker(role, name)}" for role, name in way.items()) for way in ways]
    return list(dict.fromkeys(phrases))


def _maker(role: str, name: str | None) -> str:
    if name == "measured":
        return "measuring the voice"
    return f"a {role} that is not on the Hub" if name is None else f"`{name}`"


def _texts_by(path: Path, annotation: Any) -> dict[str, str | None] | None:
    """What makes texts by an annotation's settings; `None` without them.

    Args:
        path: The file that has them, for messages.
        annotation: The settings.

    Returns:
        The names of `recognizer` and `describer`, `None` for a model that is not on the Hub; a role that nothing had
        is left out.
    """
    if annotation is None:
        return None
    try:
        made = {"recognizer": annotation["transcript"], "describer": annotation["description"]}
        names = {role: None if f"{role}_sha256" in step else str(step[role]) for role, step in made.items()}
    except (LookupError, TypeError) as error:
        raise ValueError(f"The annotation in {path} is not what msfser annotate writes: train again.") from error
    return {role: name for role, name in names.items() if name != "none"}


def _corpus(run: RunSettings, folder: Path, title: str | None, license: str | None) -> Corpus:
    if any(text is not None and not re.fullmatch(r"[^\n|<>{}]+", text) for text in (title, license)):
        raise ValueError("The name and the license of a corpus are one line without the characters | < > { }.")
    corpus = CORPORA["probe" if (run.corpus, run.data) == ("table", "probe") else run.corpus]
    if corpus.label_range is not None:
        if title is not None or license is not None:
            raise ValueError(f"{folder} was trained on the {corpus.title}: omit --corpus_name and --corpus_license.")
        return corpus
    if title == "probe":
        return CORPORA["probe"]
    if (title is None) != (license is None):
        raise ValueError("Give --corpus_name and --corpus_license together.")
    # A model of dimensions with several ranges is described in 0..1.
    ranges = run.ranges
    corpus = dataclasses.replace(corpus, label_range=(0.0, 1.0) if isinstance(ranges, Mapping) else ranges)
    return corpus if title is None or license is None else dataclasses.replace(corpus, title=title, license=license)


def _initial_model(name: str | None, folder: Path, config: MsfSerConfig) -> tuple[str, str] | None:
    """The model that training started from, and its license; `None` without one.

    Args:
        name: As the run was given it.
        folder: The run's.
        config: Of its model.
    """
    if name is None:
        return None
    license = License.of_config(config)
    if name in STARTERS:
        # Runs of older versions did not note it.
        return f"the model {name} of MSF-SER for Transformers", (license or STARTERS[name].license).terms
    # A folder may be called like a name on the Hub.
    is_public = _HUB_NAME.fullmatch(name) and INITIAL not in read_identity(folder) and not Path(name).exists()
    unknown = "see its page on the Hub" if is_public else "not stated"
    return name if is_public else "a model that is not on the Hub", license.terms if license else unknown


def _license(corpus: Corpus, weights: Iterable[str | None], repo: str) -> dict[str, Any]:
    """The license of the metadata: one where it is known, otherwise the table of the card.

    Args:
        corpus: The run's.
        weights: Names of the encoders, and `None` for weights with other terms.
        repo: `OWNER/NAME`.
    """
    if corpus.license.lower() in _HUB_LICENSES and all(name in ENCODER_LICENSES for name in weights):
        return {"license": corpus.license.lower()}
    return {
        "license": "other",
        "license_name": "see-the-licenses-below",
        "license_link": f"https://huggingface.co/{repo}#licenses",
    }


def _eval_results(scores: Scores, corpus: Corpus, task: str, run: RunSettings) -> list[EvalResult]:
    return [
        EvalResult(
            task_type=task,
            task_name="Valence, arousal, and dominance of speech",
            dataset_type=re.sub(r"[^\w./-]+", "-", corpus.title.lower()).strip("-"),
            dataset_name=corpus.title,
            dataset_split="test" if run.cross_validate is None else "cross-validation",
            metric_type="ccc",
            metric_name=f"CCC {dimension}, {_inputs_in_words(inputs)}",
            metric_value=round(row["value"], 4),
        )
        for inputs, rows in scores.items()
        for dimension, row in rows.items()
        if row["value"] is not None
    ]


def _inputs_in_words(inputs: str) -> str:
    if inputs == "all":
        return "all inputs"
    return " and ".join(inputs.split("+")) + (" only" if "+" not in inputs else "")


def _cells(rows: Mapping[str, Row]) -> list[str]:
    ordered = [rows.get(dimension) for dimension in (*LABELS, "mean")]
    return ["-" if row is None else with_ends(row, 2) for row in ordered]


def _public_settings(saved: SavedRun) -> dict[str, str]:
    """The settings that differ from the defaults, in words, without those that tell something about the machine."""
    differing = {
        field.name: value
        for settings, defaults in ((saved.run, RunSettings()), (saved.model, ModelSettings()))
        for field in dataclasses.fields(settings)
        if (value := getattr(settings, field.name)) != getattr(defaults, field.name)
    }
    encoders = {name: getattr(saved.run, name) for name in ("audio_encoder", "text_encoder")}
    settings = {"data": saved.run.data, "corpus": saved.run.corpus, **encoders, **differing, **saved.training}
    words = {name: _in_words(value) for name, value in settings.items() if name not in _SWITCHES}
    return {name: value for name, value in words.items() if _is_public(name, value)}


def _is_public(name: str, value: str) -> bool:
    if (name, value) == ("data", "probe"):
        return True
    if name.endswith("_encoder"):
        return bool(_HUB_NAME.fullmatch(value)) and not Path(value).exists()
    return not _PRIVATE.fullmatch(name) and all(map(_PLAIN_WORD.fullmatch, value.split()))


def _in_words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_in_words, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)
