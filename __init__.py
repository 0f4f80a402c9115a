"""MSF-SER: valence, arousal and dominance from speech and three granularities of its text.

A command answers at once because importing the package imports nothing else. The first use of a public name, such as
`from msfser import MsfSerModel`, imports all of them and makes the Auto classes of transformers know the model.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .registration import (
        LABELS,
        SEMANTICS,
        MsfSerCollator,
        MsfSerConfig,
        MsfSerFeatureExtractor,
        MsfSerModel,
        MsfSerOutput,
        MsfSerPipeline,
        MsfSerProcessor,
        ccc_loss,
        concordance,
        from_scale,
        to_scale,
    )

__all__ = [
    "LABELS",
    "SEMANTICS",
    "MsfSerCollator",
    "MsfSerConfig",
    "MsfSerFeatureExtractor",
    "MsfSerModel",
    "MsfSerOutput",
    "MsfSerPipeline",
    "MsfSerProcessor",
    "ccc_loss",
    "concordance",
    "from_scale",
    "to_scale",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    public = importlib.import_module(f"{__name__}.registration")
    globals().update({each: getattr(public, each) for each in __all__})
    return globals()[name]
