"""Describers that prompt a model: the prompts, what is accepted, and what a failing model or server does to a run."""

import base64
import io
import json
import logging
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import constants
from tiny import noise
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    AudioFlamingo3Processor,
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)
from transformers.utils import logging as transformers_logging

from msfser.annotation import chat_endpoint
from msfser.annotation.audio_language_model import AudioLanguageModelDescriber
from msfser.annotation.chat_endpoint import ChatEndpointDescriber, ServerFailure
from msfser.annotation.prompt import (
    ATTEMPTS,
    EMOTION_CLASSES,
    FIELDS,
    MOST_CHARACTERS,
    PROMPT,
    parse_fields,
    render_fields,
    render_prompt,
)

GOOD = {
    "emotion": "tired resignation",
    "emotion_class": "sadness",
    "explanation": "The voice falls at every word.",
    "scene": "A talk at the end of a long day",
    "paralinguistics": "Quiet, low and slow, with two sighs!",
    "gender": "unknown",
}
TEXT = (
    "Emotion: tired resignation. Emotion class: sadness. Explanation: The voice falls at every word. "
    "Scene: A talk at the end of a long day. Voice: Quiet, low and slow, with two sighs!"
)
KEY = "sk-not-to-be-seen-1234"


@pytest.fixture
def records(caplog, monkeypatch):
    """Everything that is logged, from the lowest level up."""
    monkeypatch.setattr(transformers_logging.get_logger(), "propagate", True)
    monkeypatch.setattr(logging.getLogger("msfser"), "propagate", True)
    caplog.set_level(logging.DEBUG)
    return caplog


# --- fields -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "response",
    [
        json.dumps(GOOD),
        f"```json\n{json.dumps(GOOD, indent=2)}\n```",
        f"Sure {{ that is: {json.dumps(GOOD)} Anything {{else}}?",
        json.dumps({"note": 1}) + json.dumps(GOOD),
        json.dumps(GOOD | {"emotion_class": " Sadness. ", "valence": 3, "emotion": "tired\n  resignation\u0000"}),
        json.dumps(dict(reversed(GOOD.items()))),
    ],
    ids=["bare", "fenced", "text around", "second object", "untidy", "other order"],
)
def test_responses_that_are_parsed(response):
    fields = parse_fields(response)
    assert fields == GOOD
    assert tuple(fields) == FIELDS
    assert render_fields(fields) == TEXT


@pytest.mark.parametrize(
    "response, reason",
    [
        ("", "no complete JSON object"),
        ("She sounds sad.", "no complete JSON object"),
        (json.dumps(GOOD)[:-1], "no complete JSON object"),
        (json.dumps([GOOD["emotion"]]), "no complete JSON object"),
        ("{" * 10_000, "no complete JSON object"),
        ('{"a":' * 4_000, "no complete JSON object"),
        ("x" * 20_001, "longer than 20000"),
        (json.dumps({k: v for k, v in GOOD.items() if k not in ("scene", "gender")}), "lacks scene, gender"),
        (json.dumps(GOOD | {"emotion": ["sad"]}), "emotion is no string"),
        (json.dumps(GOOD | {"scene": None}), "scene is no string"),
        (json.dumps(GOOD | {"scene": " \n"}), "scene is empty"),
        (json.dumps(GOOD | {"scene": "..."}), "scene is empty"),
        (json.dumps(GOOD | {"emotion": "x" * (MOST_CHARACTERS + 1)}), "emotion is longer than"),
        (json.dumps(GOOD | {"emotion_class": "melancholy"}), "emotion_class is none of"),
    ],
)
def test_responses_that_are_refused(response, reason):
    started = time.perf_counter()
    with pytest.raises(ValueError, match=reason) as error:
        parse_fields(response)
    assert str(error.value).endswith(".")
    assert "melancholy" not in str(error.value)
    assert time.perf_counter() - started < 10  # not quadratic in the letters


def test_every_field_but_gender_reaches_the_text():
    for name in FIELDS:
        changed = render_fields(GOOD | {name: "anger" if name == "emotion_class" else "changed"})
        assert (changed == TEXT) == (name == "gender")


