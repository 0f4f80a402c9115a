"""Cached features of frozen encoders: the batches of the recordings, made once, renewed when they must be."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from tiny import noise, tiny_model, tiny_processor
from tokenizers import normalizers

from msfser import MsfSerCollator
from msfser.corpora.schema import FEATURES
from msfser.training import feature_store, features
from msfser.training.collator import FeatureCollator
from msfser.training.feature_store import FeatureStore
from msfser.training.features import add_lengths, cache_features, keep_inputs, known_inputs

ROWS = 5


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch) -> Path:
    """An empty cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "msfser_features"


@pytest.fixture
def encoded(monkeypatch) -> dict[str, int]:
    """How many recordings and texts the encoders have got."""
    counts = {"audio": 0, "text": 0}

    def counting(kind, encode):
        def counted(items, *args):
            counts[kind] += len(items)
            return encode(items, *args)

        return counted

    for kind in counts:
        monkeypatch.setattr(features, f"_encode_{kind}", counting(kind, getattr(features, f"_encode_{kind}")))
    return counts


def table(folder, prefix: str = "", valence: float = 0.0) -> datasets.Dataset:
    """Five rows: one without sound, one with embedded sound, some without texts."""
    rows = []
    for i in range(ROWS):
        path = folder / f"{i}.wav"
        if not path.exists():
            soundfile.write(path, noise(0.5 + 0.1 * i, i), 16_000)
        audio = {"path": str(path), "bytes": None} if i != 3 else {"path": "3.wav", "bytes": path.read_bytes()}
        rows.append(
            {
                "audio": None if i == 1 else audio,
                "transcript": prefix + "a b c"[: 2 * i + 1],
                "emphasis": None if i == 2 else "b",
                "valence": valence + 0.1 * i,
                "arousal": 0.5,
                "dominance": 1 - 0.1 * i,
                "speaker": "x",
            }
        )
    return datasets.Dataset(pa.Table.from_pylist(rows, schema=FEATURES.arrow_schema))


@pytest.fixture
def corpus(tmp_path) -> datasets.Dataset:
    return table(tmp_path)


