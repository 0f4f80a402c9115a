"""Runs that start from a trained model: its weights, config and processor; what is refused; adapters."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from tiny import noise, tiny_model, tiny_processor
from tiny_run import command as new_command
from tiny_run import make_tiny, score_rows, weights
from transformers import TrainingArguments, pipeline

from msfser import LABELS, MsfSerConfig, MsfSerModel, MsfSerProcessor
from msfser.cli.main import main as msfser
from msfser.description_msfser import NORMS
from msfser.evaluation.evaluate import evaluate
from msfser.hub.card import render_card
from msfser.prediction.model_messages import license_message
from msfser.starter.assemble import STARTERS
from msfser.train import main
from msfser.training.adapters import with_adapters
from msfser.training.data_identity import INITIAL, inputs_of, read_identity, write_identity
from msfser.training.initialization import build_model
from msfser.training.settings import RunSettings, parse_settings, read_data, read_run, write_run
from msfser.training.trainer import MsfSerTrainer

CONFIG = Path(__file__).parents[2] / "configs" / "finetune.yaml"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """The tiny corpus, and a trained model in `start`."""
    folder = make_tiny(tmp_path_factory.mktemp("tiny"))
    model = tiny_model("whisper", audio_states="weighted", freeze_audio="all", fusion_size=12, head_dropout=0.3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "_encoder" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder / "start")
    processor = tiny_processor("whisper")
    processor.feature_extractor.max_seconds = 9.0
    processor.save_pretrained(folder / "start")
    return folder


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> Path:
    """A finished run, not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    main(command(tiny, folder))
    return folder


def command(tiny: Path, output: Path, *more: str) -> list[str]:
    options = ["--init_from", str(tiny / "start"), "--data", str(tiny / "corpus"), "--output_dir", str(output)]
    return [str(CONFIG), *options, "--num_train_epochs", "2", "--use_cpu", "true", *more]


