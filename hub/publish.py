"""Publishes a trained folder on the Hugging Face Hub: weights, code, processor, model card and a tag.

    msfser publish outputs/mine OWNER/NAME --dry_run
    msfser publish outputs/mine OWNER/NAME --tag v1 --private
    msfser publish outputs/mine OWNER/NAME --tag v1 --space space

The folder is what `train.py` leaves, or the starter's. The card is rendered from `model_card.md` with the run's
`results.json`; the starter brings its own. Everything goes up in one commit, the card last, and the commit gets the
tag. What is no part of a model (checkpoints, pickles, audio, notes) stays here. After a failure give the same command
again. The token is huggingface_hub's own: `hf auth login`, or HF_TOKEN in the environment.
"""

import argparse
import hashlib
import json
import logging
import math
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    EvalResult,
    HfApi,
    ModelCard,
    ModelCardData,
    SpaceCard,
    get_token,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo, RepoSibling, SpaceInfo
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open
from transformers.dynamic_module_utils import get_relative_imports

from ..configuration_msfser import LABELS, TENSOR_NAMES, MsfSerConfig

logger = logging.getLogger("msfser.publish")

CARD = Path(__file__).parents[1] / "model_card.md"
# Where the snippets of the starter's own card find it before it is published.
STARTER = "outputs/starter"

# What of a folder makes a model. All else stays on this machine.
CODE_FILES = ("*_msfser.py",)
MODEL_FILES = (
    *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    *("config.json", "processor_config.json", "preprocessor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "*.bpe.model", "spiece.model"),
    *CODE_FILES,
)
SPACE_FILES = ("*.py", "README.md", "requirements.txt", "packages.txt", "examples/*", "assets/*")

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")

# Of a run, what tells something of the trainer's machine or account, and nothing of the model.
_PRIVATE = re.compile(r"data|audio_folder|columns|project|.*(_dir|_name|_id|_path|token|key|from_checkpoint|_config)")
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_.+-]{1,24}")
_MACHINE_PATH = re.compile(r"(/[^/]+){2,}/?|~/.*|[A-Za-z]:[\\/].*")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Corpus:
    """What a model was trained on, for its card.

    Args:
        name: As people call it.
        license: Its terms, in words or as an identifier of the Hub.
        scale: The ends of its label scale.
        language: Of its speech, ISO 639-1; `None` where it is not known.
        synthetic: Whether it is the probe corpus, of no use for real voices.
    """

    name: str
    license: str
    scale: tuple[float, float]
    language: str | None
    synthetic: bool = False

    @property
    def slug(self) -> str:
        """The name as an identifier."""
        return re.sub(r"[^\w./-]+", "-", self.name.lower()).strip("-")


PROBE = Corpus("probe corpus", "apache-2.0", (0, 1), "en", synthetic=True)
NAMED = {
    "msp_podcast": Corpus("MSP-Podcast", "the license agreement of its owners", (1, 7), "en"),
    "iemocap": Corpus("IEMOCAP", "the license agreement of its owners", (1, 5), "en"),
    "emobank": Corpus("EmoBank", "cc-by-sa-4.0", (1, 5), "en"),
}

# Those whose license is known here; of the others the card names the page.
ENCODER_LICENSES = {
    "openai/whisper-tiny.en": "mit",
    "sentence-transformers/all-MiniLM-L6-v2": "apache-2.0",
    "FacebookAI/roberta-large": "mit",
}

# Identifiers of the Hub that a corpus is likely to have.
_HUB_LICENSES = frozenset(
    ["apache-2.0", "mit", "cc0-1.0", "odc-by", "odbl", "pddl", "cdla-permissive-2.0"]
    + [f"cc-{kind}-{version}" for kind in ("by", "by-sa", "by-nc") for version in ("2.0", "3.0", "4.0")]
    + [f"cc-{kind}-{version}" for kind in ("by-nd", "by-nc-sa", "by-nc-nd") for version in ("3.0", "4.0")]
)


