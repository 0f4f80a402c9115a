"""Runs the demo page: valence, arousal and dominance of a recording, with reasons, and its words to correct.

The page uses the model in MSFSER_MODEL, a folder or a name on the Hub, at the revision in MSFSER_REVISION. By default
a Space uses the model of its own name, and any other machine the folder outputs/starter. A Space runs this file alone,
without the package: the model brings its code along.
"""

import argparse
import contextlib
import contextvars
import html
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import gradio as gr
import numpy as np
import pandas as pd
import torch
from gradio.utils import get_upload_folder
from transformers import Pipeline, pipeline
from transformers.models.whisper.tokenization_whisper import LANGUAGES

STARTER = "outputs/starter"
MODEL = os.environ.get("MSFSER_MODEL") or os.environ.get("SPACE_ID") or STARTER
REVISION = os.environ.get("MSFSER_REVISION") or None
FOLDER = Path(__file__).parent / "examples"
EXAMPLES = {
    "wonderful.mp3": "“… WONDERFUL but … dreadful”",
    "dreadful.mp3": "The same, other stress: “… wonderful but … DREADFUL”",
    "calm.mp3": "The first one, slow, low and quiet",
    "thanks.mp3": "“Thank you so much …”",
    "sorry.mp3": "“I am so sorry …”, same voice",
    "long.mp3": "Longer, livens up",
    "not_bad.mp3": "Goes wrong: “… not bad at all …”",
    "irony.mp3": "Goes wrong: “Oh great, another wonderful delay.”",
}

MOST_MINUTES = 5
MOST_MEGABYTES = 60  # five minutes of 16-bit stereo at 48 kHz
# Five minutes of fast speech; a description or some emphasized words need less.
MOST_LETTERS = 8_000
MOST_LETTERS_OF_A_LANGUAGE = 40
MINUTES_KEPT = 10
MOST_WAITING = 20
THREADS = 2  # the free tier of Spaces has two cores


def _five_steps(low: str, high: str) -> tuple[str, ...]:
    return f"very {low}", f"rather {low}", f"neither {low} nor {high}", f"rather {high}", f"very {high}"


# From 0 to 1.
IN_WORDS = {
    "valence": _five_steps("negative", "positive"),
    "arousal": _five_steps("calm", "excited"),
    "dominance": tuple(f"{step} in control" for step in ("not at all", "hardly", "partly", "rather", "fully")),
}
NAMES = [name.capitalize() for name in IN_WORDS]
LEVELS = ("low", "middle", "high")
# Shares that differ by less count as equal.
ALIKE = 0.05
COLORS = ("#0072b2", "#7b3fb5", "#d55e00")
ORIGINS = {
    "given": "as you wrote it",
    "recognized": "recognized automatically",
    "aligned": "your words, timed automatically",
    "found": "found by the pitch, loudness and length of the words",
}
NO_SPEECH = "absent: no speech"
NOT_READ = "absent: the model does not read it"
# Roughly by how much one window of the model extends the one before.
_SECONDS_A_WINDOW = 5.0

INTRODUCTION = """# How does it come across?
Valence (negative to positive), arousal (calm to excited) and dominance (controlled to in control) of speech, predicted
from its {source}. Record or upload up to {minutes} minutes: WAV, FLAC, OGG, MP3 or M4A, at most {megabytes} MB.
"""

NO_RESULT = "### The result will appear here.\nRecord or upload speech and press Analyze, or choose an example."

BOUNDS = """### What this is not for
The numbers are a machine's estimate of how speech comes across on average. They do not tell what anybody feels. **Do
not use them for decisions about people:** no clinical, hiring, school or workplace use. The [law of the European
Union](https://eur-lex.europa.eu/eli/reg/2024/1689/oj) forbids emotion recognition at work and in education, with few
exceptions, and restricts it elsewhere. Upload only recordings of people who have agreed to it.

### What happens to your recording
It is not kept. It is stored in a temporary file so that you can correct its words, and is deleted about {minutes}
minutes after the upload. It is used for nothing else, and neither the recording nor its words are logged.

### Which model this is
`{model}`. A model trained on the probe corpus knows computer voices only: its predictions for a real voice mean
nothing. The starter was trained on acted emotions of 43 actors, which no listener has rated, and on written comments.
"""