def refused(argv: list[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    return str(stop.value)


def without_intervals(of_run: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in of_run.items() if not name.startswith("intervals.")}


def test_model_and_processor_are_those_that_were_saved(tiny, tmp_path):
    settings = parse_settings(command(tiny, tmp_path / "run", "--head_dropout", "0.1"))
    model, processor = build_model(settings.run, settings.model)
    saved = MsfSerModel.from_pretrained(tiny / "start")
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in saved.state_dict().items())
    assert settings.model.fusion_size == 12 and settings.run.max_seconds == 9.0
    assert inputs_of(settings.model) == inputs_of(saved.config)
    of_start = MsfSerProcessor.from_pretrained(tiny / "start")
    assert processor.feature_extractor.to_dict() == of_start.feature_extractor.to_dict()
    # What does not change the weights may be set anew.
    assert model.config.head_dropout == 0.1 and saved.config.head_dropout == 0.3
    inputs = processor(noise(1.0), 16_000, transcript="a b")
    assert torch.equal(model(**inputs).logits, saved.eval()(**inputs).logits)


def test_texts_are_mostly_left_out_in_training_unless_said_otherwise(tiny, tmp_path):
    assert MsfSerConfig.from_pretrained(tiny / "start").text_dropout < 0.5
    shares = []
    for more in ([], ["--text_dropout", "0"]):
        settings = parse_settings(command(tiny, tmp_path / "run", *more))
        shares.append(build_model(settings.run, settings.model)[0].config.text_dropout)
    assert shares == [0.9, 0]


def test_a_trained_model_is_not_fine_tuned_on_the_probe_corpus_unasked(tiny, tmp_path):
    argv = command(tiny, tmp_path / "run")
    at = argv.index("--data")
    words = "init_from fine-tunes .*start on your data: give a table, --data my_corpus/metadata.csv"
    assert re.search(words, refused(argv[:at] + argv[at + 2 :]))
    argv[at + 1] = "probe"
    assert parse_settings(argv).run.data == "probe"


def test_training_goes_on_from_its_weights(tiny, tmp_path):
    main(command(tiny, tmp_path / "run", "--learning_rate", "1e-12"))
    start, end = weights(tiny / "start"), weights(tmp_path / "run")
    assert start.keys() == without_intervals(end).keys() != end.keys()
    assert all(torch.allclose(weight, end[name], atol=1e-6) for name, weight in start.items())
    main(command(tiny, tmp_path / "other", "--learning_rate", "1e-3"))
    end = weights(tmp_path / "other")
    moved = {name for name, weight in start.items() if not torch.allclose(weight, end[name], atol=1e-5)}
    assert any(name.startswith("heads.") for name in moved)
    assert not any("_encoder" in name for name in moved)


def test_no_intervals_of_the_start_are_kept(trained, tiny, tmp_path):
    """They are those of other numbers."""
    start = MsfSerModel.from_pretrained(trained)
    assert start.config.intervals and start.config.scale
    argv = command(tiny, tmp_path / "run", "--num_train_epochs", "1")
    argv[argv.index("--init_from") + 1] = str(trained)
    main([*argv, "--intervals", "false"])
    assert len(score_rows(tmp_path / "run", intervals=set())) == 12
    end = MsfSerModel.from_pretrained(tmp_path / "run")
    assert end.intervals is None and not end.config.intervals and end.config.scale is None
    assert weights(tmp_path / "run").keys() == without_intervals(weights(trained)).keys()


@pytest.mark.parametrize("kept", [[], ["transcript"]])
def test_the_pipeline_reads_the_texts_that_were_trained(tiny, tmp_path, kept, caplog):
    for name in ("start", "corpus"):
        shutil.copytree(tiny / name, tmp_path / name)
    processor = MsfSerProcessor.from_pretrained(tmp_path / "start")
    processor.annotation = {
        "transcript": {"recognizer": "a/b", "language": None},
        "emphasis": {},
        "description": {"describer": "measured", "norms": NORMS},
    }
    processor.save_pretrained(tmp_path / "start")
    table = pd.read_csv(tmp_path / "corpus" / "metadata.csv")
    absent = [text for text in ("transcript", "description") if text not in kept]
    table.drop(columns=absent).to_csv(tmp_path / "corpus" / "metadata.csv", index=False)
    argv = command(tmp_path, tmp_path / "run", "--num_train_epochs", "1")
    main(argv)
    assert ("trained on the sound alone, and reads the sound alone afterwards" in caplog.text) == (not kept)
    assert ("no training row has the text 'description', which the model can read" in caplog.text) == bool(kept)
    annotation = MsfSerProcessor.from_pretrained(tmp_path / "run").annotation
    assert annotation["transcript"]["recognizer"] == ("a/b" if kept else "none")
    pipe = pipeline(model=str(tmp_path / "run"), trust_remote_code=True)
    clip = str(tmp_path / "corpus" / "3.wav")
    result = pipe({"audio": clip} | {text: table[text][3] for text in kept}, recognizer=None if kept else "as trained")
    assert result["texts"]["description"] == "absent: no describer"
    main([*argv, "--do_predict", "true"])
    predicted = pd.read_csv(tmp_path / "run" / "predictions.csv").set_index("file").loc["3.wav"]
    assert [result[name] for name in LABELS] == pytest.approx([predicted[name] for name in LABELS], abs=1e-5)
    if not kept:
        assert result["transcript"] is None and result["texts"]["transcript"] == "absent: no recognizer"


def test_a_new_model_without_words_needs_no_recognizer(tiny, tmp_path):
    shutil.copytree(tiny / "corpus", tmp_path / "corpus")
    data = tmp_path / "corpus" / "metadata.csv"
    pd.read_csv(data).drop(columns="transcript").to_csv(data, index=False)
    main(new_command(tiny, tmp_path / "run", "--data", str(data), "--num_train_epochs", "1"))
    pipe = pipeline(model=str(tmp_path / "run"), trust_remote_code=True)
    clip = str(tmp_path / "corpus" / "3.wav")
    assert pipe(clip)["texts"]["transcript"] == "absent: no recognizer"


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("fusion_size", "16", "fusion_size is 16, and that of the model .* is 12"),
        ("semantics", "gs", "semantics is gs, and that of the model .* is les gs es"),
        ("audio_states", "last", "audio_states is last, and that of the model .* is weighted"),
    ],
)
def test_settings_that_contradict_the_model_are_refused(tiny, tmp_path, setting, value, named):
    message = refused(command(tiny, tmp_path / "run", f"--{setting}", value))
    assert re.search(named, message) and "leave it out" in message and message.count("\n") == 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("is_new", [False, True])
