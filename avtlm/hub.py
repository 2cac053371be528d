"""Model folders on the Hugging Face hub: fetched by an id such as ``owner/name``, and sent there.

What is unusual here:
- Only the files of a model folder travel: safetensors, YAML, JSON, text, SentencePiece. Pickled weights, of which loading runs what is in
  them, are neither fetched nor sent.
- Every fetched file is compared with the checksum that the hub lists for it (SHA-256 of large files, git's hash of small ones); one that
  differs is deleted. Files appear under their names when they are whole, in the hub's own cache, which other tools share.
- Without a network what the cache holds is used. A hub that cannot be reached is one sentence.

Sources: the extra ``hub`` (huggingface_hub), which reads HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE.
"""

import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from avtlm import checkpoint
from avtlm.checkpoint import CARD, CONFIG, WEIGHTS, CheckpointError
from avtlm.errors import needs
from avtlm.model_card import UNKNOWN, read_card, with_licence

log = logging.getLogger(__name__)

# Of a model folder; folders in it (trainer/, ema/) stay at home.
FILES = ("*.safetensors", "*.yaml", "*.json", "*.txt", "*.model", "*.tsv", "*.md")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.joblib", "*.npy", "*.npz")
ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
BLOCK = 2**20


class HubError(ValueError):
    """A model cannot be fetched from the hub or sent there; one sentence that names the model and what to do."""


def folder_of(name: str | Path, revision: str | None = None, cache: str | Path | None = None, token: str | None = None) -> Path:
    """The folder of a model: ``name`` itself if it is a folder, else what `pull` fetches.

    Raises:
        CheckpointError: there is no such folder, and the name is no id of the hub.
        HubError, MissingExtra: see `pull`.
    """
    path = Path(name)
    checkpoint.put_back(path)
    if path.exists() or isinstance(name, Path) or not ID.fullmatch(name):
        return checkpoint.check(path)
    return pull(name, revision, cache, token)


def pull(name: str, revision: str | None = None, cache: str | Path | None = None, token: str | None = None) -> Path:
    """Fetch a model from the hub, unless it is in the cache already.

    Args:
        name: ``owner/name``.
        revision: branch, tag or commit; default: the newest of the main branch.
        cache: folder of the cache; default: that of the hub (HF_HOME).
        token: of an account, for models that are not public; default: that of ``hf auth login`` or HF_TOKEN.

    Returns:
        The model folder in the cache, complete. It is shared: copy it before you change anything in it.

    Raises:
        HubError: the hub cannot be reached and the cache lacks the model, there is no such model, it is none of avtlm, or a file arrived
            damaged.
        MissingExtra: huggingface_hub is not installed.
    """
    if not ID.fullmatch(name):
        raise HubError(f"{name!r} is no name of a model on the hub; write it as owner/name.")
    hub = _library()
    options: dict[str, Any] = {"cache_dir": cache, "token": token, "allow_patterns": list(FILES), "ignore_patterns": ["*/*"]}
    endpoint = os.environ.get("HF_ENDPOINT")
    api = hub.HfApi(endpoint=endpoint, token=token)
    try:
        with _errors(name, revision):
            listed = api.model_info(name, revision=revision, files_metadata=True)
    except _Unreachable as error:
        try:
            found = Path(hub.snapshot_download(name, revision=revision, local_files_only=True, **options))
        except (OSError, ValueError):  # nothing, or not all of it, is there
            raise HubError(
                f"{name}: the hub ({_address()}) cannot be reached ({error}) and the cache does not hold this model whole; check the "
                "network and HF_ENDPOINT, or give a model folder on this disk."
            ) from None
        log.warning("%s: the hub cannot be reached; what the cache holds is used, which may not be the newest.", name)
        return checkpoint.check(found)
    _check_listing(name, [file.rfilename for file in listed.siblings or []])
    try:
        with _errors(name, revision):
            # By the name of the revision, not its commit, so that the cache knows it by that name without a network.
            found = Path(hub.snapshot_download(name, revision=revision, endpoint=endpoint, **options))
            if found.name != listed.sha:  # somebody has pushed in between
                listed = api.model_info(name, revision=found.name, files_metadata=True)
    except _Unreachable as error:
        raise HubError(f"{name}: the hub ({_address()}) broke off ({error}); what has arrived is kept, so try again.") from None
    for file in listed.siblings or []:
        if _wanted(file.rfilename):
            _verify(name, found / file.rfilename, None if file.lfs is None else file.lfs.sha256, file.blob_id)
    return checkpoint.check(found)


