"""The method's equations in plain NumPy and float64, written from the specification and not from the code.

One function is one equation, for one item without padding unless it says otherwise: what a batch or its padding
changes cannot enter here. "Paper" is arXiv 2510.05749; "baseline" is that of the Interspeech 2025 challenge, whose
pooling the paper uses; "ours" is a decision of this project where the paper is silent.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
EPSILON = 1e-5  # of every layer norm
DIMENSIONS = ("valence", "arousal", "dominance")


# Elementary functions


def sigmoid(x: Array) -> Array:
    """`1 / (1 + e^-x)`."""
    return 1 / (1 + np.exp(-x))


def softmax(x: Array, axis: int = -1) -> Array:
    """`e^x_i / sum_j e^x_j`."""
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def gelu(x: Array) -> Array:
    """`x Phi(x)`, with the normal distribution function itself and no approximation (Hendrycks and Gimpel, 2016)."""
    return x * 0.5 * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2)))


def layer_norm(x: Array, weight: Array | float = 1.0, bias: Array | float = 0.0) -> Array:
    """`weight * (x - mean) / sqrt(var + eps) + bias` over the last axis, with 1/N moments (Ba et al., 2016)."""
    centered = x - x.mean(-1, keepdims=True)
    return weight * centered / np.sqrt((centered**2).mean(-1, keepdims=True) + EPSILON) + bias


def linear(x: Array, weight: Array, bias: Array | float = 0.0) -> Array:
    """`W x + b` for each row of `x`."""
    return np.einsum("...i,oi->...o", x, weight) + bias


def under(parameters: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """The parameters of one part, by their names in it."""
    start = prefix + "."
    return {name.removeprefix(start): value for name, value in parameters.items() if name.startswith(start)}


def dense(x: Array, parameters: Mapping[str, Array], name: str) -> Array:
    """The linear layer `name`."""
    return linear(x, parameters[f"{name}.weight"], parameters.get(f"{name}.bias", 0.0))


# Sound


def layer_mix(states: Array, scores: Array) -> Array:
    """`sum_l softmax(a)_l LayerNorm(H_l)` of states `(states, frames, size)` (ours)."""
    shares = softmax(scores)
    return sum(share * layer_norm(state) for share, state in zip(shares, states, strict=True))


def attentive_statistics(frames: Array, weight: Array, bias: Array, v: Array) -> Array:
    """`h_t = tanh(W x_t + b)`, `w = softmax_t(v h_t)`, `[mean; std]` over frames `(frames, size)` (baseline).

    `mean = sum_t w_t x_t`, `std = sqrt(max(sum_t w_t (x_t - mean)^2, 1e-5))`.
    """
    shares = softmax(np.tanh(linear(frames, weight, bias)) @ v)
    mean = sum(share * frame for share, frame in zip(shares, frames, strict=True))
    variance = sum(share * (frame - mean) ** 2 for share, frame in zip(shares, frames, strict=True))
    return np.concatenate([mean, np.sqrt(np.maximum(variance, 1e-5))])


def convolution(x: Array, weight: Array, bias: Array, stride: int) -> Array:
    """A convolution over time of `x` `(frames, in)`, zeros on both sides, `weight` `(out, in, width)`."""
    width = weight.shape[2]
    padded = np.pad(x, ((width // 2, width // 2), (0, 0)))
    starts = range(0, len(padded) - width + 1, stride)
    return np.array([np.einsum("ti,oit->o", padded[start : start + width], weight) for start in starts]) + bias


def whisper_front_end(mel: Array, parameters: Mapping[str, Array]) -> Array:
    """`GELU(conv2(GELU(conv1(x)))) + positions` of `mel` `(mel frames, mels)` (Radford et al., 2022, section 2.2)."""
    x = gelu(convolution(mel, parameters["conv1.weight"], parameters["conv1.bias"], 1))
    x = gelu(convolution(x, parameters["conv2.weight"], parameters["conv2.bias"], 2))
    return x + parameters["embed_positions.weight"][: len(x)]


# Text


def mean_over_tokens(states: Array) -> Array:
    """The mean of `(real tokens, size)` (ours)."""
    return states.sum(0) / len(states)


def intra_modal_gate(h_les: Array, h_gs: Array, parameters: Mapping[str, Array]) -> tuple[Array, Array]:
    """`g = sigmoid(MLP([h_les; h_gs]))`, `h = g h_les + (1 - g) h_gs` (paper; one gate for each feature is ours)."""
    hidden = gelu(dense(np.concatenate([h_les, h_gs]), parameters, "hidden"))
    gate = sigmoid(dense(hidden, parameters, "gate"))
    return gate * h_les + (1 - gate) * h_gs, gate


def intra_modal_attention(h_les: Array, h_gs: Array, parameters: Mapping[str, Array]) -> Array:
    """`softmax_i(v tanh(W h_i + b))` over the two texts, one share for each (paper's comparison)."""
    scores = [dense(np.tanh(dense(h, parameters, "hidden")), parameters, "score")[0] for h in (h_les, h_gs)]
    share = math.exp(scores[0]) / (math.exp(scores[0]) + math.exp(scores[1]))
    return share * h_les + (1 - share) * h_gs


def intra_modal_concat(h_les: Array, h_gs: Array, parameters: Mapping[str, Array]) -> Array:
    """`W [h_les; h_gs] + b`."""
    return dense(np.concatenate([h_les, h_gs]), parameters, "project")


# Fusion


def kept_inputs(drawn: Mapping[str, float], shares: Mapping[str, float]) -> list[str]:
    """The inputs of an item, in their order, whose draws in 0..1 are not below their shares, but at least one (ours).

    Where all are below, the one whose draw is largest relative to its share stays, the first of equals.
    """
    kept = [name for name, draw in drawn.items() if draw >= shares[name]]
    if not kept and drawn:
        kept = [max(drawn, key=lambda name: drawn[name] / shares[name])]
    return kept


def film(x: Array, condition: Array, parameters: Mapping[str, Array]) -> Array:
    """`gamma x + beta`, `(gamma - 1, beta) = MLP(condition)`, for a vector or each frame (paper; the 1 is ours)."""
    both = dense(gelu(dense(condition, parameters, "hidden")), parameters, "modulation")
    size = x.shape[-1]
    gamma, beta = 1 + both[:size], both[size:]
    return gamma * x + beta


def expert(x: Array, parameters: Mapping[str, Array]) -> Array:
    """`GELU(LayerNorm(W x + b))` (ours)."""
    return gelu(layer_norm(dense(x, parameters, "project"), parameters["norm.weight"], parameters["norm.bias"]))


def routing(experts: Array, parameters: Mapping[str, Array]) -> Array:
    """`pi^(d) = softmax_k(table_dk [+ (W [E_1; ...; E_K] + b)_dk])`, `(dimensions, experts)` (paper; input: ours)."""
    scores = np.array(parameters["table"])
    if "by_input.weight" in parameters:
        by_input = dense(np.concatenate(list(experts)), parameters, "by_input")
        for d in range(scores.shape[0]):
            for k in range(scores.shape[1]):
                scores[d, k] += by_input[d * scores.shape[1] + k]
    return softmax(scores, axis=1)


def mixture(experts: Array, shares: Array) -> Array:
    """`z_d = sum_k pi_k^(d) E_k`, `(dimensions, width)` (paper)."""
    return np.array([sum(share * e for share, e in zip(of_d, experts, strict=True)) for of_d in shares])


def multi_head_attention(query: Array, keys: Array, heads: int, parameters: Mapping[str, Array]) -> Array:
    """`W_o [head_1; ...] + b_o`, `head_h = softmax(q_h k_h^T / sqrt(d)) v_h` for one query (Vaswani et al., 2017)."""
    width = len(query)
    weights = np.split(parameters["in_proj_weight"], 3)
    biases = np.split(parameters["in_proj_bias"], 3)
    q = linear(query, weights[0], biases[0]).reshape(heads, -1)
    k = linear(keys, weights[1], biases[1]).reshape(len(keys), heads, -1)
    v = linear(keys, weights[2], biases[2]).reshape(len(keys), heads, -1)
    attended = [
        softmax(k[:, head] @ q[head] / math.sqrt(width / heads)) @ v[:, head]  # (head size,)
        for head in range(heads)
    ]
    return dense(np.concatenate(attended), parameters, "out_proj")


def head(x: Array, parameters: Mapping[str, Array]) -> float:
    """`sigmoid(w GELU(LayerNorm(W x + b)) + c)` (two layers with layer norm: paper; sigmoid and GELU: ours)."""
    hidden = gelu(layer_norm(dense(x, parameters, "hidden"), parameters["norm.weight"], parameters["norm.bias"]))
    return float(sigmoid(dense(hidden, parameters, "out"))[0])


def cross_modal_fusion(
    sources: Sequence[tuple[str, Array]], kind: str, heads: int, parameters: Mapping[str, Array]
) -> tuple[Array, Array | None]:
    """The sources in the order sound, LES/GS, ES to `(dimensions, width)`, and the shares of `fm_moe`."""
    if kind == "film":
        sources = [(name, source) for name, source in sources if name == "audio"]
    experts = np.array([expert(source, under(parameters, f"experts.{name}")) for name, source in sources])
    if kind == "fm_moe":
        shares = routing(experts, under(parameters, "routing"))
        return mixture(experts, shares), shares
    if kind == "film":
        fused = experts[0]
    elif kind == "attention":
        attended = multi_head_attention(experts[0], experts, heads, under(parameters, "attention"))
        fused = layer_norm(experts[0] + attended, parameters["norm.weight"], parameters["norm.bias"])
    else:
        fused = dense(np.concatenate(list(experts)), parameters, "project")
    return np.array([fused] * len(DIMENSIONS)), None


def predict(item: Mapping[str, Array | None], switches: Mapping[str, Any], parameters: Mapping[str, Array]) -> dict:
    """One item from the encoders' outputs to the three numbers.

    Args:
        item: `audio`, the hidden states `(states, real frames, size)`; `les`, `gs`, `es`, vectors; `None` is missing.
        switches: The model's settings.
        parameters: The model's, by name.
    """
    texts = {}
    for name in switches["semantics"]:
        texts[name] = parameters[f"missing_text.{name}.embedding"] if item[name] is None else item[name]
    semantics, gate = texts.get("les", texts.get("gs")), None
    if "les" in texts and "gs" in texts:
        of_fusion = under(parameters, "intra_fusion")
        if switches["intra_fusion"] == "gate":
            semantics, gate = intra_modal_gate(texts["les"], texts["gs"], of_fusion)
        elif switches["intra_fusion"] == "attention":
            semantics = intra_modal_attention(texts["les"], texts["gs"], of_fusion)
        else:
            semantics = intra_modal_concat(texts["les"], texts["gs"], of_fusion)

    sources = [("semantics", semantics), ("description", texts.get("es"))]
    sources = [(name, source) for name, source in sources if source is not None]
    if switches["audio"]:
        # The mixture modulates the sound by LES and GS alone (paper); FiLM without a mixture by every text (ours).
        conditions = [s for name, s in sources if name == "semantics" or switches["cross_fusion"] == "film"]
        is_modulated = switches["cross_fusion"] in ("fm_moe", "film") and bool(conditions)
        of_film = under(parameters, "film")
        if item["audio"] is None:
            sound = parameters["missing_audio.embedding"]
        else:
            states = item["audio"]
            is_mixed = switches["audio_states"] == "weighted"
            frames = layer_mix(states, parameters["layer_mix.scores"]) if is_mixed else states[-1]
            if is_modulated and switches["film_position"] == "frames":
                frames = film(frames, np.concatenate(conditions), of_film)
            of_pooling = under(parameters, "pooling")
            pooled = attentive_statistics(
                frames, of_pooling["hidden.weight"], of_pooling["hidden.bias"], of_pooling["score.weight"][0]
            )
            sound = dense(pooled, parameters, "audio_projection")
        if is_modulated and switches["film_position"] == "pooled":
            sound = film(sound, np.concatenate(conditions), of_film)
        sources = [("audio", sound), *sources]

    fused, shares = cross_modal_fusion(
        sources, switches["cross_fusion"], switches["heads"], under(parameters, "cross_fusion")
    )
    logits = [head(z, under(parameters, f"heads.{name}")) for z, name in zip(fused, DIMENSIONS, strict=True)]
    return {"logits": np.array(logits), "gate": gate, "routing": shares, "embedding": fused.sum(0) / 3}


# Loss


def concordance(p: Array, y: Array) -> float:
    """`2 cov(p, y) / (var(p) + var(y) + (mean(p) - mean(y))^2)` of two columns, 1/N moments (Lin, 1989)."""
    n = len(p)
    mean_p, mean_y = sum(p) / n, sum(y) / n
    covariance = sum((a - mean_p) * (b - mean_y) for a, b in zip(p, y, strict=True)) / n
    var_p, var_y = sum((a - mean_p) ** 2 for a in p) / n, sum((b - mean_y) ** 2 for b in y) / n
    return 2 * covariance / (var_p + var_y + (mean_p - mean_y) ** 2)


def ccc_loss(p: Array, y: Array) -> float:
    """`sum_d (1 - CCC_d)` of `(items, dimensions)` (paper)."""
    return sum(1 - concordance(p[:, d], y[:, d]) for d in range(p.shape[1]))


def ccc_gradient(p: Array, y: Array) -> Array:
    """The derivative of [`ccc_loss`] by each prediction.

    With `s = 2 cov`, `q = var_p + var_y + (mean_p - mean_y)^2`: `ds/dp_i = 2 (y_i - mean_y) / n`,
    `dq/dp_i = 2 (p_i - mean_y) / n`, and the loss has `-(ds q - s dq) / q^2`.
    """
    n = len(p)
    s = 2 * ((p - p.mean(0)) * (y - y.mean(0))).mean(0)
    q = p.var(0) + y.var(0) + (p.mean(0) - y.mean(0)) ** 2
    return -(2 / n * (y - y.mean(0)) * q - s * 2 / n * (p - y.mean(0))) / q**2


# LEMF

LEMF_WEIGHTS = {"pitch": 1.0, "energy": 1.2, "duration": 0.8}  # paper
# Words that deviate by less do not differ (ours): log Hz, dB, seconds or their logarithm.
RESOLUTION = {"pitch": 0.002, "energy": 0.1, "duration": 0.002}


def z_scores(values: Sequence[float | None], resolution: float) -> Array:
    """`(x - mean) / std` with 1/N moments over what is known; 0 for `None` and where no word differs (ours)."""
    known = [value for value in values if value is not None]
    mean = sum(known) / max(len(known), 1)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in known) / max(len(known), 1))
    if deviation <= resolution:
        return np.zeros(len(values))
    return np.array([0.0 if value is None else (value - mean) / deviation for value in values])


