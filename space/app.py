"""The demo page: valence, arousal and dominance of a recording, with reasons, and its words to correct.

    python space/app.py

The model is `MSFSER_MODEL`, a folder or a name on the Hub, at `MSFSER_REVISION`. By default a Space takes the model of
its own name, and any other machine the folder `outputs/starter`.
"""

import contextlib
import contextvars
import html
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd
import soundfile
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
    "dreadful.mp3": "“… wonderful but … DREADFUL”",
    "calm.mp3": "Slow, low and quiet",
    "long.mp3": "Longer, livens up",
}

MOST_MINUTES = 5
# Five minutes of 16-bit stereo at 48 kHz.
MOST_MEGABYTES = 60
MINUTES_KEPT = 10
MOST_WAITING = 20
# The free tier of Spaces has two cores.
THREADS = 2

# From 0 to 1.
IN_WORDS = {
    "valence": (
        "very negative",
        "rather negative",
        "neither negative nor positive",
        "rather positive",
        "very positive",
    ),
    "arousal": ("very calm", "rather calm", "neither calm nor excited", "rather excited", "very excited"),
    "dominance": (
        "not at all in control",
        "hardly in control",
        "partly in control",
        "rather in control",
        "fully in control",
    ),
}
NAMES = [name.capitalize() for name in IN_WORDS]
LEVELS = ("low", "middle", "high")
# Shares that differ by less carry a dimension alike.
ALIKE = 0.05
ORIGINS = {
    "given": "as you wrote it",
    "recognized": "recognized by machine",
    "aligned": "your words, timed by machine",
    "found": "found by the pitch, loudness and length of the words",
}
NO_SPEECH = "absent: no speech"
NOT_READ = "absent: the model does not read it"
# Roughly what one of the model's windows adds to the one before.
_SECONDS_A_WINDOW = 5.0

INTRODUCTION = """# How does it come across?
Valence (negative to positive), arousal (calm to excited) and dominance (controlled to in control) of speech, from its
{source}. Record or upload up to {minutes} minutes: WAV, FLAC, OGG or MP3, at most {megabytes} MB.
"""

NO_RESULT = "### The result will be here.\nRecord or upload speech and press Listen, or take an example."

BOUNDS = """### What this is not for
The numbers are a machine's estimate of how speech comes across on average. They do not say what anybody feels. **Do
not use them for decisions about people:** no clinical, hiring, school or workplace use. The law of the European Union
forbids emotion recognition at work and in education, with few exceptions, and restricts it elsewhere. Upload only
recordings of people who agree.

### What becomes of your recording
It is not kept. It lies in a temporary file so that you can correct its words, and is deleted about {minutes} minutes
after the upload. It is used for nothing else, and neither it nor its words are logged.

### Which model this is
`{model}`. One that has learned from the probe corpus has heard computer voices only: what it says of a real voice
means nothing. The starter has heard acted emotions of 34 actors, and no listener has rated them.
"""

_window_done: contextvars.ContextVar = contextvars.ContextVar("_window_done", default=None)
# One thread for all: the model hears one recording at a time, and each thread that computes keeps memory of its own.
_listener = ThreadPoolExecutor(1, thread_name_prefix="listener")


def load(model: str, revision: str | None = None, **options: Any) -> Pipeline:
    """Loads the model and what it needs, so that the first visitor need not wait.

    Args:
        model: Folder or Hub name.
        revision: Branch, tag or commit on the Hub.
        **options: Of the model's pipeline, such as `recognizer`.

    Raises:
        OSError: The model or the recognizer is nowhere to be had.
        ValueError: It is no model of this project.
    """
    torch.set_num_threads(THREADS)
    hear = pipeline("audio-classification", model=model, revision=revision, trust_remote_code=True, **options)
    _listener.submit(hear, {"array": np.zeros(16_000, np.float32), "sampling_rate": 16_000}).result()
    hear.model.register_forward_hook(_report_window)
    return hear


def _report_window(*_: Any) -> None:
    if (report := _window_done.get()) is not None:
        report()


