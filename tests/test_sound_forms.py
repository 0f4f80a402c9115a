"""Every form of a sound: files, rows of datasets, decoders, tuples and arrays of two axes, wherever sound goes in."""

import io
import tracemalloc

import datasets
import numpy as np
import pytest
import soundfile
import torch
from tiny import noise, tiny_model, tiny_processor
from transformers import Trainer, TrainingArguments

from msfser import MsfSerCollator, MsfSerFeatureExtractor
from msfser.audio_msfser import as_sounds, count_channels, is_sound, load_audio, read_blocks
from msfser.pipeline_msfser import MsfSerPipeline

RATE = 16_000
LEFT, RIGHT = noise(0.6, 1), noise(0.6, 2)
STEREO = np.stack([LEFT, RIGHT])
MEAN = STEREO.mean(0, dtype=np.float32)


class Samples:
    """As torchcodec's `AudioSamples`."""

    def __init__(self, data, sample_rate=RATE):
        self.data, self.sample_rate = torch.as_tensor(data), sample_rate
        self.pts_seconds, self.duration_seconds = 0.0, data.shape[-1] / sample_rate


class Decoder:
    """As torchcodec's `AudioDecoder`, which `datasets.Audio` gives."""

    def __init__(self, data, sample_rate=RATE):
        self._samples = Samples(data, sample_rate)

    def get_all_samples(self):
        return self._samples

    def __getitem__(self, key):
        raise AssertionError("what datasets adds for old code is not used: it mixes down by itself")


