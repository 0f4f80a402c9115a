"""Tables and paragraphs of the documentation that are made from the results files.

    python -m msfser.benchmarks.tables

rewrites every block `<!-- results: NAME -->` ... `<!-- end -->` of the project's Markdown pages. A block is data: an
entry of `BLOCKS`. In its texts `{KEY:FORMAT}` is the row KEY of the results file, shown by an entry of `FORMATS` or,
where there is no such entry, its value by a format of Python.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..configuration_msfser import LABELS
from ..evaluation.ablation import ROWS
from ..evaluation.results import RESULTS, Row, read

ROOT = Path(__file__).parents[1]
DIMENSIONS = (*LABELS, "mean")

_BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_FIELD = re.compile(r"{([\w/]+):([^}]+)}")


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        head: Titles of the columns.
        rows: By the words of its first cell either the other cells, or the name that replaces `*` in `cells`. A row
            whose figures are all missing is left out, and a single missing figure is "-".
        cells: The cells of the rows that are a name.
    """

    head: Sequence[str]
    rows: Mapping[str, str | Sequence[str]]
    cells: Sequence[str] = ()


@dataclass(frozen=True)
class Block:
    """What one results file is shown as: tables, and texts, which are left out where a figure is missing."""

    source: str
    parts: Sequence[Table | str]


def _interval(text: str, scale: float = 1.0, unit: str = "", always: bool = True) -> Callable[[Row], str]:
    """Value, unit and ends; with `always=False` no ends that are equal."""

    def shown(row: Row) -> str:
        value, low, high = (format(scale * row[key], text) for key in ("value", "low", "high"))
        return f"{value}{unit} ({low}..{high})" if always or low != high else f"{value}{unit}"

    return shown


FORMATS: dict[str, Callable[[Row], str]] = {
    "ccc": _interval(".2f"),
    "ccc3": _interval(".3f"),
    "difference": _interval("+.3f"),
    "share": lambda row: f"{100 * row['value']:.0f}%",
    "share1": lambda row: f"{100 * row['value']:.1f}%",
    "rate": _interval(".3g", 100, "%"),
    "rate1": _interval(".1f", 100, "%"),
    "ms": _interval(".3g", 1000, " ms"),
    "times": _interval(".2f", unit="x", always=False),
    "settings": lambda row: str(row["settings"]),
    "fits": lambda row: str(row["fits_to_choose"]),
    "options": lambda row: f"`{row['command'].partition('speed ')[2]}`",
    "machine": lambda row: (
        f"{row['processor']}, {row['threads']} threads, torch {row['torch']}, transformers {row['transformers']}"
    ),
}

_CCC = tuple(f"{{*/{dimension}:ccc}}" for dimension in DIMENSIONS)
_PEERS = {
    "our model, with generated texts": "ours_full",
    "our model, audio only": "ours_audio",
    "last layer, attentive statistics pooling": "asp",
    "last layer, mean pooling, linear head": "last_layer",
    "eGeMAPS functionals, SVR": "egemaps_svr",
    "texts only": "text",
}


_LEFT_OUT = {
    "recipe of the starter, audio only": "starter",
    "layer mix of pooled states, fixed settings": "regressor",
    "last layer, mean pooling, linear head": "last_layer",
    "eGeMAPS functionals, SVR": "egemaps_svr",
}
_TUNED, _CLIPS = {"RAVDESS": "ravdess", "nEMO": "nemo"}, (12, 50, 200, 800)
_CORPORA = {"RAVDESS": "ravdess", "EmoDB": "emodb", "nEMO": "nemo", "emotiontts_kr": "emotiontts_kr"}


_STARTER_CCC = Table(
    ("**weak** labels", *DIMENSIONS),
    {
        "CCC, all inputs": [f"{{held_out/{dimension}:ccc}}" for dimension in DIMENSIONS],
        "CCC, sound alone": [f"{{sound/{dimension}:ccc}}" for dimension in DIMENSIONS],
        "mean over neutral clips (0.5 is neutral)": [
            *(f"{{neutral/{dimension}:.2f}}" for dimension in LABELS),
            "",
        ],
    },
)


