"""Adds transcripts, word times, emphasized words and descriptions to a corpus.

    msfser annotate my_corpus/metadata.csv --output my_corpus/annotated --language en
    accelerate launch --multi_gpu --num_processes 4 -m msfser annotate my_corpus/audio --output my_corpus/annotated

The second line starts four processes, without a GPU too (`accelerate launch --cpu` starts several only through MPI).
The output is the same table as Parquet shards, which `msfser train --data OUTPUT` reads; docs/annotating.md describes
its further columns. After an interruption the same command resumes.
"""

import argparse
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..annotator_msfser import Aligner, MsfSerAnnotator
from ..cli.arguments import CommandParser, add_precision, column_pair
from ..cli.errors import cli_errors
from ..cli.messages import show_messages
from ..corpora.registry import CORPORA, read_source, ready_data
from ..corpora.table import SourceRows
from ..description_msfser import NORMS, Describer, MeasuredDescriber
from ..emphasis_msfser import EMPHASIS, EmphasisConfig
from ..hub.encoders import ensure_encoders
from ..hub.model_names import model_settings
from ..languages_msfser import language_code
from ..sharding.processes import joined_processes, run_shards
from .aligners import CtcAligner, SphinxAligner
from .audio_language_model import AudioLanguageModelDescriber
from .chat_endpoint import ChatEndpointDescriber
from .norms import read_norms
from .prompt import PROMPT
from .sharded_annotation import ShardedAnnotation

# Before the name of a column whose texts were recognized anew.
_HUMAN = "human_"

RESUME = "run the same command again to continue; finished shards are kept"


