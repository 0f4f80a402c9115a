"""LEMF on sounds made of tones, of which pitch, level and length are known."""

import numpy as np
import pytest

from msfser.emphasis_msfser import (
    EMPHASIS,
    EmphasisConfig,
    Prosody,
    bare_word,
    find_emphasis,
    joined_pitch,
    measure_pitch,
    measure_prosody,
)

WORDS = ("I", "never", "said", "that,", "you", "know.")


def spoken(pitches=(120,) * 6, levels=(0.1,) * 6, seconds=(0.3,) * 6):
    """One tone with harmonics a word, 0.1 s of silence around each: the sound and its words."""
    sound, words, at = [np.zeros(1_600)], [], 0.1
    for word, pitch, level, long in zip(WORDS, pitches, levels, seconds, strict=False):
        times = np.arange(int(long * 16_000)) / 16_000
        tone = sum(np.sin(2 * np.pi * k * pitch * times) / k for k in range(1, 11))
        sound += [level * tone, np.zeros(1_600)]
        words.append({"word": word, "start": at, "end": at + len(times) / 16_000})
        at += len(times) / 16_000 + 0.1
    return np.concatenate(sound).astype(np.float32), words


def emphasis(config=EMPHASIS["paper"], **cues):
    sound, words = spoken(**cues)
    return find_emphasis(words, measure_prosody(sound), config)


@pytest.mark.parametrize("config", EMPHASIS.values(), ids=EMPHASIS)
@pytest.mark.parametrize(
    "cues",
    [
        {"pitches": (120, 120, 120, 180, 120, 120)},
        {"levels": (0.1, 0.1, 0.1, 0.3, 0.1, 0.1)},
        {"seconds": (0.3, 0.3, 0.3, 0.6, 0.3, 0.3)},
    ],
    ids=["pitch", "level", "duration"],
)
def test_each_cue_alone_marks_its_word(config, cues):
    found = emphasis(config, **cues)
    assert found.top == 3
    assert found.segment == (2, 5)
    assert found.text == "said that you"


def test_the_papers_formula():
    words = [
        {"word": w, "start": s, "end": e}
        for w, s, e in [("a", 0, 0.2), ("b", 0.2, 0.5), ("c", 0.5, 0.9), ("d", 0.9, 1.0)]
    ]
    pitch = np.repeat([100.0, 200.0, 150.0, 120.0], [20, 30, 40, 10])
    level = np.repeat([-30.0, -20.0, -25.0, -40.0], [20, 30, 40, 10])
    times = np.arange(100) * 0.01 + 0.005
    prosody = Prosody(times, pitch, level)

    def z(values):
        values = np.array(values)
        return (values - values.mean()) / values.std()

    found = find_emphasis(words, prosody)
    # The level frames stand at multiples of 10 ms; the first of each word is its own.
    expected = 1.0 * z(np.log([100, 200, 150, 120])) + 1.2 * z([-30, -20, -25, -40]) + 0.8 * z([0.2, 0.3, 0.4, 0.1])
    assert found.scores == pytest.approx(expected, abs=1e-6)


def test_a_late_peak_counts_for_the_word_before_it():
    times = np.arange(0, 2, 0.016)
    pitch = 120 + 60 * np.exp(-(((times - 0.95) / 0.08) ** 2))  # the top lies 0.15 s behind the second word's middle
    words = [{"word": w, "start": 0.4 * i, "end": 0.4 * i + 0.4} for i, w in enumerate("abcde")]
    prosody = Prosody(times, pitch, np.full(201, -20.0))
    assert find_emphasis(words, prosody, EmphasisConfig(pitch="peak")).top == 2
    assert find_emphasis(words, prosody, EmphasisConfig(pitch="peak", pitch_lag=0.2)).top == 1