def within(times: Array, start: float, end: float) -> list[int]:
    """The frames whose centers lie in `start..end`, or the one nearest to the middle if there is none (ours)."""
    inside = [i for i, time in enumerate(times) if start <= time < end]
    return inside or [min(range(len(times)), key=lambda i: abs(times[i] - (start + end) / 2))]


def lemf_scores(
    words: Sequence[Mapping[str, Any]],
    pitch_times: Array,
    pitch: Array,
    level_times: Array,
    level: Array,
    setting: str,
) -> Array:
    """`s_i = 1.0 z(log F0_i) + 1.2 z(energy_i) + 0.8 z(duration_i)`.

    `paper`: means over the word, F0 over voiced frames, seconds. `peak` (ours): the highest point of the contour,
    straight through unvoiced stretches and 0.15 s later; the highest level; the logarithm of the duration.
    """
    of_pitch: list[float | None] = []
    of_level, of_duration = [], []
    voiced = [i for i in range(len(pitch)) if math.isfinite(pitch[i])]
    line = np.interp(pitch_times, pitch_times[voiced], np.log(pitch[voiced]))
    for word in words:
        start, end = word["start"], word["end"]
        levels = [level[i] for i in within(level_times, start, end)]
        if setting == "paper":
            logs = [math.log(pitch[i]) for i in within(pitch_times, start, end) if i in voiced]
            of_pitch.append(sum(logs) / len(logs) if logs else None)
            of_level.append(sum(levels) / len(levels))
            of_duration.append(end - start)
        else:
            of_pitch.append(max(line[i] for i in within(pitch_times, start + 0.15, end + 0.15)))
            of_level.append(max(levels))
            of_duration.append(math.log(max(end - start, 0.03)))
    return (
        LEMF_WEIGHTS["pitch"] * z_scores(of_pitch, RESOLUTION["pitch"])
        + LEMF_WEIGHTS["energy"] * z_scores(of_level, RESOLUTION["energy"])
        + LEMF_WEIGHTS["duration"] * z_scores(of_duration, RESOLUTION["duration"])
    )