@pytest.mark.parametrize(
    "switches",
    [
        {"freeze_audio": "all"},
        {"freeze_audio": "all", "audio_states": "weighted"},
        {"freeze_audio": "all", "freeze_text": False},
        {"freeze_audio": "none"},
        {"freeze_audio": "all", "semantics": ["gs"]},
        {"audio": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("encoder", ["whisper", "wavlm"])
def test_the_batch_is_that_of_the_recordings(corpus, encoder, switches):
    model, processor = tiny_model(encoder, **switches), tiny_processor(encoder)
    cached = cache_features(corpus, model, processor)
    batch = FeatureCollator(processor)([cached[i] for i in range(ROWS)])
    plain = MsfSerCollator(processor)([corpus[i] for i in range(ROWS)])
    assert torch.equal(batch["labels"], plain["labels"])
    with torch.no_grad():
        # Cached states are in half precision.
        assert torch.allclose(model(**batch).logits, model(**plain).logits, atol=1e-4)


def test_what_the_model_does_not_have_is_not_prepared(corpus):
    cached = cache_features(corpus, tiny_model(audio=False, semantics=["gs"]), tiny_processor())
    assert known_inputs(cached) == ["transcript"]
    assert not {"audio", "audio_states", "emphasis", "les_embedding"} & set(cached.column_names)


def test_features_are_made_once(corpus, tmp_path, encoded):
    model, processor = tiny_model(freeze_audio="all"), tiny_processor()
    first = cache_features(corpus, model, processor)
    # The transcript of row 0 is "a", the emphasis always "b".
    assert encoded == {"audio": 4, "text": 4}
    # Other fusion settings and labels change nothing of it.
    other = tiny_model(freeze_audio="all", cross_fusion="concat", fusion_size=8)
    other.audio_encoder, other.text_encoder = model.audio_encoder, model.text_encoder
    second = cache_features(table(tmp_path, valence=0.5), other, processor)
    assert encoded == {"audio": 4, "text": 4}
    assert first["valence"][:] != second["valence"][:]
    assert first["gs_embedding"][:] == second["gs_embedding"][:]
    assert first["audio_states"][:] == second["audio_states"][:]


def test_a_grown_and_moved_corpus_makes_what_is_new(corpus, tmp_path, encoded):
    model, processor = tiny_model(freeze_audio="all"), tiny_processor()
    first = cache_features(corpus, model, processor)
    shutil.copytree(tmp_path, tmp_path / "moved", ignore=shutil.ignore_patterns("cache"))
    (tmp_path / "moved" / "new").mkdir()
    soundfile.write(tmp_path / "moved" / "new" / "0.wav", noise(0.6, 99), 16_000)
    grown = datasets.concatenate_datasets(
        [table(tmp_path / "moved" / "new").select([0]), table(tmp_path / "moved"), corpus]
    )
    encoded.update(audio=0, text=0)
    second = cache_features(grown, model, processor)
    assert encoded == {"audio": 1, "text": 0}
    assert second["audio_states"][1 : ROWS + 1] == second["audio_states"][ROWS + 1 :] == first["audio_states"][:]


@pytest.mark.parametrize("change", ["weights", "recording", "text", "preparation", "states"])
def test_a_change_makes_new_features(corpus, change, tmp_path, encoded):
    model, processor = tiny_model(freeze_audio="all"), tiny_processor()
    cache_features(corpus, model, processor)
    encoded.update(audio=0, text=0)
    if change == "weights":
        with torch.no_grad():
            model.audio_encoder.encoder.layers[0].feed_forward.output_dense.bias += 1
    elif change == "recording":
        path = corpus[0]["audio"]["path"]
        soundfile.write(path, noise(0.7, 9), 16_000)
        os.utime(path, (1, 1))
    elif change == "text":
        corpus = table(tmp_path, prefix="d ")
    elif change == "preparation":
        processor.feature_extractor.max_seconds = 0.5
    else:
        model = tiny_model(freeze_audio="all", audio_states="weighted")
    cache_features(corpus, model, processor)
    audio, text = {"recording": (1, 0), "text": (0, 3)}.get(change, (4, 0))
    assert encoded == {"audio": audio, "text": text}


@pytest.mark.parametrize("setting", ["normalize_level", "max_seconds", "max_tokens", "tokenizer"])
def test_the_key_has_the_settings_and_not_the_code(setting, monkeypatch):
    model, processor = tiny_model(freeze_audio="all"), tiny_processor()
    kind = "audio" if setting in ("normalize_level", "max_seconds") else "text"
    before = features.encoder_key(kind, model, processor)
    # Another comment or another line of code changes nothing.
    read = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: read(path) + (b"# a comment" if path.suffix == ".py" else b"")
    )
    processor.tokenizer(["a b", "c"], padding=True, truncation=True, max_length=2)
    assert features.encoder_key(kind, tiny_model(freeze_audio="all"), processor) == before
    if setting == "tokenizer":
        processor.tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    elif setting == "max_tokens":
        processor.max_tokens = 5
    else:
        setattr(processor.feature_extractor, setting, {"max_seconds": 3.0, "normalize_level": True}[setting])
    assert features.encoder_key(kind, model, processor) != before


def test_another_version_of_the_encoding_code_is_another_key(monkeypatch):
    model, processor = tiny_model(freeze_audio="all"), tiny_processor()
    before = features.encoder_key("audio", model, processor)
    monkeypatch.setattr(features, "FEATURES_VERSION", features.FEATURES_VERSION + 1)
    assert features.encoder_key("audio", model, processor) != before


def test_inputs_can_be_removed_in_either_form(corpus):
    cached = cache_features(corpus, tiny_model(freeze_audio="all"), tiny_processor())
    assert known_inputs(corpus) == known_inputs(cached) == ["audio", "transcript", "emphasis"]
    for rows in (corpus, cached):
        assert known_inputs(keep_inputs(rows, ["transcript"])) == ["transcript"]


def test_lengths_are_seconds_of_sound_or_of_speaking_the_longest_text(corpus):
    # Without sound, 15 characters a second: "a b" is longer than "b".
    assert add_lengths(corpus)["length"][:] == pytest.approx([0.5, 3 / 15, 0.7, 0.8, 0.9])
    silent = corpus.remove_columns(["transcript", "emphasis", "description"])
    assert add_lengths(silent)["length"][1] == 0.0


def test_rows_come_in_the_order_of_the_table(tmp_path, monkeypatch):
    monkeypatch.setitem(features._MOST, "audio", 2)
    monkeypatch.setattr(feature_store, "_PIECE_ITEMS", 2)
    model, processor = tiny_model(freeze_audio="all"), tiny_processor()
    shuffled = table(tmp_path).select([3, 0, 4, 1, 2])
    cached = cache_features(shuffled, model, processor)
    frames = [None if a is None else feature_store.load(a).shape[1] for a in cached["audio_states"]]
    assert frames[3] is None
    assert frames[1] < frames[4] < frames[0] < frames[2]  # 0.5, 0.7, 0.8 and 0.9 s


def test_a_recording_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "broken.wav").write_text("no sound")
    row = {"audio": {"path": str(tmp_path / "broken.wav"), "bytes": None}, "transcript": "a"}
    corpus = datasets.Dataset(pa.Table.from_pylist([row], schema=FEATURES.arrow_schema))
    with pytest.raises(ValueError, match=r"the recording '.*broken\.wav' cannot be used: "):
        cache_features(corpus, tiny_model(freeze_audio="all", semantics=[]), tiny_processor())


def test_a_torn_piece_is_computed_again(corpus, store, monkeypatch, encoded):
    monkeypatch.setitem(features._MOST, "audio", 1)
    monkeypatch.setattr(feature_store, "_PIECE_ITEMS", 1)
    model, processor = tiny_model(freeze_audio="all"), tiny_processor()
    whole = cache_features(corpus, model, processor)
    kept = [feature_store.load(address).clone() for address in whole["audio_states"] if address]
    torn = Path(whole[0]["audio_states"].rpartition("#")[0])
    feature_store._piece.cache_clear()
    os.truncate(torn, torn.stat().st_size - 100)
    encoded.update(audio=0, text=0)
    again = cache_features(corpus, model, processor)
    assert encoded == {"audio": 1, "text": 0} and not torn.exists()
    for before, address in zip(kept, filter(None, again["audio_states"]), strict=True):
        assert torch.equal(before, feature_store.load(address))


def test_the_limit_removes_what_was_not_used_for_longest(corpus, store, encoded):
    processor = tiny_processor()
    models = []
    for i in range(3):
        models.append(tiny_model(freeze_audio="all", semantics=[]))
        with torch.no_grad():
            models[-1].audio_encoder.encoder.layers[0].feed_forward.output_dense.bias += i
    ages = {}
    for age, model in ((300, models[0]), (100, models[1])):
        addresses = cache_features(corpus, model, processor)["audio_states"][:]
        path = Path(addresses[0].rpartition("#")[0])
        ages[path] = age
        os.utime(path, (time.time() - age,) * 2)
    oldest, older = ages
    size = sum(path.stat().st_size for path in ages)
    # Room for two: the third replaces the oldest.
    third = cache_features(corpus, models[2], processor, gigabytes=(size + 2000) / 1e9)
    assert not oldest.exists() and older.exists()
    # What this process uses stays, even if it was read first.
    newest = Path(third[0]["audio_states"].rpartition("#")[0])
    cache_features(corpus, models[0], processor, gigabytes=(size + 2000) / 1e9)
    assert newest.exists() and not older.exists()
    encoded.update(audio=0)
    cache_features(corpus, models[2], processor, gigabytes=(size + 2000) / 1e9)
    assert encoded["audio"] == 0


def test_what_another_living_run_uses_stays(corpus, store):
    model, processor = tiny_model(freeze_audio="all", semantics=[]), tiny_processor()
    path = Path(cache_features(corpus, model, processor)[0]["audio_states"].rpartition("#")[0])
    hour = time.time() - 3600
    os.utime(path, (hour, hour))
    start = f"{int((hour - 60) * 1e9)}-other.lock"
    code = f"""if True:
        import sys, time
        from filelock import FileLock
        with FileLock({str(store / "runs" / start)!r}):
            print("held", flush=True)
            time.sleep(60)
    """
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        assert not FeatureStore(store, 10).reserve(5) and path.exists()
        # What it has reserved is not free either.
        (store / "runs" / start).with_suffix(".reserved").write_text("1000000")
        assert not FeatureStore(store, 1_000_000).reserve(5)
    finally:
        other.kill()
        other.wait()
    assert FeatureStore(store, 10).reserve(5) and not path.exists()
    assert not (store / "runs" / start).exists()


@pytest.mark.parametrize("filled", [False, True])
def test_without_room_the_encoder_runs_live(corpus, store, filled, caplog):
    model, processor = tiny_model(freeze_audio="all"), tiny_processor()
    if filled:
        cache_features(corpus, model, processor)
    with caplog.at_level(logging.WARNING):
        rows = cache_features(corpus, model, processor, gigabytes=5e-6)
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warned) == 1 and "frozen audio encoder" in warned[0] and "cache_gigabytes=5e-06" in warned[0]
    assert "audio" in rows.column_names and "gs_embedding" in rows.column_names
    batch = FeatureCollator(processor)([rows[i] for i in range(ROWS)])
    plain = MsfSerCollator(processor)([corpus[i] for i in range(ROWS)])
    assert torch.equal(batch["input_values"], plain["input_values"])
    model.train()  # a frozen encoder is the same in training
    with torch.no_grad():
        live, _ = model.encode_audio(batch["input_values"], attention_mask=batch["attention_mask"])
        model.eval()
        still, _ = model.encode_audio(plain["input_values"], attention_mask=plain["attention_mask"])
    assert torch.equal(live, still)