Text: TypeAlias = str | None
_window_done: contextvars.ContextVar = contextvars.ContextVar("_window_done", default=None)
# One thread for all: the model runs on one recording at a time, and each thread that computes keeps its own memory.
_worker = ThreadPoolExecutor(1, thread_name_prefix="model")


def load(model: str, revision: str | None = None, **options: Any) -> Pipeline:
    """Loads the model, a folder or Hub name, and what it needs, so that the first visitor does not have to wait.

    Raises:
        OSError: The model or the recognizer cannot be found.
        ValueError: It is not a model of this project.
    """
    torch.set_num_threads(THREADS)
    ser = pipeline("audio-classification", model=model, revision=revision, trust_remote_code=True, **options)
    _worker.submit(ser, {"array": np.zeros(16_000, np.float32), "sampling_rate": 16_000}).result()
    ser.model.register_forward_hook(_report_window)
    return ser


def _report_window(*_: Any) -> None:
    if (report := _window_done.get()) is not None:
        report()


def predict(
    ser: Pipeline, audio: Text, progress: Callable[..., Any] = lambda *_, **__: None, **given: Text
) -> dict[str, Any]:
    """Runs the pipeline on the recording at a path, and returns its output.

    `progress` is called with the fraction that is done, 0..1, and `desc`, a text. Given are `transcript`, `emphasis`,
    `description` and `language`; those that are empty count as not given.

    Raises:
        gradio.Error: The recording or a text cannot be used.
    """
    texts = _checked_texts(given)
    seconds = _checked_seconds(ser, audio)
    windows = 0

    def report() -> None:
        nonlocal windows
        windows += 1
        done = min(windows * _SECONDS_A_WINDOW, seconds)
        progress(0.1 + 0.9 * done / seconds, desc=f"Analyzed {done:.0f} of {seconds:.0f} s")

    item = {"audio": audio, **texts}
    context = contextvars.copy_context()
    context.run(_window_done.set, report)
    progress(0.1, desc="Recognizing the words")
    try:
        return _worker.submit(context.run, ser, item).result()
    except (ValueError, OSError, ImportError) as error:
        raise _user_error(str(error).replace(repr(audio), "the recording")) from error


def _checked_seconds(ser: Any, audio: Text) -> float:
    """The length of a recording of a known format that is within the limits."""
    if audio is None:
        raise _user_error("There is no recording yet: record or upload one first.")
    if not Path(audio).is_file():
        raise _user_error(f"The recording has been deleted after {MINUTES_KEPT} minutes: record or upload it again.")
    if Path(audio).stat().st_size > MOST_MEGABYTES * 1_000_000:
        raise _user_error(f"The file is larger than {MOST_MEGABYTES} MB: shorten it, or save it as FLAC or MP3.")
    try:
        seconds = ser.seconds(audio, MOST_MINUTES * 60)
    except (ValueError, OSError) as error:
        raise _user_error(
            "This file cannot be read as audio: save it as WAV, FLAC, OGG, MP3 or M4A, and upload it again."
        ) from error
    if not seconds:
        raise _user_error("The recording is empty: record or upload another one.")
    if seconds > MOST_MINUTES * 60:
        raise _user_error(f"The recording is longer than {MOST_MINUTES} minutes: cut it into parts.")
    return seconds


def _checked_texts(given: Mapping[str, Text]) -> dict[str, Text]:
    """Texts that are within the limit; those that are empty are `None`."""
    for name, text in given.items():
        if text is not None and not isinstance(text, str):
            raise _user_error(f"The {name} is no text: type it, or leave it empty.")
        most = MOST_LETTERS_OF_A_LANGUAGE if name == "language" else MOST_LETTERS
        if text and len(text) > most:
            raise _user_error(f"The {name} is longer than {most:,} characters: shorten it.")
    return {name: text or None for name, text in given.items()}


def _user_error(message: str) -> gr.Error:
    # The page shows messages as HTML.
    return gr.Error(html.escape(message[:1].upper() + message[1:]), title="This did not work", print_exception=False)


def delete_leftovers(folder: Path, seconds: float) -> None:
    """Deletes interrupted uploads and emptied folders that are older, which gradio leaves in its folder of uploads."""
    for path in folder.glob("*"):
        # It may have been deleted meanwhile; a folder that contains a file is kept.
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > seconds:
                path.rmdir() if path.is_dir() else path.unlink()


