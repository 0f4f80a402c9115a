"""What commands write: whole or not at all, and not in place of something else."""

import json

import pytest
from tiny import tiny_model

from msfser.annotation import norms
from msfser.cli.errors import cli_errors
from msfser.cli.outputs import named_by_user, refuse_existing, whole_file, write_text
from msfser.evaluation import ablation, report
from msfser.hub import export
from msfser.starter import assemble


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(path, "é\n")
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), whole_file(path) as unfinished:
            unfinished.write_text("half")
            assert unfinished.parent == path.parent and path.read_text(encoding="utf-8") == "é\n"
            raise error
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]
    assert path.read_text(encoding="utf-8") == "é\n"


def test_errors_of_the_system_name_the_output_and_a_remedy(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    refused = pytest.raises(SystemExit, match=r"README\.md' cannot be made \(File exists\): name another folder")
    with refused, cli_errors("evaluate"):
        write_text(tmp_path / "README.md" / "results.json", "")
    with pytest.raises(ValueError, match=r"README\.md is a file: name a new folder"):
        assemble.assemble(tmp_path / "README.md")
    hidden = tmp_path / ".x.onnx.vp1xzeov.unfinished"
    assert named_by_user(str(hidden / "x.onnx.data")) == named_by_user(str(hidden)) == tmp_path / "x.onnx"
    for failing in (lambda: (hidden / "x.onnx").write_text(""), lambda: hidden.replace(tmp_path / "x.onnx")):
        with pytest.raises(SystemExit) as caught, cli_errors("export"):
            failing()
        named = f"{str(tmp_path / 'x.onnx')!r} cannot be read or written (No such file or directory)"
        assert str(caught.value) == f"msfser export: error: {named}: check the name and the permissions."


def test_an_existing_file_is_replaced_only_on_request(tmp_path):
    path = tmp_path / "a.txt"
    refuse_existing(path, overwrite=False)
    path.write_text("mine")
    refuse_existing(path, overwrite=True)
    with pytest.raises(OSError, match=r"a\.txt exists: give another name, or replace it with --overwrite"):
        refuse_existing(path, overwrite=False)
    with pytest.raises(OSError, match="is a folder: give the name of the output file"):
        refuse_existing(tmp_path, overwrite=True)


def test_norms_are_not_written_over_another_file(tmp_path, monkeypatch):
    output = tmp_path / "norms.json"
    output.write_text("mine")
    argv = ["my/table.csv", "--name", "mine", "--output", str(output)]
    monkeypatch.setattr(norms, "make_norms", lambda *_: {"corpus": "mine"})
    with pytest.raises(SystemExit, match=r"msfser norms: error: .*norms\.json exists"):
        norms.main(argv)
    assert output.read_text() == "mine"
    norms.main([*argv, "--overwrite"])
    assert json.loads(output.read_text()) == {"corpus": "mine"}


def test_an_export_replaces_a_file_at_its_end_and_on_request(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(export, "_load", lambda folder: tiny_model())
    monkeypatch.setattr(export, "compare", lambda model, path: 0.0)

    def write_graph(model, file):
        assert file.name == path.name and path.read_text() == "old"
        file.write_text("graph")
        file.with_name("model.onnx.data").write_text("weights")

    monkeypatch.setattr(export, "_write", write_graph)
    path.write_text("old")
    with pytest.raises(SystemExit, match=r"model\.onnx exists: give another name"):
        export.main(["folder", str(path)])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(export, "compare", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        export.export("folder", path, overwrite=True)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    export.main(["folder", str(path), "--overwrite"])
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "model.onnx": "graph",
        "model.onnx.data": "weights",
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [("x.txt", "does not end with .onnx"), ("nodir/x.onnx", "there is no folder .*nodir' for the output: make it")],
)
def test_an_export_is_refused_before_the_model_is_loaded(tmp_path, monkeypatch, name, message):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(export, "_load", lambda folder: pytest.fail("the model was loaded"))
    with pytest.raises(SystemExit, match=message):
        export.main(["folder", str(tmp_path / name)])
    assert not any(tmp_path.iterdir())


def test_a_report_does_not_replace_another_page(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "page", lambda folder: f"<title>{report._TITLE} x</title>")
    for _ in range(2):
        report.main([str(tmp_path)])
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(SystemExit, match=r"report\.html is not a report of msfser: move it away"):
        report.main([str(tmp_path)])
    assert (tmp_path / "report.html").read_text() == "mine"


@pytest.mark.parametrize("name", ["run.yaml", "notes.txt", "README.md"])
def test_the_starter_is_not_assembled_over_other_files(tmp_path, name):
    (tmp_path / name).write_text("# mine\n")
    with pytest.raises(ValueError, match="holds something else than a starter: name a new folder"):
        assemble.assemble(tmp_path)
    assert (tmp_path / name).read_text() == "# mine\n"


def test_a_starter_is_known_by_its_card(tmp_path):
    card = assemble.STARTERS["starter"].folder / assemble.CARD
    (tmp_path / "README.md").write_text(card.read_text(encoding="utf-8") + "another version", encoding="utf-8")
    assert assemble._is_starter(tmp_path)
    (tmp_path / "run.yaml").write_text("")
    assert not assemble._is_starter(tmp_path)


@pytest.mark.parametrize("option", ["--seed", "--output_dir", "--output-dir", "--overwrite", "--do_predict"])
def test_the_ablation_refuses_what_it_decides(option, capsys):
    with pytest.raises(SystemExit):
        ablation.main(["probe.yaml", option, "1"])
    assert "is an option of msfser train; " in capsys.readouterr().err
