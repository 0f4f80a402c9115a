"""Fits the starter's weights, and measures them on held-out speakers.

    python -m msfser.starter.fit --data FOLDER

FOLDER holds RAVDESS (speech) and EmoDB as they are distributed, with the weak labels of `corpora/weak_labels.py`. The
recipe is that of the system `ours_audio` of `benchmarks/peers.py` with four differences: every sound is brought to one
level; most training clips are augmented with other rooms, microphones and lines (`training/augmentation.py`); sounds
without speech are neutral; and the ranking loss has a fifth of the weight (at its full weight, noise was not
neutral).

First the recipe is tried: speakers in six groups, each held out once. Then it is fitted to all speakers and written to
`starter/model.safetensors`, without the encoder. `msfser starter` assembles the whole model. Writes
`benchmarks/results/starter.json`; docs/evaluation.md explains each row.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
import torch
from tqdm import tqdm

from ..audio_msfser import SAMPLING_RATE, load_audio
from ..cli.errors import cli_errors
from ..configuration_msfser import LABELS
from ..corpora.acted import COLUMNS
from ..evaluation.acted import Material, Scores, acted_clips, strong_counterparts
from ..evaluation.held_out import speaker_groups
from ..evaluation.results import RESULTS, Row, as_text, row, rows_of, write
from ..hub.encoders import ensure_encoders
from ..modeling_msfser import MsfSerModel
from ..training import augmentation
from ..training.features import encode_sounds
from ..training.fitting import Clips, Recipe, fit, predict
from .assemble import AUDIO_ENCODER, TEXT_ENCODER, new_starter, starter_processor, write_fitted_weights

COMMAND = "python -m msfser.starter.fit --data FOLDER"
# Augmented copies of each clip, and the share of the clean one in training.
CLEAN_SHARE = 0.3
CLEAN: Mapping[str, augmentation.Distortion] = {"clean": augmentation.nothing}
# The name seeds the draws.
COPIES: Mapping[str, augmentation.Distortion] = {f"take_{copy}": augmentation.augment for copy in range(3)}
SAMPLING_WEIGHTS = {"clean": CLEAN_SHARE} | dict.fromkeys(COPIES, (1 - CLEAN_SHARE) / len(COPIES))
RECIPE = Recipe(ranking_loss_weight=0.5, mixing_lr_scale=20.0, epochs=20)
GROUPS = 6
# Sounds without speech, and how often each of them is in an epoch.
NOISES, NOISE_WEIGHT = 64, 4
TESTS: Mapping[str, augmentation.Distortion] = {
    "noise": lambda samples, draw: augmentation.noise(samples, draw, snr=10.0),
    "band": augmentation.telephone,
    "crop": augmentation.crop,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Tries the recipe, fits the starter, writes it and its results."""
    parser = argparse.ArgumentParser(
        prog="python -m msfser.starter.fit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder with RAVDESS and EmoDB")
    arguments = parser.parse_args(argv)
    datasets.disable_progress_bars()
    with cli_errors("starter"):
        ensure_encoders([AUDIO_ENCODER, TEXT_ENCODER])
        material = read_material(arguments.data)
    results = held_out_rows(material)
    everything = repeat_noises(np.arange(len(material.clips)), len(material.table))
    starter = fit(new_starter, material.clips, everything, 0, RECIPE)
    assert isinstance(starter, MsfSerModel)
    write_fitted_weights(starter)
    results += rows_of_the_starter(starter, material.paths)
    write(RESULTS / "starter.json", [{**row, "command": COMMAND} for row in results])
    print(as_text(results))


def read_material(folder: Path) -> Material:
    """All clips and the sounds without speech: clean, augmented, and distorted as in the tests."""
    rows = acted_clips(folder)
    table = rows.select_columns([*COLUMNS, "speaker"]).to_pandas()
    paths = [audio["path"] for audio in rows["audio"]]
    states = states_of([*paths, *noises()], {**CLEAN, **COPIES, **TESTS})
    labels = np.stack([np.asarray(rows[name], np.float32) for name in LABELS], 1)
    clips = Clips(
        labels=np.concatenate([labels, np.full((NOISES, len(LABELS)), 0.5, np.float32)]),
        speakers=np.array([*rows["speaker"], *(f"none-{number % GROUPS}" for number in range(NOISES))]),
        states=states,
        sampling_weights=SAMPLING_WEIGHTS,
        texts={},
        stronger=np.concatenate([strong_counterparts(table), np.full(NOISES, -1)]),
    )
    groups = speaker_groups(clips.speakers, GROUPS)
    folds = {str(group): groups == group for group in range(GROUPS)}
    return Material(clips, table, paths, folds)


