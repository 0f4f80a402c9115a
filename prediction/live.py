"""Predicts valence, arousal and dominance of sound as it arrives.

    ffmpeg -f pulse -i default -f s16le -ac 1 -ar 16000 - | msfser live - --skip
    ffmpeg -i talk.mp3 -f wav - | msfser live - --language en > talk.jsonl

Each hop has a line: for the eye in a terminal, as JSON elsewhere.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..cli.arguments import CommandParser, add_precision
from ..cli.errors import cli_errors
from ..cli.interrupts import raise_if_interrupted

logger = logging.getLogger(__name__)

_DIMENSIONS = ("valence", "arousal", "dominance")
_SCALE = 9
_RAW_RATE = 16_000
# The line of a scale, its middle and the value; and where a terminal cannot show them.
_SIGNS, _PLAIN_SIGNS = ("─", "┼", "●"), ("-", "+", "o")


def main(argv: Sequence[str]) -> None:
    """Runs `msfser live`."""
    arguments = parse(argv)
    with cli_errors("live"):
        is_piped = arguments.source == "-"
        if is_piped and sys.stdin.isatty():
            raise ValueError("nothing is piped: run ffmpeg ... | msfser live -, or name a file in place of -.")
        if not is_piped:
            _check_file(arguments.source, arguments.rate)
        file = sys.stdin.fileno() if is_piped else os.open(arguments.source, os.O_RDONLY)
        try:
            # Not by a buffered reader: it waits for whole buffers, and its lock may be held when the process ends.
            _run(arguments, lambda count: os.read(file, count))
        except BrokenPipeError:  # nobody reads the results any more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the command line."""
    parser = CommandParser(
        prog="msfser live",
        usage="msfser live - [OPTIONS]",
        description="Predicts valence, arousal and dominance of sound as it arrives, such as ffmpeg pipes: a line "
        "for each hop.",
        epilog="Everybody who is recorded must know and agree (docs/responsible-use.md). No sound is kept.",
    )
    parser.add_argument("source", metavar="-", help="the pipe: WAV, or raw 16-bit samples (s16le, mono); or a file")
    parser.add_argument(
        "--rate", type=int, metavar="HZ", help=f"rate of raw samples (default: {_RAW_RATE} in a pipe; a file needs it)"
    )
    parser.add_argument(
        "--model",
        default="starter",
        help="a folder, a name on the Hub, starter, or starter-open (default: %(default)s)",
    )
    parser.add_argument("--window", type=float, default=4.0, metavar="S", help="seconds in a result (default: 4)")
    parser.add_argument("--hop", type=float, default=1.0, metavar="S", help="seconds between results (default: 1)")
    parser.add_argument("--language", metavar="CODE", help="language of the speech, such as en")
    parser.add_argument(
        "--recognizer", metavar="NAME", help="a Whisper model by Hub name or folder, or none (default: as trained)"
    )
    add_precision(parser)
    parser.add_argument(
        "--skip", action="store_true", help="for a microphone: if this computer is too slow, give the newest result"
    )
    parser.add_argument("--json", action="store_true", help="JSON lines in a terminal, too")
    return parser.parse_args(argv)


def _check_file(path: str, rate: int | None) -> None:
    """Checks a file that is named in place of the pipe; what is not a regular file may be a pipe with a name."""
    if not os.path.exists(path):
        raise ValueError(f"there is no file {path!r}: give a WAV file, or - for a pipe.")
    if os.path.isdir(path):
        raise ValueError(f"{path!r} is a folder: give one of its recordings, or use msfser predict.")
    if rate is not None or not os.path.isfile(path):
        return
    with open(path, "rb") as file:
        start = file.read(12)
    if start[:4] != b"RIFF" or start[8:] != b"WAVE":
        raise ValueError(
            f"{path!r} is no WAV file: run ffmpeg -i INPUT -f wav - | msfser live -, or give --rate if it holds raw "
            "16-bit samples."
        )


def _run(arguments: argparse.Namespace, read: Callable[[int], bytes]) -> None:
    # Slow imports are deferred until the arguments have been checked.
    from ..cli.messages import show_messages
    from ..hub.loading import find_named, load_found
    from ..inputs_msfser import check_options
    from ..pipeline_msfser import MsfSerPipeline
    from ..stream_msfser import check_windows
    from .model_messages import license_message, option_names
    from .piped_sound import open_pipe

    show_messages()
    options: dict[str, Any] = {"language": arguments.language} if arguments.language else {}
    if arguments.recognizer is not None:
        options["recognizer"] = None if arguments.recognizer == "none" else arguments.recognizer
    check_options(**options)
    rate = _RAW_RATE if arguments.rate is None else arguments.rate
    found = find_named(arguments.model)
    check_windows(rate, arguments.window, arguments.hop, found.processor.feature_extractor.max_seconds)
    named = load_found(found)
    logger.info(license_message(named.source, named.model.config))
    logger.info("Everybody who is recorded must know and agree (docs/responsible-use.md); no sound is kept.")
    pipeline = MsfSerPipeline(model=named.model, processor=named.processor, precision=arguments.precision)
    sound = open_pipe(read, rate)
    results = pipeline.stream(
        sound.chunks, sound.sampling_rate, arguments.window, arguments.hop, arguments.skip, **options
    )
    show = json.dumps if arguments.json or not sys.stdout.isatty() else _lines(sys.stdout.encoding)
    with option_names():
        for result in results:
            print(show(result), flush=True)
            raise_if_interrupted()


def _lines(encoding: str) -> Callable[[Mapping[str, Any]], str]:
    """What makes the line of a result for a terminal; the first one follows the names of the columns."""
    try:
        "".join(_SIGNS).encode(encoding)
        line, middle, value = _SIGNS
    except (UnicodeEncodeError, LookupError):
        line, middle, value = _PLAIN_SIGNS
    empty = line * (_SCALE // 2) + middle + line * (_SCALE // 2)
    print("time   " + "".join(f"{name:<16}" for name in _DIMENSIONS) + "words")

    def show(result: Mapping[str, Any]) -> str:
        minutes, seconds = divmod(int(result["end"]), 60)
        cells = [] if result["has_speech"] else ["no numbers"]
        for name in _DIMENSIONS if not cells else ():
            at = min(_SCALE - 1, int(result[name] * _SCALE))
            cells.append(f"{empty[:at]}{value}{empty[at + 1 :]} {result[name]:.2f}  ")
        words = " ".join(word["word"] for word in result["words"])
        reasons = "" if result["has_speech"] else " ".join(result["warnings"])
        said = f"{words} ({reasons})" if words and reasons else words or reasons
        skipped = f" ({result['skipped']} skipped)" if result["skipped"] else ""
        return f"{f'{minutes}:{seconds:02}':<7}{''.join(cells):<48}{said}{skipped}".rstrip()

    return show
