"""Languages without spaces, and characters of several tokens: words, transcripts, emphasis and alignment."""

import numpy as np
import pytest
import torch
from published import WHISPER, needs
from spoken import RATE, Recognizer, voice
from tiny import noise, tiny_model, tiny_processor
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from msfser import LABELS, MsfSerPipeline
from msfser.annotator_msfser import MsfSerAnnotator
from msfser.decoded_clip_msfser import DecodedClip
from msfser.emphasis_msfser import bare_word, find_emphasis, measure_prosody
from msfser.encoders_msfser import load_recognizer
from msfser.training.random_emphasis import random_segment
from msfser.transcription_msfser import MsfSerRecognizer, Transcription
from msfser.word_times_msfser import has_no_spaces, join_words, texts_of_words, words_of

# "I very much like eating Chinese food", "I like this book", "I go home".
CHINESE, HINDI, GEORGIAN = "我很喜欢吃中国菜。", "मुझे यह किताब बहुत पसंद है", "მე სახლში მივდივარ"
THAI = "ฉันชอบกินข้าวมาก"


def bytewise() -> PreTrainedTokenizerFast:
    """A tokenizer with a token for each byte, as Whisper's has for the letters of rare scripts."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({sign: i for i, sign in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def recognizer_with(tokenizer) -> MsfSerRecognizer:
    recognizer = object.__new__(MsfSerRecognizer)
    recognizer.tokenizer, recognizer.english_only = tokenizer, False
    return recognizer


@pytest.fixture(scope="module", params=["bytewise", pytest.param("tiny.en", marks=needs(WHISPER))])
def tokenizing(request) -> MsfSerRecognizer:
    return recognizer_with(bytewise() if request.param == "bytewise" else load_recognizer(WHISPER)[1])


def clip_of(tokens, **fields) -> DecodedClip:
    common = {"language": "en", "no_speech": 0.0, "log_probability": -0.1, "entropy": 0.2, "focus": 0.5}
    return DecodedClip(tokens=tokens, **common | fields, starts=list(range(len(tokens) + 1)))


# Spans of words


@pytest.mark.parametrize(
    "text", [CHINESE, HINDI, GEORGIAN, THAI, "I like “Chinese” food, don't you?", "我用 Python 写。"]
)
def test_recognized_and_given_words_have_the_same_spans(tokenizing, text):
    words = words_of(text)
    spelled = [tokenizing._tokenize(word) for word in words]
    tokens = [token for ids in spelled for token in ids]
    starts = list(range(len(tokens) + 1))
    given = tokenizing._given_words(words, spelled, starts)
    recognized = tokenizing._words(clip_of(tokens))
    assert [word["word"] for word in given] == words
    if not has_no_spaces(text) and "Python" not in text:
        assert recognized == given
    # Recognized words in scripts without spaces are whole tokens, which no character of the given ones crosses.
    ends = {word["end"] for word in recognized}
    assert {word["start"] for word in recognized} <= {word["start"] for word in given} and ends <= {
        word["end"] for word in given
    }


@pytest.mark.parametrize(("text", "count"), [(HINDI, 6), (GEORGIAN, 3), (CHINESE, 8)])
def test_words_start_with_the_first_token_of_their_first_character(text, count):
    recognizer = recognizer_with(bytewise())
    tokens = recognizer.tokenizer(text)["input_ids"]
    words = recognizer._words(clip_of(tokens))
    assert len(words) == count
    for word in words:
        # A token is a byte, and a frame is a token.
        span = text.encode()[word["start"] : word["end"]].decode()
        assert span == bare_word(word["word"]) and span


def test_a_character_that_is_cut_off_is_left_out(tokenizing):
    tokens = tokenizing.tokenizer(" " + HINDI, add_special_tokens=False)["input_ids"]
    whole = tokenizing._text(clip_of(tokens))
    assert whole == HINDI
    for count in range(1, len(tokens)):
        clip = clip_of(tokens[:count])
        assert "\ufffd" not in tokenizing._text(clip) and HINDI.startswith(tokenizing._text(clip))
        assert not any("\ufffd" in word["word"] for word in tokenizing._words(clip))
        result = tokenizing._transcription([(0.0, noise(1.0), clip)], stated=True) if count > 3 else None
        assert result is None or "\ufffd" not in (result.text or "")


def test_marks_belong_to_the_letter_before_them():
    assert [bare_word(word) for word in ("है।", "“की”", "ที่,", "wait!", "❤️")] == ["है", "की", "ที่", "wait", ""]


def test_texts_are_divided_and_joined_by_their_script():
    assert words_of("「我很」 喜欢 Python3写。") == ["「我", "很」", "喜", "欢", "Python3", "写。"]
    assert words_of(" I don't - know ") == ["I", "don't", "-", "know"]
    assert words_of("") == words_of("  ") == []
    assert words_of("안녕 하세요") == ["안녕", "하세요"]
    assert join_words(words_of(CHINESE)) == CHINESE and join_words(words_of(THAI)) == THAI
    assert join_words(["20", "23", "年", "五", "月"]) == "2023年五月" and join_words(["a", "b", "我"]) == "a b 我"
    words = [{"word": word} for word in ("我", "用", "Python", "写。")]
    assert texts_of_words("我用 Python 写。", words) == ["我", "用 ", "Python ", "写。"]
    assert texts_of_words("something else", words) == ["我", "用", "Python", "写。"] or not has_no_spaces(
        "我用Python写。"
    )
    assert texts_of_words("", []) == []


def test_emphasis_is_written_as_its_script():
    words = [{"word": sign, "start": i / 2, "end": (i + 1) / 2} for i, sign in enumerate(words_of(CHINESE))]
    assert find_emphasis(words, measure_prosody(voice(4.0))).text in CHINESE
    generator = np.random.default_rng(0)
    assert random_segment(words_of(CHINESE), 3, generator) in CHINESE
    assert " " in random_segment(["one", "two", "three"], 2, generator)


# Recordings


class Spaceless(Recognizer):
    """Recognizes a letter of a Thai text each 0.4 s; aligns what lies between spaces, as all aligners do."""

    def words(self, sound):
        letters = words_of(THAI * 4)
        count = int(len(sound) / RATE / 0.4)
        return [{"word": letters[i % 40], "start": 0.4 * i, "end": 0.4 * i + 0.3} for i in range(count)]

    def transcription(self, words):
        return Transcription("".join(word["word"] for word in words), words, None, -0.1)

    def align(self, sounds, transcripts, languages=None):
        results = []
        for sound, text in zip(sounds, transcripts, strict=True):
            edges = np.linspace(0, len(sound) / RATE, len(text.split()) + 1).tolist()
            results.append([{"word": w, "start": edges[i], "end": edges[i + 1]} for i, w in enumerate(text.split())])
        return results


@pytest.fixture(scope="module")
def pipe():
    return MsfSerPipeline(tiny_model("whisper"), processor=tiny_processor("whisper"), recognizer=Spaceless())


@pytest.mark.parametrize("seconds", [5.0, 26.0])
def test_no_spaces_are_put_into_a_transcript_without_them(pipe, seconds):
    result = pipe(voice(seconds), sampling_rate=RATE)
    windows = result.get("course") or [result]
    assert result["transcript"] == "".join(word["word"] for word in result["words"])
    for window in windows:
        assert window["transcript"] in result["transcript"] and " " not in window["emphasis"]
    assert not any(" " in part for part in result["emphasis"].split("; "))
    assert any(word["emphasized"] for word in result["words"])


def test_the_model_reads_the_transcript_as_it_is_written():
    """The tokenizer's words are those between spaces, so that a space would change the prediction."""
    model = tiny_model("whisper", audio=False, semantics=["gs"])
    pipe = MsfSerPipeline(model, processor=tiny_processor("whisper"), recognizer=Spaceless())
    window = pipe(voice(26.0), sampling_rate=RATE)["course"][0]
    for text, is_same in ((window["transcript"], True), (" ".join(words_of(window["transcript"])), False)):
        with torch.no_grad():
            expected = model(**pipe.processor(transcript=text)).logits[0].numpy()
        found = np.array([window[label] for label in LABELS])
        assert (np.abs(found - expected).max() < 1e-6) == is_same


