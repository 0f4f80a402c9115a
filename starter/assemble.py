"""Assembles a starter model from the weights in the package and the published encoders, or fits a new one.

    msfser starter outputs/starter
    msfser starter outputs/open --name starter-open
    msfser starter outputs/mine --fit FOLDER...

The folder loads with `AutoModel`, and `msfser publish` accepts it like the output of `msfser train`. The weights that
come with the package are in `starter/` and `starter/open/`; the README.md there, with the data, the results, and the
license, becomes the card of the folder.
"""

import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.constants import HF_HOME
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers.utils.logging import disable_progress_bar

from ..cli.arguments import CommandParser
from ..cli.errors import cli_errors
from ..cli.outputs import UNFINISHED, make_folder, write_text
from ..configuration_msfser import SEMANTICS
from ..corpora.acted_layouts import LAYOUTS
from ..corpora.licenses import License, strictest
from ..emphasis_msfser import EMPHASIS
from ..hub.encoders import ensure_encoders
from ..hub.model_names import files_hash
from ..intervals_msfser import MsfSerIntervals, set_intervals
from ..modeling_msfser import MsfSerModel
from ..processing_msfser import MsfSerProcessor
from ..training.run_file import RUN_FILE
from .text_encoder import TEXT_WEIGHTS, adapt_text_encoder

logger = logging.getLogger("msfser.starter")

# What commands call the starter that comes with the package.
STARTER = "starter"
WEIGHTS, NORMS, SCALE, CARD = "model.safetensors", "norms.json", "scale.json", "README.md"
# In the metadata of the weights, the SHA-256 of the update of the text encoder with which they were fitted.
_FITTED_ON = "text_encoder"
# The first words of the title of every card of a starter.
TITLE = "# MSF-SER starter"
# What the snippets of its card load.
_SOURCE = re.compile(r'from_pretrained\("[^"]*"(?:, revision="[^"]*")?')
GOEMOTIONS_LICENSE = "cc-by-4.0"
AUDIO_ENCODER, TEXT_ENCODER = "openai/whisper-tiny.en", "sentence-transformers/all-MiniLM-L6-v2"
TEXT_LANGUAGES = ("en",)
SWITCHES: dict[str, Any] = {
    "semantics": list(SEMANTICS),
    "audio_states": "weighted",
    "freeze_audio": "all",
    "freeze_text": True,
    "fusion_size": 128,
    "head_dropout": 0.2,
    # Which inputs a row has decides what its label is (`training/sentences.py`): none is dropped beside that.
    "text_dropout": 0.0,
    "audio_dropout": 0.0,
}


@dataclass(frozen=True)
class Starter:
    """A starter that comes with the package, without its encoders.

    Args:
        name: On the command line.
        folder: Of its fitted weights, norms, and card.
        voices: The acted corpora that it is fitted to, keys of `LAYOUTS`; every one is fitted to GoEmotions, too.
    """

    name: str
    folder: Path
    voices: tuple[str, ...]

    @property
    def license(self) -> License:
        """Of its weights."""
        return license_of_fit(self.voices)


def license_of_fit(voices: Iterable[str]) -> License:
    """The license of weights that are fitted to some acted corpora, keys of `LAYOUTS`, and to GoEmotions."""
    of_voices = {LAYOUTS[name].title: LAYOUTS[name].license for name in voices}
    return strictest(of_voices | {"GoEmotions": GOEMOTIONS_LICENSE})


STARTERS: Mapping[str, Starter] = {
    starter.name: starter
    for starter in (
        Starter(STARTER, Path(__file__).parent, ("ravdess", "emodb", "nemo")),
        Starter("starter-open", Path(__file__).parent / "open", ("emodb",)),
    )
}


def fitted_voices(config: Any) -> tuple[str, ...]:
    """The acted corpora that a starter was fitted to, also one that a fine-tuned model started from.

    Args:
        config: [`MsfSerConfig`] of any model.

    Returns:
        Their titles; empty for a model that has nothing from a starter.
    """
    license = License.of_config(config)
    for starter in STARTERS.values():
        if license == starter.license:
            return tuple(LAYOUTS[name].title for name in starter.voices)
    # One of `--fit`, whose license names the corpora with the strictest terms only.
    titles = {layout.title for layout in LAYOUTS.values()}
    of_scale = config.scale["of"].split(", ") if config.scale else []
    return tuple(name for name in dict.fromkeys([*of_scale, *(config.weights_sources or ())]) if name in titles)


