"""Predicts valence, arousal and dominance of many recordings and writes a table.

    msfser predict recordings/ -o results.csv
    msfser predict calls/*.wav -o calls.parquet --channel each --language en
    accelerate launch --multi_gpu --num_processes 2 -m msfser predict my/metadata.csv -o results.jsonl --model my/model

A recording that cannot be used is a row with the reason. What is predicted is kept beside the output, in
`OUTPUT.parts`, until the table is whole: after an interruption the same command goes on.
"""

import argparse
import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch
from accelerate import PartialState
from huggingface_hub import ModelCard

from ..cli.arguments import column_pair
from ..cli.errors import cli_errors
from ..cli.messages import show_messages
from ..cli.outputs import refuse_existing, whole_file
from ..corpora.audio_folder import left_out_message
from ..corpora.shards import SHARDS_NOTE
from ..hub.loading import load_named
from ..hub.model_names import model_settings
from ..inputs_msfser import EACH, check_options
from ..processing_msfser import to_scale
from ..starter.assemble import STARTER
from .recordings import find_recordings
from .sharded_prediction import ShardedPrediction, TimedPipeline
from .tables import rows_of_result, suffix_of, write_table

logger = logging.getLogger(__name__)

RESUME = "run the same command again to continue; what is predicted is kept"


def main(argv: Sequence[str]) -> None:
    """Runs `msfser predict`."""
    arguments = parse(argv)
    show_messages()
    with cli_errors("predict", resume=RESUME):
        suffix = suffix_of(arguments.output)
        state = PartialState(cpu=not torch.accelerator.is_available())
        try:
            with state.main_process_first():
                work = sharded_prediction(arguments, str(state.device))
            parts = contextlib.ExitStack()
            with parts:
                with state.main_process_first():
                    if state.is_main_process:
                        parts.enter_context(work.prepared(Path(arguments.recordings[0])))
                start = time.perf_counter()
                work.run(state.process_index, state.num_processes, quiet=not state.is_local_main_process)
                _log_speed(work, time.perf_counter() - start)
                state.wait_for_everyone()
                if state.is_main_process:
                    _write(work, arguments, suffix)
            if state.is_main_process:
                shutil.rmtree(work.output)
        except (Exception, KeyboardInterrupt):
            if state.is_main_process:
                _remove_empty(parts_of(arguments.output))
            raise
        finally:
            state.destroy_process_group()


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
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
        "--model", default=STARTER, help="a folder, a name on the Hub, or starter (default: %(default)s)"
    )
    parser.add_argument(
        "--label_range",
        nargs=2,
        type=float,
        default=[0.0, 1.0],
        metavar=("LOW", "HIGH"),
        help="scale of the three numbers (default: 0 1)",
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
    parser.add_argument("--batch_size", type=int, default=8, help="windows in a batch (default: %(default)s)")
    parser.add_argument(
        "--columns", nargs="+", type=column_pair, default=[], metavar="NAME=COLUMN", help="columns with other names"
    )
    parser.add_argument("--audio_folder", metavar="FOLDER", help="start of the table's relative audio paths")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it is there")
    return parser.parse_args(argv)


def _channel(text: str) -> int | str:
    if text == EACH:
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"give the number of a channel, from 0 on, or each, not {text!r}")
    return int(text)


def sharded_prediction(arguments: argparse.Namespace, device: str) -> ShardedPrediction:
    """Finds the recordings and the model; nothing is predicted yet.

    Raises:
        ValueError: An input is missing or the output is there.
        OSError: The model cannot be found.
    """
    output: Path = arguments.output
    parts = parts_of(output)
    refuse_existing(output, arguments.overwrite)
    try:
        to_scale(0.5, *arguments.label_range)
    except ValueError as error:
        raise ValueError(f"--label_range: {error}") from error
    if arguments.batch_size < 1:
        raise ValueError(f"--batch_size is {arguments.batch_size}: give 1 or more.")
    if not output.parent.is_dir():
        raise ValueError(f"there is no folder {str(output.parent)!r} for the output: make it first.")
    source = find_recordings(arguments.recordings, dict(arguments.columns), arguments.audio_folder)
    if arguments.overwrite and (parts / SHARDS_NOTE).is_file():
        shutil.rmtree(parts)
    named = load_named(arguments.model)
    if os.path.isdir(named.source):
        logger.info(f"the license of the weights: {_license(Path(named.source))}.")
    options: dict[str, Any] = {"batch_size": arguments.batch_size, "channel": arguments.channel}
    if arguments.language:
        options["language"] = arguments.language
    settings: dict[str, Any] = {**named.settings, **options}
    if arguments.recognizer is not None:
        options["recognizer"] = None if arguments.recognizer == "none" else arguments.recognizer
        settings |= model_settings("recognizer", arguments.recognizer)
    pipeline = TimedPipeline(model=named.model, processor=named.processor, device=device)
    check_options(**{name: value for name, value in options.items() if name != "batch_size"})
    return ShardedPrediction(source, settings, pipeline, options, parts)


def parts_of(output: Path) -> Path:
    """The folder in which predictions are kept until the table is whole."""
    return output.with_name(f"{output.name}.parts")


def _remove_empty(parts: Path) -> None:
    """Removes the folder of a run that has predicted nothing."""
    if (parts / SHARDS_NOTE).is_file() and not any(parts.glob("data/*.parquet")):
        shutil.rmtree(parts)


def _license(folder: Path) -> str:
    card = folder / "README.md"
    stated = ModelCard.load(card).data.get("license") if card.is_file() else None
    return str(stated or "not stated")


def _log_speed(work: ShardedPrediction, seconds: float) -> None:
    if not work.pipeline.stopwatch.seconds:
        return
    parts = ", ".join(f"{name} {spent / seconds:.0%}" for name, spent in work.pipeline.stopwatch.seconds.items())
    logger.info(f"took {seconds:.0f} s: {parts}; files are decoded in the background.")


def _write(work: ShardedPrediction, arguments: argparse.Namespace, suffix: str) -> None:
    files, rows = work.source.recording_names(), list[dict[str, Any]]()
    for number in range(work.count):
        made = pyarrow.parquet.read_table(work.shard(number), columns=["result", "error"]).to_pylist()
        for row, entry in zip(work.rows(number), made, strict=True):
            result = None if entry["result"] is None else json.loads(entry["result"])
            name = files[row] or f"row {row + 1}"
            rows += rows_of_result(name, result, entry["error"], tuple(arguments.label_range), arguments.course)
    with whole_file(arguments.output) as unfinished, unfinished.open("wb") as file:
        write_table(rows, suffix, file)
    failed = sum(row["error"] is not None for row in rows)
    if work.left_out:
        logger.warning(left_out_message(work.left_out))
    logger.info(f"{len(rows)} rows in {arguments.output}, {failed} of them without a result.")
    if failed == len(rows):
        logger.warning(f"no recording has a result; the first: {rows[0]['error']}")