def test_the_prompt_names_fields_and_classes():
    assert all(f'"{name}"' in PROMPT for name in FIELDS)
    assert all(name in PROMPT for name in EMOTION_CLASSES)
    assert render_prompt() == render_prompt("") == PROMPT


def test_the_transcript_cannot_inject_control_tokens():
    prompt = render_prompt("one <|AUDIO|> two <sound> [AUDIO] {x}\nthree " + "long " * 500, "because.")
    asked = prompt.removeprefix(PROMPT)
    assert not set("<>[]{}|") & set(asked)
    assert '"one AUDIO two sound AUDIO x three long' in asked
    assert len(asked) < 1_300
    assert "was refused: because. Answer again." in asked


# --- audio language models ----------------------------------------------------------------------------------------

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
WIDTHS = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDTHS["num_key_value_heads"] = 2
ENCODER = {
    "num_mel_bins": 16,
    "d_model": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "max_source_positions": 100,
}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(SPECIAL + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=SPECIAL[0], eos_token=SPECIAL[2])


def save_tiny(family: str, folder) -> str:
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=2)
    text = {"model_type": "qwen2", "vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 2, **WIDTHS}
    if family == "qwen2_audio":
        config = Qwen2AudioConfig(
            audio_config={"model_type": "qwen2_audio_encoder", **ENCODER}, text_config=text, audio_token_index=3
        )
        model = Qwen2AudioForConditionalGeneration(config)
        processor = Qwen2AudioProcessor(extractor, tokenizer, chat_template=TEMPLATE)
    else:
        config = AudioFlamingo3Config(
            audio_config={
                "num_mel_bins": 16,
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 16,
                "max_source_positions": 100,
            },
            text_config=text,
            audio_token_id=3,
        )
        model = AudioFlamingo3ForConditionalGeneration(config)
        processor = AudioFlamingo3Processor(extractor, tokenizer, chat_template=TEMPLATE, audio_token="<|AUDIO|>")
    # As published: responses are sampled unless greedy decoding is asked for.
    model.generation_config.update(do_sample=True, temperature=5.0, top_k=5, repetition_penalty=1.1, pad_token_id=0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=["qwen2_audio", "audioflamingo3"])
def tiny(request, tmp_path_factory):
    folder = save_tiny(request.param, tmp_path_factory.mktemp("models") / "tiny")
    describer = AudioLanguageModelDescriber(folder, device="cpu", max_new_tokens=6)
    assert describer.name == f"{request.param}:tiny"
    return describer


def script(describer, monkeypatch, responses: list[str]) -> list[list[str]]:
    """Replaces the model's responses; returns the prompts of each pass."""
    waiting, passes = list(responses), []

    def generate(input_ids, attention_mask, **options):
        assert not options["do_sample"] and options["repetition_penalty"] == 1.0 and options["max_new_tokens"] == 6
        passes.append(describer.processor.batch_decode(input_ids))
        # Prompts end in the same column, where all responses start.
        assert attention_mask[:, -1].all()
        tokenizer = describer.processor.tokenizer
        tokens = tokenizer([waiting.pop(0) + "<|im_end|>" for _ in input_ids], padding=True, padding_side="right")
        return torch.cat([input_ids, torch.tensor(tokens["input_ids"])], dim=1)

    monkeypatch.setattr(describer.model, "generate", generate)
    return passes


def test_random_responses_are_refused_three_times(tiny, monkeypatch, records):
    calls, generate = [], tiny.model.generate

    def counting(**inputs):
        calls.append(len(inputs["input_ids"]))
        return generate(**inputs)

    monkeypatch.setattr(tiny.model, "generate", counting)
    assert tiny([noise(0.5), noise(0.9)], ["the food", None]) == [None, None]
    assert calls == [2] * ATTEMPTS
    assert "2 of 2 recordings stay without a description" in records.text


def test_good_responses_are_kept_and_bad_ones_requested_again(tiny, monkeypatch):
    bad = json.dumps(GOOD | {"emotion_class": "gloom"})
    passes = script(tiny, monkeypatch, [bad, json.dumps(GOOD), "no", json.dumps(GOOD | {"emotion": "calm"})])
    first, second = tiny([noise(0.5), noise(0.9)], ["the food", None])
    assert second == TEXT and first == TEXT.replace("tired resignation", "calm")
    assert [len(prompts) for prompts in passes] == [2, 1, 1]
    assert '"the food"' in passes[0][0] and "recognizer" not in passes[0][1]
    assert "refused" not in passes[0][0]
    assert "emotion_class is none of" in passes[1][0] and "gloom" not in passes[1][0]
    assert "no complete JSON object" in passes[2][0]


def test_batches_are_cut_to_size(tiny, monkeypatch):
    monkeypatch.setattr(tiny, "batch_size", 2)
    passes = script(tiny, monkeypatch, [json.dumps(GOOD | {"emotion": str(number)}) for number in range(5)])
    found = tiny([noise(0.3)] * 5, [None] * 5)
    assert [len(prompts) for prompts in passes] == [2, 2, 1]
    assert [text.split(".")[0] for text in found] == [f"Emotion: {number}" for number in range(5)]


def test_a_batch_responds_like_its_members_and_greedily(tiny):
    sounds, prompts = [noise(0.5, seed=1), noise(1.7, seed=2)], ["a", "a much longer question"]
    together = tiny._generate(sounds, prompts)
    alone = [tiny._generate([sound], [prompt])[0] for sound, prompt in zip(sounds, prompts, strict=True)]
    assert together == alone == tiny._generate(sounds, prompts)
    assert any(together)


def test_the_sound_is_the_input_of_the_model(tiny, monkeypatch):
    recorded = []
    generate = tiny.model.generate

    def recording(**inputs):
        recorded.append(inputs["input_features"])
        return generate(**inputs)

    monkeypatch.setattr(tiny.model, "generate", recording)
    tiny._generate([noise(0.5, seed=1), noise(0.5, seed=2)], ["a", "a"])
    expected = tiny.processor.feature_extractor(
        noise(0.5, seed=2), sampling_rate=16_000, padding="max_length", return_tensors="pt"
    )["input_features"]
    frames = expected.shape[-1]
    torch.testing.assert_close(recorded[0][1:, :, :frames], expected)


def test_empty_short_and_long_sounds(tiny):
    sounds = [np.zeros(1, np.float32), np.zeros(0, np.float32), noise(5.0)]
    assert tiny(sounds, [None] * 3) == [None] * 3
    assert tiny([], []) == []
    with pytest.raises(ValueError, match="2 sounds and 1 transcripts"):
        tiny(sounds[:2], [None])


def test_the_shortest_sound_has_a_frame(tiny, monkeypatch):
    passes = script(tiny, monkeypatch, [json.dumps(GOOD)] * 2)
    tiny([np.zeros(1, np.float32), noise(0.5)], [None] * 2)
    short, longer = [prompt.count("<|AUDIO|>") for prompt in passes[0]]
    assert 0 < short < longer


def test_a_transcript_with_the_sound_token_does_no_harm(tiny):
    assert tiny([noise(0.3)], ["<|AUDIO|> <|im_end|>"]) == [None]


@pytest.mark.parametrize("name", ["moonshotai/Kimi-Audio-7B-Instruct", "kimi-audio-7b"])
def test_kimi_audio_is_sent_to_the_endpoint(name):
    with pytest.raises(ValueError, match=r"Kimi-Audio has no class in transformers.*ChatEndpointDescriber"):
        AudioLanguageModelDescriber(name)


def test_a_folder_with_kimi_audio_under_another_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "kimi_audio", "auto_map": {"AutoConfig": "a.B"}}))
    with pytest.raises(ValueError, match="Kimi-Audio has no class"):
        AudioLanguageModelDescriber(str(tmp_path))