def test_the_segment_is_clipped_at_the_edges():
    first = emphasis(levels=(0.3, 0.1, 0.1, 0.1, 0.1, 0.1))
    last = emphasis(levels=(0.1, 0.1, 0.1, 0.1, 0.1, 0.3))
    assert (first.segment, first.text) == ((0, 2), "I never")
    assert (last.segment, last.text) == ((4, 6), "you know")


def test_the_pitch_of_pieces_is_that_of_the_whole():
    sound, _ = spoken(levels=(0.3, 0.1, 0.1, 0.1, 0.1, 0.1))
    cut = 256 * (len(sound) // 512)  # at a frame of the tracker
    pieces = [sound[:cut], sound[cut:]]
    joined = joined_pitch([(measure_pitch(piece), len(piece) / 16_000) for piece in pieces])
    whole = measure_pitch(sound)
    assert np.abs(joined.times - whole.times).max() < 1e-6
    voiced = np.isfinite(joined.hertz) & np.isfinite(whole.hertz)
    assert voiced.mean() > 0.9 * np.isfinite(whole.hertz).mean() > 0.3
    assert np.median(np.abs(np.log2(joined.hertz[voiced] / whole.hertz[voiced]))) < 0.01


def test_three_words_or_fewer_are_the_segment():
    sound, words = spoken(levels=(0.3, 0.1, 0.1, 0.1, 0.1, 0.1))
    prosody = measure_prosody(sound)
    assert find_emphasis(words[:3], prosody).text == "I never said"
    one = find_emphasis(words[:1], prosody)
    assert (one.scores.tolist(), one.top, one.text) == ([0.0], 0, "I")


def test_no_words_no_emphasis():
    found = find_emphasis([], measure_prosody(np.zeros(8_000, np.float32)))
    assert (found.scores.size, found.top, found.text) == (0, None, None)


@pytest.mark.parametrize("config", EMPHASIS.values(), ids=EMPHASIS)
def test_a_silent_clip_is_decided_by_duration_alone(config):
    _, words = spoken(seconds=(0.3, 0.3, 0.6, 0.3, 0.3, 0.3))
    found = find_emphasis(words, measure_prosody(np.zeros(40_000, np.float32)), config)
    assert np.isfinite(found.scores).all()
    assert found.top == 2


def test_a_word_without_pitch_has_the_mean_pitch():
    sound, words = spoken(pitches=(120, 120, 120, 120, 120, 200))
    sound[1_600 : 1_600 + 4_800] = np.random.default_rng(0).standard_normal(4_800) * 0.05
    only_pitch = EmphasisConfig(energy_weight=0, duration_weight=0)
    found = find_emphasis(words, measure_prosody(sound), only_pitch)
    assert found.scores[0] == 0
    assert found.top == 5


@pytest.mark.parametrize("config", EMPHASIS.values(), ids=EMPHASIS)
def test_loudness_of_the_whole_clip_does_not_matter(config):
    sound, words = spoken(levels=(0.1, 0.12, 0.1, 0.2, 0.1, 0.1), pitches=(120, 130, 110, 150, 120, 100))
    loud, quiet = (find_emphasis(words, measure_prosody(gain * sound), config).scores for gain in (1.0, 0.1))
    assert loud == pytest.approx(quiet, abs=0.05)


def test_words_behind_the_end_of_the_sound_are_measured_at_its_end():
    sound, words = spoken()
    words[-1] |= {"start": 90.0, "end": 90.3}
    assert np.isfinite(find_emphasis(words, measure_prosody(sound)).scores).all()


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.4), (-0.1, 0.4), (float("nan"), 0.4), (0.1, float("inf"))])
def test_impossible_times_are_named(start, end):
    prosody = measure_prosody(np.zeros(8_000, np.float32))
    with pytest.raises(ValueError, match="the word 'no' lasts from"):
        find_emphasis([{"word": "no", "start": start, "end": end}], prosody)


@pytest.mark.parametrize(
    "wrong", [{"pitch": "max"}, {"energy": "loud"}, {"pitch_lag": 2.0}, {"pitch_lag": -0.5}, {"neighbors": -1}]
)
def test_impossible_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EmphasisConfig(**wrong)