def test_a_given_transcript_without_spaces_is_divided_among_the_windows(pipe):
    text = ("我很喜欢吃中国菜你呢" * 4)[:40]
    result = pipe({"audio": voice(26.0), "sampling_rate": RATE, "transcript": text, "emphasis": text[3:6]})
    assert result["transcript"] == text and len(result["words"]) == 40
    assert result["texts"]["words"] == "aligned"
    lengths = [len(window["transcript"]) for window in result["course"]]
    assert len(lengths) >= 4 and max(lengths) < 22 and all(window["transcript"] in text for window in result["course"])
    assert [word["word"] for word in result["words"] if word["emphasized"]][:3] == list(text[3:6])
    assert result["course"][0]["emphasis"] == text[3:6]


@pytest.mark.parametrize("seconds", [5.0, 14.0])
def test_given_emphasis_without_spaces_is_marked_wherever_words_are_divided(pipe, seconds):
    words = [
        {"word": word, "start": 0.6 * i, "end": 0.6 * i + 0.5}
        for i, word in enumerate(["我很", "喜欢", "吃", "中国菜。"])
    ]
    for emphasis, marked in (("喜欢", ["喜欢"]), ("欢吃", ["喜欢", "吃"]), ("中国", ["中国菜。"]), ("Python", [])):
        item = {"audio": voice(seconds), "sampling_rate": RATE, "words": words, "emphasis": emphasis}
        result = pipe(item)
        assert result["transcript"] == CHINESE
        if marked or seconds < 12:
            assert [word["word"] for word in result["words"] if word["emphasized"]] == marked
    assert ("The given emphasis is not among" in " ".join(result["warnings"])) == (seconds > 12)


