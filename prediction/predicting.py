"""What `msfser predict` and `msfser train --do_predict` do: a table of predictions, made in shards."""

import argparse
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet
from accelerate import PartialState

from ..cli.messages import show_messages
from ..cli.outputs import refuse_existing
from ..corpora.audio_folder import left_out_message
from ..corpora.label_ranges import LabelRange
from ..corpora.messages import counted
from ..corpora.table import SourceRows
from ..corpora.text_languages import unread_languages, without_unread_words
from ..hub.loading import NamedModel, load_named
from ..hub.model_names import model_settings
from ..inputs_msfser import check_options
from ..sharding.output_folder import remove_results, write_whole
from ..sharding.processes import joined_processes, run_shards
from .model_messages import license_message, option_names
from .paths import parts_of, suffix_of
from .sharded_prediction import ShardedPrediction
from .submission import write_submission
from .tables import rows_of_result, write_table
from .timed_pipeline import TimedPipeline

logger = logging.getLogger(__name__)


def predict(source: SourceRows, arguments: argparse.Namespace) -> None:
    """Predicts recordings as the arguments of `msfser predict` say.

    Raises:
        ValueError: An option is wrong, or the shards beside the output are of something else.
        OSError: The model cannot be found, or a file cannot be written.
    """
    show_messages()
    output, (low, high) = arguments.output, arguments.label_range
    options: dict[str, Any] = {"batch_size": arguments.batch_size, "channel": arguments.channel}
    if arguments.language:
        options["language"] = arguments.language
    if arguments.interval_level is not None:
        options["interval_level"] = arguments.interval_level
    if arguments.recognizer is not None:
        options["recognizer"] = None if arguments.recognizer == "none" else arguments.recognizer
    with joined_processes() as state, option_names():
        if arguments.channel == "each" and state.is_main_process:
            logger.info("each channel may be another person: all must know and agree (docs/responsible-use.md).")

        def open_work() -> ShardedPrediction:
            named = load_named(arguments.model)
            for option in ("max_width", "interval_level"):
                if getattr(arguments, option) is not None and not named.model.config.intervals:
                    raise ValueError(f"{arguments.model} has no intervals, which --{option} needs: leave it out.")
            if arguments.submission is not None and (unrated := named.model.config.unrated):
                raise ValueError(
                    f"{arguments.model} was trained without labels of {unrated[0]}, which --submission needs: "
                    "leave it out, or name another --model."
                )
            logger.info(license_message(named.source, named.model.config))
            return open_prediction(source, named, options, str(state.device), output, arguments.precision)

        data = Path(arguments.recordings[0])
        shown = {"course": arguments.course, "max_width": arguments.max_width}

        def then() -> None:
            if arguments.submission is not None:
                refuse_existing(arguments.submission, arguments.overwrite)
                write_submission(output, (low, high), source.recording_names(), arguments.submission)

        predict_table(state, open_work, data, output, (low, high), arguments.overwrite, then, **shown)


def open_prediction(
    source: SourceRows,
    named: NamedModel,
    options: Mapping[str, Any],
    device: str,
    output: Path,
    precision: str = "float32",
) -> ShardedPrediction:
    """Opens the shards in which the predictions of some recordings are made.

    Args:
        source: The recordings and their texts.
        named: The model.
        options: Of the pipeline.
        device: That the model runs on.
        output: The table that is made in the end.
        precision: That of the encoders and the recognizer, `"float32"` or `"bfloat16"`.

    Raises:
        ValueError: An option has no such setting.
    """
    # A run that was killed for memory goes on with smaller batches.
    of_results = {name: value for name, value in options.items() if name != "batch_size"}
    check_options(**of_results)
    settings: dict[str, Any] = {**named.settings, **of_results}
    if isinstance(recognizer := options.get("recognizer"), str):
        settings |= model_settings("recognizer", recognizer)
    if precision != "float32":
        settings["precision"] = precision
    language = options.get("language") or ((named.processor.annotation or {}).get("transcript") or {}).get("language")
    if languages := named.processor.text_languages:
        unread = unread_languages(source.table, languages, language)
        table = without_unread_words(source.origin, source.table, unread, languages)
        source = source._replace(table=table)
    pipeline = TimedPipeline(model=named.model, processor=named.processor, device=device, precision=precision)
    return ShardedPrediction(source, settings, pipeline, options, parts_of(output))


def predict_table(
    state: PartialState,
    open_work: Callable[[], ShardedPrediction],
    data: Path,
    output: Path,
    label_range: LabelRange,
    overwrite: bool = False,
    then: Callable[[], object] = lambda: None,
    **shown: Any,
) -> None:
    """Predicts recordings in shards, goes on where an earlier run was stopped, and writes the table.

    Args:
        state: Of the processes, which share the shards.
        open_work: Finds the recordings and the model.
        data: Where the recordings were read from.
        output: The table; shards are kept beside it until it is whole.
        label_range: The scale of the three numbers, or that of each.
        overwrite: Whether to replace the table, and to make shards of something else that are beside it anew.
        then: What the main process does with the table; if it raises an error, the shards are kept.
        **shown: `course` and `max_width`, as in [`rows_of_result`].

    Raises:
        ValueError: The shards beside the output are of something else; or no recording has a result, which the table
            that is written says of each.
        OSError: The table is there, or a file cannot be written.
    """
    start = time.perf_counter()

    def opened() -> ShardedPrediction:
        work = open_work()
        refuse_existing(output, overwrite, parts_of(output))  # another run may have ended meanwhile
        return work

    def finish(work: ShardedPrediction) -> None:
        refuse_existing(output, overwrite, parts_of(output))
        with work.pipeline.stopwatch.measure("write"):
            has_result = _write(work, output, label_range, **shown)
            if has_result:
                then()
            remove_results(work.output)
        _log_parts(work.pipeline, time.perf_counter() - start)
        if not has_result:
            raise ValueError(f"no recording has a result: the column error of {output} names the reasons.")

    run_shards(state, opened, data, finish, overwrite)


def _write(work: ShardedPrediction, output: Path, label_range: LabelRange, **shown: Any) -> bool:
    """Writes the table, and says whether a row of it has a result."""
    count = failed = 0
    config = work.pipeline.model.config
    of_model = {"unrated": config.unrated or (), "scale": config.scale}

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal count, failed
        for number in range(work.count):
            made = pyarrow.parquet.read_table(work.shard(number), columns=["result", "error"]).to_pylist()
            for row, entry in zip(work.rows(number), made, strict=True):
                result = None if entry["result"] is None else json.loads(entry["result"])
                for of_result in rows_of_result(
                    work.name(row), result, entry["error"], label_range, **of_model, **shown
                ):
                    count += 1
                    failed += of_result["error"] is not None
                    yield of_result

    write_whole(output, lambda file: write_table(rows(), suffix_of(output), file))
    if work.left_out:
        logger.warning(left_out_message(work.left_out))
    logger.info(f"{counted(count, 'row')} in {output}, {failed} without a result.")
    return failed < count


def _log_parts(pipeline: TimedPipeline, seconds: float) -> None:
    """Says what the time went into."""
    spent = pipeline.stopwatch.seconds
    shares = {**spent, "rest": seconds - sum(spent.values())}
    parts = ", ".join(f"{part} {share / seconds:.0%}" for part, share in shares.items())
    decoding = pipeline.background.seconds["decode"] / seconds
    logger.info(f"took {seconds:.1f} s: {parts}; meanwhile a thread decoded for {decoding:.0%} of the time.")