def lemf_segment(scores: Array) -> list[int]:
    """The top word and one neighbor on each side, clipped at the edges; all of three words or fewer (paper, ours)."""
    if len(scores) <= 3:
        return list(range(len(scores)))
    top = max(range(len(scores)), key=lambda i: scores[i])
    return [i for i in (top - 1, top, top + 1) if 0 <= i < len(scores)]


# Measures of a voice


def level_in_db(sound: Array) -> Array:
    """`10 log10` of the mean square over 25 ms around each 10 ms, at least -100 (zeros outside the sound)."""
    padded = np.pad(sound.astype(np.float64), 400)
    centers = [160 * i + 400 for i in range(len(sound) // 160 + 1)]
    power = [(padded[center - 200 : center + 200] ** 2).mean() for center in centers]
    return np.array([10 * math.log10(max(p, 1e-10)) for p in power])


def voice_measures(pitch: Array, level: Array) -> dict[str, float]:
    """Loudness, pitch, movement and pauses of frames 10 ms (level) and 16 ms (pitch) apart (ours).

    Speech is what lies less than 30 dB below the loudest frame; a pause is a gap of 0.15 s or more in it.
    """
    semitones = sorted(12 * math.log2(hertz / 100) for hertz in pitch if math.isfinite(hertz))
    speech = [i for i, db in enumerate(level) if db > max(level) - 30]
    gaps = [after - before - 1 for before, after in itertools.pairwise(speech)]
    pauses = sum(gap for gap in gaps if gap >= 15)
    return {
        "loudness": sum(level[i] for i in speech) / len(speech),
        "pitch": float(np.percentile(semitones, 50)),
        "movement": float(np.percentile(semitones, 95) - np.percentile(semitones, 5)),
        "pauses": pauses / (speech[-1] + 1 - speech[0]),
    }


def syllables(pitch_times: Array, pitch: Array, level: Array) -> int:
    """Voiced peaks of the level (mean of 5 frames), less than 30 dB below the highest, each after a dip of 2 dB.

    After de Jong and Wempe, 2009. Of peaks without such a dip between them, the highest is the syllable. A frame is
    voiced if the nearer pitch frame is.
    """
    wide = [level[0], level[0], *level, level[-1], level[-1]]
    smooth = [sum(wide[i : i + 5]) / 5 for i in range(len(level))]
    voiced = np.interp(np.arange(len(level)) * 0.01, pitch_times, [float(math.isfinite(hertz)) for hertz in pitch])
    peaks: list[int] = []
    for i in range(1, len(level) - 1):
        if not smooth[i - 1] < smooth[i] >= smooth[i + 1] or voiced[i] < 0.5 or smooth[i] <= max(smooth) - 30:
            continue
        if not peaks or smooth[i] - min(smooth[peaks[-1] : i]) >= 2:
            peaks.append(i)
        elif smooth[i] > smooth[peaks[-1]]:
            peaks[-1] = i
    return len(peaks)


def voiced_frames(sound: Array, pitch_times: Array, pitch: Array, samples: int) -> list[tuple[Array, float]]:
    """The samples around the center of each voiced frame, zeros outside the sound, and its pitch."""
    padded = np.pad(sound.astype(np.float64), samples)
    found = []
    for time, hertz in zip(pitch_times, pitch, strict=True):
        if math.isfinite(hertz):
            center = min(round(time * 16_000), len(sound)) + samples
            found.append((padded[center - samples // 2 : center + samples // 2], hertz))
    return found


def brightness(sound: Array, pitch_times: Array, pitch: Array) -> float:
    """Power of the voiced frames (32 ms, Hann) in 1-5 kHz over that in 50-1000 Hz, dB (ours)."""
    low = high = 1e-12
    hertz = [k * 16_000 / 512 for k in range(257)]
    window = [0.5 - 0.5 * math.cos(2 * math.pi * i / 511) for i in range(512)]
    for frame, _ in voiced_frames(sound, pitch_times, pitch, 512):
        power = np.abs(np.fft.fft(frame * window)[:257]) ** 2
        low += sum(p for p, f in zip(power, hertz, strict=True) if 50 <= f < 1000)
        high += sum(p for p, f in zip(power, hertz, strict=True) if 1000 <= f < 5000)
    return 10 * math.log10(high / low)


def clarity(sound: Array, pitch_times: Array, pitch: Array) -> float:
    """Harmonics-to-noise ratio, dB: `10 log10(r / (1 - r))`, `r` the median correlation with one period later.

    After Boersma, 1993: the middle 48 ms of each voiced frame of 96 ms, without its mean, against the same one period
    later; the best of five lags around the period.
    """
    best = []
    for frame, hertz in voiced_frames(sound, pitch_times, pitch, 1536):
        frame, found = frame - frame.mean(), []
        for lag in range(round(16_000 / hertz) - 2, round(16_000 / hertz) + 3):
            here, later = frame[384:1152], frame[384 + lag : 1152 + lag]
            found.append(here @ later / math.sqrt((here @ here) * (later @ later) + 1e-12))
        best.append(max(found))
    r = min(max(float(np.percentile(best, 50)), 1e-3), 1 - 1e-3)
    return 10 * math.log10(r / (1 - r))


def step_of(value: float, quantiles: Sequence[float], is_pauses: bool = False) -> int:
    """Which of five steps a measure reaches: the quantiles that it is not below.

    The norms of pauses are those of utterances that have some, and the first step is kept for none at all.
    """
    step = sum(value >= quantile for quantile in quantiles)
    if is_pauses:
        return 0 if value == 0 else max(step, 1)
    return step


# Long recordings


def segment_ends(sound: Array, longest: int) -> list[int]:
    """Where the segments of a recording at 16 kHz end, in samples (ours).

    A segment ends in the middle of the quietest 0.2 s of its last third, to 0.1 s, if these are 10 dB or more below
    its mean power, and at its greatest length otherwise.
    """
    ends, start = [], 0
    while len(sound) - start > longest:
        segment = sound[start : start + longest].astype(np.float64)
        first = int(longest * 2 / 3)
        candidates = range(first, longest - 3200 + 1, 320)
        power = {i: (segment[i : i + 3200] ** 2).mean() for i in candidates}
        best = min(power, key=power.get, default=None)
        if best is not None and power[best] < (segment**2).mean() / 10:
            start += round((best + 1600) / 1600) * 1600
        else:
            start += longest
        ends.append(start)
    return [*ends, len(sound)]


def seconds_of_windows(ends: Sequence[float]) -> Array:
    """The weight of each window of two consecutive segments: its seconds, a second in two windows half in each."""
    borders = [0, *ends]
    weights = np.zeros(len(ends) - 1)
    for segment in range(len(ends)):
        windows = [i for i in (segment - 1, segment) if 0 <= i < len(weights)]
        for i in windows:
            weights[i] += (borders[segment + 1] - borders[segment]) / len(windows)
    return weights


def speech_of_windows(ends: Sequence[float], words: Sequence[Mapping[str, Any]]) -> Array:
    """The same, of the seconds that lie in words; a word belongs to the segment of its middle."""
    borders = [0, *ends]
    weights = np.zeros(len(ends) - 1)
    for word in words:
        middle = (word["start"] + word["end"]) / 2
        segment = max(i for i in range(len(ends)) if borders[i] <= middle)
        windows = [i for i in (segment - 1, segment) if 0 <= i < len(weights)]
        for i in windows:
            weights[i] += (word["end"] - word["start"]) / len(windows)
    return weights