def test_recordings_that_are_too_long_for_whisper_are_refused(tiny, tmp_path, is_new):
    make = new_command if is_new else command
    message = refused(make(tiny, tmp_path / "run", "--max_seconds", "40"))
    # The tiny encoder has fewer positions than the pretrained ones, which end at 30 s.
    assert "max_seconds cannot be 40, as a Whisper encoder reads 14 s; give 14 or less" in message


def test_another_encoder_is_refused(tiny, tmp_path):
    model = MsfSerModel.from_encoders(str(tiny / "audio"), None, semantics=[])
    model.config.audio_config._name_or_path = "openai/whisper-tiny.en"
    model.save_pretrained(tmp_path / "start")
    tiny_processor("whisper").save_pretrained(tmp_path / "start")
    argv = command(tiny, tmp_path / "run")
    argv[argv.index("--init_from") + 1] = str(tmp_path / "start")
    assert parse_settings(argv).run.audio_encoder == "openai/whisper-tiny.en"
    message = refused([*argv, "--audio_encoder", "microsoft/wavlm-large"])
    assert "audio_encoder is microsoft/wavlm-large, and that of the model" in message


def test_a_model_that_is_not_there_is_a_sentence(tiny, tmp_path):
    argv = command(tiny, tmp_path / "run")
    argv[argv.index("--init_from") + 1] = str(tmp_path)
    assert "contains no model" in refused(argv)


@pytest.mark.parametrize("rank", [0, 2])
def test_an_interrupted_run_ends_with_the_weights_of_an_undisturbed_one(tiny, trained, tmp_path, monkeypatch, rank):
    whole, more = trained, ["--lora_rank", str(rank)]
    if rank:
        pytest.importorskip("peft")
        whole = tmp_path / "whole"
        main(command(tiny, whole, *more))
    step, steps = MsfSerTrainer.training_step, []

    def stopped(self, *args):
        steps.append(1)
        if len(steps) == 2:
            raise KeyboardInterrupt
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(MsfSerTrainer, "training_step", stopped)
        with pytest.raises(SystemExit):
            main(command(tiny, tmp_path / "stopped", *more))
    assert list((tmp_path / "stopped").glob("checkpoint-*"))
    main(command(tiny, tmp_path / "stopped", *more))
    resumed = weights(tmp_path / "stopped")
    assert all(torch.allclose(weight, resumed[name], atol=1e-6) for name, weight in weights(whole).items())


def test_a_run_notices_that_the_model_it_started_from_has_changed(tiny, tmp_path):
    start = Path(shutil.copytree(tiny / "start", tmp_path / "start"))
    argv = command(tiny, tmp_path / "run")
    argv[argv.index("--init_from") + 1] = str(start)
    main(argv)
    main(argv)
    shutil.copytree(tmp_path / "run", start, dirs_exist_ok=True)
    assert "data have changed since (init_from: model)" in refused(argv)


def test_cross_validation_starts_each_fold_from_the_model(tiny, trained, tmp_path, monkeypatch):
    seen, train = [], MsfSerTrainer.train

    def watched(self, *args, **kwargs):
        seen.append({name: weight.clone() for name, weight in self.model.state_dict().items()})
        return train(self, *args, **kwargs)

    monkeypatch.setattr(MsfSerTrainer, "train", watched)
    # The settings of a finished run can be given again.
    options = ["--cross_validate", "speaker", "--folds", "2", "--output_dir", str(tmp_path / "folds")]
    main([str(trained / "run.yaml"), *options])
    start = weights(tiny / "start")
    assert len(seen) == 2 and all(torch.equal(of_fold[name], start[name]) for of_fold in seen for name in start)
    assert (tmp_path / "folds" / "predictions.csv").is_file()