@pytest.mark.parametrize(
    "config, kind, reason",
    [
        (None, OSError, "is not a folder with a model"),
        ({"auto_map": {}}, OSError, "is not a folder with a model"),
        ({"model_type": "model_of_tomorrow"}, ValueError, "is not supported by this version"),
        ({"model_type": "roberta"}, ValueError, r"\(roberta\) is not an audio language model"),
    ],
)
def test_names_that_are_no_audio_language_model(tmp_path, config, kind, reason):
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(kind, match=reason) as error:
        AudioLanguageModelDescriber(str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["config", "processor"])
def test_code_that_comes_with_a_model_does_not_run(tmp_path, part):
    """It would leave a mark; a config or processor that only this code knows is no audio language model."""
    mark = tmp_path / "mark"
    (tmp_path / "strange.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Strange: pass\n")
    if part == "config":
        config = {"model_type": "strange", "auto_map": {"AutoConfig": "strange.Strange"}}
        (tmp_path / "config.json").write_text(json.dumps(config))
    else:
        save_tiny("qwen2_audio", tmp_path)
        for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
            if (path := tmp_path / name).exists():
                kept = json.loads(path.read_text())
                path.write_text(json.dumps(kept | {"auto_map": {"AutoProcessor": "strange.Strange"}}))
    try:
        AudioLanguageModelDescriber(str(tmp_path), device="cpu")
    except (OSError, ValueError) as error:
        assert "strange" in str(error) or str(tmp_path) in str(error)
    assert not mark.exists()


