"""What is measured of a fitted starter: text with ratings, the same text spoken, exchanged inputs, gain, silence."""

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import jiwer
import numpy as np
import pandas as pd
import soxr
import torch

from .. import MsfSerModel, MsfSerProcessor
from ..audio_msfser import SAMPLING_RATE, load_audio
from ..configuration_msfser import LABELS
from ..corpora.emobank import read_emobank
from ..corpora.probe.synthesizer import Synthesizer
from ..evaluation.acted import Material
from ..evaluation.intervals import interval
from ..evaluation.results import Row, row, rows_of
from ..pipeline_msfser import MsfSerPipeline
from ..starter.assemble import AUDIO_ENCODER, STARTER, SWITCHES, TEXT_ENCODER, Starter, starter_folder
from ..starter.material import NOISES, drawn_sentences, find_sentences, no_speech
from ..training.features import encode_texts
from .emobank import PENALTIES, ccc, fit_ridge, pearson
from .live import EXAMPLES, recordings_in
from .recognition import normalized

SPOKEN = 300  # sentences of EmoBank's test part
_SWAPPED = 200  # clips
# Voices and sentences that contradict each other: so many of each kind, by emotion and by valence.
_CONFLICTS = 100
_VOICES_OF = {"positive": ("happiness",), "negative": ("anger", "sadness")}
_LEAST_VALENCE, _GREATEST_VALENCE = 0.8, 0.25

# From sentences to their sounds, `(samples,)` each.
Voice = Callable[[Sequence[str]], list[np.ndarray]]


def rows_of_starter(
    starter: Starter, data: Path, material: Material, words: Mapping[str, Sequence[str | None]]
) -> list[Row]:
    """The rows of a starter that comes with the package.

    Args:
        starter: Which.
        data: The folder with GoEmotions and EmoBank.
        material: The clips of the acted corpora.
        words: By `les` and `gs` what was recognized in them.
    """
    folder = starter_folder(starter.name)
    model, processor = MsfSerModel.from_pretrained(folder).eval(), MsfSerProcessor.from_pretrained(folder)
    rows = [*text_rows(model, processor, data), *spoken_rows(_pipeline(model, processor), data)]
    rows += swap_rows(model, processor, material, data)
    rows += conflict_rows(model, processor, material, data)
    rows += sound_rows(model, processor, material.paths)
    prefix = "" if starter.name == STARTER else f"{starter.name.removeprefix('starter-')}/"
    return [{**found, "name": prefix + found["name"]} for found in rows]


@torch.inference_mode()
def text_rows(model: MsfSerModel, processor: MsfSerProcessor, data: Path) -> list[Row]:
    """EmoBank's test sentences as text, by the starter, and by ridge regression from vectors to the same labels."""
    (sentences, labels), goemotions = emobank(data), find_sentences([data])
    vectors = encode_texts(sentences, model, processor)
    published = MsfSerModel.from_encoders(AUDIO_ENCODER, TEXT_ENCODER, **SWITCHES)
    predicted = {
        "emobank_text": model(
            gs_embedding=vectors, gs_attention_mask=torch.ones(len(vectors), 1).long()
        ).logits.numpy(),
        "emobank_ridge": _ridge(goemotions, model, processor)(vectors.double().numpy()),
        "emobank_ridge_published": _ridge(goemotions, published, processor)(
            encode_texts(sentences, published, processor).double().numpy()
        ),
    }

    def measure(items: np.ndarray) -> np.ndarray:
        """`(systems, measures)`."""
        found = []
        for numbers in predicted.values():
            r = pearson(numbers[items], labels[items])
            found.append([*r, r.mean(), *ccc(numbers[items].astype(np.float64), labels[items])])
        return np.array(found)

    measures = (*(f"{label}_r" for label in LABELS), "mean_r", *LABELS)
    names = [f"{system}/{name}" for system in predicted for name in measures]
    rows = rows_of(names, interval(lambda items: measure(items).ravel(), len(labels), correlation=True))
    ours, ridge, of_published = range(len(predicted))
    mean_r = measures.index("mean_r")
    for name, other in (("emobank_text_minus_ridge", ridge), ("emobank_text_minus_published", of_published)):
        difference = interval(lambda items, other=other: measure(items)[[ours, other], mean_r] @ [1, -1], len(labels))
        rows.append(row(name, *difference))
    return rows


def spoken_rows(ser: MsfSerPipeline, data: Path) -> list[Row]:
    """Some of these sentences, spoken without emotion, through the default pipeline and from sound alone."""
    sentences, labels = emobank(data)
    sentences, labels = sentences[:SPOKEN], labels[:SPOKEN]
    return [row for kind, speak in _VOICES.items() for row in _rows_of_voice(kind, ser, sentences, labels, speak)]


