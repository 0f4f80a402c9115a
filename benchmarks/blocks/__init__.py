"""What the pages of the documentation show of the results files, by the name of the block."""

from .model import MODEL
from .running import RUNNING
from .schema import Block
from .voices import VOICES

BLOCKS: dict[str, Block] = {**MODEL, **VOICES, **RUNNING}