def test_what_the_model_was_trained_on_is_said(tiny, trained, tmp_path, caplog, monkeypatch):
    """As `msfser evaluate` does; the test part of a run is none of its training."""
    caplog.set_level("INFO")
    words = f"{trained} was trained on rows of {tiny / 'corpus'}: their scores are too high."
    fitted = MsfSerModel.from_pretrained(tiny / "start")
    STARTERS["starter-open"].license.add_to(fitted.config)
    fitted.save_pretrained(tmp_path / "open")
    MsfSerProcessor.from_pretrained(tiny / "start").save_pretrained(tmp_path / "open")
    monkeypatch.setattr(MsfSerTrainer, "train", lambda *_, **__: (_ for _ in ()).throw(ValueError("enough.")))
    folds = ["--cross_validate", "speaker", "--folds", "2"]
    for start, more, said in (
        (trained, folds, words),
        (trained, [], None),
        (tmp_path / "open", [], "was fitted to EmoDB: scores on their speakers are too high."),
    ):
        caplog.clear()
        argv = command(tiny, tmp_path / f"run{len(more)}{start.name}", "--init_from", str(start), *more)
        assert "enough." in refused(argv)
        assert said in caplog.text if said else "too high" not in caplog.text


def test_a_table_without_texts_and_a_model_that_reads_them(tiny, tmp_path):
    corpus = Path(shutil.copytree(tiny / "corpus", tmp_path / "corpus"))
    table = pd.read_csv(corpus / "metadata.csv").drop(columns=["transcript", "description"])
    table.to_csv(corpus / "metadata.csv", index=False)
    argv = command(tiny, tmp_path / "run")
    argv[argv.index("--data") + 1] = str(corpus)
    main(argv)
    assert {row["name"].split("/")[1] for row in score_rows(tmp_path / "run")} == {"audio"}
    assert MsfSerModel.from_pretrained(tmp_path / "run").config.semantics == ["les", "gs", "es"]


def test_a_dozen_clips_of_four_speakers_are_enough(tiny, tmp_path):
    corpus = Path(shutil.copytree(tiny / "corpus", tmp_path / "corpus"))
    table = pd.read_csv(corpus / "metadata.csv")[:12].drop(columns="split")
    table.assign(speaker_id=[f"s{i % 4}" for i in range(12)]).to_csv(corpus / "metadata.csv", index=False)
    argv = command(tiny, tmp_path / "run")
    argv[argv.index("--data") + 1] = str(corpus)
    main(argv)
    assert (tmp_path / "run" / "results.json").is_file()


OF_STARTER = "CC BY-NC-SA 4.0 (of RAVDESS speech and nEMO): not for commercial use"


@pytest.mark.parametrize(
    ("start", "was_folder", "model", "license"),
    [
        (None, True, "a model that is not on the Hub", "not stated"),
        ("starter", True, "the model starter of MSF-SER for Transformers", OF_STARTER),
        ("outputs/starter", True, "a model that is not on the Hub", "not stated"),
        ("me/other", False, "me/other", "see its page on the Hub"),
    ],
)
def test_the_card_says_what_the_model_started_from(trained, tmp_path, start, was_folder, model, license):
    """Its license goes with the weights. A folder may be called like a model on the Hub."""
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    settings = read_run(folder).resolved()
    write_run(folder, settings | ({} if start is None else {"init_from": start}))
    if not was_folder:
        write_identity(folder, {name: part for name, part in read_identity(folder).items() if name != INITIAL})
    card = str(render_card(folder, "me/mine", "v1", corpus_name="Ours", corpus_license="cc0-1.0"))
    assert settings["init_from"] not in card
    assert f"| weights that training started from: {model} | {license} |" in card
    assert "license: other" in card