@dataclass(frozen=True)
class Run:
    """What `train.py` left of a run.

    Args:
        scores: Of each set of inputs (`audio`, `audio+transcript`, `all`) the rows of `results.json`, by dimension.
        settings: Of the run, as words, without what tells something of the machine.
        command: The command, likewise.
        corpus: What `corpus`, `data` and `label_range` say; `None` for a table.
        scale: The ends of the corpus's label scale.
    """

    scores: dict[str, dict[str, dict[str, Any]]]
    settings: dict[str, str]
    command: str
    corpus: Corpus | None
    scale: tuple[float, float]


def read_run(folder: Path) -> Run:
    """Reads `results.json` and the settings file that it names.

    Raises:
        OSError: The results or the settings file are not there.
        ValueError: They cannot be read.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise OSError(f"{folder} has no results.json: train and evaluate it with train.py.")
    scores: dict[str, dict[str, dict[str, Any]]] = {}
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        for row in rows:
            part, inputs, dimension = row["name"].split("/")
            if part == "test":
                scores.setdefault(inputs, {})[dimension] = {key: float(row[key]) for key in ("value", "low", "high")}
        words = shlex.split(rows[0]["command"])[2:]
        whole = all(group.keys() == {*LABELS, "mean"} for group in scores.values())
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not what train.py writes: train again.") from error
    if not scores or not whole or not words:
        raise ValueError(f"{path} is not what train.py writes: train again.")

    file, given = words[0], _options(words[1:])
    # The name in the command starts where the run was; the package has the project's own settings.
    own = CARD.parent / "configs" / Path(file).name
    places = [place for place in (Path(file), own) if place.is_file()]
    if not places:
        raise OSError(f"The run's settings file {file} is not here: call this where the run was started.")
    try:
        written = yaml.safe_load(places[0].read_text(encoding="utf-8")) or {}
        settings = {name: _words(value) for name, value in written.items()} | given
        low, high = map(float, settings.get("label_range", "0 1").split())
    except (ValueError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"The run's settings file {file} cannot be read: {_one_line(error)}.") from error
    on_probe = settings.get("data", "probe") == "probe"
    corpus = NAMED.get(settings.get("corpus", "table"), PROBE if on_probe else None)
    is_own = own.is_file() and own.read_bytes() == places[0].read_bytes()
    command = ["python train.py", f"configs/{own.name}" if is_own else "SETTINGS.yaml"]
    shown = {name: text for name, value in settings.items() if (text := _shown(name, value)) is not None}
    command += [f"--{name} {shown.get(name, name.upper())}".rstrip() for name in given]
    return Run(scores, shown, " ".join(command), corpus, corpus.scale if corpus else (low, high))


def _options(words: Sequence[str]) -> dict[str, str]:
    """`--name value ...` and `--name=value` to names and what follows them."""
    options: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            options[name := name.replace("-", "_")] = [value] if value else []
        elif options:
            options[name].append(word)
    return {name: " ".join(values) for name, values in options.items()}


def _words(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_words, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shown(name: str, value: str) -> str | None:
    """The value of a setting as strangers may see it; `None` where they may not."""
    if (name, value) == ("data", "probe"):
        return value
    if name.endswith("_encoder"):
        return value if _HUB_NAME.fullmatch(value) and not Path(value).exists() else None
    if _PRIVATE.fullmatch(name) or not all(map(_PLAIN_WORD.fullmatch, value.split())):
        return None
    return value


def model_files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The files of a trained folder that make the model, checked.

    Args:
        folder: What `train.py` or `save_pretrained` of model and processor wrote.

    Returns:
        Paths by name, and the names of what is left out.

    Raises:
        OSError: The folder is no whole model; the sentence says what is missing.
        ValueError: It holds what may not be published.
    """
    if not (folder / "config.json").is_file():
        raise OSError(f"{folder} is no trained folder: it has no config.json.")
    if (folder / "run.json").exists():
        raise ValueError(f"{folder} holds an unfinished run: give its command again to finish it.")
    files = _chosen(folder, MODEL_FILES)
    settings = {name: _read_json(path) for name, path in files.items() if name.endswith("config.json")}
    if settings["config.json"].get("model_type") != MsfSerConfig.model_type:
        raise ValueError(f"{folder} holds another kind of model ({settings['config.json'].get('model_type')}).")
    try:
        MsfSerConfig.from_pretrained(folder)
    except Exception as error:  # a strict data class has errors of its own
        raise ValueError(f"{folder}/config.json cannot be loaded: {_one_line(error)}.") from error
    if "processor_config.json" not in files:
        raise OSError(f"{folder} has no processor: save it too (processor.save_pretrained).")
    for name, content in settings.items():
        if found := next(filter(_MACHINE_PATH.fullmatch, _strings(content)), None):
            raise ValueError(f"{folder / name} names {found}, a path of a machine: put a name of the Hub there.")
    weights = _checked_weights(folder, files)
    files = {name: path for name, path in files.items() if ".safetensors" not in name or name in weights}
    _check_code(folder, files, settings)
    left = sorted(path.name for path in folder.iterdir() if path.name not in files and path.name != "README.md")
    return files, left