def _words_table(prefix: str) -> Table:
    """What a starter reads in EmoBank's sentences."""
    systems = {
        "text": "emobank_text",
        "ridge regression from the same vectors and labels": "emobank_ridge",
        "spoken by a synthesizer, default pipeline": "emobank_spoken",
        "spoken, sound alone": "emobank_spoken_sound_only",
    }
    return Table(
        ("EmoBank's test sentences, r with people's ratings", *LABELS),
        {words: f"{prefix}{name}" for words, name in systems.items()},
        tuple(f"{{*/{label}_r:ccc}}" for label in LABELS),
    )


def _swap_table(prefix: str) -> Table:
    """How far the numbers of a starter move with each input."""
    return Table(
        ("mean change when one input is another clip's", *LABELS),
        {name: f"{prefix}swap/{name}" for name in ("sound", "transcript", "emphasis", "description")},
        tuple(f"{{*/{label}:ccc3}}" for label in LABELS),
    )


_SPEED = {
    "Whisper tiny.en on clips of 3 s, vs. 30 s for each": "whisper_3s/ratio:times",
    "the same on clips of 10 s": "whisper_10s/ratio:times",
    "WavLM-Large, clips of 3 to 11 s in random order, vs. padded batches of 4": "wavlm_inference/ratio:times",
    "- contribution of oneDNN's matrix products": "wavlm_inference/gain_linear:times",
    "- of running clips one by one, without padding": "wavlm_inference/gain_one_by_one:times",
    "- of fused attention": "wavlm_inference/gain_attention:times",
    "- of running the front end in pieces": "wavlm_inference/gain_front_end:times",
    "upper bound on the speedup: matrix products only, without padding": "wavlm_inference/floor:times",
    "WavLM-Large with 8-bit layers, vs. the stock model in float32": "wavlm_int8/ratio:times",
    "- vs. our model in float32": "wavlm_int8/gain:times",
    "- CCC between its predictions and those in float32, random encoders": "wavlm_int8/ccc:ccc3",
    "CCC between 8-bit and float32 predictions, Whisper tiny.en and MiniLM": "whisper_int8/ccc:ccc3",
    "training at the paper's size, one epoch over these clips": "train_step/ratio:times",
    "- contribution of encoding the texts once": "train_step/gain_cached_texts:times",
    "peak memory of this training, our model divided by stock": "train_memory/ratio:.2f",
    "everything except the encoders, share of a training step": "overhead/share:share1",
    "frozen encoders of the paper's size, first epoch vs. an epoch of a second run": "cached_epoch/ratio:times",
    "- including the start of the second run": "cached_epoch/ratio_with_start:times",
    "the first epoch with Whisper tiny.en and MiniLM vs. an epoch of a second run": "cached_epoch/ratio_small:times",
    "- including its start": "cached_epoch/ratio_with_start_small:times",
    "pipeline with Whisper tiny.en, audio only, 8 at once, vs. the given order": "pipeline/ratio:times",
    "the same with a transcript by the recognizer": "pipeline/ratio_with_recognizer:times",
}