def test_a_model_without_its_processor_is_a_sentence(tmp_path):
    save_tiny("qwen2_audio", tmp_path)
    for path in tmp_path.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    with pytest.raises(OSError, match=r"the processor of .* cannot be built here"):
        AudioLanguageModelDescriber(str(tmp_path), device="cpu")


def test_a_name_that_is_nowhere():
    with pytest.raises(OSError, match="'nobody/nothing' is not a folder with a model, and neither the Hub"):
        AudioLanguageModelDescriber("nobody/nothing", revision="v1")


def test_a_hub_name_is_recorded_with_its_commit():
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = Path(constants.HF_HUB_CACHE) / "models--someone--describer"
    save_tiny("qwen2_audio", folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "v1").write_text(commit)
    describer = AudioLanguageModelDescriber("someone/describer", revision="v1", device="cpu")
    assert describer.name == f"qwen2_audio:someone/describer@{commit}"
    assert describer.model.dtype == torch.float32


def test_a_text_model_of_the_same_class_is_refused(tmp_path):
    byte_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(ValueError, match="does not accept audio"):
        AudioLanguageModelDescriber(str(tmp_path))


def test_gaps_in_the_weights_are_not_filled_at_random(tmp_path):
    folder = save_tiny("qwen2_audio", tmp_path)
    model = Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    kept = {name: weight for name, weight in model.state_dict().items() if "projector" not in name}
    model.save_pretrained(folder, state_dict=kept)
    with pytest.raises(OSError, match="lacks 2 of the model's weights"):
        AudioLanguageModelDescriber(folder, device="cpu")


# --- chat endpoint ------------------------------------------------------------------------------------------------


class Server:
    """A chat server on this machine that responds from a script: `reply(body, number) -> (status, response)`."""

    def __init__(self, reply):
        outer = self
        self.requests, self.lock, self.busy, self.most_busy = [], threading.Lock(), 0, 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    number = len(outer.requests)
                    outer.requests.append((self.path, dict(self.headers), body))
                    outer.busy += 1
                    outer.most_busy = max(outer.most_busy, outer.busy)
                status, response = reply(body, number)
                with outer.lock:
                    outer.busy -= 1
                if isinstance(response, str):
                    response = {"choices": [{"message": {"role": "assistant", "content": response}}]}
                data = response if isinstance(response, bytes) else json.dumps(response).encode()
                self.send_response(status)
                if status == 307:
                    self.send_header("Location", f"{outer.url}/elsewhere")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def prompts(self) -> list[str]:
        return [body["messages"][0]["content"][1]["text"] for _, _, body in self.requests]


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(chat_endpoint, "BACKOFF_SECONDS", 0.001)
    monkeypatch.delenv("MSFSER_API_KEY", raising=False)
    running = []

    def start(reply):
        running.append(Server(reply))
        return running[-1]

    yield start
    for server in running:
        server.server.shutdown()
        server.server.server_close()


