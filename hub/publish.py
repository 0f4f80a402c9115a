"""Publishes a trained model on the Hugging Face Hub: weights, code, processor, model card and a tag.

    msfser publish outputs/mine OWNER/NAME --dry_run
    msfser publish outputs/mine OWNER/NAME --tag v1 --private
    msfser publish outputs/mine OWNER/NAME --tag v1 --space space

The card is rendered from `model_card.md` with the settings and results of the run; the starter has its own. All files
are uploaded in one commit, which is tagged. After a failure run the same command again. A file that names a
path, an internal address or a user is refused.
"""

import argparse
import logging
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo, RepoSibling, SpaceInfo
from huggingface_hub.utils import validate_repo_id
from huggingface_hub.utils.sha import git_hash, sha_fileobj

from ..cli.arguments import CommandParser
from ..cli.errors import cli_errors
from ..corpora.messages import reason
from ..starter.assemble import with_source
from ..training.run_file import RUN_FILE
from .card import render_card
from .contents import MODEL_FILES, SPACE_FILES, model_files, space_files
from .leaks import check_no_leaks

logger = logging.getLogger("msfser.publish")


@dataclass(frozen=True)
class Upload:
    """The content that one repository is to have.

    Args:
        repo: `OWNER/NAME`.
        kind: `model` or `space`.
        folder: All files in it are uploaded.
        patterns: Files of an earlier upload that are deleted from the repository unless `folder` has them.
        landmark: A file that all such repositories have. One with content but without it belongs to something else.
        tag: Name of this version. A Space has none, because people use its newest state.
    """

    repo: str
    kind: str
    folder: Path
    patterns: tuple[str, ...]
    landmark: str
    tag: str | None = None

    def files(self) -> list[tuple[str, Path]]:
        """Path in the repository and path on the disk of each file."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return [(path.relative_to(self.folder).as_posix(), path) for path in paths]


def push(api: HfApi, upload: Upload, private: bool) -> str:
    """Uploads a folder in one commit, tags it and returns the hash of the commit.

    Args:
        api: Client of the Hub.
        upload: The content. Its tag may exist already, if it has the same content.
        private: Whether the repository is visible to its owner only.

    Raises:
        ValueError: The repository belongs to something else or is public, or the tag has other content.
        HTTPError, OSError, RuntimeError: Errors of huggingface_hub.
    """
    name = f"The {upload.kind} {upload.repo}"
    repository: dict[str, Any] = {"repo_id": upload.repo, "repo_type": upload.kind}
    head = _info(api, upload, None)
    if head is None:
        sdk = "gradio" if upload.kind == "space" else None
        api.create_repo(**repository, private=private or None, space_sdk=sdk, exist_ok=True)
    else:
        there = {sibling.rfilename for sibling in head.siblings or ()}
        if upload.landmark not in there and there - {".gitattributes", "README.md"}:
            raise ValueError(f"{name} is taken by something else: publish under another name.")
        if private and not head.private:
            raise ValueError(f"{name} exists and is public: make it private in its settings, or drop --private.")
        tagged = None if upload.tag is None else _info(api, upload, upload.tag)
        if tagged is not None:
            if not _holds(tagged, upload):
                raise ValueError(f"{name} has a tag {upload.tag} with other content: publish under another tag.")
            return str(tagged.sha)
    commit = api.upload_folder(
        **repository,
        folder_path=upload.folder,
        commit_message=f"Publish {upload.tag or upload.kind}",
        delete_patterns=list(upload.patterns),
    )
    if upload.tag is not None:
        api.create_tag(**repository, tag=upload.tag, revision=commit.oid)
    return commit.oid


def _info(api: HfApi, upload: Upload, revision: str | None) -> ModelInfo | SpaceInfo | None:
    try:
        info = api.repo_info(upload.repo, repo_type=upload.kind, revision=revision, files_metadata=True)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return None
    assert isinstance(info, ModelInfo | SpaceInfo)
    return info


def _holds(info: ModelInfo | SpaceInfo, upload: Upload) -> bool:
    there = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    return all(name in there and _is_same(there[name], path) for name, path in upload.files())


def _is_same(there: RepoSibling, path: Path) -> bool:
    if there.lfs is None:
        return there.blob_id == git_hash(path.read_bytes())
    with path.open("rb") as file:
        return there.lfs.sha256 == sha_fileobj(file).hex()


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    parser = CommandParser(
        prog="msfser publish", description="Publishes a trained model on the Hugging Face Hub.", allow_abbrev=False
    )
    parser.add_argument("folder", type=Path, help="output of msfser train or msfser starter")
    parser.add_argument("repo", help="OWNER/NAME on the Hub")
    parser.add_argument("--tag", default="v1", help="name of this version; the card's snippets are pinned to it (v1)")
    parser.add_argument("--private", action="store_true", help="visible to the owner only")
    parser.add_argument("--dry_run", action="store_true", help="show what would be uploaded, without a connection")
    parser.add_argument("--space", type=Path, metavar="DIR", help="also publish this folder as a Gradio Space")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="TEXT", help="publish this path, address or name, too"
    )
    parser.add_argument("--corpus_name", help="name of the corpus of a table (or its id on the Hub)")
    parser.add_argument("--corpus_license", help="its license, such as cc-by-nc-4.0")
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO)
    with cli_errors("publish"):
        _publish(arguments)


def _publish(arguments: argparse.Namespace) -> None:
    repo, tag = arguments.repo, arguments.tag
    if repo.count("/") != 1:
        raise ValueError(f"{repo!r} is not a name on the Hub: give OWNER/NAME.")
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"{repo!r} is not a name on the Hub: {reason(error)}.") from error
    if tag == "main" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", tag):
        raise ValueError(f"{tag!r} is not a tag: use letters, digits, dots and dashes, such as v1.")
    files, excluded = model_files(arguments.folder)
    check_no_leaks(files, "model", repo, arguments.allow)
    card = _starter_card(arguments.folder, repo, tag) or str(
        render_card(arguments.folder, repo, tag, arguments.corpus_name, arguments.corpus_license)
    )
    with tempfile.TemporaryDirectory(prefix="msfser-publish-") as temporary:
        staged = Path(temporary)
        uploads = [Upload(repo, "model", staged / "model", MODEL_FILES, "modeling_msfser.py", tag)]
        _stage(files, staged / "model")
        (staged / "model" / "README.md").write_text(card, encoding="utf-8")
        if arguments.space is not None:
            uploads.append(Upload(repo, "space", staged / "space", SPACE_FILES, "app.py"))
            _stage(space_files(arguments.space), staged / "space")
            check_no_leaks(dict(uploads[1].files()), "space", repo, arguments.allow)
        check_no_leaks({"README.md": staged / "model" / "README.md"}, "model", repo, arguments.allow)
        if arguments.dry_run:
            print(_listing(uploads, excluded, card))
            return
        if get_token() is None:
            raise OSError("There is no token for the Hub: log in with `hf auth login`, or set HF_TOKEN.")
        api = HfApi()
        for upload in uploads:
            try:
                oid = push(api, upload, arguments.private)
            except (HTTPError, OSError, RuntimeError) as error:
                raise OSError(_explanation(error, repo)) from error
            page = f"spaces/{repo}" if upload.kind == "space" else f"{repo}/tree/{tag}"
            logger.info("published: %s/%s (commit %s)", api.endpoint, page, oid)
        if arguments.private and arguments.space is not None:
            logger.info(
                "The model is private: add a read token as the secret HF_TOKEN in the settings of the Space, or it "
                "cannot load the model."
            )


def _stage(files: Mapping[str, Path], folder: Path) -> None:
    """Fills a folder with links to files."""
    for name, path in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(path.resolve())


def _starter_card(folder: Path, repo: str, tag: str) -> str | None:
    """The card of the starter, its snippets pinned; `None` for a run."""
    if (folder / RUN_FILE).exists() or (folder / "results.json").exists() or not (folder / "README.md").is_file():
        return None
    return with_source((folder / "README.md").read_text(encoding="utf-8"), repo, tag)


def _listing(uploads: Iterable[Upload], excluded: Sequence[str], card: str) -> str:
    lines = []
    for upload in uploads:
        tagged = f", tag {upload.tag}" if upload.tag else ""
        files = upload.files()
        lines.append(f"{upload.kind} {upload.repo}{tagged}: {len(files)} files")
        lines += [f"{path.stat().st_size:15,}  {name}" for name, path in files]
    if excluded:
        lines.append(f"not uploaded: {', '.join(excluded)}")
    return "\n".join([*lines, "", card])


def _explanation(error: Exception, repo: str) -> str:
    """One sentence about an error of huggingface_hub."""
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, HTTPError):
        error = error.__cause__  # of the upload of a large file
    if not isinstance(error, HTTPError):
        return f"{reason(error)}."
    if not isinstance(error, HfHubHTTPError):
        return f"The Hub cannot be reached ({reason(error)}): run the same command again."
    status = error.response.status_code
    answer = reason(error.server_message or "")
    answer = f" ({answer})" if answer else ""
    if status == 401:
        return f"The Hub does not know the token{answer}: log in again with `hf auth login`."
    if status in (402, 403):
        return f"The token may not write to {repo}{answer}: use a token with write access, or another name."
    if status == 404:
        return f"The Hub does not show {repo} to this token{answer}: use a token with write access, or another name."
    if status == 409:
        return f"{repo} is being changed by somebody else{answer}: run the same command again."
    if status == 429 or status >= 500:
        return f"The Hub answered with {status}{answer}: run the same command again."
    return f"The Hub refused with {status}{answer}."
