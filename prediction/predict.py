"""Predicts valence, arousal and dominance of many recordings and writes a table.

    msfser predict recordings/ -o results.csv
    msfser predict calls/*.wav -o calls.parquet --channel each --language en
    accelerate-launch --multi_gpu --num_processes 2 -m msfser predict my/metadata.csv -o results.jsonl --model my/model

A recording that cannot be used is a row with the reason. What is predicted is kept beside the output, in
`OUTPUT.parts`, until the table is whole: after an interruption the same command goes on.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from ..cli.arguments import CommandParser, add_precision, column_pair
from ..cli.errors import cli_errors
from ..cli.outputs import refuse_existing
from ..corpora.label_ranges import range_of
from .paths import matches, parts_of, suffix_of, without_parts


def main(argv: Sequence[str]) -> None:
    """Runs `msfser predict`."""
    arguments = parse(argv)
    with cli_errors("predict", resume="run the same command again to continue; what is predicted is kept"):
        outputs = outputs_of(arguments)
        arguments.recordings = without_parts(arguments.recordings, outputs)
        check(arguments)
        # Slow imports are deferred until the names and the table have been checked.
        from .recordings import find_recordings, refuse_to_replace

        columns, audio_folder = dict(arguments.columns), arguments.audio_folder
        source = find_recordings(
            arguments.recordings, columns, audio_folder, arguments.corpus, arguments.test, outputs
        )
        refuse_to_replace(outputs, arguments.recordings, arguments.corpus, source)
        from .predicting import predict

        predict(source, arguments)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the command line."""
    parser = CommandParser(
        prog="msfser predict",
        usage="msfser predict RECORDINGS... -o OUTPUT [OPTIONS]",
        description="Predicts valence, arousal and dominance of recordings and writes a table.",
    )
    parser.add_argument(
        "recordings",
        nargs="+",
        metavar="RECORDINGS",
        help="files, folders, patterns such as 'calls/*.wav', or a table",
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="FILE", help="the table: .csv, .jsonl or .parquet"
    )
    parser.add_argument(
        "--model",
        default="starter",
        help="a folder, a name on the Hub, starter, or starter-open (default: %(default)s)",
    )
    parser.add_argument(
        "--label_range",
        nargs=2,
        type=float,
        default=[0.0, 1.0],
        metavar=("LOW", "HIGH"),
        help="scale of the three numbers (default: 0 1)",
    )
    parser.add_argument(
        "--interval_level", type=float, metavar="LEVEL", help="level of the intervals, 0.01 to 0.99 (default: 0.9)"
    )
    parser.add_argument(
        "--max_width",
        type=float,
        metavar="WIDTH",
        help="leave the numbers out where an interval is wider, on the scale of the numbers",
    )
    parser.add_argument("--course", action="store_true", help="a row for each window of a recording")
    parser.add_argument(
        "--channel",
        type=_channel,
        metavar="N|each",
        help="one channel, from 0 on, or a row for each; by default the mean of all",
    )
    parser.add_argument("--language", metavar="CODE", help="language of the speech, such as en")
    parser.add_argument(
        "--recognizer", metavar="NAME", help="a Whisper model by Hub name or folder, or none (default: as trained)"
    )
    add_precision(parser)
    parser.add_argument("--batch_size", type=int, default=16, help="windows in a batch (default: %(default)s)")
    parser.add_argument(
        "--columns", nargs="+", type=column_pair, default=[], metavar="NAME=COLUMN", help="columns with other names"
    )
    parser.add_argument("--audio_folder", metavar="FOLDER", help="start of the table's relative audio paths")
    parser.add_argument(
        "--corpus", default="table", metavar="NAME", help="layout of a named corpus, such as msp_podcast"
    )
    parser.add_argument(
        "--test", nargs="+", default=[], metavar="PART", help="only these parts of the named corpus, such as Test3"
    )
    parser.add_argument(
        "--submission", type=Path, metavar="FILE.csv", help="also write FileName,EmoAct,EmoVal,EmoDom on 1..7"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it is there")
    return parser.parse_args(argv)


def _channel(text: str) -> int | str:
    if text == "each":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"give the number of a channel, from 0 on, or each, not {text!r}")
    return int(text)


def outputs_of(arguments: argparse.Namespace) -> list[Path]:
    """The files that are to be written."""
    return [path for path in (arguments.output, arguments.submission) if path is not None]


def check(arguments: argparse.Namespace) -> None:
    """Checks what can be checked before anything slow is imported.

    Raises:
        ValueError: An input is missing, or an option has no such value.
        OSError: The output is there.
    """
    output: Path = arguments.output
    suffix_of(output)
    outputs = outputs_of(arguments)
    inputs = {os.path.realpath(path) for name in arguments.recordings for path in matches(name, outputs)}
    for path in outputs:
        if os.path.realpath(path) in inputs:
            raise ValueError(f"{path} is one of the inputs and would be replaced: give another name.")
    refuse_existing(output, arguments.overwrite, parts_of(output))
    low, high = range_of(arguments.label_range)
    if arguments.max_width is not None and not arguments.max_width > 0:
        raise ValueError(
            f"--max_width is {arguments.max_width}: give a width above 0, such as {0.4 * (high - low):g}."
        )
    if arguments.batch_size < 1:
        raise ValueError(f"--batch_size is {arguments.batch_size}: give 1 or more.")
    if not output.parent.is_dir():
        raise ValueError(f"there is no folder {str(output.parent)!r} for the output: make it first.")
    if (submission := arguments.submission) is not None:
        if arguments.corpus != "msp_podcast" or not arguments.test:
            raise ValueError("--submission needs a part of MSP-Podcast: give --corpus msp_podcast --test Test3.")
        if arguments.max_width is not None:
            raise ValueError("--submission needs a number for each recording: leave out --max_width.")
        if arguments.course or arguments.channel == "each":
            raise ValueError("--submission has one row for each recording: leave out --course and --channel each.")
        if not submission.parent.is_dir():
            raise ValueError(f"there is no folder {str(submission.parent)!r} for the submission: make it first.")
        if submission.resolve() == output.resolve():
            raise ValueError(f"--submission and -o are both {output}: give two files.")
        refuse_existing(submission, arguments.overwrite)