@pytest.mark.parametrize("stated", ["config", "card"])
def test_the_license_of_the_start_is_that_of_each_model_trained_from_it(tiny, tmp_path, stated, caplog):
    """In the folder that the starter is assembled in, and in a model that is trained from a trained one."""
    start = Path(shutil.copytree(tiny / "start", tmp_path / "outputs" / "starter"))
    if stated == "config":
        config = MsfSerConfig.from_pretrained(start)
        STARTERS["starter"].license.add_to(config)
        config.save_pretrained(start)
        terms = OF_STARTER
    else:
        (start / "README.md").write_text("---\nlicense: cc-by-nc-sa-4.0\n---\n# Mine\n")
        terms = "CC BY-NC-SA 4.0: not for commercial use"
    for name in ("first", "second"):
        argv = command(tiny, tmp_path / name, "--num_train_epochs", "1")
        argv[argv.index("--init_from") + 1] = str(start)
        with caplog.at_level("INFO"):
            main(argv)
        start = tmp_path / name
        assert f"licensed under {terms}. This also applies to any model trained from them." in caplog.text
        caplog.clear()
    config = MsfSerConfig.from_pretrained(start)
    assert license_message(str(start), config) == f"the license of the weights: {terms}."
    card = str(render_card(start, "me/mine", "v1", corpus_name="Ours", corpus_license="cc0-1.0"))
    assert f"| weights that training started from: a model that is not on the Hub | {terms} |" in card
    assert license_message("me/other", MsfSerConfig()) == "the license of the weights: see its page on the Hub."
    # The card of a published model may state more.
    (start / "README.md").write_text("---\nlicense: cc-by-nc-nd-4.0\n---\n# Mine\n")
    assert license_message(str(start), config).endswith(f"cc-by-nc-nd-4.0: not for commercial use; {terms}.")


ANNOTATION = {
    "transcript": {"recognizer": "a/b"},
    "emphasis": {},
    "description": {"describer": "measured", "norms": {"quantiles": {}}},
}


@pytest.mark.parametrize("annotated", [False, True])
def test_the_card_says_how_the_texts_of_the_data_were_made(tiny, tmp_path, annotated):
    """Those of the model that the run starts from were made otherwise."""
    start = Path(shutil.copytree(tiny / "start", tmp_path / "start"))
    processor = MsfSerProcessor.from_pretrained(start)
    processor.annotation = ANNOTATION | {"transcript": {"recognizer": "c/d"}}
    processor.save_pretrained(start)
    corpus = Path(shutil.copytree(tiny / "corpus", tmp_path / "corpus"))
    table = pd.read_csv(corpus / "metadata.csv")
    rest = table["split"] == "train"
    table.loc[table.index[rest][:6], "transcript"] = None
    table.drop(columns=["description"]).to_csv(corpus / "metadata.csv", index=False)
    if annotated:
        (corpus / "annotation.json").write_text(json.dumps({"settings": ANNOTATION}))
    argv = command(tiny, tmp_path / "run", "--num_train_epochs", "1")
    argv[argv.index("--init_from") + 1] = str(start)
    argv[argv.index("--data") + 1] = str(corpus)
    main(argv)
    card = " ".join(str(render_card(tmp_path / "run", "me/mine", "v1")).split())
    assert "- **Inputs in the training data:** audio, transcript (75% of the utterances)." in card
    generated = "generated: transcripts by `a/b`, descriptions by measuring the voice."
    assert (generated in card) == annotated == ("generated:" in card)
    # The pipeline makes them as the processor says.
    assert f"it loads `{'a/b' if annotated else 'c/d'}` to transcribe" in card


# LoRA


