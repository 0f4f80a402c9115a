"""The commands of `msfser`: one line each."""

from typing import NamedTuple


class Command(NamedTuple):
    """A row of `COMMANDS`.

    Args:
        module: Its `main(argv)` runs the command; it is imported only then.
        purpose: What `msfser --help` says about the command.
        extras: The optional dependencies that it needs, as in `pip install "msfser[train]"`.
    """

    module: str
    purpose: str
    extras: str = ""


# A new command is one line here.
COMMANDS: dict[str, Command] = {
    "train": Command("train", "fine-tune a model on a corpus, evaluate it and save it", "train"),
    "annotate": Command(
        "annotation.annotate", "add transcripts, emphasized words and descriptions to a corpus", "annotate"
    ),
    "predict": Command("prediction.predict", "predict many recordings and write a table", "train"),
    "live": Command("prediction.live", "predict sound as it arrives, such as that of a microphone"),
    "evaluate": Command("evaluation.evaluate", "score a model on a corpus", "train"),
    "norms": Command("annotation.norms", "measure a corpus as the norms of measured descriptions", "annotate"),
    "ablate": Command("evaluation.ablation", "train and compare variants of a model over several seeds", "train"),
    "report": Command("evaluation.report", "write a page about a finished run", "train"),
    "export": Command("hub.export", "export a model to ONNX", "onnx"),
    "convert": Command("hub.convert", "convert the baseline of the MSP-Podcast challenges", "train"),
    "publish": Command("hub.publish", "publish a model on the Hugging Face Hub", "train"),
    "encoders": Command("hub.encoders", "fetch the published encoders where the Hugging Face Hub is out of reach"),
    "starter": Command("starter.assemble", "assemble the starter model from its weights and encoders"),
    "space": Command("space.app", "run the demo page", "space"),
}
