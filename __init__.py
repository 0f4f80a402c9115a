"""MSF-SER: valence, arousal and dominance from speech and three granularities of its text."""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, AutoProcessor

from .configuration_msfser import LABELS, SEMANTICS, MsfSerConfig
from .feature_extraction_msfser import MsfSerFeatureExtractor
from .loss_msfser import ccc_loss, concordance
from .modeling_msfser import MsfSerModel, MsfSerOutput
from .pipeline_msfser import MsfSerPipeline
from .processing_msfser import MsfSerCollator, MsfSerProcessor, from_scale, to_scale

AutoConfig.register(MsfSerConfig.model_type, MsfSerConfig)
AutoFeatureExtractor.register(MsfSerConfig, MsfSerFeatureExtractor)
AutoProcessor.register(MsfSerConfig, MsfSerProcessor)
AutoModel.register(MsfSerConfig, MsfSerModel)
AutoModelForAudioClassification.register(MsfSerConfig, MsfSerModel)

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