def decoded(body: dict) -> np.ndarray:
    part = body["messages"][0]["content"][0]
    assert part["type"] == "input_audio" and part["input_audio"]["format"] == "wav"
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(part["input_audio"]["data"])), dtype="float32")
    assert rate == 16_000
    return samples


def test_a_good_response(serve):
    server = serve(lambda body, number: (200, json.dumps(GOOD)))
    describer = ChatEndpointDescriber(server.url, "describer")
    sound = noise(0.2)
    assert describer([sound], ["the food"]) == [TEXT]
    assert describer.name == "chat:describer"
    (path, headers, body), prompt = server.requests[0], server.prompts()[0]
    assert path == "/v1/chat/completions"
    assert "Authorization" not in headers
    assert body["model"] == "describer" and body["temperature"] == 0
    assert body["response_format"] == {"type": "json_object"}
    assert prompt == render_prompt("the food")
    np.testing.assert_allclose(decoded(body), sound, atol=2**-15)


@pytest.mark.parametrize("tail", ["/", "/v1", "/v1/", "/v1/chat/completions"])
def test_addresses_of_the_same_server(serve, tail):
    server = serve(lambda body, number: (200, json.dumps(GOOD)))
    assert ChatEndpointDescriber(server.url + tail, "m")([noise(0.1)], [None]) == [TEXT]
    assert server.requests[0][0] == "/v1/chat/completions"


def test_malformed_json_then_good(serve):
    server = serve(lambda body, number: (200, "{oops" if number == 0 else json.dumps(GOOD)))
    assert ChatEndpointDescriber(server.url, "m")([noise(0.1)], [None]) == [TEXT]
    assert "refused" not in server.prompts()[0] and "no complete JSON object" in server.prompts()[1]


def test_a_response_in_parts(serve):
    whole = json.dumps(GOOD)
    parts = [{"type": "text", "text": whole[:20]}, {"type": "other"}, {"type": "text", "text": whole[20:]}]
    server = serve(lambda body, number: (200, {"choices": [{"message": {"content": parts}}]}))
    assert ChatEndpointDescriber(server.url, "m")([noise(0.1)], [None]) == [TEXT]


def test_a_clip_whose_responses_stay_bad_has_no_description(serve, records):
    server = serve(lambda body, number: (200, "There is nothing." if len(decoded(body)) > 1600 else json.dumps(GOOD)))
    assert ChatEndpointDescriber(server.url, "m")([noise(0.1), noise(0.2)], [None, None]) == [TEXT, None]
    assert len(server.requests) == 1 + ATTEMPTS
    assert "1 of 2 recordings" in records.text


def test_a_silent_model_is_no_dead_server(serve):
    server = serve(lambda body, number: (200, {"choices": [{"message": {"content": None}}]}))
    assert ChatEndpointDescriber(server.url, "m")([noise(0.1)], [None]) == [None]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_tried_again(serve, status):
    server = serve(lambda body, number: (status, {}) if number < 3 else (200, json.dumps(GOOD)))
    assert ChatEndpointDescriber(server.url, "m")([noise(0.1)], [None]) == [TEXT]
    assert len(server.requests) == 4


def failure_of(describer, sound) -> ServerFailure:
    """What it has in place of the description of one recording."""
    (failure,) = describer([sound], [None])
    assert isinstance(failure, ServerFailure)
    return failure


@pytest.mark.parametrize("described", [0, 2])
def test_a_server_that_stays_broken_is_asked_no_more(serve, described):
    """At the fifth failure only for what it described last."""
    server = serve(lambda body, number: (200, json.dumps(GOOD)) if number < described else (500, {}))
    sounds = [noise(0.1), noise(0.2), *[noise(0.3)] * 20]
    with pytest.raises(ServerFailure, match="with status 500"):
        ChatEndpointDescriber(server.url, "m", concurrency=1)(sounds, [None] * 22)
    lengths = [len(decoded(body)) for _, _, body in server.requests][described :: 1 + chat_endpoint.RETRIES]
    expected = [*[4800] * 5, 3200] if described else [1600, 3200, *[4800] * 3]
    assert lengths[: len(expected)] == expected and len(lengths) <= len(expected) + 1  # one may be under way


