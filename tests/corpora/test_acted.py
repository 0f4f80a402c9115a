"""Reading corpora of acted emotions by the names of their files, with weak labels."""

import csv
from pathlib import Path

import pytest
from soundfile import write
from tiny import noise

from msfser.corpora.acted import COLUMNS, read_acted
from msfser.corpora.acted_layouts import LAYOUTS, Clip
from msfser.corpora.weak_labels import NORMS, weak_labels
from msfser.evaluation.acted import EMODB_EMOTIONS, acted_clips, pairs_of_emotions, strong_counterparts

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

RAVDESS = ["03-01-05-01-02-01-07", "03-01-05-02-02-01-07", "03-01-03-01-02-01-07", "03-01-02-01-02-01-07"]
EMODB = ["03a01Wa", "03a01Fa", "16b10Lb"]
OTHERS = ["EB0_surprised_90", "1040_ITH_SAD_X", "1001_IEO_ANG_HI", "neb00301", "emb00301"]


@pytest.fixture
def corpora(tmp_path):
    for name, folder in [(n, "ravdess/Actor_07") for n in RAVDESS] + [(n, "emodb/wav") for n in EMODB]:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        write(tmp_path / folder / f"{name}.wav", noise(0.1), 16_000)
    (tmp_path / "ravdess" / "metadata.csv").write_text("file_name\n")
    write(tmp_path / "ravdess" / "02-01-05-01-02-01-07.wav", noise(0.1), 16_000)  # RAVDESS with pictures
    return tmp_path


def test_names_tell_speaker_emotion_and_take(corpora, caplog):
    rows = read_acted(corpora)
    assert "left out 1 recordings that are no clips" in caplog.text and "'02-01-05-01-02-01-07.wav'" in caplog.text
    assert [row["corpus"] for row in rows] == ["ravdess"] * 4 + ["emodb"] * 3
    row = rows[3]
    assert {name: row[name] for name in ("speaker", *COLUMNS)} == {
        "speaker": "ravdess-07",
        "corpus": "ravdess",
        "emotion": "anger",
        "intensity": "strong",
        "sentence": "02-01",
    }
    assert row["audio"]["path"].endswith("Actor_07/03-01-05-02-02-01-07.wav")
    last = rows[6]
    assert (last["speaker"], last["emotion"], last["intensity"]) == ("emodb-16", "boredom", None)
    assert row["transcript"] is None


def test_labels_are_the_norms_on_the_scale_from_0_to_1(corpora):
    rows = read_acted(corpora)
    strong, normal = rows[3], rows[2]
    assert [strong[name] for name in ("valence", "arousal", "dominance")] == pytest.approx(
        [(1 - 0.51) / 2, (1 + 0.59) / 2, (1 + 0.25) / 2]
    )
    assert normal["arousal"] - 0.5 == pytest.approx(0.6 * (strong["arousal"] - 0.5))
    assert all(abs(value) <= 1 for norms in NORMS.values() for value in norms)
    assert weak_labels("neutral", "normal") == (0, 0, 0)


def test_the_norms_are_the_published_ratings():
    assert NORMS == {
        "anger": (-0.51, 0.59, 0.25),
        "boredom": (-0.65, -0.62, -0.33),
        "calm": (0.56, -0.31, 0),
        "disgust": (-0.60, 0.35, 0.11),
        "fear": (-0.64, 0.60, -0.43),
        "happiness": (0.76, 0.48, 0.35),
        "neutral": (0, 0, 0),
        "sadness": (-0.63, -0.27, -0.33),
        "surprise": (0.40, 0.67, -0.13),
    }