def test_no_cache_leaves_nothing_on_disk(corpus, store):
    rows = cache_features(corpus, tiny_model(freeze_audio="all"), tiny_processor(), gigabytes=0)
    assert {"audio", "transcript"} <= set(rows.column_names)
    assert not store.exists()


# Twelve recordings in pieces of four, a slow encoder; the features go to the file that is named.
RUN = """
import sys, time
from pathlib import Path
sys.path.insert(0, TESTS)
import datasets, pyarrow as pa, soundfile, torch
from tiny import noise, tiny_model, tiny_processor
from safetensors.torch import save_file
from msfser.training import feature_store, features
from msfser.corpora.schema import FEATURES

folder, cache, output, pause = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])
datasets.config.HF_DATASETS_CACHE = cache
feature_store._PIECE_ITEMS, features._MOST["audio"] = 4, 2
rows = [{"audio": {"path": str(path), "bytes": None}} for path in sorted(folder.glob("*.wav"))]
model, count, encode = tiny_model(freeze_audio="all", semantics=[]), 0, features._encode_audio

def slowly(items, *args):
    global count
    count += len(items)
    time.sleep(pause)
    return encode(items, *args)

features._encode_audio = slowly
corpus = datasets.Dataset(pa.Table.from_pylist(rows, schema=FEATURES.arrow_schema))
made = features.cache_features(corpus, model, tiny_processor())
states = {str(i): feature_store.load(address).clone() for i, address in enumerate(made["audio_states"])}
save_file(states | {"count": torch.tensor(count)}, output)
"""