def new_starter() -> MsfSerModel:
    """A starter before it is fitted: the encoders, that of texts adapted, and random weights on top of them."""
    model = MsfSerModel.from_encoders(AUDIO_ENCODER, TEXT_ENCODER, **SWITCHES)
    adapt_text_encoder(model.text_encoder)
    return model


def starter_processor(norms: Mapping[str, Any] | None = None) -> MsfSerProcessor:
    """Its processor, which normalizes the level of every sound.

    Args:
        norms: Of the describer; without them the processor does not say how texts are made.
    """
    annotation = None
    if norms is not None:
        annotation = {
            "transcript": {"recognizer": AUDIO_ENCODER, "language": None, "aligner": "recognizer"},
            "emphasis": dataclasses.asdict(EMPHASIS["peak"]),
            "description": {"describer": "measured", "norms": norms},
        }
    return MsfSerProcessor.from_encoders(AUDIO_ENCODER, TEXT_ENCODER, annotation, TEXT_LANGUAGES, normalize_level=True)


def write_fitted_weights(model: MsfSerModel, norms: Mapping[str, Any], folder: Path) -> None:
    """Writes the fitted weights, without those of the encoders, the norms of the describer, and `config.scale`."""
    folder.mkdir(exist_ok=True)
    metadata = {"format": "pt", _FITTED_ON: _hash_of_update()}
    save_file(_fitted_weights(model), folder / WEIGHTS, metadata=metadata)
    (folder / WEIGHTS).chmod(0o644)
    write_text(folder / NORMS, json.dumps(norms, indent=1) + "\n")
    write_text(folder / SCALE, json.dumps(model.config.scale) + "\n")


def assemble(folder: Path, starter: Starter = STARTERS[STARTER], source: Path | None = None) -> None:
    """Writes a complete starter to a folder that `AutoModel`, `AutoProcessor` and `pipeline` load.

    A folder that holds a starter already is written anew, file by file.

    Args:
        folder: Where it is written.
        starter: Which.
        source: The folder in the snippets of its card, if it is moved later.

    Raises:
        OSError: The fitted weights or the encoders cannot be found, or the folder cannot be written.
        ValueError: The fitted weights do not fit this version of the model, or the folder holds something else.
    """
    check_output(folder)
    model = fitted_starter(starter)
    norms = json.loads((starter.folder / NORMS).read_text(encoding="utf-8"))
    write_starter(folder, model, norms, (starter.folder / CARD).read_text(encoding="utf-8"), source)


def fitted_starter(starter: Starter) -> MsfSerModel:
    """The model of a starter that comes with the package.

    Raises:
        OSError: The fitted weights or the encoders cannot be found.
        ValueError: The fitted weights do not fit this version of the model, or its text encoder.
    """
    weights = starter.folder / WEIGHTS
    if not weights.is_file():
        raise OSError(f"{weights} is missing: install the package again, or run msfser.starter.fit.")
    model, fitted = new_starter(), load_file(weights)
    with safe_open(weights, "pt") as file:
        fitted_on = (file.metadata() or {}).get(_FITTED_ON)
    if fitted_on != _hash_of_update():
        raise ValueError(
            f"{weights} was fitted with another {TEXT_WEIGHTS.name}: install the package again, or run "
            "msfser.starter.fit."
        )
    set_intervals(model, MsfSerIntervals() if "intervals.quantiles" in fitted else None)
    needed = _fitted_weights(model)
    if {name: weight.shape for name, weight in fitted.items()} != {n: w.shape for n, w in needed.items()}:
        raise ValueError(f"{weights} does not fit this version of the model: install the package again.")
    model.load_state_dict(fitted, strict=False)
    scale = starter.folder / SCALE
    model.config.scale = json.loads(scale.read_text(encoding="utf-8")) if scale.is_file() else None
    starter.license.add_to(model.config)
    return model.eval()


def write_starter(
    folder: Path, model: MsfSerModel, norms: Mapping[str, Any], card: str, source: Path | None = None
) -> None:
    """Writes a fitted starter with its processor and card to a folder, as [`assemble`] does."""
    make_folder(folder)
    # The card first: it tells a starter, also one that was killed.
    write_text(folder / CARD, with_source(card, (source or folder).as_posix()))
    model.eval().save_pretrained(folder)
    starter_processor(norms).save_pretrained(folder)