def test_bare_word():
    assert [bare_word(w) for w in ("that,", "«no!»", "don't.", "--", "U.S.")] == ["that", "no", "don't", "", "U.S"]


def test_a_word_between_two_frames_is_measured_at_the_nearest_one():
    """Levels of 10 ms frames, and words of 2 ms: none has a frame of its own."""
    level = np.full(101, -60.0)
    level[30] = -10.0
    prosody = Prosody(np.arange(62) * 0.016, np.full(62, 120.0), level)
    words = [{"word": "w", "start": start, "end": start + 0.002} for start in (0.102, 0.202, 0.302, 0.402, 0.502)]
    found = find_emphasis(words, prosody, EmphasisConfig(pitch_weight=0.0, duration_weight=0.0, energy_weight=1.0))
    assert found.top == 2 and found.scores.round(3).tolist() == [-0.5, -0.5, 2.0, -0.5, -0.5]


def test_a_word_without_duration_is_measured_at_the_frame_of_its_time():
    sound, words = spoken(levels=(0.1, 0.1, 0.1, 0.9, 0.1, 0.1))
    middle = (words[3]["start"] + words[3]["end"]) / 2
    words[3] |= {"start": middle, "end": middle}
    config = EmphasisConfig(duration_weight=0.0)
    assert find_emphasis(words, measure_prosody(sound), config).top == 3


def test_durations_that_hardly_differ_do_not_count():
    times = np.arange(0, 1, 0.016)
    prosody = Prosody(times, np.full(len(times), 120.0), np.full(101, -20.0))
    for longer, is_seen in ((0.004, False), (0.006, True)):  # deviations of 1.7 and 2.6 ms
        ends = [0.2, 0.4, 0.6 + longer, 0.8 + longer]
        words = [{"word": "w", "start": max(0.0, end - 0.2), "end": end} for end in ends]
        words[2]["start"] = words[1]["end"]
        assert find_emphasis(words, prosody).scores.any() == is_seen


def test_no_neighbors_leave_the_top_word():
    sound, words = spoken(levels=(0.1, 0.1, 0.1, 0.9, 0.1, 0.1))
    assert find_emphasis(words, measure_prosody(sound), EmphasisConfig(neighbors=0)).text == "that"


@pytest.mark.parametrize("lag", [0.0, 1.0])
def test_the_ends_of_the_lag_are_allowed(lag):
    assert EmphasisConfig(pitch_lag=lag).pitch_lag == lag


def test_without_words_nothing_is_emphasized():
    found = find_emphasis([], Prosody(np.zeros(0), np.zeros(0), np.zeros(0)), EmphasisConfig())
    assert len(found.scores) == 0 and found.segment == (0, 0) and found.top is None and found.text is None


@pytest.mark.parametrize("lag", [0.0, 0.11])
def test_a_word_between_two_frames_has_the_pitch_of_the_nearest_one(lag):
    times = np.arange(60) * 0.016
    pitch = np.exp(np.random.default_rng(0).uniform(np.log(80), np.log(400), 60))
    edges = [(0.0, 0.2), (0.299, 0.301), (0.4, 0.6), (0.6, 0.8)]
    words = [{"word": f"w{i}", "start": start, "end": end} for i, (start, end) in enumerate(edges)]
    config = EmphasisConfig(pitch_weight=1.0, energy_weight=0.0, duration_weight=0.0, pitch_lag=lag)
    found = find_emphasis(words, Prosody(times, pitch, np.zeros(100)), config)
    inside = [(times >= start + lag) & (times < end + lag) for start, end in edges]
    assert not inside[1].any()
    inside[1] = np.arange(60) == np.abs(times - 0.3 - lag).argmin()
    means = np.array([np.log(pitch[of_word]).mean() for of_word in inside])
    assert found.scores == pytest.approx((means - means.mean()) / means.std(), abs=1e-9)