@pytest.mark.parametrize(
    ("status", "response", "reason"),
    [
        *((status, {}, f"still fails with status {status} after 4 retries: run again") for status in (429, 500, 503)),
        (200, {"error": {"message": "overloaded"}}, r"not respond like a chat server \(overloaded\): check its"),
    ],
)
def test_a_server_that_fails_for_some_clips_has_not_described_them(serve, status, response, reason):
    """These clips were stored as if the describer had written nothing for them, and were never described."""
    server = serve(lambda body, number: (status, response) if len(decoded(body)) > 1600 else (200, json.dumps(GOOD)))
    sounds = [noise(0.1), noise(0.2), noise(0.1)]
    first, failure, last = ChatEndpointDescriber(server.url, "m")(sounds, [None] * 3)
    assert first == last == TEXT and isinstance(failure, ServerFailure)
    assert re.search(reason, str(failure)) and server.url not in str(failure)
    lengths = [len(decoded(body)) for _, _, body in server.requests]
    assert lengths.count(1600) == 2 and lengths.count(3200) == (1 if status == 200 else 1 + chat_endpoint.RETRIES)


def test_one_clip_that_the_server_refuses_has_no_description(serve, records):
    response = {"error": {"message": "audio is too long."}}
    server = serve(lambda body, number: (400, response) if len(decoded(body)) > 1600 else (200, json.dumps(GOOD)))
    describer = ChatEndpointDescriber(server.url, "m")
    with pytest.raises(OSError, match=r"status 400 \(audio is too long\)\."):
        describer([noise(0.2)], [None])
    assert describer([noise(0.1)], [None]) == [TEXT]
    assert describer([noise(0.2)], [None]) == [None]
    assert "audio is too long" in records.text


def test_a_server_without_response_format(serve):
    server = serve(lambda body, number: (400, {}) if "response_format" in body else (200, json.dumps(GOOD)))
    describer = ChatEndpointDescriber(server.url, "m", concurrency=1)
    assert describer([noise(0.1)] * 3, [None] * 3) == [TEXT] * 3
    assert ["response_format" in body for _, _, body in server.requests] == [True, False, False, False]


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_the_server_does_not_know(serve, monkeypatch, records, status):
    monkeypatch.setenv("MSFSER_API_KEY", KEY)
    server = serve(lambda body, number: (status, {"error": {"message": f"Incorrect API key: {KEY[:8]}***"}}))
    describer = ChatEndpointDescriber(server.url, "m", concurrency=1)
    with pytest.raises(OSError, match="MSFSER_API_KEY") as error:
        describer([noise(0.1)] * 20, [None] * 20)
    assert server.requests[0][1]["Authorization"] == f"Bearer {KEY}"
    # The requests that wait are not sent any more.
    assert len(server.requests) < 20
    assert KEY[:8] not in str(error.value) + records.text + repr(describer)


@pytest.mark.parametrize("status", [200, 400, 404, 500])
def test_the_key_is_never_shown(serve, monkeypatch, records, status):
    monkeypatch.setenv("MSFSER_API_KEY", f" {KEY}\n")
    server = serve(lambda body, number: (status, {"error": {"message": f"who is\n{KEY}?"}}))
    with pytest.raises(OSError) as error:
        raise failure_of(ChatEndpointDescriber(server.url, "m"), noise(0.1))
    assert server.requests[0][1]["Authorization"] == f"Bearer {KEY}"
    shown = f"{error.value!r} {error.value.__cause__!r} {error.value.__context__!r} {records.text}"
    assert KEY not in shown
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["sk secret", "sk\nsecret", "sk-sécret"])
def test_a_key_that_no_header_carries(monkeypatch, key):
    monkeypatch.setenv("MSFSER_API_KEY", key)
    with pytest.raises(ValueError, match="MSFSER_API_KEY contains characters") as error:
        ChatEndpointDescriber("http://127.0.0.1:1", "m")
    assert "cret" not in str(error.value)