def listen(
    hear: Pipeline,
    audio: str | None,
    language: str | None = None,
    words: str | None = None,
    stressed: str | None = None,
    description: str | None = None,
    progress: gr.Progress | None = None,
) -> dict[str, Any]:
    """Hears one recording.

    Args:
        hear: The pipeline.
        audio: Path of the recording.
        language: What is spoken, as Whisper's code; empty if not stated.
        words: What is said; recognized if empty.
        stressed: The stressed words; found if empty.
        description: How it is said; written by the model's describer, if it has one, if empty.
        progress: Where to show how far it is.

    Returns:
        What the pipeline returns.

    Raises:
        gradio.Error: The recording or a text cannot be used; a sentence.
    """
    seconds = _checked_seconds(audio)
    windows = 0

    def report() -> None:
        nonlocal windows
        windows += 1
        heard = min(windows * _SECONDS_A_WINDOW, seconds)
        progress(0.1 + 0.9 * heard / seconds, desc=f"Heard {heard:.0f} of {seconds:.0f} s")

    known = {"transcript": words, "emphasis": stressed, "description": description, "language": language}
    item = {"audio": audio, **{name: text or None for name, text in known.items()}}
    context = contextvars.copy_context()
    if progress is not None:
        progress(0.1, desc="Listening to the words and how they are said")
        context.run(_window_done.set, report)
    try:
        return _listener.submit(context.run, hear, item).result()
    except (ValueError, OSError, ImportError) as error:
        raise _sentence(str(error).replace(repr(audio), "the recording")) from error


def _checked_seconds(audio: str | None) -> float:
    """The length of a recording that is within the limits; nothing is decoded."""
    if audio is None:
        raise _sentence("There is no recording yet: record or upload one first.")
    if not Path(audio).is_file():
        raise _sentence(f"The recording has been deleted after {MINUTES_KEPT} minutes: record or upload it again.")
    if Path(audio).stat().st_size > MOST_MEGABYTES * 1_000_000:
        raise _sentence(f"The file is larger than {MOST_MEGABYTES} MB: shorten it, or save it as FLAC or MP3.")
    try:
        sound = soundfile.info(audio)
    except (soundfile.SoundFileError, TypeError) as error:
        raise _sentence(
            "This file cannot be read as sound: save it as WAV, FLAC, OGG or MP3, and upload it again."
        ) from error
    if not sound.frames:
        raise _sentence("The recording is empty: record or upload another one.")
    if sound.duration > MOST_MINUTES * 60:
        raise _sentence(f"The recording is longer than {MOST_MINUTES} minutes: cut it into parts.")
    return sound.duration


def _sentence(message: str) -> gr.Error:
    # The page shows messages as HTML.
    return gr.Error(html.escape(message[:1].upper() + message[1:]), title="That did not work", print_exception=False)


def delete_leftovers(folder: Path, seconds: float) -> None:
    """Deletes what gradio leaves in its folder of uploads: those that broke off, and the folders of deleted ones.

    Args:
        folder: It need not be there yet.
        seconds: What is younger stays.
    """
    for path in folder.glob("*"):
        # It may be gone meanwhile; a folder with a file in it stays, and so does one that has just got one.
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > seconds:
                path.rmdir() if path.is_dir() else path.unlink()


def _delete_leftovers_every_minute() -> None:
    while True:
        delete_leftovers(Path(get_upload_folder()), MINUTES_KEPT * 60)
        time.sleep(60)


# What a result looks like


def in_words(dimension: str, value: float) -> str:
    """A number in 0..1 as plain words, in five steps."""
    return IN_WORDS[dimension][min(4, max(0, int(value * 5)))]


def headline(result: Mapping[str, Any]) -> str:
    """The result as a sentence."""
    said = [f"**{in_words(name, result[name])}** ({name} {result[name]:.2f})" for name in IN_WORDS]
    over = f", in the mean over {result['duration']:.0f} s" if "course" in result else ""
    silent = "No speech was heard, so this means little. " if result["texts"]["transcript"] == NO_SPEECH else ""
    return f"### {silent}It comes across as {said[0]}, {said[1]} and {said[2]}{over}."


# A plot that is shown keeps its categories and their colors, so every result has the same ones.


def bars(result: Mapping[str, Any]) -> pd.DataFrame:
    """The three numbers."""
    return pd.DataFrame({"dimension": NAMES, "value": [result[name] for name in IN_WORDS]})


def plane(result: Mapping[str, Any]) -> pd.DataFrame:
    """Valence and arousal of each part; dominance is the color. Rows without numbers stand for the levels."""
    parts = result.get("course") or [result]
    rows = [{"valence": None, "arousal": None, "dominance": level} for level in LEVELS]
    rows += [{**part, "dominance": LEVELS[min(2, max(0, int(part["dominance"] * 3)))]} for part in parts]
    return pd.DataFrame(rows)[["valence", "arousal", "dominance"]].astype({"valence": float, "arousal": float})


