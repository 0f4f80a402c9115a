"""The page: its components, and what happens when one is used."""

import contextlib
import html
import inspect
import os
import re
import traceback
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import yaml
from huggingface_hub import ModelCard, hf_hub_download
from transformers import Pipeline
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from . import figures, live, texts
from .analysis import (
    MINUTES_KEPT,
    MOST_LETTERS,
    MOST_MEGABYTES,
    MOST_MINUTES,
    Text,
    checked_seconds,
    follow,
    predict,
)

FOLDER = Path(__file__).parent / "examples"
EXAMPLES = {
    "wonderful.mp3": "“… WONDERFUL but … dreadful”",
    "dreadful.mp3": "The same, other emphasis: “… wonderful but … DREADFUL”",
    "calm.mp3": "The first one in a calm voice: slow, low, and quiet",
    "thanks.mp3": "“Thank you so much …”",
    "sorry.mp3": "“I am so sorry …”, same voice",
    "long.mp3": "Longer, becomes livelier",
    "not_bad.mp3": "“… not bad at all …”",
    "irony.mp3": "“… great, another wonderful delay.”",
}
# With the starter, the predictions for the last two are wrong; nobody knows about other models.
_WRONG = 2
# As its card has it, which others do not.
_STARTER = "# MSF-SER starter"
FIRST = next(iter(EXAMPLES))
_EXAMPLE = "an example"  # which no path is
MOST_WAITING = 20
PAPER = "https://arxiv.org/abs/2510.05749"
_HUB = "https://huggingface.co"
_ABOUT_MODEL, _CARD = "Which model this is", "ser-card"  # the title of a section and its place on the page
# The texts and the names of their tensors, which are those of the paper.
_TENSORS = {"transcript": "gs", "emphasis": "les", "description": "es"}
# What can be edited: name of the text, label, what is shown where it is empty.
_EDITED = {
    "transcript": ("Words", "recognized automatically"),
    "emphasis": ("Emphasized words (consecutive)", "found automatically"),
    "description": ("How it sounds", "such as: calm but firm"),
}


def build(ser: Pipeline, name: str, revision: str | None = None) -> gr.Blocks:
    """The page for a pipeline from [`load`]; it shows the name of the model."""
    return _Page(ser, name, revision).blocks


def options() -> dict[str, Any]:
    """The arguments of `launch`."""
    # Gray text and borders in the theme's own colors have too little contrast.
    theme = gr.themes.Default(primary_hue="indigo", font=["system-ui", "sans-serif"]).set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_300",
        input_border_color="*neutral_500",
        input_border_color_dark="*neutral_400",
        button_secondary_border_color="*neutral_500",
        button_secondary_border_color_dark="*neutral_400",
        button_border_width="1px",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        color_accent="*primary_600",
    )
    css = Path(__file__).with_name("page.css")
    # Without the history, no result is kept in the browser's storage.
    launch: dict[str, Any] = {"theme": theme, "css_paths": css, "run_history": False, "footer_links": ["api"]}
    return launch | {"max_file_size": f"{MOST_MEGABYTES}mb"}