def test_a_dead_port(serve, monkeypatch, records):
    monkeypatch.setenv("MSFSER_API_KEY", KEY)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    describer = ChatEndpointDescriber(f"http://127.0.0.1:{port}", "m")
    with pytest.raises(OSError, match=r"does not respond \(NewConnectionError\): start the server") as error:
        describer([noise(0.1)] * 3, [None] * 3)
    assert "\n" not in str(error.value) and KEY not in str(error.value) + records.text
    assert not isinstance(error.value, ServerFailure)


def test_a_server_that_takes_too_long(serve, monkeypatch):
    monkeypatch.setattr(chat_endpoint, "RETRIES", 1)

    def slow(body, number):
        time.sleep(0.3)
        return 200, json.dumps(GOOD)

    server = serve(slow)
    assert "ReadTimeoutError" in str(failure_of(ChatEndpointDescriber(server.url, "m", timeout=0.1), noise(0.1)))
    assert len(server.requests) == 2


def test_a_page_is_no_chat_server(serve):
    server = serve(lambda body, number: (200, b"<html>Welcome</html>"))
    failure = failure_of(ChatEndpointDescriber(server.url, "m"), noise(0.1))
    assert "does not respond like a chat server" in str(failure)


def test_redirects_are_not_followed(serve):
    server = serve(lambda body, number: (307, {}))
    with pytest.raises(OSError, match="status 307"):
        ChatEndpointDescriber(server.url, "m")([noise(0.1)], [None])
    assert [path for path, _, _ in server.requests] == ["/v1/chat/completions"]


def test_proxies_of_the_environment_are_not_used(serve, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server = serve(lambda body, number: (200, json.dumps(GOOD)))
    assert ChatEndpointDescriber(server.url, "m")([noise(0.1)], [None]) == [TEXT]


def test_order_is_kept_under_concurrency(serve):
    def reply(body, number):
        length = len(decoded(body))
        time.sleep(0.05 if length % 3 == 0 else 0.0)
        return 200, json.dumps(GOOD | {"emotion": f"length {length}"})

    server = serve(reply)
    lengths = list(range(1600, 1616))
    found = ChatEndpointDescriber(server.url, "m", concurrency=4)([noise(1)[:n] for n in lengths], [None] * 16)
    assert [text.split(".")[0] for text in found] == [f"Emotion: length {n}" for n in lengths]
    assert 2 <= server.most_busy <= 4


@pytest.mark.parametrize(
    "url, reason",
    [
        ("http://example.org", "unencrypted"),
        ("http://10.0.0.1:8000/v1", "unencrypted"),
        ("http://localhost.example.org", "unencrypted"),
        ("http://0.0.0.0:8000", "unencrypted"),
        ("ftp://127.0.0.1", "must start with"),
        ("127.0.0.1:8000", "must start with"),
        ("http://", "must start with"),
        ("", "must start with"),
        (f"https://user:{KEY}@example.org", "no user"),
        (f"https://example.org/?key={KEY}", "no user"),
        (f"http://[{KEY}", "cannot be parsed"),
    ],
)
def test_addresses_that_are_refused(url, reason):
    with pytest.raises(ValueError, match=reason) as error:
        ChatEndpointDescriber(url, "m")
    assert KEY not in f"{error.value} {error.value.__cause__!r}"


@pytest.mark.parametrize(
    "url", ["https://example.org", "http://localhost:8000", "http://[::1]:8000", "http://127.0.0.2"]
)
def test_addresses_that_are_accepted(url):
    for tail in ("", "/X", "/apiX"):
        for end in ("", "/", "/v1", "/v1/", "/v1/chat/completions"):
            assert ChatEndpointDescriber(url + tail + end, "m")._url == f"{url}{tail}/v1/chat/completions"


@pytest.mark.parametrize("options", [{"model": ""}, {"timeout": 0}, {"concurrency": 0}])
def test_settings_that_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ChatEndpointDescriber(**{"url": "http://127.0.0.1:1", "model": "m"} | options)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="1 sounds and 2 transcripts"):
        ChatEndpointDescriber("http://127.0.0.1:1", "m")([noise(0.1)], [None, None])
