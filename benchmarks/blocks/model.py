"""What is shown of the method: the probe corpus, texts and their making, intervals, and reasons."""

from ...configuration_msfser import LABELS
from ...evaluation.ablation import ROWS
from .schema import CCC, DIMENSIONS, Block, Table

_CORPORA = {"RAVDESS": "ravdess", "EmoDB": "emodb", "nEMO": "nemo", "emotiontts_kr": "emotiontts_kr"}
_COVERAGE = Table(
    ("held-out speakers, **weak** labels", *LABELS),
    {
        "share of labels in the intervals": [f"{{coverage/{label}:rate1}}" for label in LABELS],
        "mean width": [f"{{width/{label}:ccc3}}" for label in LABELS],
    },
)
_COVERAGE_BY_CORPUS = Table(
    ("share of labels in the intervals, mean over dimensions", *_CORPORA),
    {
        "held-out speakers": [f"{{coverage/{name}:rate1}}" for name in _CORPORA.values()],
        "corpus left out, audio only": [f"{{left_out/{name}/coverage:rate1}}" for name in _CORPORA.values()],
    },
)

MODEL: dict[str, Block] = {
    "probe": Block(
        "ablation_probe",
        [
            Table(
                ("test CCC", *DIMENSIONS),
                {ROWS[name].title: name for name in ("full", "no_les", "random_window", "no_gs", "no_es", "no_audio")},
                CCC,
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
                    "in bfloat16: word error rate, read speech": "bfloat16/plain/wer:rate",
                    "- words changed, of those recognized in English clips": "bfloat16/changed_words:rate",
                    "- median error of word times": "bfloat16/plain/median_time_error:ms",
                    "- English speech classified as no speech": "bfloat16/speech/false_reject:rate",
                    "- sounds without speech classified as speech": "bfloat16/nonspeech/false_accept:rate",
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
                    "- whose arousal is at least 0.1 from the baseline": "probe_first_far/arousal",
                    "probe: dominance mostly by the description": "probe_first/dominance",
                    "- whose dominance is at least 0.1 from the baseline": "probe_first_far/dominance",
                },
                ["{reasons/*:rate1}"],
            ),
            "",
            Table(
                ("inputs exchanged for another clip's: stated and actual change", "Pearson's r"),
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
                    "clean": "false_alarms/clean",
                    "noise at 10 dB": "false_alarms/noise",
                    "noise at 5 dB": "false_alarms/noise_5_db",
                    "over a telephone": "false_alarms/telephone",
                    "in a room": "false_alarms/room",
                    "clean, with words": "words/false_alarms/clean",
                    "noise at 10 dB, with words": "words/false_alarms/noise",
                },
                ["{no_speech/*:rate1}", *(f"{{no_speech/*/{corpus}:rate1}}" for corpus in _CORPORA.values())],
            ),
            "",
            Table(
                ("other sounds that count as speech", "audio only", "with words"),
                {
                    "not in the choice: all": "misses",
                    "- effects and music of LinCity-NG": "misses/lincity_ng",
                    "- effects and music of Frozen-Bubble": "misses/frozen_bubble",
                    "- freedesktop sound theme": "misses/freedesktop",
                    "- music of OpenMSX": "misses/openmsx",
                    "in the choice, new sounds: crowds of other voices": "synthesized/crowd",
                    "- drums": "synthesized/drums",
                    "- band": "synthesized/band",
                    "- melody": "synthesized/melody",
                    "- birds": "synthesized/birds",
                    "- pink to brown noise": "synthesized/pink_to_brown_noise",
                },
                ["{no_speech/*:rate1}", "{no_speech/words/*:rate1}"],
            ),
            "\nOf speech, clean or with noise, {no_speech/false_alarms:rate1} is missed from audio alone, and "
            "{no_speech/words/false_alarms:rate1} with words.",
        ],
    ),
    "english": Block(
        "english",
        [
            Table(
                ("language not given", "other speakers", "corpus not in the fit", "distorted"),
                {
                    "German (EmoDB) with an English text": "english_for/german",
                    "Polish (nEMO) with an English text": "english_for/polish",
                    "Korean (emotiontts_kr) with an English text": "english_for/korean",
                    "English without a text: RAVDESS": "english_left_out/ravdess",
                    "- read": "english_left_out/plain",
                    "- synthetic, expressive": "english_left_out/emphassess_test",
                    "- synthetic, probe corpus": "english_left_out/probe",
                },
                ("{*:rate1}", "{corpus_left_out/*:rate1}", "{*/augment:rate1}"),
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
                CCC,
            ),
            "\nPaired differences of the mean CCC: fine-tuned minus frozen {tuned_minus_frozen/mean:difference}; "
            "frozen minus variance-matched ridge regression {frozen_minus_ridge_rescaled/mean:difference}.",
        ],
    ),
    "starter_intervals": Block("intervals", [_COVERAGE, "", _COVERAGE_BY_CORPUS]),
    "left_out_intervals": Block(
        "intervals",
        [
            "Share of the labels of a corpus in the intervals of the starter of MSF-SER for Transformers, fitted to "
            "other corpora (in parentheses, the 95% interval over speakers): "
            + ", ".join(f"{words} {{left_out/{name}/coverage:rate1}}" for words, name in _CORPORA.items())
            + "."
        ],
    ),
    "open_left_out_intervals": Block(
        "intervals",
        [
            "Share of the labels of a corpus in the intervals of this recipe, fitted to EmoDB (in parentheses, the "
            "95% interval over speakers): "
            + ", ".join(
                f"{words} {{open/left_out/{name}/coverage:rate1}}"
                for words, name in _CORPORA.items()
                if name != "emodb"
            )
            + "."
        ],
    ),
    "intervals": Block(
        "intervals",
        [
            _COVERAGE,
            "",
            _COVERAGE_BY_CORPUS,
            "\nThe mean width is {width_ratio:ccc3} times that of intervals of constant width, of which "
            "{constant_coverage:rate1} contain the label. Spearman's rank correlation of width and absolute error: "
            "{width_error_spearman:ccc3}. Without the quarter with the widest intervals, the mean absolute error "
            "falls by {reject_quarter:ccc3}.",
            "\nOn the test set of the probe corpus, {coverage/probe:rate1} of the labels are in the intervals, which "
            "are {probe_width/valence:.2f}, {probe_width/arousal:.2f}, and {probe_width/dominance:.2f} wide.",
        ],
    ),
}