def _rows_of_voice(
    kind: str, ser: MsfSerPipeline, sentences: Sequence[str], labels: np.ndarray, speak: Voice
) -> list[Row]:
    """The rows of the sentences, whose ratings are `(sentences, 3)`, spoken by a voice."""
    sounds = speak(sentences)
    by_length = np.argsort([len(sound) for sound in sounds], kind="stable")
    ordered = [sounds[i] for i in by_length]
    read = ser(ordered, batch_size=8)
    unread = ser(ordered, batch_size=8, recognizer=None, describer=None)
    back = np.argsort(by_length)
    predicted, alone = (
        np.array([[result[label] for label in LABELS] for result in results])[back] for results in (read, unread)
    )
    written = [read[place]["transcript"] or "" for place in back]
    seconds = np.array([len(sound) for sound in sounds])
    errors = jiwer.process_words(
        [" ".join(normalized(text)) or "-" for text in sentences], [" ".join(normalized(text)) for text in written]
    )

    def measure(items: np.ndarray) -> np.ndarray:
        r = [pearson(numbers[items], labels[items]) for numbers in (predicted, alone)]
        return np.concatenate([*r, [np.corrcoef(seconds[items], labels[items, 0])[0, 1]]])

    names = [f"{kind}{rest}/{label}_r" for rest in ("", "_sound_only") for label in LABELS]
    found = interval(measure, len(labels), correlation=True)
    return [
        *rows_of([*names, f"{kind}_length/valence_r"], found),
        row(f"{kind}/word_errors", errors.wer),
        row(f"{kind}/without_text", float(np.mean([not text for text in written]))),
    ]


def _by_pico(sentences: Sequence[str]) -> list[np.ndarray]:
    try:
        from py_nanotts import NanoTTS
    except ImportError as error:
        raise ImportError('The synthesizer SVOX Pico is missing: pip install "msfser[peers]".') from error
    engine = NanoTTS()
    spoken = (engine.speak(sentence, voice="en-US") for sentence in sentences)  # int16 at 16 kHz
    return [np.frombuffer(sound, np.int16).astype(np.float32) / 2**15 for sound in spoken]


def _by_espeak(sentences: Sequence[str]) -> list[np.ndarray]:
    synthesizer = Synthesizer()
    synthesizer.set_voice("en-us")
    spoken = (synthesizer.speak(f"<speak>{html.escape(sentence)}</speak>") for sentence in sentences)
    return [soxr.resample(sound.samples.astype(np.float32) / 2**15, sound.rate, SAMPLING_RATE) for sound in spoken]


# By the start of the rows.
_VOICES: Mapping[str, Voice] = {"emobank_spoken": _by_pico, "emobank_spoken_espeak": _by_espeak}


@torch.inference_mode()
def swap_rows(model: MsfSerModel, processor: MsfSerProcessor, material: Material, data: Path) -> list[Row]:
    """How far each number moves when one input of a clip with a sentence is exchanged for that of the next clip."""
    draw = np.random.default_rng(0)
    chosen = draw.permutation(len(material.paths))[:_SWAPPED]
    sentences = draw.permutation(find_sentences([data])["validation"]["transcript"][:])[:_SWAPPED].tolist()
    inputs = inputs_of([material.paths[clip] for clip in chosen], sentences, model, processor)
    plain = _numbers(model, processor, inputs)
    rows = []
    for name, values in inputs.items():
        moved = np.abs(_numbers(model, processor, {**inputs, name: of_next(values)}) - plain)
        found = interval(lambda items, moved=moved: moved[items].mean(0), len(plain))
        rows += rows_of([f"swap/{'sound' if name == 'audio' else name}/{label}" for label in LABELS], found)
    return rows


@torch.inference_mode()
def conflict_rows(model: MsfSerModel, processor: MsfSerProcessor, material: Material, data: Path) -> list[Row]:
    """The valence of acted voices with sentences of the same and of the opposite valence, together and each alone."""
    draw = np.random.default_rng(0)
    emotions = material.table["emotion"]
    table: pd.DataFrame = find_sentences([data])["validation"].to_pandas()
    of_sign = {"positive": table["valence"] >= _LEAST_VALENCE, "negative": table["valence"] <= _GREATEST_VALENCE}
    rows = []
    for voice, of_voice in _VOICES_OF.items():
        clips = draw.permutation(np.flatnonzero(emotions.isin(of_voice)))[:_CONFLICTS]
        paths = [material.paths[clip] for clip in clips]
        for words, chosen in of_sign.items():
            sentences = draw.permutation(table["transcript"][chosen])[: len(paths)].tolist()
            both = inputs_of(paths, sentences, model, processor)
            texts = {name: both[name] for name in ("transcript", "emphasis")}
            for name, inputs in {"sound": {"audio": both["audio"]}, "words": texts, "both": both}.items():
                valence = _numbers(model, processor, inputs)[:, 0]
                found = interval(lambda items, valence=valence: valence[items].mean(), len(valence))
                rows.append(row(f"conflict/{voice}_voice_{words}_words/{name}", *found))
    return rows