def test_what_is_not_there_or_there_twice_is_said(tmp_path, corpora):
    with pytest.raises(ValueError, match="no such folder"):
        read_acted(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no clip of RAVDESS"):
        read_acted(tmp_path / "empty")
    (corpora / "copies").mkdir()
    for suffix in ("wav", "flac"):
        write(corpora / "copies" / f"03a01Wa.{suffix}", noise(0.1), 16_000)
    with pytest.raises(ValueError, match="is there twice"):
        read_acted(corpora)


def add_others(folder):
    for name in OTHERS:
        write(folder / f"{name}.flac", noise(0.1), 16_000)


def test_a_mix_of_corpora_is_in_the_order_of_the_layouts(corpora):
    add_others(corpora)
    rows = read_acted(corpora)
    names = [path["path"].rsplit("/")[-1].split(".")[0] for path in rows["audio"]]
    assert names == [*sorted(RAVDESS), *sorted(EMODB), *sorted(OTHERS[1:3]), OTHERS[0], *sorted(OTHERS[3:])]
    assert [*dict.fromkeys(rows["corpus"])] == ["ravdess", "emodb", "crema_d", "nemo", "emotiontts_kr"] == [*LAYOUTS]
    assert rows["speaker"][-5:] == [
        "crema_d-1001",
        "crema_d-1040",
        "nemo-EB0",
        "emotiontts_kr-emb",
        "emotiontts_kr-emb",
    ]
    columns = ("valence", "arousal", "dominance")
    assert [rows[name][9] for name in columns] == pytest.approx([(1 + value) / 2 for value in NORMS["surprise"]])


def test_other_corpora_change_nothing_for_who_asks_for_some(corpora, caplog):
    before, clips_before = read_acted(corpora), acted_clips(corpora)
    add_others(corpora)
    caplog.clear()
    assert read_acted(corpora, corpora=("emodb", "ravdess")).to_list() == before.to_list()
    assert "left out 6 recordings that are no clips of RAVDESS speech or EmoDB, such as" in caplog.text
    assert acted_clips(corpora).to_list() == clips_before.to_list()
    assert set(read_acted(corpora, corpora=["nemo"])["corpus"]) == {"nemo"}


@pytest.mark.parametrize("corpora", [(), ("nemo", "iemocap"), "nemo"])
def test_unknown_corpora_are_named(tmp_path, corpora):
    with pytest.raises(ValueError, match="give some of ravdess, emodb, crema_d, nemo, emotiontts_kr"):
        read_acted(tmp_path, corpora=corpora)


def test_messages_name_the_corpora_that_are_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"no clip of nEMO \(such as EB0_anger_1.wav\) in it"):
        read_acted(tmp_path, corpora=["nemo"])
    both = r"no clip of RAVDESS speech \(such as 03-01-05-02-01-01-01.wav\) or EmoDB \(such as 03a01Wa.wav\) in it"
    with pytest.raises(ValueError, match=both):
        read_acted(tmp_path, corpora=["emodb", "ravdess"])
    with pytest.raises(ValueError, match=r"1001_DFA_ANG_XX.wav\), nEMO .* or emotiontts_kr \(such as ema00001.wav\)"):
        read_acted(tmp_path)


@pytest.mark.parametrize("name", OTHERS)
def test_no_clip_of_any_corpus_is_there_twice(tmp_path, name):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / f"{name}.wav", noise(0.1), 16_000)
    with pytest.raises(ValueError, match=f"{name}.wav is there twice"):
        read_acted(tmp_path)


@pytest.mark.parametrize(
    ("corpus", "name", "clip"),
    [
        ("ravdess", "03-01-08-01-02-01-24", Clip("24", "surprise", "02-01", "normal")),
        ("emodb", "16b10Lb", Clip("16", "boredom", "b10")),
        ("crema_d", "1001_DFA_ANG_XX", Clip("1001", "anger", "DFA")),
        ("crema_d", "1091_IEO_DIS_LO", Clip("1091", "disgust", "IEO", "normal")),
        ("crema_d", "1091_IEO_FEA_MD", Clip("1091", "fear", "IEO", "normal")),
        ("crema_d", "1091_IEO_HAP_HI", Clip("1091", "happiness", "IEO", "strong")),
        ("crema_d", "1091_IEO_NEU_XX", Clip("1091", "neutral", "IEO")),
        ("crema_d", "1040_ITH_SAD_X", Clip("1040", "sadness", "ITH")),  # the one file that has one X
        ("nemo", "WR0_surprised_88", Clip("WR0", "surprise", "88")),
        ("nemo", "EB0_anger_1", Clip("EB0", "anger", "1")),
        ("emotiontts_kr", "ema00001", Clip("ema", "neutral", "plain-001")),
        ("emotiontts_kr", "emh00100", Clip("emh", "neutral", "plain-100")),
        ("emotiontts_kr", "emf00101", Clip("emf", "happiness", "plain-001")),
        ("emotiontts_kr", "nea00200", Clip("ema", "happiness", "emotional-200")),
        ("emotiontts_kr", "neb00201", Clip("emb", "sadness", "emotional-201")),
        ("emotiontts_kr", "neo00301", Clip("neo", "anger", "emotional-301")),
        ("emotiontts_kr", "nec00400", Clip("nec", "anger", "emotional-400")),
    ],
)
def test_a_name_tells_everything_and_fits_one_layout(corpus, name, clip):
    assert {key: found for key, layout in LAYOUTS.items() if (found := layout.clip(name))} == {corpus: clip}


@pytest.mark.parametrize("change", [str.upper, str.lower, str.swapcase])
@pytest.mark.parametrize("corpus", LAYOUTS)
def test_names_in_another_letter_case_say_the_same(corpus, change):
    name = Path(LAYOUTS[corpus].example).stem
    assert {key: clip for key, layout in LAYOUTS.items() if (clip := layout.clip(change(name)))} == {
        corpus: LAYOUTS[corpus].clip(name)
    }


