"""Loads a saved folder as a stranger does: run by test_remote_code.py where the package cannot be imported.

    python -I tests/remote.py FOLDER RESULT

writes the predictions of each way of loading to RESULT (`.npz`).
"""

import sys
import tempfile
from pathlib import Path

# An editable install is found through its finder, which a stranger does not have.
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
try:
    import msfser  # noqa: F401
except ImportError:
    pass
else:
    raise SystemExit("the package can be imported: this would not test the folder's code")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import AutoModel, AutoModelForAudioClassification, AutoProcessor, pipeline  # noqa: E402

folder, result = sys.argv[1:]
model, info = AutoModel.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
    assert not info[problem], (problem, info[problem])
assert type(model).__module__.startswith("transformers_modules."), type(model)
with tempfile.TemporaryDirectory() as again:
    model.save_pretrained(again)
    assert {path.name for path in Path(folder).glob("*.py")} == {path.name for path in Path(again).glob("*.py")}
classifier = AutoModelForAudioClassification.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
ser = pipeline(model=folder, trust_remote_code=True, recognizer=None)
assert type(ser).__module__.startswith("transformers_modules."), type(ser)

sound = (np.random.default_rng(0).standard_normal(24_000) * 0.1).astype(np.float32)
texts = {"transcript": "the food was wonderful", "emphasis": "was wonderful", "description": "a b c"}
with torch.no_grad():
    full = processor(sound, sampling_rate=16_000, **texts)
    alone = processor(sound, sampling_rate=16_000)
    predictions = {
        "model": model(**full).logits[0].numpy(),
        "classifier": classifier(**full).logits[0].numpy(),
        "audio_only": model(**alone).logits[0].numpy(),
    }
rows = {
    "pipeline": ser(sound, sampling_rate=16_000),
    "pipeline_texts": ser({"audio": sound, "sampling_rate": 16_000, **texts}),
    "pipeline_batch": ser([sound, sound[:9_000]], sampling_rate=16_000, batch_size=2)[0],
}
for name, row in rows.items():
    predictions[name] = np.array([row[label] for label in ("valence", "arousal", "dominance")], np.float32)
np.savez(result, **predictions)