def test_aligners_get_spaces_between_the_letters():
    asked = []

    def aligner(sounds, transcripts):
        asked.extend(transcripts)
        return [None for _ in sounds]

    (made,) = MsfSerAnnotator(None, aligner=aligner)([noise(2.0)], [{"transcript": "你好 Python。"}])
    assert asked == ["你 好 Python。"] and made.transcript == "你好 Python。"


# Repetition


class Halving(MsfSerRecognizer):
    """Says its sentence once for each second of sound, while its attention scatters over more than one."""

    english_only = True

    def __init__(self, sentence, only_whole=False):
        self.tokenizer, self.only_whole, self.sentence = bytewise(), only_whole, sentence

    def _decode(self, sounds, language, tokens=None):
        clips = []
        for sound in sounds:
            count = round(len(sound) / RATE)
            text = " other words here" if self.only_whole and count < 8 else f" {self.sentence}" * count
            ids = self.tokenizer(text)["input_ids"]
            clips.append(clip_of(ids, focus=0.5 if count < 2 else 0.1))
        return clips


@pytest.mark.parametrize("count", [2, 4, 8])
def test_a_sentence_that_was_truly_said_several_times_is_kept(count):
    sound = np.concatenate([np.concatenate([noise(0.8, i), np.zeros(RATE // 5, np.float32)]) for i in range(count)])
    (result,) = Halving("say it again")([sound])
    assert result.text == " ".join(["say it again"] * count) and result.reason is None
    assert len(result.words) == 3 * count
    starts = [word["start"] for word in result.words]
    assert starts == sorted(starts) and starts[-3] > count - 1.3


def test_a_loop_that_the_halves_do_not_have_is_dropped():
    (result,) = Halving("say it again", only_whole=True)([noise(8.0)])
    assert (result.text, result.reason) == (None, "the recognizer repeats itself")