BLOCKS: dict[str, Block] = {
    "probe": Block(
        "ablation_probe",
        [
            Table(
                ("test CCC", *DIMENSIONS),
                {ROWS[name].title: name for name in ("full", "no_les", "random_window", "no_gs", "no_es", "no_audio")},
                _CCC,
            )
        ],
    ),
    "ablation": Block(
        "ablation_probe",
        [
            Table(
                ("CCC minus that of the full model", *DIMENSIONS),
                {variant.title: name for name, variant in ROWS.items()},
                [f"{{*_minus_full/{dimension}:difference}}" for dimension in DIMENSIONS],
            ),
            "\nGate minus attention (audio, both texts; FiLM), paired: valence "
            "{gate_film_minus_attention_film/valence:difference}, mean "
            "{gate_film_minus_attention_film/mean:difference}.",
        ],
    ),
    "recognition": Block(
        "recognition",
        [
            Table(
                ("Whisper tiny.en", ""),
                {
                    "word error rate, read speech (16 clips)": "plain/wer:rate",
                    "emphasized words of the probe's validation set recognized": "validation/stressed_words:rate",
                    "median error of word times, recognized (6 clips)": "plain/median_time_error:ms",
                    "the same, transcript given, Whisper's attention": "plain/aligned_median_time_error_attention:ms",
                    "the same, transcript given, PocketSphinx": "plain/aligned_median_time_error_sphinx:ms",
                    "English speech classified as no speech": "speech/false_reject:rate",
                    "sounds without speech classified as speech, 18 kinds": "nonspeech/false_accept:rate",
                },
                ["{*}"],
            )
        ],
    ),
    "reasons": Block(
        "intervals",
        [
            Table(
                ("contributions", ""),
                {
                    "probe: valence mostly by emphasized words or transcript, as its rule says": "probe_first/valence",
                    "- by the emphasized words": "probe_emphasis_first",
                    "probe: arousal mostly by the sound": "probe_first/arousal",
                    "probe: dominance mostly by the description": "probe_first/dominance",
                },
                ["{reasons/*:rate1}"],
            ),
            "",
            Table(
                ("inputs exchanged for another clip's: correlation of stated and actual change", "r"),
                {
                    "all": "swap_r",
                    "sound": "swap_r/sound",
                    "transcript": "swap_r/transcript",
                    "emphasized words": "swap_r/emphasis",
                    "description": "swap_r/description",
                },
                ["{reasons/*:ccc}"],
            ),
            "\nThe contributions take {reasons/time_share:rate1} of the processor time of a prediction.",
        ],
    ),
    "no_speech": Block(
        "intervals",
        [
            Table(
                ("speech that counts as none", "all", *_CORPORA),
                {
                    "clean": "clean",
                    "noise at 10 dB": "noise",
                    "over a telephone": "telephone",
                    "in a room": "room",
                },
                [
                    "{no_speech/false_alarms/*:rate1}",
                    *(f"{{no_speech/false_alarms/*/{corpus}:rate1}}" for corpus in _CORPORA.values()),
                ],
            ),
            "",
            Table(
                ("other sounds that count as speech", ""),
                {
                    "not in the fit: all": "misses",
                    "- effects and music of LinCity-NG": "misses/lincity_ng",
                    "- effects and music of Frozen-Bubble": "misses/frozen_bubble",
                    "- freedesktop sound theme": "misses/freedesktop",
                    "- music of OpenMSX": "misses/openmsx",
                    "in the fit, new sounds: crowds of other voices": "synthesized/crowd",
                    "- drums": "synthesized/drums",
                    "- band": "synthesized/band",
                    "- melody": "synthesized/melody",
                    "- birds": "synthesized/birds",
                    "- pink to brown noise": "synthesized/pink_to_brown_noise",
                },
                ["{no_speech/*:rate1}"],
            ),
            "\nOf clean speech and speech with noise, {no_speech/false_alarms:rate1} counts as none.",
        ],
    ),
    "english": Block(
        "english",
        [
            Table(
                ("language not given", "other speakers", "corpus not in the fit", "distorted", "before"),
                {
                    "German (EmoDB) with an English text": "english_for/german",
                    "Polish (nEMO) with an English text": "english_for/polish",
                    "Korean (emotiontts_kr) with an English text": "english_for/korean",
                    "English without a text: RAVDESS": "english_left_out/ravdess",
                    "- read": "english_left_out/plain",
                    "- synthetic, expressive": "english_left_out/emphassess_test",
                    "- synthetic, probe corpus": "english_left_out/probe",
                },
                ("{*:rate1}", "{corpus_left_out/*:rate1}", "{*/augment:rate1}", "{log_probability/*:rate1}"),
            )
        ],
    ),
    "coverage": Block(
        "coverage",
        [
            Table(
                ("share of simulated tests", "CCC", "paired difference", "ranking accuracy", "CCC, bootstrap"),
                {f"{number} speakers, three seeds": f"{number}_speakers" for number in ("four", "ten")}
                | {"34 speakers, three seeds": "thirty_four_speakers"},
                ("{*/ccc:.3f}", "{*/difference:.3f}", "{*/share:.3f}", "{*/ccc/percentile:.3f}"),
            )
        ],
    ),
    "emphasis": Block(
        "emphasis",
        [
            Table(
                ("", "top word", "within-word correlation"),
                {
                    "LEMF, settings chosen on other speakers": "lemf",
                    "LEMF, `peak`": "peak",
                    "LEMF, `paper`": "paper",
                    "pitch only, measured as in `peak`": "pitch_peak",
                    "pitch only": "pitch",
                    "energy only": "energy",
                    "duration only": "duration",
                    "stress of the same word by other speakers (no audio)": "identity",
                    "random": "random",
                },
                ("{*/top1:ccc}", "{*/residual:ccc}"),
            )
        ],
    ),
    "annotated": Block(
        "probe_annotated",
        [
            Table(
                ("test CCC, valence", "", "difference from the original texts"),
                {
                    "LEMF on true word times": "true_times",
                    "all generated from audio: transcript, word times, LEMF": "recognized",
                },
                ("{*/valence:ccc}", "{*_minus_original/valence:difference}"),
            )
        ],
    ),
    "emobank": Block(
        "emobank",
        [
            Table(
                ("test CCC", *DIMENSIONS),
                {
                    "text branch, encoder fine-tuned": "tuned",
                    "text branch, encoder frozen": "frozen",
                    "ridge regression on the same embeddings, variance-matched": "ridge_rescaled",
                    "ridge regression on the same embeddings": "ridge",
                    "ratings of the reader's emotion vs. ratings of the writer's": "human",
                },
                _CCC,
            ),
            "\nPaired differences of the mean CCC: fine-tuned minus frozen {tuned_minus_frozen/mean:difference}; "
            "frozen minus variance-matched ridge regression {frozen_minus_ridge_rescaled/mean:difference}.",
        ],
    ),
    "stress": Block(
        "stress",
        [
            "- **Audio:** {audio/inputs:,.0f} malformed or malicious files, arrays, paths, and URLs, each decoded in "
            "four ways, none with more than {audio/megabytes:.0f} MB of memory: {audio/crashes:.0f} crashes, hangs, "
            "or errors without a readable message. {audio/refused:,.0f} were refused in every way; the others gave "
            "predictions. The slowest took {audio/slowest_seconds:.1f} s on one core.",
            "- **Tables:** {tables/inputs:,.0f} malformed tables and folders, none with more than "
            "{tables/megabytes:.0f} MB: {tables/crashes:.0f} crashes, errors without a readable message, or file "
            "paths outside the folder.",
            "- **Kills:** {kills/injected:.0f} times kill -9 at random moments of training and annotation: "
            "{kills/results_lost:.0f} results lost. Run again, the commands ended with weights, scores, and shards "
            "that were bit-identical to those of uninterrupted runs.",
            "- **Commands into the wrong folder:** {guards/commands:.0f} commands with other data, and repetitions of "
            "finished commands, given for the folders of killed and finished runs: {guards/overwritten:.0f} changed a "
            "file, {guards/reported:.0f} were answered in one sentence.",
            "- **Other faults:** {faults/injected:.0f} full disks, damaged checkpoints, and killed processes: "
            "{faults/results_lost:.0f} results lost, {faults/reported:.0f} reported in one sentence.",
            "- **Demo page:** {space/clients:.0f} clients for {space/minutes:g} minutes: {space/answers:,.0f} "
            "answers, {space/wrong_answers:.0f} wrong; {space/aborted:,.0f} requests that were slow or aborted, "
            "{space/oversize:.0f} files that were too large, {space/rejected:,.0f} requests that a full queue "
            "rejected, and {space/failed:.0f} that failed. Memory grew by {space/memory_growth:.0%}, "
            "{space/files_left:.0f} files remained, and {space/leaks:.0f} ways were found to read another user's "
            "data.",
        ],
    ),
    "serving": Block(
        "serving",
        [
            "- Ten users at once on the demo page, 100 requests: {space/wrong_answers:.0f} wrong answers; memory "
            "grew by {space/memory_growth:share}.",
            "- Page, pipeline, `train.py --do_predict`, and plain `AutoModel` differ by at most "
            "{agreement/max_difference:.0e} on the same clip.",
        ],
    ),
    "predict": Block(
        "predict",
        [
            "With the starter, one core predicts {speed/hours_per_hour_and_core:.0f} hours of sound per hour, with "
            "start-up; {speed/share_encode:share} of the time goes into the model. Two processes on two cores are "
            "{speed/two_processes:.2f} times as fast as one.",
        ],
    ),
    "crossval": Block(
        "crossval",
        [
            Table(
                ("**weak** labels, CCC", *DIMENSIONS),
                {
                    "RAVDESS, `msfser train configs/probe.yaml`": "ravdess/train",
                    "RAVDESS, layer mix of pooled states": "ravdess/regressor",
                    "EmoDB, `msfser train configs/probe.yaml`": "emodb/train",
                    "EmoDB, layer mix of pooled states": "emodb/regressor",
                },
                _CCC,
            ),
            "\nPaired differences of the mean CCC: RAVDESS {ravdess/train_minus_regressor:difference}, EmoDB "
            "{emodb/train_minus_regressor:difference}.",
        ],
    ),
    "peers": Block(
        "peers_weak",
        [
            Table(
                (
                    "**weak** labels, CCC",
                    *DIMENSIONS,
                    "strong > normal",
                    "the same, equal levels",
                    "happy > angry, sad",
                ),
                _PEERS | {"level only (RMS)": "level"},
                (
                    *_CCC,
                    "{*/ranking/arousal_raw:share}",
                    "{*/ranking/arousal_leveled:share}",
                    "{*/ranking/valence:share}",
                ),
            ),
            "\nPaired differences of the mean CCC: our model with texts minus audio only "
            "{full_minus_audio:difference}; our model with audio only minus eGeMAPS "
            "{audio_minus_egemaps_svr:difference}, minus the linear head {audio_minus_last_layer:difference}, and "
            "minus attentive pooling of the last layer {audio_minus_asp:difference}.",
        ],
    ),
    "cross": Block(
        "peers_weak",
        [
            Table(
                ("**weak** labels, mean CCC", "RAVDESS to EmoDB", "EmoDB to RAVDESS"),
                # Texts only: the sentences are fixed, and in another language.
                {words: name for words, name in _PEERS.items() if name != "text"},
                [
                    f"{{cross/{corpus}/*/mean:ccc}}, {{cross/{corpus}/*/drop:.2f}} less than within"
                    for corpus in ("emodb", "ravdess")
                ],
            )
        ],
    ),
    "loco": Block(
        "loco",
        [
            Table(
                ("**weak** labels, mean CCC", *_CORPORA, "mean", "settings tried", "fits to choose them"),
                _LEFT_OUT,
                (
                    *(f"{{*/{corpus}/mean:ccc}}" for corpus in _CORPORA.values()),
                    "{*/mean:ccc}",
                    "{*/mean:settings}",
                    "{*/mean:fits}",
                ),
            ),
            "\nPaired differences from the layer mix, in the mean of the four: the recipe of the starter "
            "{starter_minus_regressor/mean:difference}, the linear head "
            "{last_layer_minus_regressor/mean:difference}, eGeMAPS {egemaps_svr_minus_regressor/mean:difference}.",
        ],
    ),
    "finetune": Block(
        "finetune",
        [
            Table(
                ("mean CCC, **weak** labels", *(f"{count} clips" for count in _CLIPS)),
                {
                    words: [f"{{{key.replace('*', str(count))}}}" for count in _CLIPS]
                    for title, corpus in _TUNED.items()
                    for words, key in {
                        f"{title}, from the starter": f"{corpus}/starter/*:ccc",
                        f"{title}, from scratch": f"{corpus}/scratch/*:ccc",
                        f"{title}, difference": f"gain/{corpus}/*:difference",
                    }.items()
                },
            ),
            "\nWithout any clip, the starter has {ravdess/starter/0:ccc} on RAVDESS and {nemo/starter/0:ccc} on nEMO.",
            "Training on 500 clips of 4 s takes {seconds/500:.0f} s on a CPU of two cores after the encoders ran, and "
            "{seconds/500_with_encoders:.0f} s with them.",
        ],
    ),
    "peers_probe": Block(
        "peers_probe",
        [
            Table(
                ("probe corpus, test CCC", *DIMENSIONS),
                {"our model, with the corpus's texts": "ours_full"} | dict(list(_PEERS.items())[1:]),
                _CCC,
            )
        ],
    ),
    "starter_ccc": Block("starter", [_STARTER_CCC]),
    "starter": Block(
        "starter",
        [
            _STARTER_CCC,
            "",
            Table(
                ("check", ""),
                {
                    "strong clips above normal clips in arousal (all at the same level)": "ranking/arousal_raw:share",
                    "anger and happiness above sadness and calm in arousal": "ranking/arousal_emotions:share",
                    "happiness above anger and sadness in valence": "ranking/valence:share",
                    "largest change by a gain of +12 or -12 dB": "gain/max_shift:.3f",
                    "silence, largest distance from 0.5": "silence/distance_from_neutral:.3f",
                    "new draws of the training noise types (noise, hum, clicks), median distance from 0.5": (
                        "no_speech/median_distance_from_neutral:.3f"
                    ),
                    "the same, largest distance": "no_speech/distance_from_neutral:.3f",
                },
                ["{*}"],
            ),
            "",
            Table(
                ("correlation with the clean clip's numbers, sound alone", *LABELS),
                {"noise at 10 dB": "noise", "telephone bandwidth": "band", "2 s of it": "crop"},
                tuple(f"{{*/{label}_r:ccc}}" for label in LABELS),
            ),
        ],
    ),
    "starter_words": Block(
        "starter",
        [
            _words_table(""),
            "\nText minus ridge regression, mean r: {emobank_text_minus_ridge:difference}. The recognizer gets "
            "{emobank_spoken/word_errors:share} of the spoken words wrong; the length of the sentence alone has r "
            "{emobank_length/valence_r:ccc} with valence.",
            "",
            Table(
                ("**weak** labels, held-out speakers", "all inputs, mean CCC", "all inputs minus sound alone"),
                _CORPORA,
                ("{held_out/*/mean:ccc}", "{full_minus_audio/*:difference}"),
            ),
        ],
    ),
    "starter_swap": Block("starter", [_swap_table("")]),
    "open_words": Block("starter", [_words_table("open/")]),
    "open_swap": Block("starter", [_swap_table("open/")]),
    "open_loco": Block(
        "loco",
        [
            Table(
                ("**weak** labels, mean CCC, sound alone", "`starter-open`", "`starter`, fitted without this corpus"),
                {words: name for words, name in _CORPORA.items() if name != "emodb"},
                ("{starter_open/*/mean:ccc}", "{starter/*/mean:ccc}"),
            )
        ],
    ),
    "speed": Block(
        "speed",
        [
            Table(
                ("", "", "`python -m msfser.benchmarks.speed ...`"),
                {words: (f"{{{key}}}", f"{{{key.partition(':')[0]}:options}}") for words, key in _SPEED.items()},
            ),
            "\n{wavlm_inference/ratio:machine}. In our inference with WavLM-Large, "
            "{wavlm_inference/products:share} of the time is spent in matrix products.",
        ],
    ),
}