def _checked_weights(folder: Path, files: Mapping[str, Path]) -> set[str]:
    """The files that hold the weights: as in transformers one, or else those of the index, and the index."""
    index = "model.safetensors.index.json"
    shards = set(_read_json(files[index])["weight_map"].values()) if index in files else set()
    needed = shards if shards and "model.safetensors" not in files else {"model.safetensors"}
    if missing := sorted(needed - files.keys()):
        pickles = sorted(path.name for path in folder.iterdir() if any(fnmatch(path.name, p) for p in _PICKLES))
        instead = f"; {pickles[0]} is a pickle, which may run any code when it is loaded" if pickles else ""
        raise OSError(f"{folder} has no {missing[0]}{instead}: save the model with save_pretrained.")
    for name in needed:
        try:
            with safe_open(files[name], framework="numpy") as weights:
                empty = not weights.keys()
        except (SafetensorError, OSError) as error:
            raise OSError(f"{folder / name} is damaged ({_one_line(error)}): save the model again.") from error
        if empty:
            raise OSError(f"{folder / name} holds no weights: save the model again.")
    return needed | ({index} if needed == shards else set())


def _check_code(folder: Path, files: Mapping[str, Path], settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Whether all modules that the configs name are there, with those that they import."""
    named: list[str] = []
    for content in settings.values():
        named += (content.get("auto_map") or {}).values()
        named += [task["impl"] for task in (content.get("custom_pipelines") or {}).values()]
    waiting = sorted({name.split(".")[0] for name in named})
    if not waiting:
        raise OSError(f"{folder}/config.json names no code: save the model with this version of the package.")
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        if f"{module}.py" not in files:
            raise OSError(f"{folder} has no {module}.py: save the model with this version of the package.")
        seen.add(module)
        waiting += set(get_relative_imports(files[f"{module}.py"])) - seen


def _chosen(folder: Path, patterns: Iterable[str]) -> dict[str, Path]:
    """The files under a folder whose path in it matches a pattern, `*` within one name only."""
    paths = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {path.relative_to(folder).as_posix(): path for path in sorted(paths)}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OSError(f"{path} is damaged: save the model again.") from error


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def render_card(
    folder: Path, repo: str, tag: str, corpus_name: str | None = None, corpus_license: str | None = None
) -> ModelCard:
    """The card of a trained folder.

    Args:
        folder: What `train.py` leaves, with `results.json`.
        repo: `OWNER/NAME` on the Hub, for the snippets.
        tag: The revision that the snippets are pinned to.
        corpus_name: What the corpus of a table is called; "probe" is the probe corpus, in whatever form.
        corpus_license: Its license, as an identifier of the Hub or in words.

    Raises:
        OSError: Something is missing.
        ValueError: Something cannot be read, or a name is given to a corpus that has one.
    """
    run = read_run(folder)
    corpus = _corpus(run, folder, corpus_name, corpus_license)
    config = _read_json(folder / "config.json")
    used = [part for part in ("audio_config", "text_config") if config.get(part)]
    names = {part: str(config[part].get("_name_or_path") or "") for part in used}
    encoders = {part: name if _HUB_NAME.fullmatch(name) else None for part, name in names.items()}
    processor = _read_json(folder / "processor_config.json")
    data = ModelCardData(
        language=corpus.language,
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=["speech-emotion-recognition", "valence-arousal-dominance", "msf-ser", "custom_code", "arxiv:2510.05749"],
        base_model=[name for name in encoders.values() if name] or None,
        datasets=[corpus.name] if _HUB_NAME.fullmatch(corpus.name) else None,
        metrics=["ccc"],
        model_name=repo.split("/")[1],
        eval_results=_eval_results(run, corpus),
        **_license(corpus, encoders.values(), repo),
    )
    low, high = corpus.scale if corpus.scale != (0, 1) else (1, 7)
    switches = ("audio", "semantics", "intra_fusion", "cross_fusion", "film_position", "routing", "audio_states")
    licenses = {name: ENCODER_LICENSES.get(name, "see its page on the Hub") for name in encoders.values() if name}
    return ModelCard.from_template(
        data,
        template_path=str(CARD),
        repo=repo,
        name=repo.split("/")[1],
        tag=tag,
        corpus=corpus,
        corpus_scale=[f"{end:g}" for end in corpus.scale],
        low=f"{low:g}",
        high=f"{high:g}",
        example=f"{low + 0.62 * (high - low):.2f}",
        sound=bool(config["audio"]),
        texts=[text for text, name in TENSOR_NAMES.items() if name in config["semantics"]],
        encoder_licenses=licenses,
        own_encoders=[_ENCODERS[part] for part, name in encoders.items() if name is None],
        max_seconds=f"{processor['feature_extractor']['max_seconds']:g}",
        annotation=processor.get("annotation"),
        scores={_inputs_in_words(inputs): _cells(rows) for inputs, rows in run.scores.items()},
        command=run.command,
        switches={name: _words(config[name]) or "none" for name in switches},
        settings={name: text or "true" for name, text in run.settings.items() if name not in switches},
    )


_ENCODERS = {"audio_config": "speech encoder", "text_config": "text encoder"}


def _corpus(run: Run, folder: Path, name: str | None, license: str | None) -> Corpus:
    if any(text is not None and not re.fullmatch(r"[^\n|<>{}]+", text) for text in (name, license)):
        raise ValueError("A corpus's name and license are one line without the characters | < > { }.")
    if run.corpus is not None:
        if name is not None or license is not None:
            raise ValueError(f"{folder} was trained on the {run.corpus.name}: leave --corpus_name and _license out.")
        return run.corpus
    if name == "probe":
        return PROBE
    if (name is None) != (license is None):
        raise ValueError("Give --corpus_name and --corpus_license together.")
    if name is None or license is None:
        return Corpus("a table of the trainer's own", "not stated", run.scale, None)
    return Corpus(name, license, run.scale, None)


def _license(corpus: Corpus, encoders: Iterable[str | None], repo: str) -> dict[str, str]:
    """What the Hub shows: one license where it is sure, else the table of the card."""
    if corpus.license.lower() in _HUB_LICENSES and all(name in ENCODER_LICENSES for name in encoders):
        return {"license": corpus.license.lower()}
    return {
        "license": "other",
        "license_name": "see-the-licenses-below",
        "license_link": f"https://huggingface.co/{repo}#licenses",
    }


def _eval_results(run: Run, corpus: Corpus) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="audio-classification",
            task_name="Valence, arousal and dominance of speech",
            dataset_type=corpus.slug,
            dataset_name=corpus.name,
            dataset_split="test",
            metric_type="ccc",
            metric_name=f"CCC {dimension}, {_inputs_in_words(inputs)}",
            metric_value=round(row["value"], 4),
        )
        for inputs, rows in run.scores.items()
        for dimension, row in rows.items()
        if math.isfinite(row["value"])
    ]


def _inputs_in_words(inputs: str) -> str:
    if inputs == "all":
        return "all inputs"
    return " and ".join(inputs.replace("audio", "sound").split("+")) + (" alone" if "+" not in inputs else "")


def _cells(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    ordered = [rows[dimension] for dimension in (*LABELS, "mean")]
    return [f"{row['value']:.2f} ({row['low']:.2f}..{row['high']:.2f})" for row in ordered]


def space_files(folder: Path) -> dict[str, Path]:
    """The files of a Gradio Space, checked.

    Raises:
        OSError: A file is missing, or the README does not say that it is a Gradio Space.
    """
    files = _chosen(folder, SPACE_FILES)
    for name in ("README.md", "app.py", "requirements.txt"):
        if name not in files:
            raise OSError(f"{folder} is no Space: it has no {name}.")
    try:
        sdk = SpaceCard.load(files["README.md"]).data.get("sdk")
    except (ValueError, yaml.YAMLError):
        sdk = None
    if sdk != "gradio":
        raise OSError(f"{folder}/README.md does not start with the settings of a Gradio Space (sdk: gradio).")
    return files


@dataclass(frozen=True)
class Upload:
    """What one repository is to hold.

    Args:
        repo: `OWNER/NAME`.
        kind: `model` or `space`.
        files: What goes up: a path, or the content itself, by path in the repository. The last goes last.
        patterns: What the repository may hold of an earlier upload and must not keep.
        landmark: A file that all such repositories have. One with content but without it is somebody else's.
        tag: The name of this version. A Space has none: people meet its newest state.
    """

    repo: str
    kind: str
    files: Mapping[str, Path | bytes]
    patterns: tuple[str, ...]
    landmark: str
    tag: str | None = None


def push(api: HfApi, upload: Upload, private: bool) -> str:
    """Brings a repository to what it is to hold, in one commit, and tags it.

    Args:
        api: The Hub.
        upload: What goes where. Its tag may be there already, if it holds the same.
        private: Whether the repository is for its owner only.

    Returns:
        The oid of the commit.

    Raises:
        ValueError: The repository is somebody else's or public, or the tag holds other content.
        HTTPError, OSError, RuntimeError: What huggingface_hub raises.
    """
    name = f"The {upload.kind} {upload.repo}"
    head = _info(api, upload, None)
    if head is not None:
        there = {sibling.rfilename for sibling in head.siblings or ()}
        if upload.landmark not in there and there - {".gitattributes", "README.md"}:
            raise ValueError(f"{name} is taken by something else: publish under another name.")
        if private and not head.private:
            raise ValueError(f"{name} exists and is public: make it private in its settings, or drop --private.")
        tagged = None if upload.tag is None else _info(api, upload, upload.tag)
        if tagged is not None:
            if not _holds(tagged, upload.files):
                raise ValueError(f"{name} has a tag {upload.tag} with other content: publish under another tag.")
            return str(tagged.sha)
    else:
        there = set()
        api.create_repo(
            upload.repo,
            repo_type=upload.kind,
            private=private or None,
            space_sdk="gradio" if upload.kind == "space" else None,
            exist_ok=True,
        )
    stale = sorted(path for path in there - upload.files.keys() if any(fnmatch(path, p) for p in upload.patterns))
    operations = [CommitOperationDelete(path) for path in stale]
    operations += [CommitOperationAdd(path, content) for path, content in upload.files.items()]
    message = f"Publish {upload.tag or upload.kind}"
    commit = api.create_commit(upload.repo, operations, commit_message=message, repo_type=upload.kind)
    if upload.tag is not None:
        api.create_tag(upload.repo, tag=upload.tag, revision=commit.oid, repo_type=upload.kind)
    return commit.oid


def _info(api: HfApi, upload: Upload, revision: str | None) -> ModelInfo | SpaceInfo | None:
    try:
        return api.repo_info(upload.repo, repo_type=upload.kind, revision=revision, files_metadata=True)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return None


def _holds(info: ModelInfo | SpaceInfo, files: Mapping[str, Path | bytes]) -> bool:
    there = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    return all(path in there and _is_same(there[path], content) for path, content in files.items())


def _is_same(there: RepoSibling, content: Path | bytes) -> bool:
    if there.lfs is not None and isinstance(content, Path):
        with content.open("rb") as file:
            return there.lfs.sha256 == hashlib.file_digest(file, "sha256").hexdigest()
    data = content.read_bytes() if isinstance(content, Path) else content
    if there.lfs is not None:
        return there.lfs.sha256 == hashlib.sha256(data).hexdigest()
    return there.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def main(argv: Sequence[str]) -> None:
    """Publishes what the arguments name."""
    parser = argparse.ArgumentParser(
        prog="publish",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, help="the folder that train.py wrote")
    parser.add_argument("repo", help="OWNER/NAME on the Hub")
    parser.add_argument("--tag", default="v1", help="name of this version; the card's snippets are pinned to it (v1)")
    parser.add_argument("--private", action="store_true", help="for the owner only")
    parser.add_argument("--dry_run", action="store_true", help="show what would go up, and contact nobody")
    parser.add_argument("--space", type=Path, metavar="DIR", help="also publish this folder as a Gradio Space")
    parser.add_argument("--corpus_name", help="what the corpus of a table is called (or its id on the Hub)")
    parser.add_argument("--corpus_license", help="its license, such as cc-by-nc-4.0")
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO)
    try:
        _publish(arguments)
    except HTTPError as error:
        raise SystemExit(f"publish: {_what_went_wrong(error, arguments.repo)}") from None
    except (ValueError, OSError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) else None
        reason = _what_went_wrong(cause, arguments.repo) if isinstance(cause, HTTPError) else f"{_one_line(error)}."
        raise SystemExit(f"publish: {reason}") from None


def _publish(arguments: argparse.Namespace) -> None:
    repo, tag = arguments.repo, arguments.tag
    if repo.count("/") != 1:
        raise ValueError(f"{repo!r} is no name on the Hub: give OWNER/NAME.")
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"{repo!r} is no name on the Hub: {_one_line(error)}") from error
    if tag == "main" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", tag):
        raise ValueError(f"{tag!r} is no tag: take letters, digits, dots and dashes, such as v1.")
    files, left = model_files(arguments.folder)
    card = _own_card(arguments.folder, repo, tag) or str(
        render_card(arguments.folder, repo, tag, arguments.corpus_name, arguments.corpus_license)
    )
    model = Upload(repo, "model", {**files, "README.md": card.encode()}, MODEL_FILES, "modeling_msfser.py", tag)
    uploads = [model]
    if arguments.space is not None:
        uploads.append(Upload(repo, "space", space_files(arguments.space), SPACE_FILES, "app.py"))
    if arguments.dry_run:
        print(_listing(uploads, left, card))
        return
    if get_token() is None:
        raise OSError("There is no token for the Hub: log in with `hf auth login`, or set HF_TOKEN.")
    api = HfApi()
    for upload in uploads:
        oid = push(api, upload, arguments.private)
        place = f"spaces/{repo}" if upload.kind == "space" else f"{repo}/tree/{tag}"
        logger.info("published: %s/%s (commit %s)", api.endpoint, place, oid)


def _own_card(folder: Path, repo: str, tag: str) -> str | None:
    """The card that the starter model brings along, its snippets pinned; `None` for what `train.py` wrote."""
    if (folder / "results.json").is_file() or not (folder / "README.md").is_file():
        return None
    return (folder / "README.md").read_text(encoding="utf-8").replace(f'"{STARTER}"', f'"{repo}", revision="{tag}"')


def _listing(uploads: Iterable[Upload], left: Sequence[str], card: str) -> str:
    lines = []
    for upload in uploads:
        tagged = f", tag {upload.tag}" if upload.tag else ""
        lines.append(f"{upload.kind} {upload.repo}{tagged}: {len(upload.files)} files")
        for path, content in upload.files.items():
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            lines.append(f"{size:15,}  {path}")
    if left:
        lines.append(f"left out: {', '.join(left)}")
    return "\n".join([*lines, "", card])


def _what_went_wrong(error: HTTPError, repo: str) -> str:
    """One sentence for what the Hub answered, or did not."""
    if not isinstance(error, HfHubHTTPError):
        return f"The Hub cannot be reached ({_one_line(error)}): give the same command again."
    status = error.response.status_code
    reason = _one_line(error.server_message or "")
    said = f" ({reason})" if reason else ""
    if status == 401:
        return f"The Hub does not know the token{said}: log in again with `hf auth login`."
    if status in (402, 403):
        return f"The token gives no right to write {repo}{said}: take a token with write access, or another name."
    if status == 404:
        return f"The Hub does not show {repo} to this token{said}: take a token with write access, or another name."
    if status == 409:
        return f"Somebody else changes {repo} at this moment{said}: give the same command again."
    if status == 429 or status >= 500:
        return f"The Hub answered with {status}{said}: give the same command again."
    return f"The Hub refused with {status}{said}."


def _one_line(error: object) -> str:
    return " ".join(str(error).split()).rstrip(".")


if __name__ == "__main__":
    main(sys.argv[1:])
