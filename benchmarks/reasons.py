"""Whether the contributions of the inputs are reasons: named by a rule, by exchanged inputs, and their cost.

    python -m msfser.benchmarks.reasons --data FOLDER --probe FOLDER...

`--data` is the folder with emotiontts_kr and EmoBank, `--probe` some runs of `configs/probe.yaml`, such as those of
`msfser ablate`. Rows go to `benchmarks/results/intervals.json`.

- `reasons/probe_first/DIMENSION`: share of the items of the probe corpus's test part to whose number the inputs that
  its rule names contribute most, by absolute value: emphasis and transcript to valence, whose larger part is the
  emphasis, the sound to arousal and the description to dominance. `reasons/probe_first` is the lowest of the three.
  `reasons/probe_first_far/DIMENSION`: likewise of the items whose number lies at least 0.1 from the baseline, as
  otherwise nothing contributes much. `reasons/probe_emphasis_first`: to how many valences the emphasis alone
  contributes most.
- `reasons/swap_r`: the default starter, clips of emotiontts_kr, sentences of EmoBank's test part, neither of which it
  was fitted to, and measured descriptions. One input of a clip is exchanged for that of the next clip; Pearson's r
  between the change of a number and the difference between the two stated contributions, over clips, inputs and
  dimensions. `reasons/swap_r/INPUT` likewise for one input.
- `reasons/time_share`: share of the processor time of a prediction, by the default pipeline and one thread, that the
  contributions need.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from .. import MsfSerModel, MsfSerProcessor, modeling_msfser
from ..audio_msfser import SAMPLING_RATE, load_audio
from ..cli.errors import cli_errors
from ..configuration_msfser import LABELS
from ..contributions_msfser import INPUTS, contributions_of, input_names
from ..corpora.probe.corpus import read_probe
from ..evaluation.intervals import interval, share_interval
from ..evaluation.leave_out import read_corpora, read_protocol
from ..evaluation.results import Row, row
from ..pipeline_msfser import MsfSerPipeline
from ..starter.assemble import starter_folder
from .command import parser_of, record
from .starter_checks import emobank, inputs_of, of_next

_CORPUS = "emotiontts_kr"
_SWAPPED, _TIMED = 200, 40  # clips
_BATCH = 16
# A number so far from the baseline has a reason to be found.
_FAR = 0.1
# What the rule of the probe corpus names for each dimension.
_RULE = {"valence": ("les", "gs"), "arousal": ("audio",), "dominance": ("es",)}


@torch.inference_mode()
def contributions(
    model: MsfSerModel, processor: MsfSerProcessor, inputs: Mapping[str, Sequence[Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """The numbers `(items, 3)` and what each input contributes to them, `(items, 3, inputs)`."""
    found = []
    count = len(inputs["transcript"])
    for start in range(0, count, _BATCH):
        some: dict[str, Any] = {name: list(values[start : start + _BATCH]) for name, values in inputs.items()}
        output = model(**processor(sampling_rate=SAMPLING_RATE, **some), output_contributions=True)
        found.append((output.logits.numpy(), output.contributions.numpy()))
    logits, parts = zip(*found, strict=True)
    return np.concatenate(logits), np.concatenate(parts)


def probe_rows(folders: Sequence[Path], data: Path) -> list[Row]:
    """The rows of the probe corpus, over the test items and the seeds of some runs."""
    test = read_probe(data)["test"]
    inputs: dict[str, Any] = {"audio": [load_audio(audio) for audio in test.to_pandas()["audio"]]}
    inputs |= {name: test[name][:] for name in ("transcript", "emphasis", "description")}
    hits: dict[str, list[np.ndarray]] = {}
    distances = []  # from the baseline, (items, 3) each
    for folder in folders:
        model, processor = MsfSerModel.from_pretrained(folder).eval(), MsfSerProcessor.from_pretrained(folder)
        _, parts = contributions(model, processor, inputs)
        names = input_names(model.config)
        distances.append(np.abs(parts.sum(-1)))
        largest = np.abs(parts).argmax(-1)  # (items, 3)
        for d, label in enumerate(LABELS):
            named = [names.index(name) for name in _RULE[label]]
            hits.setdefault(label, []).append(np.isin(largest[:, d], named))
        hits.setdefault("emphasis", []).append(largest[:, 0] == names.index("les"))
    found = {name: share_interval(np.stack(of_seeds)) for name, of_seeds in hits.items()}
    far = np.mean(distances, axis=0) >= _FAR
    of_far = {label: share_interval(np.stack(hits[label])[:, far[:, d]]) for d, label in enumerate(LABELS)}
    lowest = min(LABELS, key=lambda label: found[label].value)
    return [
        row("reasons/probe_first", *found[lowest]),
        *(row(f"reasons/probe_first/{label}", *found[label]) for label in LABELS),
        *(row(f"reasons/probe_first_far/{label}", *of_far[label]) for label in LABELS),
        row("reasons/probe_emphasis_first", *found["emphasis"]),
    ]


def swap_rows(model: MsfSerModel, processor: MsfSerProcessor, paths: Sequence[str], data: Path) -> list[Row]:
    """How well the stated contributions foretell the change of a number when an input is exchanged."""
    draw = np.random.default_rng(0)
    chosen = [paths[clip] for clip in draw.permutation(len(paths))[:_SWAPPED]]
    inputs = inputs_of(chosen, emobank(data)[0][:_SWAPPED], model, processor)
    numbers, parts = contributions(model, processor, inputs)
    names, pairs = input_names(model.config), {}
    for shown, name in INPUTS.items():
        column = "audio" if shown == "sound" else shown
        if any(value is not None for value in inputs[column]):
            swapped, _ = contributions(model, processor, {**inputs, column: of_next(inputs[column])})
            stated = np.roll(parts, -1, axis=0)[..., names.index(name)] - parts[..., names.index(name)]
            pairs[shown] = np.stack([stated, swapped - numbers], axis=-1)  # (clips, 3, 2)

    def r(of: Sequence[str]) -> Any:
        def measure(clips: np.ndarray) -> float:
            stated, moved = np.concatenate([pairs[name][clips].reshape(-1, 2) for name in of]).T
            return float(np.corrcoef(stated, moved)[0, 1])

        return interval(measure, len(numbers), correlation=True)

    return [row("reasons/swap_r", *r([*pairs])), *(row(f"reasons/swap_r/{name}", *r([name])) for name in pairs)]


def time_row(ser: MsfSerPipeline, paths: Sequence[str]) -> Row:
    """Which share of a prediction's processor time the contributions need."""
    torch.set_num_threads(1)
    inside = 0.0

    def timed(*args: Any) -> torch.Tensor:
        nonlocal inside
        start = time.process_time()
        found = contributions_of(*args)
        inside += time.process_time() - start
        return found

    sounds = [load_audio(path) for path in paths[:: max(1, len(paths) // _TIMED)]][:_TIMED]
    ser(sounds[0])
    shares = []
    with mock.patch.object(modeling_msfser, "contributions_of", timed):
        for sound in sounds:
            inside, start = 0.0, time.process_time()
            ser(sound)
            shares.append((inside, time.process_time() - start))
    seconds = np.array(shares)
    return row("reasons/time_share", *interval(lambda items: np.divide(*seconds[items].sum(0)), len(seconds)))


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints and records the rows."""
    parser = parser_of("reasons", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with emotiontts_kr and EmoBank")
    parser.add_argument("--probe", type=Path, nargs="+", required=True, help="runs of configs/probe.yaml")
    parser.add_argument(
        "--probe_data", type=Path, default=Path("data/probe"), help="the probe corpus, made if missing"
    )
    args = parser.parse_args(argv)
    with cli_errors("reasons"):
        clips = read_corpora(args.data, read_protocol())
        paths = clips["path"][clips["corpus"] == _CORPUS].tolist()
        folder = starter_folder()
        model, processor = MsfSerModel.from_pretrained(folder).eval(), MsfSerProcessor.from_pretrained(folder)
        ser = MsfSerPipeline(model=model, processor=processor, sampling_rate=SAMPLING_RATE)
        rows = [*probe_rows(args.probe, args.probe_data), *swap_rows(model, processor, paths, args.data)]
        record("intervals", [*rows, time_row(ser, paths)], "reasons", argv)


if __name__ == "__main__":
    main()