@pytest.fixture
def runs(tmp_path):
    """Starts runs in separate processes: `(cache, output, pause)`."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    for i in range(12):
        soundfile.write(folder / f"{i:02}.wav", noise(0.5 + 0.03 * i, i), 16_000)
    code = RUN.replace("TESTS", repr(str(Path(__file__).parents[1])))
    started = []

    def start(cache: str, output: str, pause: float) -> subprocess.Popen:
        arguments = [folder, tmp_path / cache, tmp_path / output, pause]
        run = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(run)
        return run

    yield start
    for run in started:
        run.kill()
        run.wait()


def test_a_kill_loses_the_piece_in_hand(runs, tmp_path):
    killed = runs("cache", "killed", 0.5)
    deadline = time.monotonic() + 120
    while not (pieces := list(tmp_path.glob("cache/*/*/*.safetensors"))) and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL and len(pieces) == 1
    torn = next(tmp_path.glob("cache/msfser_features/*/making.lock")).parent / "torn.tmp"
    torn.write_bytes(b"half a piece")

    for cache, output in (("cache", "again"), ("other", "whole")):
        run = runs(cache, output, 0)
        assert run.wait(120) == 0, run.stderr.read()
    again, whole = load_file(tmp_path / "again"), load_file(tmp_path / "whole")
    assert (again.pop("count"), whole.pop("count")) == (8, 12)
    assert pieces[0].exists() and not torn.exists()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_two_runs_at_once_share_the_work(runs, tmp_path):
    both = [runs("cache", f"{i}", 0.2) for i in range(2)]
    for run in both:
        assert run.wait(120) == 0, run.stderr.read()
    first, second = load_file(tmp_path / "0"), load_file(tmp_path / "1")
    assert first.pop("count") + second.pop("count") == 12
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_encoder_with_adapters_is_left_to_the_training_loop(corpus):
    """What its parameters say decides, not the config."""
    peft = pytest.importorskip("peft", reason='peft is not installed: pip install ".[lora]"')
    model = tiny_model(freeze_audio="all")
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"]))
    cached = cache_features(corpus, model, tiny_processor())
    assert "audio" in cached.column_names and "audio_states" not in cached.column_names
    assert "gs_embedding" in cached.column_names
