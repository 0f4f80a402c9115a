"""Fits the starter weights, and measures what they are worth on voices that they have not heard.

    python -m msfser.starter.fit --data FOLDER

FOLDER holds RAVDESS (speech) and EmoDB as they are distributed; their weak labels are those of `peers.py`. The recipe
is that of `ours_audio` there, with four differences: each sound is brought to one level, most of what training hears
has been through other rooms, microphones and lines (`corpora/augmentation.py`), sounds without speech are neutral, and
the order of takes weighs a quarter as much (at its full weight, noise was not neutral).

First the recipe is tried: speakers in six groups, each held out once. Then it is fitted to all speakers and written to
`starter/model.safetensors`, without the encoder. `msfser starter` puts the whole model together. Writes
`benchmarks/results/starter.json`:

- `held_out/DIMENSION`, `held_out/mean`: CCC with the weak labels, held-out speakers; `order/...` as in `peers.py`;
- `noise/arousal_r`, `band/arousal_r`, `crop/arousal_r`: the correlation of arousal with that of the clean clip, for
  noise at 10 dB, a telephone's band and 2 s from the middle, held-out speakers;
- `neutral/DIMENSION`: the mean over neutral clips, held-out speakers;
- `gain/max_shift`: the largest change of any dimension by a gain of 12 dB either way;
- `silence/distance_from_neutral`: the largest distance of any dimension from 0.5, of silence;
- `no_speech/distance_from_neutral`, `no_speech/median_distance_from_neutral`: the same of hum, clicks and noises that
  it has not heard.

What the frozen encoder makes of the clips is kept in `outputs/starter_fit`.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
import torch
from tqdm import tqdm

from ..audio_msfser import SAMPLING_RATE, load_audio
from ..benchmarks.peers import Material, Scores, acted_clips, order_rows, stronger_takes
from ..configuration_msfser import LABELS
from ..corpora.acted import COLUMNS
from ..evaluation.results import RESULTS, write
from ..modeling_msfser import MsfSerModel
from ..training import augmentation
from ..training.fitting import Clips, Recipe, encoded, fit, predict
from .assemble import new_starter, starter_processor, write_fitted_weights

COMMAND = "python -m msfser.starter.fit --data FOLDER"
# Distorted copies of each clip, and how often training hears the clean one.
TAKES, CLEAN_SHARE = 3, 0.3
RECIPE = Recipe(ranking_loss_weight=0.5, mixing_lr_scale=20.0, epochs=20)
GROUPS = 6
# Sounds without speech, and how often training hears each of them in an epoch.
NOISES, NOISE_WEIGHT = 64, 4
TESTS: Mapping[str, augmentation.Distortion] = {
    "noise": lambda samples, draw: augmentation.noise(samples, draw, snr=10.0),
    "band": augmentation.telephone,
    "crop": augmentation.crop,
}


def main() -> None:
    """Tries the recipe, fits the starter, writes it and its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with RAVDESS and EmoDB")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("outputs/starter_fit"), help="for the encoder's outputs"
    )
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    try:
        material = heard(arguments.data, arguments.output_dir)
    except (ValueError, OSError) as error:
        raise SystemExit(f"starter: {error}") from error
    results = held_out_rows(material)
    everything = _to_hear(np.arange(len(material.clips)), len(material.table))
    starter = fit(new_starter, material.clips, everything, 0, RECIPE)
    write_fitted_weights(starter)
    results += rows_of_the_starter(starter, material.paths)
    write(RESULTS / "starter.json", [row | {"command": COMMAND} for row in results])
    for row in results:
        interval = "" if row["low"] is None else f" ({row['low']:.3f}..{row['high']:.3f})"
        print(f"{row['name']:40s} {row['value']:.3f}{interval}")


