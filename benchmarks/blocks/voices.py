"""What is shown of real voices with weak labels: peers, corpora left out, fine-tuning, and the starters."""

from collections.abc import Mapping, Sequence

from ...configuration_msfser import LABELS
from .schema import CCC, DIMENSIONS, Block, Shown, Table

_PEERS = {
    "our model, with generated texts": "ours_full",
    "our model, audio only": "ours_audio",
    "last layer, attentive statistics pooling": "asp",
    "last layer, mean pooling, linear head": "last_layer",
    "eGeMAPS functionals, SVR": "egemaps_svr",
    "words only": "text",
}

_LEFT_OUT = {
    "recipe of the starter, audio only": "starter",
    "layer-mix regressor": "regressor",
    "last layer, mean pooling, linear head": "last_layer",
    "eGeMAPS functionals, SVR": "egemaps_svr",
}

_TUNED = {"RAVDESS": "ravdess", "nEMO": "nemo"}

_CORPORA = {"RAVDESS": "ravdess", "EmoDB": "emodb", "nEMO": "nemo", "emotiontts_kr": "emotiontts_kr"}

# Of the others, none or two clips have words that are clearly English.
_WORDED = {"RAVDESS": "ravdess", "nEMO": "nemo"}

_STARTER_CCC = Table(
    ("**weak** labels", *DIMENSIONS),
    {
        "CCC, all inputs": [f"{{held_out/{dimension}:ccc}}" for dimension in DIMENSIONS],
        "CCC, audio only": [f"{{sound/{dimension}:ccc}}" for dimension in DIMENSIONS],
        "mean over neutral clips (0.5 is the middle of the scale)": [
            *(f"{{neutral/{dimension}:.2f}}" for dimension in LABELS),
            "",
        ],
    },
)


def _table_of_counts(title: str, counts: Sequence[int], rows: Mapping[str, str]) -> Table:
    """Rows by number of clips, which takes the place of `*` in their names."""
    columns = (title, *(f"{count} clips" for count in counts))
    return Table(
        columns,
        {words: [f"{{{name.replace('*', str(count))}}}" for count in counts] for words, name in rows.items()},
    )


def _words_table(prefix: str) -> Table:
    """What a starter reads in EmoBank's sentences."""
    systems = {
        "text": "emobank_text",
        "ridge regression from the same vectors and labels": "emobank_ridge",
        "ridge regression from the published text encoder": "emobank_ridge_published",
        "spoken by Pico, default pipeline": "emobank_spoken",
        "- Pico, audio only": "emobank_spoken_sound_only",
        "spoken by espeak-ng, default pipeline": "emobank_spoken_espeak",
        "- espeak-ng, audio only": "emobank_spoken_espeak_sound_only",
    }
    return Table(
        ("EmoBank's test sentences, r with people's ratings", *LABELS),
        {words: f"{prefix}{name}" for words, name in systems.items()},
        tuple(f"{{*/{label}_r:ccc}}" for label in LABELS),
    )


def _swap_table(prefix: str) -> Table:
    """How far the predictions of a starter move with each input."""
    return Table(
        ("mean change when one input is another clip's", *LABELS),
        {name: f"{prefix}swap/{name}" for name in ("sound", "transcript", "emphasis", "description")},
        tuple(f"{{*/{label}:ccc3}}" for label in LABELS),
    )


def _minus_ridge(prefix: str) -> str:
    """How the starter reads sentences, compared with ridge regression."""
    return (
        f"\nText minus ridge regression, mean r: {{{prefix}emobank_text_minus_ridge:difference}}; minus that from the "
        f"published text encoder: {{{prefix}emobank_text_minus_published:difference}}."
    )


def _conflict_table(prefix: str) -> Table:
    """The valence where voice and words contradict each other, and where they agree."""
    signs = ("positive", "negative")
    return Table(
        ("mean valence", "audio only", "words only", "both"),
        {
            f"{voice} voice, {words} words": f"{prefix}conflict/{voice}_voice_{words}_words"
            for voice in signs
            for words in signs
        },
        tuple(f"{{*/{inputs}:ccc}}" for inputs in ("sound", "words", "both")),
    )