def inputs_of(
    paths: Sequence[str], sentences: Sequence[str], model: MsfSerModel, processor: MsfSerProcessor
) -> dict[str, list[Any]]:
    """Inputs of the processor by name: clips, each with a sentence, its first three words, and a description."""
    sounds = [load_audio(path) for path in paths]
    describer = _pipeline(model, processor)._annotators.trained.describer
    return {
        "audio": sounds,
        "transcript": list(sentences),
        "emphasis": [" ".join(sentence.split()[:3]) for sentence in sentences],
        "description": [*describer(sounds, [None] * len(sounds))] if describer else [None] * len(sounds),
    }


def of_next(values: Sequence[Any]) -> list[Any]:
    """For each item the value of the next one; for the last one that of the first."""
    return [*values[1:], values[0]]


@torch.inference_mode()
def sound_rows(model: MsfSerModel, processor: MsfSerProcessor, paths: Sequence[str]) -> list[Row]:
    """How gain, silence and noise change the predictions, from samples to numbers, with all inputs.

    The sounds of gain are every 40th clip, whose words are neutral and few, and the examples of the page.
    """
    ser = _pipeline(model, processor)

    def predicted(samples: np.ndarray) -> np.ndarray:
        result = ser(samples)
        return np.array([result[label] for label in LABELS])

    sounds = [load_audio(path) for path in (*paths[::40], *recordings_in(EXAMPLES))]
    gains = [np.float32(10 ** (decibels / 20)) for decibels in (-12, 12)]
    shifts = []
    for sound in sounds:
        as_it_is = predicted(sound)
        shifts.append(max(np.abs(predicted(gain * sound) - as_it_is).max() for gain in gains))
    new = [no_speech(NOISES + number) for number in range(NOISES)]
    distances = [(sound.any(), np.abs(predicted(sound) - 0.5).max()) for sound in new]
    silence, noises = ([far for loud, far in distances if loud == wanted] for wanted in (False, True))
    return [
        row("gain/max_shift", max(shifts)),
        row("silence/distance_from_neutral", max(silence)),
        row("no_speech/distance_from_neutral", max(noises)),
        row("no_speech/median_distance_from_neutral", np.median(noises)),
    ]


def _pipeline(model: MsfSerModel, processor: MsfSerProcessor) -> MsfSerPipeline:
    return MsfSerPipeline(model=model, processor=processor, sampling_rate=SAMPLING_RATE)


def _numbers(model: MsfSerModel, processor: MsfSerProcessor, inputs: Mapping[str, Sequence[Any]]) -> np.ndarray:
    found = []
    for item in range(len(next(iter(inputs.values())))):
        given = {name: values[item] for name, values in inputs.items()}
        found.append(model(**processor(sampling_rate=SAMPLING_RATE, **given)).logits[0].numpy())
    return np.stack(found)


def emobank(data: Path) -> tuple[list[str], np.ndarray]:
    """The test sentences and their ratings in 0..1, `(sentences, 3)`, in an order that is drawn once."""
    table: pd.DataFrame = read_emobank(data / "emobank")["test"].to_pandas()
    table = table[table["transcript"].notna()].sample(frac=1.0, random_state=0)
    return table["transcript"].tolist(), table[[*LABELS]].to_numpy(np.float64)


def _ridge(parts: Mapping[str, datasets.Dataset], model: MsfSerModel, processor: MsfSerProcessor) -> Any:
    """Ridge regression from sentences that a starter is fitted to; its penalty is chosen on the validation part."""
    chosen = {"train": drawn_sentences(len(parts["train"])), "validation": range(4_000)}
    sets = {}
    for name, rows in chosen.items():
        table: pd.DataFrame = parts[name].select(rows).to_pandas()
        vectors = encode_texts(table["transcript"].tolist(), model, processor).double().numpy()
        sets[name] = vectors, table[[*LABELS]].to_numpy(np.float64)
    x, y = sets["validation"]
    fits = [fit_ridge(*sets["train"], penalty) for penalty in PENALTIES]
    return max(fits, key=lambda predict: pearson(predict(x), y).mean())
