"""A folder of a model hub's repository on this machine: only the files that are asked for, once; or a mirror's, with no network.

A mirror is a folder <mirror>/<owner>/<repository>/..., named by $DIASCOPE_MIRROR; where it has the folder, nothing is fetched.
"""

from __future__ import annotations

import os
import re
from pathlib import Path


def hub_folder(repository: str, path: str, patterns: tuple[str, ...]) -> Path:
    """The local copy of folder `path` of `repository` ("owner/name"), with the files that match `patterns`.

    Raises ValueError when neither the mirror, nor the cache, nor the hub has it.
    """
    if mirror := os.environ.get("DIASCOPE_MIRROR"):
        here = Path(mirror) / repository / path
        if here.exists():
            return here
        raise ValueError(f"the mirror {mirror} has no {repository}/{path}: unset DIASCOPE_MIRROR to ask the hub")
    from huggingface_hub import snapshot_download

    wanted = [f"{path}/{p}" if path else p for p in patterns]
    try:
        found = _local(repository, path, wanted) or Path(snapshot_download(repository, allow_patterns=wanted)) / path
    except Exception as error:  # the hub's client raises its HTTP library's own errors too
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"could not get {path or 'the files'} of {repository} from the hub ({reason}): is there a network, and the name right? "
            "A local copy works too: give its folder, or a mirror's in $DIASCOPE_MIRROR"
        ) from error
    if not found.exists() or not any(found.iterdir()):
        raise ValueError(f"{repository} has no dictionary at {path or 'its top'}")
    return found


WEIGHTS = (".safetensors", ".npz", ".pt")


def _local(repository: str, path: str, wanted: list[str]) -> Path | None:
    """The folder in the cache, if weights are there (and the examples, where they are wanted): the hub is not asked again."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(repository, allow_patterns=wanted, local_files_only=True)) / path
    except (LocalEntryNotFoundError, OSError):
        return None
    names = {p.name for p in found.iterdir()} if found.exists() else set()
    whole = any(n.endswith(WEIGHTS) and n != "examples.safetensors" for n in names)
    asked = any(w.endswith("examples.safetensors") for w in wanted)
    return found if whole and (not asked or "examples.safetensors" in names) else None


def repository_name(text: str) -> str:
    """`text`, a ValueError unless it is owner/name."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        raise ValueError(f"a repository is called owner/name, not {text!r}")
    return text


def push_folder(folder: Path, repository: str, *, private: bool) -> str:
    """Upload `folder` to the hub's `repository`, made if need be; returns its address. ValueError when the hub refuses."""
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        where = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder)
    except Exception as error:  # the hub's client raises its HTTP library's own errors too
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"the hub did not take {repository} ({reason}): log in with `hf auth login`, or use --dry-run"
        ) from error
    return str(where)