def _groups_table(starter: str) -> Table:
    """Bias and CCC of the corpora, and of the women and men in each."""
    groups = {
        f"{title}{words}": f"{starter}/{corpus}{name}"
        for title, corpus in _CORPORA.items()
        for words, name in {
            "": "",
            ", women": "/F",
            ", men": "/M",
            ", women minus men": "/women_minus_men",
        }.items()
    }
    return Table(
        ("**weak** labels", "speakers", *(f"bias, {label}" for label in LABELS), "mean CCC"),
        groups,
        ("{*/speakers:.0f}", *(f"{{*/{label}_bias:difference}}" for label in LABELS), "{*/mean:ccc}"),
    )


def _shown_of_gender(starter: str) -> Shown:
    """In what women and men differ."""
    return Shown(
        "Women's predictions minus those of men for the same acted emotions, where the interval does not contain 0:",
        {
            f"{label} on {title}": f"{starter}/{corpus}/women_minus_men/{label}_bias"
            for title, corpus in _CORPORA.items()
            for label in LABELS
        },
        "Between women and men, no difference of the predictions is shown.",
    )


def _shown_shortcuts(starter: str) -> Shown:
    """Where predictions go with the valence of the words more or less than the labels do."""
    return Shown(
        "Predictions go with the words more (+) or less (-) than labels do, where the interval does not contain 0:",
        {
            f"{label} on {title} ({inputs})": f"{starter}/{corpus}/words/{what}_minus_labels/{label}_r"
            for title, corpus in _WORDED.items()
            for inputs, what in {"all inputs": "all", "audio only": "sound"}.items()
            for label in LABELS
        },
        "No difference between predictions and labels is shown.",
    )


def _shortcut_table(starter: str) -> Table:
    """How much predictions and labels go with the valence of the words alone."""
    kinds = {
        "prediction, all inputs": "all",
        "prediction, audio only": "sound",
        "label": "labels",
        "all inputs minus label": "all_minus_labels",
        "audio only minus label": "sound_minus_labels",
    }
    rows: dict[str, Sequence[str]] = {}
    for title, corpus in _WORDED.items():
        for words, what in kinds.items():
            shown = "difference" if "_minus_" in what else "ccc"
            start = f"{starter}/{corpus}/words"
            rows[f"{title}, {words}"] = [
                *(f"{{{start}/{what}/{label}_r:{shown}}}" for label in LABELS),
                f"{{{start}/clips:.0f}}" if what == "all" else "",
            ]
    return Table(("**weak** labels, r with the valence of the words alone", *LABELS, "clips with words"), rows)


def _parts_table(starter: str) -> Table:
    """CCC in parts of corpora."""
    parts = {
        "emotiontts_kr, emotional sentences": f"{starter}/emotiontts_kr/emotional",
        "emotiontts_kr, plain sentences": f"{starter}/emotiontts_kr/plain",
        "RAVDESS": f"{starter}/ravdess/all",
        "RAVDESS without calm and surprise": f"{starter}/ravdess/sure",
    }
    return Table(("**weak** labels, CCC", *DIMENSIONS), parts, tuple(f"{{*/{name}:ccc}}" for name in DIMENSIONS))