def _delete_leftovers_every_minute() -> None:
    while True:
        delete_leftovers(Path(get_upload_folder()), MINUTES_KEPT * 60)
        time.sleep(60)


# Presentation of a result


def in_words(dimension: str, value: float) -> str:
    """A number in 0..1 as plain words, in five steps."""
    return IN_WORDS[dimension][min(4, max(0, int(value * 5)))]


def headline(result: Mapping[str, Any]) -> str:
    """The result as a sentence."""
    first, second, third = (f"**{in_words(name, result[name])}** ({name} {result[name]:.2f})" for name in IN_WORDS)
    over = f" (mean over {result['duration']:.0f} s)" if "course" in result else ""
    silent = "No speech was detected, so this means little. " if result["texts"]["transcript"] == NO_SPEECH else ""
    warnings = [warning for warning in result["warnings"] if not (silent and warning.startswith("No speech"))]
    return "\n\n".join([f"### {silent}It comes across as {first}, {second} and {third}{over}.", *warnings])


# A plot keeps its categories and their colors once it is shown, so every result has the same ones.


def bars(result: Mapping[str, Any]) -> pd.DataFrame:
    """The three numbers."""
    return pd.DataFrame({"dimension": NAMES, "value": [result[name] for name in IN_WORDS]})


def plane(result: Mapping[str, Any]) -> pd.DataFrame:
    """Valence and arousal of each part; dominance is the color. A row without numbers for each level comes first."""
    parts = result.get("course") or [result]
    rows = [{"valence": None, "arousal": None, "dominance": level} for level in LEVELS]
    rows += [{**part, "dominance": LEVELS[min(2, max(0, int(part["dominance"] * 3)))]} for part in parts]
    return pd.DataFrame(rows)[["valence", "arousal", "dominance"]].astype({"valence": float, "arousal": float})


def course(result: Mapping[str, Any]) -> pd.DataFrame | None:
    """The three numbers over time, in the middle of each window; `None` for a short recording."""
    if "course" not in result:
        return None
    rows = [
        {"seconds": (part["start"] + part["end"]) / 2, "value": part[name], "dimension": name.capitalize()}
        for name in IN_WORDS
        for part in result["course"]
    ]
    return pd.DataFrame(rows)