def course(result: Mapping[str, Any]) -> pd.DataFrame | None:
    """The three numbers over time, in the middle of each window; `None` for a short recording."""
    if "course" not in result:
        return None
    return pd.DataFrame(
        [
            {"seconds": (part["start"] + part["end"]) / 2, "value": part[name], "dimension": name.capitalize()}
            for name in IN_WORDS
            for part in result["course"]
        ]
    )


def marked(result: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """The transcript, its stressed words marked."""
    if not result["words"]:
        return [(result["transcript"], None)] if result["transcript"] else []
    return [(f"{word['word']} ", "stressed" if word["emphasized"] else None) for word in result["words"]]


def experts(result: Mapping[str, Any]) -> pd.DataFrame | None:
    """Each expert's share in each dimension; `None` if the model has none to choose from."""
    if not _has_choice(result):
        return None
    return pd.DataFrame(
        [
            {"dimension": dimension.capitalize(), "share": share, "expert": name}
            for dimension, shares in result["routing"].items()
            for name, share in shares.items()
        ]
    )


def _has_choice(result: Mapping[str, Any]) -> bool:
    """Whether several experts share a dimension."""
    return result["routing"] is not None and len(next(iter(result["routing"].values()))) > 1


def reasons(result: Mapping[str, Any]) -> str:
    """Experts, gate and the origin of the texts in words."""
    lines = []
    if _has_choice(result):
        said = [_carried(dimension, shares) for dimension, shares in result["routing"].items()]
        lines.append(f"- **Experts:** {', '.join(said)}. What is missing counts with a learned stand-in.")
    if result["gate"] is not None:
        lines.append(
            f"- **Words:** the stressed ones weighed {result['gate']:.0%}, the transcript as a whole "
            f"{1 - result['gate']:.0%}."
        )
    names = {"transcript": "Transcript", "emphasis": "Stressed words", "description": "Description"}
    if all(result["texts"][name] == NOT_READ for name in names):
        return "\n".join([*lines, "- **Sound alone:** this model reads no words, so none were recognized."])
    lines += [f"- **{words}:** {_origin(result['texts'][name])}." for name, words in names.items()]
    return "\n".join(lines)


def _carried(dimension: str, shares: Mapping[str, float]) -> str:
    """From which expert a dimension comes most."""
    name, share = max(shares.items(), key=lambda item: item[1])
    if share - min(shares.values()) < ALIKE:
        return f"{dimension} from all nearly alike (the {name} {share:.0%})"
    return f"{dimension} most from the {name} ({share:.0%})"


def _origin(origin: str) -> str:
    found, _, reason = origin.partition("absent: ")
    parts = [ORIGINS.get(part, f"by {part}") for part in found.split(", ") if part]
    return html.escape(", ".join([*parts, f"none ({reason})" if reason else ""]).strip(", "))


# The page


def build(hear: Pipeline, name: str) -> gr.Blocks:
    """The page for a loaded pipeline.

    Args:
        hear: From [`load`].
        name: Of the model, to be shown.
    """
    reads = bool(hear.model.config.semantics)
    # Else the examples would be copied among the temporary files, and be deleted with them.
    gr.set_static_paths([FOLDER])
    with gr.Blocks(
        title="How speech comes across", analytics_enabled=False, delete_cache=(60, MINUTES_KEPT * 60)
    ) as page:
        source = "sound and its words" if reads else "sound alone"
        gr.Markdown(INTRODUCTION.format(source=source, minutes=MOST_MINUTES, megabytes=MOST_MEGABYTES))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                audio = gr.Audio(sources=["upload", "microphone"], type="filepath", buttons=[], label="Recording")
                language = gr.Dropdown(
                    [("Not stated", ""), *sorted((name.title(), code) for code, name in LANGUAGES.items())],
                    value="",
                    label="Language (optional)",
                    info="Stating it helps to recognize the words.",
                    visible=reads,
                )
                start = gr.Button("Listen", variant="primary")
                examples = gr.Examples(
                    [[str(FOLDER / file), "en"] for file in EXAMPLES],
                    [audio, language],
                    label="Examples (a computer voice)",
                    example_labels=list(EXAMPLES.values()),
                    cache_examples=False,
                    api_name="load_example",
                )
            with gr.Column(scale=3, min_width=300):
                summary = gr.Markdown(NO_RESULT)
                with gr.Column(visible=False) as results:
                    with gr.Row():
                        shown_bars = gr.BarPlot(
                            x="dimension",
                            y="value",
                            y_lim=[0, 1],
                            x_title=" ",
                            y_title="0 to 1, 0.5 is the middle",
                            sort=NAMES,
                            min_width=260,
                            label="The three numbers",
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
                            color_map={"low": "#0072b2", "middle": "#7b3fb5", "high": "#d55e00"},
                            tooltip="all",
                            min_width=260,
                            label="Valence and arousal",
                        )
                    said = gr.HighlightedText(
                        label="What was said",
                        color_map={"stressed": "orange"},
                        combine_adjacent=True,
                        interactive=False,
                        visible=reads,
                    )
        with gr.Row(visible=False) as details:
            with gr.Column(scale=2, min_width=300, visible=reads):
                gr.Markdown("### Correct what was heard")
                words = gr.Textbox(label="Words", info="Empty: recognized by machine.", lines=2)
                stressed = gr.Textbox(
                    label="Stressed words",
                    info="A stretch of the words. Empty: found by machine.",
                )
                description = gr.Textbox(
                    label="How it is said",
                    info="Such as: calm but firm. Empty: by the model's describer, if it has one.",
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
                    color_map={"Valence": "#0072b2", "Arousal": "#d55e00", "Dominance": "#7b3fb5"},
                    label="Over time",
                )
                gr.Markdown("### Where the numbers come from")
                why = gr.Markdown()
                shown_experts = gr.BarPlot(
                    x="dimension",
                    y="share",
                    color="expert",
                    y_lim=[0, 1],
                    x_title=" ",
                    y_title="Share",
                    y_axis_format=".0%",
                    color_title="Expert",
                    sort=NAMES,
                    color_map={"sound": "#d55e00", "words": "#0072b2", "description": "#7b3fb5"},
                    label="Which expert carried which dimension",
                )
                with gr.Accordion("All numbers", open=False):
                    numbers = gr.JSON(label="As the pipeline returns them")
        gr.Markdown(BOUNDS.format(minutes=MINUTES_KEPT, model=html.escape(name)))

        shown = [results, details, summary, shown_bars, shown_plane, shown_course, said]
        shown += [words, stressed, description, why, shown_experts, numbers]

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
                # That of a long recording is in many places, and found anew.
                "" if over_time is not None else result["emphasis"] or "",
                result["description"] or "",
                reasons(result),
                gr.BarPlot(shares, visible=shares is not None),
                result,
            ]

        def first(audio: str | None, language: str | None, progress=gr.Progress()) -> list[Any]:  # noqa: B008
            """Listens to a recording and makes its texts."""
            return show(listen(hear, audio, language, progress=progress))

        def corrected(
            audio: str | None,
            language: str | None,
            words: str | None,
            stressed: str | None,
            description: str | None,
            progress=gr.Progress(),  # noqa: B008
        ) -> list[Any]:
            """Listens to a recording with given texts; what is empty is made."""
            return show(listen(hear, audio, language, words, stressed, description, progress))

        # Both wait in one queue, and the page shows where one's own request stands.
        event = {"outputs": shown, "concurrency_id": "model", "show_progress_on": summary, "api_visibility": "public"}
        start.click(first, [audio, language], api_name="listen", **event)
        given = [audio, language, words, stressed, description]
        again.click(corrected, given, api_name="listen_again", **event)
        examples.load_input_event.then(
            first, [audio, language], api_name="listen_to_example", **event | {"api_visibility": "undocumented"}
        )
        # The words of another recording must not be taken for those of this one.
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
    """What the page is launched with."""
    return {
        "theme": gr.themes.Default(primary_hue="indigo", font=["system-ui", "sans-serif"]),
        "max_file_size": f"{MOST_MEGABYTES}mb",
        # What a visitor hears here stays out of the browser's storage too.
        "run_history": False,
        "footer_links": ["api"],
    }


def main(argv: Sequence[str] = ()) -> None:
    """Starts the demo."""
    # Else the name would be looked up on the Hub, and whoever has it there would have code run here.
    if MODEL == STARTER and not Path(STARTER).is_dir():
        raise SystemExit(
            f"There is no model in {STARTER}: put it together with `make starter`, or name a folder or a model on the "
            "Hub in MSFSER_MODEL."
        )
    try:
        hear = load(MODEL, REVISION)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SystemExit(f"The model {MODEL} cannot be loaded: {reason}") from error
    build(hear, MODEL).launch(**options())


if __name__ == "__main__":
    main()