def states_of(
    sounds: Sequence[str | np.ndarray], distortions: Mapping[str, augmentation.Distortion]
) -> dict[str, list[torch.Tensor]]:
    """States of the starter's encoder by distortion, as [`encode_sounds`] gives them."""
    model, processor = new_starter(), starter_processor()
    return {name: encode_sounds(name, sounds, model, processor, how) for name, how in distortions.items()}


def noises() -> list[np.ndarray]:
    """The sounds without speech that are trained on."""
    return [no_speech(number) for number in range(NOISES)]


def no_speech(number: int) -> np.ndarray:
    """A sound without speech, 1 to 4 s: silence, a hum, clicks, or noise of any color."""
    draw = np.random.default_rng([1, number])
    length = int(draw.uniform(1, 4) * SAMPLING_RATE)
    level = 10 ** (draw.uniform(-70, -10) / 20)
    kind = number % 8
    if kind == 0:
        sound = np.zeros(length)
    elif kind == 1:
        phase = 2 * np.pi * draw.uniform(40, 60) * np.arange(length) / SAMPLING_RATE
        sound = np.add.reduce([np.sin(order * phase) / order for order in range(1, 6)])
    elif kind == 2:
        sound = (draw.random(length) < 3 / SAMPLING_RATE).astype(float)
    else:
        spectrum = np.fft.rfft(draw.standard_normal(length))
        spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** draw.uniform(-0.3, 1.2)
        sound = np.fft.irfft(spectrum, length)
        sound /= sound.std()
    return (level * sound).astype(np.float32)


def repeat_noises(items: np.ndarray, spoken: int) -> np.ndarray:
    """The items to train on; those from index `spoken` on, without speech, several times."""
    return np.concatenate([items[items < spoken], np.repeat(items[items >= spoken], NOISE_WEIGHT)])


def held_out_rows(material: Material) -> list[Row]:
    """The recipe on held-out speakers."""
    clips, spoken = material.clips, len(material.table)
    predictions = {kind: np.full((1, len(clips), len(LABELS)), np.nan, np.float32) for kind in ("clean", *TESTS)}
    for held_out in tqdm(material.folds.values(), desc="held-out speakers"):
        model = fit(new_starter, clips, repeat_noises(np.flatnonzero(~held_out), spoken), 0, RECIPE)
        for kind, values in predictions.items():
            values[0, held_out] = predict(model, clips, np.flatnonzero(held_out), kind)
    for values in predictions.values():
        values[:, spoken:] = np.nan  # sounds without speech have no speaker
    scores = Scores(material, {"held_out": predictions})
    arousal = np.stack([values[0, :, 1] for values in predictions.values()])

    def correlations(drawn: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Pearson's r of each distorted kind with the clean one, of the only seed."""
        return np.atleast_2d(np.corrcoef(arousal[:, drawn]))[0, 1:]

    rows = [*scores.ccc_rows("held_out"), *scores.ranking_rows("held_out")]
    rows += rows_of([f"{kind}/arousal_r" for kind in TESTS], scores.interval(correlations, correlation=True))
    neutral = np.flatnonzero(material.table["emotion"] == "neutral")
    means = predictions["clean"][0, neutral].mean(0)
    return rows + [row(f"neutral/{name}", mean) for name, mean in zip(LABELS, means, strict=True)]


@torch.inference_mode()
def rows_of_the_starter(starter: MsfSerModel, paths: Sequence[str]) -> list[Row]:
    """How gain, silence and noise change the predictions of the fitted starter, from samples to numbers."""
    processor = starter_processor()

    def predicted(samples: np.ndarray) -> np.ndarray:
        return starter(**processor(samples, sampling_rate=SAMPLING_RATE)).logits[0].numpy()

    sounds = [load_audio(path) for path in paths[::20]]
    gains = [np.float32(10 ** (decibels / 20)) for decibels in (-12, 12)]
    shift = max(np.abs(predicted(gain * sound) - predicted(sound)).max() for sound in sounds for gain in gains)
    new = [no_speech(NOISES + number) for number in range(NOISES)]
    distances = [(sound.any(), np.abs(predicted(sound) - 0.5).max()) for sound in new]
    silence, noises = ([far for loud, far in distances if loud == wanted] for wanted in (False, True))
    return [
        row("gain/max_shift", shift),
        row("silence/distance_from_neutral", max(silence)),
        row("no_speech/distance_from_neutral", max(noises)),
        row("no_speech/median_distance_from_neutral", np.median(noises)),
    ]


if __name__ == "__main__":
    main()