def pages() -> list[Path]:
    """The Markdown pages of the project that have blocks."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("docs/*/**/*.md")]
    return sorted(page for page in found if _BLOCK.search(page.read_text(encoding="utf-8")))


def render(name: str) -> str:
    """The Markdown of a block.

    Raises:
        KeyError: There is no such block.
    """
    block = BLOCKS[name]
    rows = read(RESULTS / f"{block.source}.json")
    lines: list[str] = []
    for part in block.parts:
        if isinstance(part, Table):
            lines += _table(part, rows)
        elif _is_complete([part], rows):
            lines.append(_filled(part, rows))
    return "\n".join(lines) + "\n"


def rendered(text: str) -> str:
    """A page with its blocks made from the results."""
    return _BLOCK.sub(lambda match: match[1] + render(match[2]) + match[3], text)


def _table(table: Table, rows: Mapping[str, Row]) -> list[str]:
    lines = [_line(table.head), "|" + "---|" * len(table.head)]
    for words, given in table.rows.items():
        cells = [cell.replace("*", given) for cell in table.cells] if isinstance(given, str) else given
        if any(_is_complete([cell], rows) for cell in cells if cell):
            lines.append(_line([words, *(_filled(c, rows) if _is_complete([c], rows) else "-" for c in cells)]))
    return lines


def _line(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def _is_complete(texts: Sequence[str], rows: Mapping[str, Row]) -> bool:
    return all(match[1] in rows for text in texts for match in _FIELD.finditer(text))


def _filled(text: str, rows: Mapping[str, Row]) -> str:
    def shown(match: re.Match[str]) -> str:
        row, how = rows[match[1]], match[2]
        return FORMATS[how](row) if how in FORMATS else format(row["value"], how)

    return _FIELD.sub(shown, text)


def main() -> None:
    """Rewrites the blocks of all pages."""
    for page in pages():
        page.write_text(rendered(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