def test_a_copy_that_has_lost_the_letter_case_is_read(tmp_path):
    names = ("03A01WA.WAV", "03A01WB.WAV", "1001_dfa_ang_xx.wav", "eb0_anger_1.wav", "EMA00001.WAV")
    for name in names:
        write(tmp_path / name, noise(0.1), 16_000)
    rows = read_acted(tmp_path)
    assert [Path(audio["path"]).name for audio in rows["audio"]] == list(names)
    assert rows["speaker"][:] == ["emodb-03", "emodb-03", "crema_d-1001", "nemo-EB0", "emotiontts_kr-ema"]
    assert rows["sentence"][:] == ["a01", "a01", "DFA", "1", "plain-001"]
    (tmp_path / "copy").mkdir()
    write(tmp_path / "copy" / "03a01Wa.wav", noise(0.1), 16_000)
    with pytest.raises(ValueError, match="is there twice"):
        read_acted(tmp_path)


def test_folders_may_share_files_but_not_have_a_clip_twice(corpora, tmp_path):
    once = read_acted(corpora).to_list()
    (tmp_path / "link").mkdir()
    assert read_acted([corpora, corpora, corpora / "emodb", Path(f"{corpora}/ravdess/../emodb")]).to_list() == once
    with pytest.raises(ValueError, match=r"link: there is no clip of RAVDESS"):
        read_acted([corpora, tmp_path / "link"])
    write(tmp_path / "link" / "03a01Fa.wav", noise(0.1), 16_000)
    with pytest.raises(ValueError, match=r"03a01Fa.wav is there twice \(.*; leave one out"):
        read_acted([corpora / "emodb", tmp_path / "link"])


@pytest.mark.parametrize("corpus", LAYOUTS)
def test_the_example_is_a_clip_of_its_corpus_alone(corpus):
    name = Path(LAYOUTS[corpus].example).stem
    assert [key for key, layout in LAYOUTS.items() if layout.clip(name)] == [corpus]


@pytest.mark.parametrize(
    "name",
    [
        *("03-02-05-01-02-01-07", "03-01-09-01-02-01-07", "03-01-05-03-02-01-07", "03-01-05-01-03-01-07"),
        *("3a01Wa", "03c01Wa", "03a01Xa", "03a01W"),
        *(
            "1001_DFA_ANG",
            "1001_DFA_SUR_XX",
            "1001_DFA_ANG_ME",
            "101_DFA_ANG_XX",
            "1001_DFA_ANG_XXX",
        ),
        *("EB0_disgust_1", "EB0_surprise_1", "EB_anger_1", "EB0_anger", "EB0_anger_1_copy", "xEB0_anger_1"),
        *("ema00000", "ema00401", "ema0001", "ema01001", "emc00001", "nef00001", "pfa00001", "ava00001", "ema00001b"),
    ],
)
def test_other_names_are_clips_of_no_corpus(name):
    assert not [corpus for corpus, layout in LAYOUTS.items() if layout.clip(name)]


@pytest.mark.parametrize("corpus", ["ravdess", "emodb", "nemo", "emotiontts_kr"])
def test_tables_with_weak_labels_say_the_same(corpus):
    table = DATA / corpus / "metadata_weak.csv"
    if not table.is_file():
        pytest.skip(f"the table of {corpus} with weak labels is not beside this checkout")
    with open(table, encoding="utf-8") as file:
        for row in csv.DictReader(file):
            clip = LAYOUTS[corpus].clip(Path(row["file_name"]).stem)
            assert clip is not None, row["file_name"]
            if corpus != "ravdess":  # whose table has other words
                assert clip.emotion == row["emotion"], row["file_name"]
            norms = [float(row[name]) for name in ("valence", "arousal", "dominance")]
            assert weak_labels(clip.emotion, clip.intensity) == pytest.approx(norms, abs=1e-3), row["file_name"]


def test_a_clip_in_two_file_types_counts_once_as_wav(tmp_path):
    """A whole copy of CREMA-D has AudioMP3 and AudioWAV."""
    for name in ("AudioFLAC/1001_DFA_ANG_XX.flac", "AudioWAV/1001_DFA_ANG_XX.wav", "ZZ/1001_DFA_ANG_XX.ogg"):
        (tmp_path / name).parent.mkdir()
        write(tmp_path / name, noise(0.1), 16000)
    (row,) = read_acted(tmp_path)
    assert Path(row["audio"]["path"]).suffix == ".wav"


def test_matched_pairs(corpora):
    rows = acted_clips(corpora)
    assert set(rows["emotion"]) <= {"anger", "calm", "happiness", *EMODB_EMOTIONS}
    table = rows.select_columns([*COLUMNS, "speaker"]).to_pandas()
    # Rows: calm, happiness, anger, strong anger of RAVDESS; happiness and anger of EmoDB.
    assert strong_counterparts(table).tolist() == [-1, -1, 3, -1, -1, -1]
    assert sorted(pairs_of_emotions(table, ("anger",), ("happiness",)).tolist()) == [[2, 1], [5, 4]]