def marked(result: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """The transcript, its emphasized words marked."""
    if not result["words"]:
        return [(result["transcript"], None)] if result["transcript"] else []
    separator = " " if " " in (result["transcript"] or " ") else ""
    return [(word["word"] + separator, "emphasized" if word["emphasized"] else None) for word in result["words"]]


def experts(result: Mapping[str, Any]) -> pd.DataFrame | None:
    """Each expert's share in each dimension; `None` if the model has fewer than two."""
    if not _has_choice(result):
        return None
    rows = [
        {"dimension": dimension.capitalize(), "share": share, "expert": name}
        for dimension, shares in result["routing"].items()
        for name, share in shares.items()
    ]
    return pd.DataFrame(rows)


def _has_choice(result: Mapping[str, Any]) -> bool:
    return result["routing"] is not None and len(next(iter(result["routing"].values()))) > 1


def reasons(result: Mapping[str, Any]) -> str:
    """Experts, gate and the origin of the texts in words."""
    lines = []
    if _has_choice(result):
        shares = [_main_expert(dimension, shares) for dimension, shares in result["routing"].items()]
        lines.append(f"- **Experts:** {', '.join(shares)}. A learned embedding replaces a missing input.")
    if result["gate"] is not None:
        lines.append(
            f"- **Words:** the emphasized ones have a weight of {result['gate']:.0%}, the transcript as a whole of "
            f"{1 - result['gate']:.0%}."
        )
    names = {"transcript": "Transcript", "emphasis": "Emphasized words", "description": "Description"}
    if all(result["texts"][name] == NOT_READ for name in names):
        lines.append("- **Audio only:** this model reads no words, so none were recognized.")
    else:
        lines += [f"- **{title}:** {_origin(result['texts'][name])}." for name, title in names.items()]
    return "\n".join(lines)


def _main_expert(dimension: str, shares: Mapping[str, float]) -> str:
    name, share = max(shares.items(), key=lambda item: item[1])
    if share - min(shares.values()) < ALIKE:
        return f"{dimension} from all almost equally (the {name} {share:.0%})"
    return f"{dimension} mostly from the {name} ({share:.0%})"


def _origin(origin: str) -> str:
    found, _, reason = origin.partition("absent: ")
    parts = [ORIGINS.get(part, f"by {part}") for part in found.split(", ") if part]
    return html.escape(", ".join([*parts, f"none ({reason})" if reason else ""]).strip(", "))


def build(ser: Pipeline, name: str) -> gr.Blocks:
    """The page for a pipeline from [`load`]; it shows the name of the model."""
    reads = bool(ser.model.config.semantics)
    axes: dict[str, Any] = {"x": "dimension", "x_title": " ", "y_lim": [0, 1], "sort": NAMES}
    # Otherwise the examples would be copied to the temporary files and deleted with them.
    gr.set_static_paths([FOLDER])
    with gr.Blocks(
        title="How speech comes across", analytics_enabled=False, delete_cache=(60, MINUTES_KEPT * 60)
    ) as page:
        source = "audio and its words" if reads else "audio alone"
        gr.Markdown(INTRODUCTION.format(source=source, minutes=MOST_MINUTES, megabytes=MOST_MEGABYTES))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                audio = gr.Audio(sources=["upload", "microphone"], type="filepath", buttons=[], label="Recording")
                language = gr.Dropdown(
                    [("Not stated", ""), *sorted((name.title(), code) for code, name in LANGUAGES.items())],
                    value="",
                    label="Language (optional)",
                    info="It helps to recognize the words.",
                    visible=reads,
                )
                start = gr.Button("Analyze", variant="primary")
                examples = gr.Examples(
                    [[str(FOLDER / file), "en"] for file in EXAMPLES],
                    [audio, language],
                    label="Chosen examples by a computer voice; the last two go wrong",
                    example_labels=list(EXAMPLES.values()),
                    cache_examples=False,
                    api_name="load_example",
                )
            with gr.Column(scale=3, min_width=300):
                summary = gr.Markdown(NO_RESULT)
                with gr.Column(visible=False) as results:
                    with gr.Row():
                        shown_bars = gr.BarPlot(
                            y="value",
                            y_title="0 to 1, 0.5 is the middle",
                            min_width=260,
                            label="The three numbers",
                            **axes,
                        )
                        shown_plane = gr.ScatterPlot(
                            x="valence",
                            y="arousal",
                            color="dominance",
                            x_lim=[0, 1],
                            y_lim=[0, 1],
                            x_title="Valence: negative to positive",
                            y_title="Arousal: calm to excited",
                            color_title="Dominance",
                            color_map=dict(zip(LEVELS, COLORS, strict=True)),
                            tooltip="all",
                            min_width=260,
                            label="Valence and arousal",
                        )
                    shown_words = gr.HighlightedText(
                        label="Transcript",
                        color_map={"emphasized": "orange"},
                        combine_adjacent=True,
                        interactive=False,
                        visible=reads,
                    )
        with gr.Row(visible=False) as details:
            with gr.Column(scale=2, min_width=300, visible=reads):
                gr.Markdown("### Correct the words")
                words = gr.Textbox(
                    label="Words", info="If empty, recognized automatically.", lines=2, max_length=MOST_LETTERS
                )
                emphasized = gr.Textbox(
                    label="Emphasized words",
                    info="Consecutive words. If empty, found automatically.",
                    max_length=MOST_LETTERS,
                )
                description = gr.Textbox(
                    label="How it sounds",
                    info="For example: calm but firm. If empty, written by the model's describer, if it has one.",
                    max_length=MOST_LETTERS,
                )
                again = gr.Button("Run again with these words", variant="primary")
            with gr.Column(scale=3, min_width=300):
                shown_course = gr.LinePlot(
                    x="seconds",
                    y="value",
                    color="dimension",
                    x_lim=[0, None],
                    y_lim=[0, 1],
                    x_title="Seconds",
                    y_title="0 to 1",
                    color_title="Dimension",
                    color_map=dict(zip(("Valence", "Dominance", "Arousal"), COLORS, strict=True)),
                    label="Over time",
                )
                gr.Markdown("### Where the numbers come from")
                why = gr.Markdown()
                shown_experts = gr.BarPlot(
                    y="share",
                    y_title="Share",
                    y_axis_format=".0%",
                    color="expert",
                    color_title="Expert",
                    color_map=dict(zip(("words", "description", "sound"), COLORS, strict=True)),
                    label="Share of each expert in each dimension",
                    **axes,
                )
                with gr.Accordion("All numbers", open=False):
                    numbers = gr.JSON(label="Output of the pipeline")
        gr.Markdown(BOUNDS.format(minutes=MINUTES_KEPT, model=html.escape(name)))

        shown = [results, details, summary, shown_bars, shown_plane, shown_course, shown_words]
        shown += [words, emphasized, description, why, shown_experts, numbers]

        def show(result: dict[str, Any]) -> list[Any]:
            over_time, shares = course(result), experts(result)
            return [
                gr.Column(visible=True),
                gr.Row(visible=True),
                headline(result),
                bars(result),
                plane(result),
                gr.LinePlot(over_time, visible=over_time is not None),
                marked(result),
                result["transcript"] or "",
                # That of a long recording is not consecutive; it is found again.
                "" if over_time is not None else result["emphasis"] or "",
                result["description"] or "",
                reasons(result),
                gr.BarPlot(shares, visible=shares is not None),
                result,
            ]

        shown_progress = gr.Progress()

        def first(audio: Text, language: Text, progress: gr.Progress = shown_progress) -> list[Any]:
            """Predicts the emotion of a recording; its texts are made automatically."""
            return show(predict(ser, audio, progress, language=language))

        def corrected(
            audio: Text,
            language: Text,
            transcript: Text,
            emphasis: Text,
            description: Text,
            progress: gr.Progress = shown_progress,
        ) -> list[Any]:
            """Predicts the emotion of a recording with given texts; those that are empty are made automatically."""
            given = {"transcript": transcript, "emphasis": emphasis, "description": description}
            return show(predict(ser, audio, progress, language=language, **given))

        # Both wait in one queue, and the page shows one's position in it.
        event: dict[str, Any] = {"concurrency_id": "model", "show_progress_on": summary, "api_visibility": "public"}
        given = [audio, language, words, emphasized, description]
        start.click(first, given[:2], shown, api_name="predict", **event)
        again.click(corrected, given, shown, api_name="predict_with_texts", **event)
        event["api_visibility"] = "undocumented"
        examples.load_input_event.then(first, given[:2], shown, api_name="predict_example", **event)
        audio.upload(
            lambda path: _checked_seconds(ser, path) and None,
            [audio],
            queue=False,
            show_progress="hidden",
            api_name="check",
            api_visibility="private",
        )
        # The words of another recording must not be used for this one.
        audio.input(
            lambda: (gr.Column(visible=False), gr.Row(visible=False), NO_RESULT),
            outputs=[results, details, summary],
            queue=False,
            show_progress="hidden",
            api_name="new_recording",
            api_visibility="private",
        )
    threading.Thread(target=_delete_leftovers_every_minute, daemon=True).start()
    page.queue(max_size=MOST_WAITING, default_concurrency_limit=1)
    return page


def options() -> dict[str, Any]:
    """The arguments of `launch`."""
    theme = gr.themes.Default(primary_hue="indigo", font=["system-ui", "sans-serif"])
    # Without the history, no result is kept in the browser's storage.
    return {"theme": theme, "max_file_size": f"{MOST_MEGABYTES}mb", "run_history": False, "footer_links": ["api"]}


def main(argv: Sequence[str] = ()) -> None:
    """Runs the demo page; ends with a sentence if there is no model, or it cannot be loaded."""
    formatter = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(prog="msfser space", description=__doc__, formatter_class=formatter).parse_args(argv)
    # Otherwise the name would be looked up on the Hub, and whoever owns it there could run code here.
    if MODEL == STARTER and not Path(STARTER).is_dir():
        raise SystemExit(
            f"msfser space: error: there is no model in {STARTER}: assemble it with `make starter`, or set "
            "MSFSER_MODEL to a folder or the name of a model on the Hub."
        )
    try:
        ser = load(MODEL, REVISION)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SystemExit(f"msfser space: error: the model {MODEL} cannot be loaded: {reason}") from error
    build(ser, MODEL).launch(**options())


if __name__ == "__main__":
    main(sys.argv[1:])