def heard(folder: Path, own: Path) -> Material:
    """All clips and the sounds without speech, clean, in their takes, and in the forms of the tests."""
    own.mkdir(parents=True, exist_ok=True)
    rows = acted_clips(folder)
    table = rows.select_columns([*COLUMNS, "speaker"]).to_pandas()
    paths = [audio["path"] for audio in rows["audio"]]
    sounds = [*paths, *map(no_speech, range(NOISES))]
    takes: dict[str, augmentation.Distortion] = {f"take_{take}": augmentation.augment for take in range(TAKES)}
    kinds = {"clean": augmentation.nothing, **takes, **TESTS}
    model, processor = new_starter(), starter_processor()
    states = {
        name: encoded(own / f"{name}.safetensors", sounds, model, processor, distortion)
        for name, distortion in kinds.items()
    }
    labels = np.stack([np.asarray(rows[name], np.float32) for name in LABELS], 1)
    clips = Clips(
        labels=np.concatenate([labels, np.full((NOISES, len(LABELS)), 0.5, np.float32)]),
        speakers=np.array([*rows["speaker"], *(f"none-{number % GROUPS}" for number in range(NOISES))]),
        states=states,
        heard={"clean": CLEAN_SHARE} | dict.fromkeys(takes, (1 - CLEAN_SHARE) / TAKES),
        texts={},
        stronger=np.concatenate([stronger_takes(table), np.full(NOISES, -1)]),
    )
    names = np.random.default_rng(0).permutation(sorted(set(clips.speakers)))
    folds = {str(group): np.isin(clips.speakers, names[group::GROUPS]) for group in range(GROUPS)}
    return Material(clips, table, paths, folds, own)


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
        sound = sum(np.sin(order * phase) / order for order in range(1, 6))
    elif kind == 2:
        sound = (draw.random(length) < 3 / SAMPLING_RATE).astype(float)
    else:
        spectrum = np.fft.rfft(draw.standard_normal(length))
        spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** draw.uniform(-0.3, 1.2)
        sound = np.fft.irfft(spectrum, length)
        sound /= sound.std()
    return (level * sound).astype(np.float32)


def _to_hear(items: np.ndarray, spoken: int) -> np.ndarray:
    """The clips to train on; those behind the spoken ones, without speech, several times."""
    return np.concatenate([items[items < spoken], np.repeat(items[items >= spoken], NOISE_WEIGHT)])


def held_out_rows(material: Material) -> list[dict[str, object]]:
    """The recipe on speakers that it has not heard."""
    clips, spoken = material.clips, len(material.table)
    answers = {kind: np.full((1, len(clips), len(LABELS)), np.nan, np.float32) for kind in ("clean", *TESTS)}
    for held in tqdm(material.folds.values(), desc="held-out speakers"):
        model = fit(new_starter, clips, _to_hear(np.flatnonzero(~held), spoken), 0, RECIPE)
        for kind, values in answers.items():
            values[0, held] = predict(model, clips, np.flatnonzero(held), kind)
    for values in answers.values():
        values[:, spoken:] = np.nan  # what is no speech belongs to no speaker
    scores = Scores(material, {"held_out": answers})
    rows = [*scores.rows_of_ccc("held_out"), *order_rows(scores, "held_out")]
    arousal = {kind: values[0, :, 1] for kind, values in answers.items()}
    for kind in TESTS:
        alike = scores.interval(lambda c, kind=kind: float(np.corrcoef(arousal["clean"][c], arousal[kind][c])[0, 1]))
        rows.append({"name": f"{kind}/arousal_r", **alike})
    neutral = np.flatnonzero(material.table["emotion"] == "neutral")
    for dimension, name in enumerate(LABELS):
        mean = float(answers["clean"][0, neutral, dimension].mean())
        rows.append({"name": f"neutral/{name}", "value": mean, "low": None, "high": None})
    return rows


@torch.inference_mode()
def rows_of_the_starter(starter: MsfSerModel, paths: Sequence[str]) -> list[dict[str, object]]:
    """What the fitted starter makes of gain, silence and noise, from samples to numbers."""
    processor = starter_processor()

    def answer(samples: np.ndarray) -> np.ndarray:
        return starter(**processor(samples, sampling_rate=SAMPLING_RATE)).logits[0].numpy()

    sounds = [load_audio(path) for path in paths[::20]]
    gains = [np.float32(10 ** (decibels / 20)) for decibels in (-12, 12)]
    shift = max(np.abs(answer(gain * sound) - answer(sound)).max() for sound in sounds for gain in gains)
    quiet = [no_speech(NOISES + number) for number in range(NOISES)]
    distances = {bool(sound.any()): [] for sound in quiet}
    for sound in quiet:
        distances[bool(sound.any())].append(np.abs(answer(sound) - 0.5).max())
    values = {
        "gain/max_shift": shift,
        "silence/distance_from_neutral": max(distances[False]),
        "no_speech/distance_from_neutral": max(distances[True]),
        "no_speech/median_distance_from_neutral": np.median(distances[True]),
    }
    return [{"name": name, "value": float(value), "low": None, "high": None} for name, value in values.items()]


if __name__ == "__main__":
    main()