class _Page:
    def __init__(self, ser: Any, name: str, revision: str | None):
        self.ser, self.name = ser, name
        reads = ser.model.config.semantics or []
        # The names of the tensors are those of the paper.
        self.read = [name for name, tensor in _TENSORS.items() if tensor in reads]
        # Otherwise the examples would be copied to the temporary files and deleted with them.
        gr.set_static_paths([FOLDER])
        self.card = _card_of(name, revision)
        # Older models lack it.
        self.license = _license(self.card, getattr(ser.model.config, "weights_license", None))
        self.examples_wrong = [*EXAMPLES][-_WRONG:] if _STARTER in self.card.text.splitlines() else []
        first, panel = self._first()
        with gr.Blocks(
            title=texts.TITLE, analytics_enabled=False, delete_cache=(60, MINUTES_KEPT * 60)
        ) as self.blocks:
            self._head()
            with gr.Tabs():
                with gr.Tab("Recording"):
                    self._recording(first, panel)
                # A model that was saved with an earlier version of its code cannot.
                if hasattr(ser, "stream"):
                    with gr.Tab("Live") as opened:
                        live.tab(ser, opened, self._language())
            self._about()
            self._events()
            self._api()
        self.blocks.queue(max_size=MOST_WAITING, default_concurrency_limit=1)

    # What is there

    def _head(self) -> None:
        inputs = ["the sound of the voice"] if self.ser.model.config.audio else []
        inputs += [f"the {texts.INPUTS[name]}" for name in self.read if name != "description"]
        lead = texts.LEAD.format(inputs=texts.listed(inputs))
        facts = [f"<b>{html.escape(texts.terms(self.license))}</b>"] if self.license else []
        facts.append(f"Model: {self._model()}")
        facts += [f'<a href="{html.escape(url)}">{label}</a>' for label, url in self._links()]
        gr.HTML(
            f'<div class="ser ser-head"><h1>{texts.TITLE}</h1><p>{lead}</p><p class="ser-facts">'
            f"{''.join(f'<span>{fact}</span>' for fact in facts)}</p></div>",
            apply_default_css=False,
        )

    @property
    def _is_on_hub(self) -> bool:
        return not Path(self.name).exists()

    def _model(self) -> str:
        """The name of the model as a link: to the Hub, or to what its card says, which is on the page."""
        if self._is_on_hub:
            return f'<a href="{html.escape(f"{_HUB}/{self.name}")}">{html.escape(self.name)}</a>'
        title = re.search(r"^# (.+)$", self.card.text, re.MULTILINE)
        name = title[1] if title else Path(self.name).resolve().name
        return f'{html.escape(name)} (<a href="#{_CARD}">{_ABOUT_MODEL}</a>)'

    def _links(self) -> list[tuple[str, str]]:
        """Paper and code, as far as they have an address."""
        found = [("Paper", PAPER)]
        if space := os.environ.get("SPACE_ID"):
            found.append(("Code", f"{_HUB}/spaces/{space}/tree/main"))
        elif self._is_on_hub:
            found.append(("Code", f"{_HUB}/{self.name}/tree/main"))
        return found

    def _first(self) -> tuple[Mapping[str, Any], str]:
        """The result for the first example and its panel; without a result, an empty one and why there is none."""
        try:
            result = predict(self.ser, str(FOLDER / FIRST), language="en")
        except gr.Error as error:
            return {}, figures.failure(error.message)
        return result, figures.panel(result, self._title(FIRST))

    def _recording(self, first: Mapping[str, Any], panel: str) -> None:
        with gr.Column(elem_id="ser-main"):
            with gr.Column(elem_id="ser-input"):
                self.audio = gr.Audio(
                    str(FOLDER / FIRST),
                    sources=["upload", "microphone"],
                    type="filepath",
                    buttons=[],
                    label=f"Recording (up to {MOST_MINUTES} minutes)",
                )
                with gr.Row():
                    self.start = gr.Button("Analyze", variant="primary")
                    self.cancel = gr.Button("Cancel", visible=False)
                self.waiting = gr.HTML(visible=False, min_height=56, elem_id="ser-waiting", apply_default_css=False)
            with gr.Column(elem_id="ser-result"):
                self.panel = gr.HTML(panel, apply_default_css=False)
            with gr.Column(elem_id="ser-edit"):
                self._editor(first)
            with gr.Column(elem_id="ser-examples"):
                language = [self.fields["language"]] if "language" in self.fields else []
                self.examples = gr.Examples(
                    [[str(FOLDER / file), *(["en"] if language else [])] for file in EXAMPLES],
                    [self.audio, *language],
                    label="Examples in a synthetic voice (selected)"
                    + ("; wrong predictions for the last two" if self.examples_wrong else ""),
                    example_labels=[self._label(file) for file in EXAMPLES],
                    cache_examples=False,
                    api_name="load_example",
                )
        self.previous, self.runs = gr.State(_shown(first) if first else None), gr.State(_Runs())
        # A state is read when a run's turn comes; this is sent when it begins to wait.
        self.number = gr.Number(0, label="Run", precision=0, visible=False)

    def _label(self, example: str) -> str:
        return f"Wrong prediction: {EXAMPLES[example]}" if example in self.examples_wrong else EXAMPLES[example]

    def _title(self, example: str) -> str:
        return f"Example: {self._label(example)}"

    def _editor(self, first: Mapping[str, Any]) -> None:
        """The texts that the model reads, to be edited; the language that is spoken, if words are recognized."""
        self.fields: dict[str, gr.components.Component] = {}
        self.again = gr.Button("Analyze with these words", visible=bool(self.read), render=False)
        if not self.read:
            self.again.render()
            return
        if (language := self._language()) is not None:
            self.fields["language"] = language
        with gr.Accordion("What if it had been said differently?"):
            for name in self.read:
                label, placeholder = _EDITED[name]
                lines = 2 if name == "transcript" else 1
                self.fields[name] = gr.Textbox(
                    first.get(name) or "", label=label, placeholder=placeholder, lines=lines, max_length=MOST_LETTERS
                )
            if "language" in self.fields:
                self.fields["language"].render()
            self.again.render()

    def _language(self) -> gr.Dropdown | None:
        """The choice of a language, which is not rendered yet; `None` if no words are recognized."""
        if not {"transcript", "emphasis"} & set(self.read):
            return None
        return gr.Dropdown(
            [("Not stated", ""), *sorted((name.title(), code) for code, name in LANGUAGES.items())],
            value="en",
            label="Language of the speech",
            render=False,
        )

    def _about(self) -> None:
        with gr.Accordion("What this is not for", open=False):
            gr.Markdown(texts.NOT_FOR)
        with gr.Accordion("Responsible use", open=False):
            gr.Markdown(texts.responsible_use())
        with gr.Accordion("What happens to your recording", open=False):
            gr.Markdown(texts.KEPT.format(minutes=MINUTES_KEPT))
        with gr.Accordion(_ABOUT_MODEL, open=False, elem_id=_CARD):
            gr.Markdown(f"`{html.escape(self.name)}`\n\n{_prose(self.card)}")

    # What happens

    def _events(self) -> None:
        controls = [self.start, self.again, self.cancel, self.waiting]
        shown = [self.panel, self.previous, *self.fields.values()]
        quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        run: dict[str, Any] = {
            "concurrency_id": "model",
            "show_progress_on": self.waiting,
            "api_visibility": "private",
            # A canceled run may still wait for its turn; by default the page would drop the next one.
            "trigger_mode": "multiple",
        }
        language = [self.fields["language"]] if "language" in self.fields else []
        edited = [self.audio, self.previous, *self.fields.values()]
        load = self.examples.load_input_event.then(
            self._load_example, [self.runs], shown, api_name="clear_for_example", **quick
        )
        ways = [
            ("new", self.start.click, self._analyze_anew, [self.audio, *language]),
            ("edited", self.again.click, self._analyze_edited, edited),
            ("example", load.then, self._analyze_anew, [self.audio, *language]),
        ]
        for name, trigger, function, inputs in ways:
            begun = trigger(_begin, [self.runs], [self.number, *controls], api_name=f"begin_{name}", **quick)
            inputs = [self.runs, self.number, *inputs]
            event = begun.then(function, inputs, [*controls, *shown], api_name=f"analyze_{name}", **run)
            # Also where the queue is full.
            event.failure(_fail, [self.runs], controls, api_name=f"end_{name}", **quick)
        # The run ends itself: after a cancellation by gradio the page sometimes drops the next run.
        self.cancel.click(_cancel, [self.runs], controls, api_name="cancel", **quick)
        # By default the page would drop a recording that comes while it still clears the one before.
        self.audio.input(
            self._receive,
            [self.runs, self.audio],
            [*controls, *shown],
            api_name="new_recording",
            trigger_mode="always_last",
            **quick,
        )

    def _receive(self, runs: "_Runs", audio: Text) -> list[Any]:
        """Checks a new recording as soon as it is there, and clears and ends what belongs to the one before."""
        # The page may tell of a recording twice, when it is cleared and loaded at once.
        if audio == runs.received:
            return self._unchanged()
        runs.received = audio
        runs.newest += 1
        panel, is_usable = self._checked(audio)
        runs.controls = _end() if is_usable else [*[gr.Button(interactive=False)] * 2, *_end()[2:]]
        return [*runs.controls, *self._cleared(panel)]

    def _checked(self, audio: Text) -> tuple[str, bool]:
        """What is said about a new recording, and whether it can be analyzed."""
        if audio is None:
            return figures.message("No recording yet", texts.NO_RESULT), False
        try:
            seconds = checked_seconds(self.ser, audio)
        except gr.Error as error:
            return figures.failure(error.message), False
        return figures.message("Ready", f"{seconds:.0f} s of sound. Press <b>Analyze</b>."), True

    def _load_example(self, runs: "_Runs") -> list[Any]:
        """Clears and ends what belongs to the recording before an example, which states its language."""
        runs.received = _EXAMPLE
        runs.newest += 1
        panel, previous, *_ = self._cleared(figures.message("Ready", "Press <b>Analyze</b>."))
        return [panel, previous, *[gr.skip() if name == "language" else "" for name in self.fields]]

    def _cleared(self, panel: str) -> list[Any]:
        """A panel without numbers or words: those of another recording must not be used for this one."""
        return [panel, None, *[""] * len(self.fields)]

    def _analyze_anew(self, runs: "_Runs", number: int, audio: Text, language: Text = None) -> Iterator[list[Any]]:
        """Analyzes a recording, whose texts are made automatically."""
        yield from self._analyze(runs, number, audio, None, {"language": language})

    def _analyze_edited(
        self, runs: "_Runs", number: int, audio: Text, previous: Any, *given: Text
    ) -> Iterator[list[Any]]:
        """Analyzes a recording with texts that are given; those that are empty or unchanged are made automatically."""
        automatic = previous["automatic"] if previous else {}
        fields = dict(zip(self.fields, given, strict=True))
        changed = {name: text for name, text in fields.items() if not text or text != automatic.get(name)}
        yield from self._analyze(runs, number, audio, previous, changed)

    def _analyze(
        self, runs: "_Runs", number: int, audio: Text, previous: Any, given: Mapping[str, Text]
    ) -> Iterator[list[Any]]:
        """What a run changes on the page, until the visitor cancels it or turns to something else."""
        with contextlib.closing(self._updates(audio, previous, given)) as updates:
            while runs.newest == number and (update := next(updates, None)) and runs.newest == number:
                yield update
        if runs.newest != number:
            # Gradio repeats the last update of a run at its end; and one of its progress may have come too late.
            yield [*runs.controls, *self._unchanged()[4:]]

    def _unchanged(self) -> list[Any]:
        return [gr.skip()] * (6 + len(self.fields))

    def _updates(self, audio: Text, previous: Any, given: Mapping[str, Text]) -> Generator[list[Any], None, None]:
        """The progress of an analysis, and its result or why there is none."""
        unchanged = [gr.skip()] * (2 + len(self.fields))
        try:
            # When the visitor leaves, gradio closes this generator, and with it the job.
            with contextlib.closing(follow(self.ser, audio, **given)) as steps:
                while True:
                    try:
                        yield [*_busy(*next(steps)), *unchanged]
                    except StopIteration as end:
                        result = end.value
                        break
            path = Path(audio or "")
            title = self._title(path.name) if path.parent == FOLDER else "Your recording"
            fields = [given.get("language") if name == "language" else _text(result, name) for name in self.fields]
            panel = figures.panel(result, title, previous["numbers"] if previous else None)
            yield [*_end(), panel, _shown(result), *fields]
        except gr.Error as error:
            yield [*_end(), figures.failure(error.message), *unchanged[1:]]
        except Exception:
            traceback.print_exc()
            yield [*_end(), figures.failure(texts.UNEXPECTED), *unchanged[1:]]

    # For programs

    def _api(self) -> None:
        """Two functions with inputs of their own: those that are seen would have the example's words by default."""
        with gr.Row(visible=False):
            inputs: dict[str, Any] = {"audio": gr.Audio(type="filepath", label="Recording")}
            inputs |= {name: gr.Textbox(label=field.label) for name, field in self.fields.items()}
            numbers, everything, button = gr.JSON(label="Numbers"), gr.JSON(label="Result"), gr.Button("Run")
        event: dict[str, Any] = {"concurrency_id": "model", "show_progress": "hidden", "api_visibility": "public"}

        def summarize(*values: Text) -> dict[str, Any]:
            """Valence, arousal, and dominance in 0..1, with intervals and warnings; texts that are empty are made."""
            result = analyze(*values)
            names = (*texts.SCALES, "intervals", "interval_level", "has_speech", "warnings")
            return {name: result.get(name) for name in names}

        def analyze(*values: Text) -> dict[str, Any]:
            """All that the pipeline returns for a recording; texts that are empty are made."""
            return predict(self.ser, **dict(zip(inputs, values, strict=True)))

        # The names of the parameters in the documentation of the API; which ones there are depends on the model.
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        optional = [inspect.Parameter(name, kind, default=None) for name in self.fields]
        signature = inspect.Signature([inspect.Parameter("audio", kind), *optional])
        for function, output, name in ((summarize, numbers, "predict"), (analyze, everything, "analyze")):
            function.__signature__ = signature  # type: ignore[attr-defined]
            button.click(function, list(inputs.values()), output, api_name=name, **event)