def push_to_hub(
    model: Any, name: str, licence: str | None = None, private: bool = False, message: str | None = None, token: str | None = None
) -> str:
    """Send a model to the hub as one commit.

    Args:
        model: a model folder, or a model that avtlm.save can write.
        name: ``owner/name``; made if it is not there.
        licence: for the card, an identifier of the hub such as ``cc-by-4.0``; default: what the card says.
        private: make the model visible to its owner alone, if it is new.
        message: of the commit.
        token: of an account that may write there; default: that of ``hf auth login`` or HF_TOKEN.

    Returns:
        The commit's address.

    Raises:
        CheckpointError: the folder is incomplete.
        HubError: the hub cannot be reached, or refuses.
        MissingExtra: huggingface_hub is not installed.
    """
    if not ID.fullmatch(name):
        raise HubError(f"{name!r} is no name of a model on the hub; write it as owner/name.")
    hub = _library()
    with tempfile.TemporaryDirectory(prefix="avtlm-push-") as temporary:
        if isinstance(model, str | Path):
            folder = checkpoint.check(model)
        else:
            from avtlm.models import save

            folder = save(model, Path(temporary) / name.partition("/")[2])
        sent = Path(temporary) / "sent"
        sent.mkdir()
        for path in sorted(folder.iterdir()):
            if path.is_file() and _wanted(path.name) and path.name != CARD:
                _link(path, sent / path.name)
        checkpoint.check(sent)  # whatever else the model needs would be missing there
        settings, card = checkpoint.load_config(folder), read_card(folder)
        if licence is not None or not card.startswith("---\n"):
            card = with_licence(card or f"# {name.partition('/')[2]}\n", licence or UNKNOWN, settings)
        (sent / CARD).write_text(card, encoding="utf-8")
        api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
        try:
            with _errors(name, None):
                api.create_repo(name, private=private, exist_ok=True)
                commit = api.upload_folder(repo_id=name, folder_path=sent, commit_message=message or "Upload a model of avtlm")
        except _Unreachable as error:
            raise HubError(f"{name}: the hub ({_address()}) cannot be reached ({error}); nothing was sent.") from None
    return str(commit.commit_url)


class _Unreachable(Exception):  # noqa: N818 (never seen by users)
    """No answer; the message is the reason in a few words."""


def _library() -> Any:
    with needs("hub", "huggingface_hub", "models of the Hugging Face hub"):
        import huggingface_hub
    return huggingface_hub


@contextmanager
def _errors(name: str, revision: str | None) -> Iterator[None]:
    """What the hub's library raises, in our words."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise HubError(
            f"{name}: its owner lets only those in who have agreed to its terms; do so on its page, then give a token."
        ) from None
    except errors.RevisionNotFoundError:
        raise HubError(f"{name}: has no revision {revision!r}; leave it out for the newest.") from None
    except errors.RepositoryNotFoundError:
        raise HubError(
            f"{name}: there is neither such a folder nor such a model on the hub ({_address()}), or it is private and needs a token."
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status >= 500 or status == 429:
            raise _Unreachable(f"it answers with status {status}") from None
        what = "does not know this token, or needs one that may do this" if status in (401, 403) else "refuses this"
        raise HubError(f"{name}: the hub ({_address()}) {what} (status {status}).") from None
    except errors.OfflineModeIsEnabled:
        raise _Unreachable("HF_HUB_OFFLINE is set") from None
    except errors.LocalEntryNotFoundError as error:
        raise _Unreachable(type(error.__cause__ or error).__name__) from None
    except Exception as error:
        # Which library carries the requests (requests, httpx, httpx2) depends on the release; what they raise is an OSError or theirs.
        if isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("requests", "httpx", "httpx2", "httpcore", "httpcore2"):
            raise _Unreachable(type(error).__name__) from None
        raise


def _check_listing(name: str, files: list[str]) -> None:
    missing = [file for file in (WEIGHTS, CONFIG) if file not in files]
    if not missing:
        return
    lacking = f"{name}: is no model of avtlm, whose folders hold {WEIGHTS} and {CONFIG}"
    if any(file.endswith(".safetensors") for file in files):
        raise HubError(f"{lacking}; fetch it with the hub's own tools and convert it (avtlm convert FOLDER -o DIR).")
    pickled = next((file for file in files if any(fnmatch(file, pattern) for pattern in PICKLES)), None)
    if pickled is not None:
        raise HubError(f"{lacking}; {pickled} is a pickle, which is never loaded; look for a version in safetensors, or convert it.")
    raise HubError(f"{lacking}.")


def _wanted(file: str) -> bool:
    return "/" not in file and any(fnmatch(file, pattern) for pattern in FILES)


def _verify(name: str, path: Path, sha256: str | None, git: str | None) -> None:
    """Compare a file with its checksum; delete it, where it lies in the cache, if they differ."""
    if sha256 is None and git is None:
        return
    size = path.stat().st_size
    digest = hashlib.sha256() if sha256 is not None else hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    if digest.hexdigest() != (sha256 or git):
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise HubError(f"{name}: {path.name} arrived damaged (its checksum differs) and was deleted; fetch it again.")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def _address() -> str:
    return os.environ.get("HF_ENDPOINT") or "huggingface.co"


__all__ = ["CheckpointError", "HubError", "folder_of", "pull", "push_to_hub"]