VOICES: dict[str, Block] = {
    "crossval": Block(
        "crossval",
        [
            Table(
                ("**weak** labels, CCC", *DIMENSIONS),
                {
                    "RAVDESS, `msfser train configs/probe.yaml`": "ravdess/train",
                    "RAVDESS, layer-mix regressor": "ravdess/regressor",
                    "EmoDB, `msfser train configs/probe.yaml`": "emodb/train",
                    "EmoDB, layer-mix regressor": "emodb/regressor",
                },
                CCC,
            ),
            "\nPaired differences of the mean CCC: RAVDESS {ravdess/train_minus_regressor:difference}, EmoDB "
            "{emodb/train_minus_regressor:difference}. Random crops minus whole clips in training, EmoDB: "
            "{emodb/train_minus_whole_clips:difference}.",
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
                    *CCC,
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
            "\nPaired differences from the layer-mix regressor, in the mean of the four: the recipe of the starter "
            "{starter_minus_regressor:difference}, the linear head "
            "{last_layer_minus_regressor:difference}, eGeMAPS {egemaps_svr_minus_regressor:difference}. "
            "The recipe of the starter by corpus: "
            + ", ".join(f"{words} {{starter_minus_regressor/{name}:difference}}" for words, name in _CORPORA.items())
            + ".",
            "\nWith RAVDESS left out, the recipe of the starter gives {order/ravdess_levelled:rate1} of its strong "
            "clips a higher arousal than the normal ones, all clips at one level; the goal was 85%.",
        ],
    ),
    "finetune": Block(
        "finetune",
        [
            _table_of_counts(
                "mean CCC, **weak** labels",
                (12, 50, 200, 800),
                {
                    words: key
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
    "finetune_words": Block(
        "finetune_words",
        [
            _table_of_counts(
                "mean CCC, **artificial** labels",
                (50, 200),
                {
                    words: key
                    for title, corpus in _TUNED.items()
                    for share in (0, 25, 50)
                    for words, key in {
                        f"{title}, words {share}%": f"{corpus}/words_{share}/all/*:ccc",
                        f"{title}, words {share}%, no text dropped": f"{corpus}/words_{share}/all/*/none:ccc",
                        f"{title}, words {share}%, difference": f"minus_none/{corpus}/words_{share}/all/*:difference",
                    }.items()
                },
            ),
            "\nWith 800 clips of RAVDESS, the differences are {minus_none/ravdess/words_0/all/800:difference}, "
            "{minus_none/ravdess/words_25/all/800:difference}, and {minus_none/ravdess/words_50/all/800:difference}.",
        ],
    ),
    "peers_probe": Block(
        "peers_probe",
        [
            Table(
                ("probe corpus, test CCC", *DIMENSIONS),
                {"our model, with the corpus's texts": "ours_full"} | dict(list(_PEERS.items())[1:]),
                CCC,
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
                ("Pearson's r with the predictions for the clean clip, audio only", *LABELS),
                {"noise at 10 dB": "noise", "telephone bandwidth": "band", "2-second crop": "crop"},
                tuple(f"{{*/{label}_r:ccc}}" for label in LABELS),
            ),
        ],
    ),
    "starter_words": Block(
        "starter",
        [
            _words_table(""),
            _minus_ridge(""),
            "The recognizer gets "
            "{emobank_spoken/word_errors:share} of the words wrong that Pico speaks, and "
            "{emobank_spoken_espeak/word_errors:share} of those of espeak-ng, many of which are left out as not "
            "clearly English; Pico was added after the result with espeak-ng was known. The length of the sentence "
            "alone has r {emobank_spoken_length/valence_r:ccc} with valence.",
            "",
            Table(
                ("**weak** labels, held-out speakers", "all inputs, mean CCC", "all inputs minus audio only"),
                _CORPORA,
                ("{held_out/*/mean:ccc}", "{full_minus_audio/*:difference}"),
            ),
        ],
    ),
    "starter_swap": Block("starter", [_swap_table("")]),
    "starter_conflict": Block("starter", [_conflict_table("")]),
    "open_conflict": Block("starter", [_conflict_table("open/")]),
    "starter_groups": Block("groups", [_groups_table("starter"), _shown_of_gender("starter")]),
    "starter_parts": Block("groups", [_parts_table("starter")]),
    "open_parts": Block("groups", [_parts_table("starter-open")]),
    "starter_shortcut": Block("groups", [_shortcut_table("starter"), _shown_shortcuts("starter")]),
    "open_shortcut": Block("groups", [_shortcut_table("starter-open"), _shown_shortcuts("starter-open")]),
    "open_groups": Block("groups", [_groups_table("starter-open"), _shown_of_gender("starter-open")]),
    "open_words": Block("starter", [_words_table("open/"), _minus_ridge("open/")]),
    "open_swap": Block(
        "starter",
        [
            _swap_table("open/"),
            "\nA gain of +12 or -12 dB changes a prediction by {open/gain/max_shift:.3f} at most.",
        ],
    ),
    "open_loco": Block(
        "loco",
        [
            Table(
                ("**weak** labels, mean CCC, audio only", "`starter-open`", "`starter`, fitted without this corpus"),
                {words: name for words, name in _CORPORA.items() if name != "emodb"},
                ("{starter_open/*/mean:ccc}", "{starter/*/mean:ccc}"),
            )
        ],
    ),
}