class _Runs:
    """A visitor's newest run, by its number: none that has an older one may change the page.

    And how the controls were left when it began or ended, and the recording that has come last, or `_EXAMPLE`.
    """

    def __init__(self) -> None:
        self.newest = 0
        self.controls: list[Any] = [gr.skip()] * 4
        self.received: Text = _EXAMPLE


def _begin(runs: _Runs) -> list[Any]:
    runs.newest += 1
    runs.controls = _busy(None, "Waiting for its turn")
    return [runs.newest, *runs.controls]


def _cancel(runs: _Runs) -> list[Any]:
    runs.newest += 1
    runs.controls = _end()
    return runs.controls


def _fail(runs: _Runs) -> list[Any]:
    runs.controls = _end()
    return runs.controls


def _busy(fraction: float | None, words: str) -> list[Any]:
    disabled = gr.Button(interactive=False)
    waiting = gr.HTML(figures.progress(fraction, words), visible=True)
    return [disabled, disabled, gr.Button(visible=True), waiting]


def _end() -> list[Any]:
    enabled = gr.Button(interactive=True)
    return [enabled, enabled, gr.Button(visible=False), gr.HTML("", visible=False)]


def _shown(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the next analysis of the same recording needs: the numbers, and the texts that nobody has given."""
    automatic = {name: _text(result, name) for name in texts.INPUTS if result["texts"].get(name) != "given"}
    return {"numbers": {name: result[name] for name in texts.SCALES}, "automatic": automatic}


def _text(result: Mapping[str, Any], name: str) -> str:
    # The emphasized words of a long recording are not in a row; they are found again.
    return "" if name == "emphasis" and "course" in result else result.get(name) or ""


def _card_of(name: str, revision: str | None) -> ModelCard:
    """The card of the loaded model, a folder or a name on the Hub; an empty one if it has none that can be read."""
    folder = Path(name)
    try:
        path = folder / "README.md" if folder.is_dir() else Path(hf_hub_download(name, "README.md", revision=revision))
        return ModelCard(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        return ModelCard("")


def _prose(card: ModelCard) -> str:
    """What a card says before its sections."""
    paragraphs = [part.strip() for part in card.text.partition("\n## ")[0].split("\n\n")]
    return "\n\n".join(part for part in paragraphs if part and part[0] not in "#|>`<")


def _license(card: ModelCard, license_id: str | None) -> str | None:
    """The identifier of the model's license: that of its card or, where the card names none, that of its config."""
    stated = card.data.get("license")
    if isinstance(stated, list):
        return ", ".join(map(str, stated))
    if stated not in (None, "other"):
        return str(stated)
    return license_id or card.data.get("license_name") or stated