def main(argv: Sequence[str]) -> None:
    """Runs `msfser annotate`."""
    arguments = parse(argv)
    show_messages()
    with cli_errors("annotate", resume=RESUME), joined_processes() as state:
        run_shards(
            state,
            lambda: sharded_annotation(arguments, str(state.device)),
            Path(arguments.data),
            ShardedAnnotation.finish,
        )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the command line."""
    parser = CommandParser(
        prog="msfser annotate",
        usage="msfser annotate DATA --output FOLDER [OPTIONS]",
        description="Adds transcripts, emphasized words and descriptions to a corpus.",
    )
    parser.add_argument(
        "data", metavar="DATA", help="a table, a folder of recordings, or the folder of a named corpus"
    )
    parser.add_argument(
        "--output", required=True, metavar="FOLDER", help="folder for the result, which `msfser train --data` reads"
    )
    parser.add_argument(
        "--corpus",
        choices=tuple(CORPORA),
        default="table",
        help="layout of the data: a table or recordings (default: %(default)s), or that of a corpus's owners",
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        type=column_pair,
        default=[],
        metavar="NAME=COLUMN",
        help="columns of the table that have other names, such as speaker=actor",
    )
    parser.add_argument(
        "--audio_folder", metavar="FOLDER", help="start of the table's relative audio paths (default: its folder)"
    )
    parser.add_argument(
        "--language",
        metavar="CODE",
        help="language of the speech, such as en; a column 'language' of the table takes precedence",
    )
    parser.add_argument(
        "--recognizer",
        metavar="NAME",
        default="openai/whisper-tiny.en",
        help="a Whisper model by Hub name or folder, or none (default: %(default)s)",
    )
    add_precision(parser, of="the recognizer")
    parser.add_argument(
        "--retranscribe",
        action="store_true",
        help="transcribe although the source has transcripts, which are kept as human_transcript and human_words",
    )
    parser.add_argument(
        "--aligner",
        metavar="NAME",
        default="recognizer",
        help="finds word times of given transcripts: recognizer, sphinx (English), or a CTC model by Hub name or "
        "folder (default: %(default)s)",
    )
    parser.add_argument(
        "--emphasis",
        choices=tuple(EMPHASIS),
        default="peak",
        help="how emphasized words are found: by peaks, or by the paper's formula (default: %(default)s)",
    )
    parser.add_argument(
        "--describer",
        metavar="NAME",
        default="measured",
        help="writes the descriptions: measured, none, an audio language model by Hub name or folder, or with --url "
        "the name of a server's model (default: %(default)s)",
    )
    parser.add_argument(
        "--url", help="an OpenAI-compatible server with audio input; the variable MSFSER_API_KEY holds its key"
    )
    parser.add_argument(
        "--norms",
        type=Path,
        metavar="FILE",
        help="norms for the measured describer, from `msfser norms` (default: those of EmoDB)",
    )
    arguments = parser.parse_args(argv)
    if arguments.norms is not None and arguments.describer != "measured":
        parser.error("--norms belongs to --describer measured")
    if arguments.precision != "float32" and arguments.recognizer == "none":
        parser.error("--precision needs a recognizer")
    if arguments.url is not None and arguments.describer in ("measured", "none"):
        parser.error("--url needs the name of the server's model as --describer")
    try:
        language_code(arguments.language)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def sharded_annotation(arguments: argparse.Namespace, device: str) -> ShardedAnnotation:
    """Reads the rows that the arguments name; nothing is made or loaded yet."""
    data = ready_data(arguments.corpus, arguments.data)
    source = read_source(arguments.corpus, data, columns=dict(arguments.columns), audio_folder=arguments.audio_folder)
    if arguments.retranscribe:
        if arguments.recognizer == "none":
            raise ValueError("--retranscribe needs a recognizer; name one with --recognizer.")
        source = without_transcripts(source)
    settings = settings_of(arguments)
    return ShardedAnnotation(
        source,
        settings,
        lambda: make_annotator(arguments, settings, device),
        Path(arguments.output),
        Path(data),
        server=None if arguments.url is None else (arguments.url, arguments.describer),
    )


def without_transcripts(source: SourceRows) -> SourceRows:
    """Moves transcripts and word times to columns of other names, so that all of them are recognized.

    Raises:
        ValueError: The source has no transcripts, or columns with these names.
    """
    moved = {name: f"{_HUMAN}{name}" for name in ("transcript", "words") if name in source.table.column_names}
    if "transcript" not in moved or not source.table["transcript"].drop_null().to_pylist():
        raise ValueError("--retranscribe: the source has no transcripts; leave it out.")
    if there := [name for name in moved.values() if name in source.table.column_names]:
        raise ValueError(
            f"--retranscribe: the source has a column {there[0]} already; rename it, or name the table before it was "
            "annotated."
        )
    names = [moved.get(name, name) for name in source.table.column_names]
    return source._replace(table=source.table.rename_columns(names))


def settings_of(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What the result of each step depends on, besides the table and the steps before it.

    The settings become part of models that are published: they have neither paths nor addresses.

    Raises:
        ValueError: A model folder is not there, or the norms cannot be read.
    """
    description: dict[str, Any] = {
        **model_settings("describer", arguments.describer, on_server=arguments.url is not None)
    }
    if arguments.describer == "measured":
        description["norms"] = NORMS if arguments.norms is None else read_norms(arguments.norms)
    elif arguments.describer != "none":
        description["prompt"] = hashlib.sha256(PROMPT.encode()).hexdigest()
    precision = {} if arguments.precision == "float32" else {"precision": arguments.precision}
    return {
        "transcript": {
            **model_settings("recognizer", arguments.recognizer),
            **precision,
            "language": arguments.language,
            **model_settings("aligner", arguments.aligner),
        },
        "emphasis": dataclasses.asdict(EMPHASIS[arguments.emphasis]),
        "description": description,
    }


def make_annotator(
    arguments: argparse.Namespace, settings: Mapping[str, Mapping[str, Any]], device: str
) -> MsfSerAnnotator:
    """Loads what makes the texts with the settings of [`settings_of`]; the recognizer is loaded at its first use."""
    recognizer = None if arguments.recognizer == "none" else arguments.recognizer
    ensure_encoders([recognizer])
    aligner: Aligner | None = None
    if arguments.aligner != "recognizer":
        aligner = SphinxAligner() if arguments.aligner == "sphinx" else CtcAligner(arguments.aligner, device)
    describer: Describer | None = None
    if arguments.describer == "measured":
        describer = MeasuredDescriber(settings["description"]["norms"])
    elif arguments.url is not None:
        describer = ChatEndpointDescriber(arguments.url, arguments.describer)
    elif arguments.describer != "none":
        describer = AudioLanguageModelDescriber(arguments.describer, device=device)
    emphasis = EmphasisConfig(**settings["emphasis"])
    return MsfSerAnnotator(recognizer, emphasis, describer, aligner, device, arguments.precision)