def wav(samples: np.ndarray = STEREO, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples.T, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


class Stream:
    """A file-like object that can be read once."""

    def __init__(self, content):
        self._file = io.BytesIO(content)

    def read(self, size=-1):
        return self._file.read(size)


FORMS = {
    "bytes": wav,
    "memoryview": lambda: memoryview(wav()),
    "file-like": lambda: io.BytesIO(wav()),
    "stream": lambda: Stream(wav()),
    "tuple": lambda: (RATE, STEREO.T),
    "tuple of numpy's rate": lambda: (np.int64(RATE), STEREO.T.astype(np.float64)),
    "array": lambda: {"array": STEREO, "sampling_rate": RATE},
    "raw": lambda: {"raw": STEREO, "sampling_rate": RATE},
    "decoder": lambda: Decoder(STEREO),
    "samples": lambda: Samples(STEREO),
    "row": lambda: {"bytes": wav(), "path": None},
    "row of a memoryview": lambda: {"bytes": memoryview(wav()), "path": None},
}
every_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(scope="module")
def ser():
    return MsfSerPipeline(model=tiny_model(), processor=tiny_processor(), recognizer=None, describer=None)


@every_form
def test_every_form_is_one_sound_everywhere(form, ser):
    make = FORMS[form]
    assert is_sound(make()) and len(as_sounds(make())) == 1 and len(as_sounds([make(), make()])) == 2
    np.testing.assert_allclose(load_audio(make()), MEAN, atol=1e-7)
    np.testing.assert_array_equal(np.concatenate(list(read_blocks(make()))), load_audio(make()))
    np.testing.assert_array_equal(load_audio(make(), channel=1), RIGHT)
    assert count_channels(make()) == 2
    expected = MsfSerFeatureExtractor()(MEAN, RATE)["input_values"]
    np.testing.assert_allclose(MsfSerFeatureExtractor()(make())["input_values"], expected, atol=1e-5)
    processor = tiny_processor()
    np.testing.assert_allclose(processor(make())["input_values"], expected, atol=1e-5)
    rows = [{"audio": make(), "valence": 0.1, "arousal": 0.5, "dominance": 0.9}, {"audio": make()} | LABELS]
    batch = MsfSerCollator(processor)(rows)
    np.testing.assert_allclose(batch["input_values"], np.repeat(expected, 2, 0), atol=1e-5)
    wanted = ser({"array": MEAN, "sampling_rate": RATE})
    for result in (ser(make()), ser({"audio": make()}), *ser([make(), make()])):
        assert result["valence"] == pytest.approx(wanted["valence"], abs=1e-5)


LABELS = {"valence": 0.2, "arousal": 0.4, "dominance": 0.6}


def test_a_long_stream_is_read_once_and_used_whole(ser):
    long = np.stack([noise(14.0, 1)])
    assert ser(Stream(wav(long)))["duration"] == pytest.approx(14.0)


def test_a_file_like_object_keeps_its_position():
    file = io.BytesIO(b"header" + wav())
    file.seek(6)
    assert len(load_audio(file)) == len(load_audio(file)) == len(LEFT) and file.tell() == 6


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (io.StringIO("text"), "gives str, not bytes: open it with mode 'rb'"),
        (io.BytesIO(), r"at its end: call its seek\(0\)"),
        ((LEFT, RATE), r"give \(rate, samples\)"),
        (
            {"array": STEREO.T, "sampling_rate": RATE},
            r"9600 channels of less than 25 ms as \(channels, samples\): .*channels_first=False",
        ),
        ((RATE, STEREO), r"9600 channels of less than 25 ms as \(samples, channels\): .*channels_first=True"),
        (STEREO, r"channels_first=True for \(channels, samples\)"),
        (Decoder(np.zeros((65, 999), np.float32)), r"more than 64 channels \(65\) as \(channels, samples\)"),
        (Decoder(np.zeros((2, 0), np.float32)), "the sound is empty"),
    ],
)
def test_a_form_that_is_wrong_is_a_sentence(source, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_audio(source, RATE)


def test_a_decoder_that_fails_is_a_sentence_that_names_the_item():
    broken = Decoder(STEREO)
    broken.get_all_samples = lambda: (_ for _ in ()).throw(RuntimeError("Invalid data\nat 0x7f"))
    with pytest.raises(ValueError, match=r"^Audio item 1: the decoder cannot read its sound"):
        MsfSerFeatureExtractor()([Decoder(STEREO), broken])


@pytest.mark.parametrize("channel", [2, -1, True, "left", 0.5])
def test_a_channel_that_there_is_not_is_a_sentence(channel):
    for source in (wav(), Decoder(STEREO)):
        with pytest.raises(ValueError, match="channel="):
            load_audio(source, channel=channel)


# Arrays of two axes


def test_two_axes_are_a_batch_as_in_transformers(ser):
    for clips in (STEREO, torch.from_numpy(STEREO), STEREO.tolist()):
        assert not is_sound(clips)
        values = MsfSerFeatureExtractor(do_normalize=False)(clips, RATE)["input_values"]
        np.testing.assert_allclose(values, STEREO, atol=1e-7)
        assert tiny_processor()(clips, RATE)["input_values"].shape == STEREO.shape
        results = ser(clips, sampling_rate=RATE)
        assert [result["valence"] for result in results] == [
            pytest.approx(ser(clip, sampling_rate=RATE)["valence"], abs=1e-6) for clip in (LEFT, RIGHT)
        ]


def test_rows_of_a_batch_are_as_short_as_their_rate_says(ser):
    rows = np.tile(LEFT[:300], (2, 1))  # 19 ms at 16 kHz
    assert len(ser(rows, sampling_rate=8_000)) == 2
    for rate in ({"sampling_rate": RATE}, {}):
        with pytest.raises(ValueError, match="2 clips of less than 25 ms"):
            ser(rows, **rate)


def test_one_sound_of_two_axes_needs_its_order(ser, tmp_path):
    soundfile.write(tmp_path / "stereo.wav", STEREO.T, RATE, subtype="FLOAT")
    read, rate = soundfile.read(tmp_path / "stereo.wav", dtype="float32")
    for refuse in (MsfSerFeatureExtractor(), tiny_processor()):
        for form in (read, torch.from_numpy(read), read.tolist()):
            with pytest.raises(ValueError, match=r"9600 clips of less than 25 ms: .*channels_first=False"):
                refuse(form, rate)
    with pytest.raises(ValueError, match="channels_first=False"):
        ser(read, sampling_rate=rate)
    extract = MsfSerFeatureExtractor(do_normalize=False)
    np.testing.assert_allclose(extract(read, rate, channels_first=False)["input_values"], MEAN[None], atol=1e-7)
    np.testing.assert_array_equal(extract(STEREO, rate, channels_first=True, channel=0)["input_values"], LEFT[None])
    three = np.stack([STEREO, STEREO[::-1]])
    assert extract(three, rate, channels_first=True, channel=1)["input_values"].shape == STEREO.shape
    with pytest.raises(ValueError, match="no batch of clips"):
        extract(three, rate)
    assert isinstance(ser(read, sampling_rate=rate, channels_first=False), dict)


def test_square_arrays_are_read_alike_whole_and_by_blocks():
    square = np.arange(16, dtype=np.float32).reshape(4, 4) / 16
    for channels_first, axis in ((True, 0), (False, 1)):
        whole = load_audio(square, RATE, channels_first=channels_first)
        np.testing.assert_array_equal(whole, square.mean(axis))
        np.testing.assert_array_equal(np.concatenate(list(read_blocks(square, RATE, channels_first))), whole)
    for read in (load_audio, lambda *form: list(read_blocks(*form))):
        with pytest.raises(ValueError, match="channels_first"):
            read(square, RATE)


@pytest.mark.parametrize("kind", ["int16", "float64", "bfloat16", "list", "stereo"])
def test_one_second_of_a_long_array_needs_no_memory_for_the_rest(kind):
    """19 MB of int16 took 115 MB."""
    samples = (noise(600.0) * 2**14).astype(np.int16)
    forms = {
        "int16": samples,
        "float64": samples / 2**15,
        "bfloat16": torch.from_numpy(samples / 2**15).bfloat16(),
        "list": (samples[:2_000_000] / 2**15).tolist(),
        "stereo": (RATE, np.repeat(samples[:, None], 2, axis=1)),
    }
    tracemalloc.start()
    load_audio(forms[kind], RATE, max_seconds=1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


# Channels in the pipeline


def test_each_channel_has_a_result(ser):
    both = ser((RATE, STEREO.T), channel="each")
    assert [result["channel"] for result in both] == [0, 1]
    for result, sound in zip(both, (LEFT, RIGHT), strict=True):
        alone = ser(sound, sampling_rate=RATE)
        assert {name: result[name] for name in alone} == alone
    assert ser((RATE, STEREO.T), channel=1)["valence"] == both[1]["valence"]
    many = ser([(RATE, STEREO.T), {"audio": wav(STEREO[:1])}], channel="each", batch_size=2)
    assert [len(results) for results in many] == [2, 1]
    assert many[0][1]["valence"] == pytest.approx(both[1]["valence"], abs=1e-6)
    with pytest.raises(ValueError, match="Item 1: there is no file"):
        ser([(RATE, STEREO.T), "missing.wav"], channel="each")
    with pytest.raises(ValueError, match="channel='both'"):
        ser((RATE, STEREO.T), channel="both")


# Rows of datasets


def rows_of(decoders: bool) -> list[dict]:
    sounds = [np.stack([noise(0.5 + 0.1 * i, i)]) for i in range(4)]
    audio = [Decoder(sound) if decoders else {"bytes": wav(sound), "path": None} for sound in sounds]
    return [{"audio": one} | {n: v / (1 + i) for n, v in LABELS.items()} for i, one in enumerate(audio)]


class Streaming(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(rows_of(decoders=True))


@pytest.mark.parametrize("kind", ["map", "iterable"])
def test_a_plain_trainer_trains_on_decoders(kind, tmp_path):
    model, processor = tiny_model(), tiny_processor()
    before = {name: weight.clone() for name, weight in model.named_parameters() if weight.requires_grad}
    arguments = TrainingArguments(
        *(str(tmp_path),),
        **{"max_steps": 2, "per_device_train_batch_size": 4, "report_to": [], "remove_unused_columns": False},
        **{"learning_rate": 1e-3, "use_cpu": True, "save_strategy": "no", "disable_tqdm": True},
    )
    data = Streaming() if kind == "iterable" else rows_of(decoders=True)
    result = Trainer(model, arguments, data_collator=MsfSerCollator(processor), train_dataset=data).train()
    assert np.isfinite(result.training_loss)
    assert any(not torch.equal(before[n], w) for n, w in model.named_parameters() if n in before)


def test_map_and_streaming_over_an_audio_column_give_the_same():
    table = datasets.Dataset.from_list(rows_of(decoders=False)).cast_column("audio", datasets.Audio(decode=False))
    extract = MsfSerFeatureExtractor()
    expected = extract([row["audio"] for row in table])["input_values"]
    mapped = table.map(lambda rows: {"x": extract(rows["audio"])["input_values"]}, batched=True)
    np.testing.assert_allclose(np.array(mapped["x"], np.float32), expected, atol=1e-6)
    streamed = [extract(row["audio"])["input_values"][0] for row in table.to_iterable_dataset()]
    for one, row in zip(streamed, expected, strict=True):
        np.testing.assert_array_equal(one, row[: len(one)])


# As in transformers


@pytest.mark.parametrize("options", [{}, {"kind": "log_mel", "feature_size": 20}], ids=["waveform", "log_mel"])
def test_padding_and_truncation_are_those_of_transformers(options):
    extract = MsfSerFeatureExtractor(**options, max_seconds=2.0)
    unit = 160 if options else 1
    sounds = [noise(0.7, 1), noise(1.5, 2)]
    default = extract(sounds, RATE)
    name = extract.model_input_names[0]
    for same in ({"padding": "longest"}, {"padding": True, "truncation": True, "pad_to_multiple_of": 1}):
        np.testing.assert_array_equal(extract(sounds, RATE, **same)[name], default[name])
    ragged = extract(sounds, RATE, padding=False)
    assert [len(one) for one in ragged[name]] == [11_200 // unit, 24_000 // unit]
    assert extract(sounds, RATE, padding="max_length")[name].shape[1] == 32_000 // unit
    cut = extract(sounds, RATE, padding="max_length", max_length=9_601, return_tensors="pt", warn_if_cut=False)
    assert cut[name].shape[1] == 9_601 // unit and cut["attention_mask"].all()
    assert extract(sounds, RATE, pad_to_multiple_of=128)[name].shape[1] % 128 == 0
    for whole, padding in ((sounds[0], True), ([sounds[0]] * 2, True), (sounds, False)):
        assert "attention_mask" not in extract(whole, RATE, padding=padding, return_attention_mask=False)
    of_setting = MsfSerFeatureExtractor(**options, return_attention_mask=False)
    for padded in (sounds, [sounds[0], None]):
        for one, asked in ((extract, {"return_attention_mask": False}), (of_setting, {})):
            with pytest.raises(ValueError, match="return_attention_mask=False leaves nothing that tells padding"):
                one(padded, RATE, **asked)
    assert extract(noise(3.0), RATE)[name].shape[1] == 32_000 // unit
    assert extract(noise(3.0), RATE, truncation=False)[name].shape[1] == 48_000 // unit
    with pytest.raises(ValueError, match="max_length=100 samples is less than min_seconds"):
        extract(sounds, RATE, max_length=100)


def test_the_processor_passes_the_arguments_of_transformers_on():
    processor = tiny_processor()
    texts = ["so it was and it was so", None]
    inputs = processor([LEFT, RIGHT], RATE, texts, padding="max_length", max_length=12)
    assert inputs["gs_input_ids"].shape == (2, 12) and inputs["gs_attention_mask"][1].sum() == 0
    assert inputs["input_values"].shape[1] == int(processor.feature_extractor.max_seconds * RATE)
    inputs = processor([LEFT, RIGHT], RATE, texts, text_kwargs={"max_length": 3}, audio_kwargs={"max_length": 9_000})
    assert inputs["gs_input_ids"].shape[1] == 3 and inputs["input_values"].shape[1] == 9_000
    assert not any("mask" in name for name in processor(LEFT, RATE, "so", return_attention_mask=False))
    for wrong in (texts, ["so", "so it was"]):
        with pytest.raises(
            ValueError, match=r"absent items from the others: leave it out, or give items of one length"
        ):
            processor([LEFT, LEFT], RATE, wrong, return_attention_mask=False)
    plain = processor([LEFT, RIGHT], RATE, texts, padding=False, return_tensors=None)
    assert plain["gs_attention_mask"][1] == [0] * len(plain["gs_input_ids"][1])
    for name, remedy in {"text": "give transcript, emphasis or description", "paddding": "padding"}.items():
        with pytest.raises(TypeError, match=remedy):
            processor(LEFT, RATE, **{name: "a"})


def test_log_mel_frames_ignore_the_default_device():
    extract = MsfSerFeatureExtractor(kind="log_mel", feature_size=20)
    expected = extract(LEFT, RATE)["input_features"]
    torch.set_default_device("meta")
    try:
        np.testing.assert_array_equal(extract(LEFT, RATE)["input_features"], expected)
    finally:
        torch.set_default_device(None)