def with_source(card: str, source: str, revision: str | None = None) -> str:
    """A card of a starter whose snippets load it from a folder, or from the Hub at a revision."""
    pinned = "" if revision is None else f', revision="{revision}"'
    return _SOURCE.sub(lambda _: f'from_pretrained("{source}"{pinned}', card)


def check_output(folder: Path) -> None:
    """Checks that a folder is new or holds a starter.

    Raises:
        ValueError: It is a file, or holds something else.
    """
    if folder.is_file():
        raise ValueError(f"{folder} is a file: name a new folder.")
    if folder.is_dir() and any(folder.iterdir()) and not _is_starter(folder):
        raise ValueError(f"{folder} holds something else than a starter: name a new folder.")


def _is_starter(folder: Path) -> bool:
    """Whether a folder has the card of a starter, of any version, and no settings of a run."""
    card = folder / CARD
    # That of a starter of --fit begins with the title.
    has_card = card.is_file() and f"\n{TITLE}" in "\n" + card.read_text(encoding="utf-8", errors="replace")
    return not (folder / RUN_FILE).exists() and (
        has_card or all(p.name.endswith(UNFINISHED) for p in folder.iterdir())
    )


def starter_folder(name: str = STARTER) -> Path:
    """The folder of the assembled starter in the cache; named by the content of the files that decide what is in it.

    Raises:
        OSError: The encoders cannot be found, or the folder cannot be written.
    """
    starter = STARTERS[name]
    folder = Path(HF_HOME) / "msfser" / name / files_hash(_made_of(starter))[:16]
    if not folder.is_dir():
        ensure_encoders([AUDIO_ENCODER, TEXT_ENCODER])
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
        assemble(unfinished, starter, folder)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
            shutil.rmtree(unfinished)
    return folder


def _made_of(starter: Starter) -> list[Path]:
    """The files of the package that decide what is in the folder of an assembled starter."""
    package = Path(__file__).parents[1]
    own = [starter.folder / name for name in (WEIGHTS, NORMS, SCALE, CARD)]
    encoders = [package / "hub" / name for name in ("encoders.yaml", "encoders.py", "convert.py")]
    licenses = [package / "corpora" / name for name in ("acted_layouts.py", "licenses.py")]
    text = [Path(__file__).with_name(name) for name in (TEXT_WEIGHTS.name, "text_encoder.py")]
    files = [*own, *text, Path(__file__), *encoders, *licenses, *package.glob("*_msfser.py")]
    return [path for path in files if path.is_file()]


def _hash_of_update() -> str:
    return hashlib.sha256(TEXT_WEIGHTS.read_bytes()).hexdigest()


def _fitted_weights(model: MsfSerModel) -> dict[str, torch.Tensor]:
    encoders = ("audio_encoder.", "text_encoder.")
    return {name: weight for name, weight in model.state_dict().items() if not name.startswith(encoders)}


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    parser = CommandParser(
        prog="msfser starter", description="Assembles a starter model, or fits one to corpora of acted emotions."
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path("outputs/starter"), help="output folder (outputs/starter)"
    )
    parser.add_argument(
        "--name", choices=list(STARTERS), help=f"which starter: {STARTER}, the default, or the one for any use"
    )
    parser.add_argument(
        "--fit",
        type=Path,
        nargs="+",
        metavar="DATA",
        help="fit a new one to the corpora in these folders: RAVDESS, EmoDB, nEMO, CREMA-D, emotiontts_kr; GoEmotions",
    )
    arguments = parser.parse_args(argv)
    if arguments.fit and arguments.name:
        parser.error("--name is of a fitted starter: leave it out with --fit.")
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO)
    disable_progress_bar()
    starter = STARTERS[arguments.name or STARTER]
    with cli_errors("starter"):
        check_output(arguments.folder)
        ensure_encoders([AUDIO_ENCODER, TEXT_ENCODER])
        if arguments.fit:
            from .fit import fit_to_folders  # it needs this module

            license = fit_to_folders(arguments.fit, arguments.folder)
        else:
            assemble(arguments.folder, starter)
            license = starter.license
    logger.info("saved: %s", arguments.folder)
    logger.info(license.sentence)


if __name__ == "__main__":
    main(sys.argv[1:])