def test_adapters_are_trained_in_place_of_the_encoders_and_merged(tiny, tmp_path):
    pytest.importorskip("peft")
    more = ["--lora_rank", "2", "--encoder_learning_rate", "1e-2"]
    main(command(tiny, tmp_path / "run", *more))
    _, info = MsfSerModel.from_pretrained(tmp_path / "run", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    start, end = weights(tiny / "start"), weights(tmp_path / "run")
    assert start.keys() == without_intervals(end).keys() != end.keys()
    moved = {name for name, weight in start.items() if not torch.allclose(weight, end[name], atol=1e-6)}
    adapted = {name.split(".")[-2] for name in moved if "_encoder" in name}
    assert adapted == {"q_proj", "v_proj", "query", "value"}
    assert any(name.startswith("heads.") for name in moved)


def test_adapters_have_the_rate_of_the_encoders(tiny, tmp_path):
    pytest.importorskip("peft")
    model = with_adapters(MsfSerModel.from_pretrained(tiny / "start"), 2)
    trainer = MsfSerTrainer(
        model,
        TrainingArguments(str(tmp_path), learning_rate=1e-3, use_cpu=True, report_to="none"),
        encoder_learning_rate=1e-2,
        mixing_lr_scale=20.0,
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in trainer.create_optimizer().param_groups for p in group["params"]}
    assert {rate for name, rate in rates.items() if "lora_" in name} == {1e-2}
    mixing = {name.split(".")[2] for name, rate in rates.items() if rate == pytest.approx(2e-2)}
    assert mixing == {"layer_mix", "cross_fusion"}
    assert {rate for name, rate in rates.items() if ".heads." in name} == {1e-3}


def test_a_negative_rank_is_refused(tiny, tmp_path):
    assert "lora_rank cannot be -1" in refused(command(tiny, tmp_path / "run", "--lora_rank", "-1"))


def test_a_run_inherits_the_languages_of_the_words(tiny, tmp_path, caplog):
    """In training, evaluation, and prediction alike."""
    for name in ("start", "corpus"):
        shutil.copytree(tiny / name, tmp_path / name)
    processor = MsfSerProcessor.from_pretrained(tmp_path / "start")
    processor.text_languages = ["en"]
    processor.save_pretrained(tmp_path / "start")
    data = tmp_path / "corpus" / "metadata.csv"
    pd.read_csv(data).assign(language="pl").to_csv(data, index=False)
    argv = command(tmp_path, tmp_path / "run")
    settings = parse_settings(argv)
    parts = read_data(settings.run)
    assert settings.run.text_languages == ["en"] and all(set(part["transcript"]) == {None} for part in parts.values())
    assert None not in parts["train"]["description"]
    main(argv)
    assert MsfSerProcessor.from_pretrained(tmp_path / "run").text_languages == ["en"]
    assert "test/audio+transcript/valence" not in {row["name"] for row in score_rows(tmp_path / "run")}
    assert caplog.text.count("left out the words of 48 rows in pl") == 2
    model, processor = MsfSerModel.from_pretrained(tmp_path / "run"), MsfSerProcessor.from_pretrained(tmp_path / "run")
    found = evaluate(model, processor, RunSettings(data=str(data)))
    assert "audio+transcript" not in set(found.predictions["inputs"])
    main([*argv, "--do_predict", "true"])
    assert pd.read_csv(tmp_path / "run" / "predictions.csv")["transcript"].isna().all()
    predicted = ["predict", str(data), "-o", str(tmp_path / "all.csv"), "--recognizer", "none"]
    caplog.clear()
    msfser([*predicted, "--model", str(tmp_path / "run")])
    assert pd.read_csv(tmp_path / "all.csv")["transcript"].isna().all()
    assert caplog.text.count("left out the words of 48 rows in pl") == 1

    kept = parse_settings([*argv, "--text_languages", "none"])
    assert None not in read_data(kept.run)["train"]["transcript"]
    assert build_model(kept.run, kept.model)[1].text_languages is None
    assert parse_settings([*argv, "--text_languages", "Polish"]).run.text_languages == ["pl"]
    assert "language='klingon' is not a language that Whisper knows" in refused([*argv, "--text_languages", "klingon"])
