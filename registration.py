"""The public names of the package; importing them makes the Auto classes of transformers know the model."""

# ruff: noqa: F401 - some are imported for the package alone

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, AutoProcessor

from .configuration_msfser import LABELS, SEMANTICS, MsfSerConfig
from .feature_extraction_msfser import MsfSerFeatureExtractor
from .loss_msfser import ccc_loss, concordance
from .modeling_msfser import MsfSerModel
from .output_msfser import MsfSerOutput
from .pipeline_msfser import MsfSerPipeline
from .processing_msfser import MsfSerCollator, MsfSerProcessor, from_scale, to_scale

AutoConfig.register(MsfSerConfig.model_type, MsfSerConfig)
AutoFeatureExtractor.register(MsfSerConfig, MsfSerFeatureExtractor)
AutoProcessor.register(MsfSerConfig, MsfSerProcessor)
AutoModel.register(MsfSerConfig, MsfSerModel)
AutoModelForAudioClassification.register(MsfSerConfig, MsfSerModel)
