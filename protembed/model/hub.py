"""Models on the Hugging Face hub, fetched into its cache by huggingface_hub: safetensors, JSON files, the vocabulary.

huggingface_hub reads `HF_HUB_OFFLINE`, `HF_HOME`, `HF_ENDPOINT` and `HF_TOKEN`.
"""

import errno
import logging
import os
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from http import HTTPStatus
from pathlib import Path

from protembed.errors import HubError, InputNotFoundError, ModelFormatError
from protembed.model.formats import READ_MODELS, format_of, read_shape
from protembed.model.hf_format import CONFIG_FILE, TOKENIZER_FILES
from protembed.text import reason_of

_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", re.ASCII)
# The files of a model directory that protembed reads; a repository may hold many others, pickled weights among them.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
_FILES = (CONFIG_FILE, "protembed.json", "head.safetensors", "contact_head.safetensors", *TOKENIZER_FILES, *_WEIGHTS)
_ALLOW_THE_NETWORK = "fetch it once with the network allowed (without HF_HUB_OFFLINE), or pass a model directory"
_USABLE_VERSIONS = (
    "install huggingface_hub 0.34 or newer: beside transformers 4 one before 1.0, beside transformers 5 a later one"
)
# The most pull requests of a repository that are searched for safetensors, the newest first.
_MAX_PULL_REQUESTS = 20
# Errors of the disk on which the cache is, not of the network.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
_WITHOUT_THE_HUB = "try again with a network, or pass a model directory or a bundled model"


def is_hub_name(name: str) -> bool:
    """Check whether a name may be that of a model on the hub: `owner/model` or `owner/model@revision`, and no path.

    >>> is_hub_name("facebook/esm2_t12_35M_UR50D"), is_hub_name("./model"), is_hub_name("model")
    (True, False, False)
    """
    # If the first part is a folder, a path was mistyped, and its name must not be sent over the network.
    return bool(_NAME.fullmatch(name)) and not name.startswith(".") and not Path(name.partition("/")[0]).exists()


def _quiet_hub_logging() -> None:
    """Keep huggingface_hub quiet, because the core is silent, unless its environment variables ask for more."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # public, if not in __all__
    from huggingface_hub.utils.logging import set_verbosity

    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        disable_progress_bars()
    if "HF_HUB_VERBOSITY" not in os.environ:
        set_verbosity(logging.ERROR)


def _has_weights(files: Iterable[str]) -> bool:
    return any(fnmatchcase(file, pattern) for file in files for pattern in _WEIGHTS)


def conversion_command(repository: str, directory: str, class_name: str = "EsmForMaskedLM") -> str:
    """Write the command that converts a model with pickled weights, which can run code, to a model directory."""
    convert = f"{class_name}.from_pretrained('{repository}').save_pretrained('{directory}')"
    return f'python -c "from transformers import {class_name}; {convert}"'


def _find_conversion(repository: str) -> str | None:
    """Find the newest pull request of a repository that holds safetensors, such as `refs/pr/3`; None without one."""
    from huggingface_hub import HfApi, errors

    try:
        requests = HfApi().list_repo_refs(repository, include_pull_requests=True).pull_requests or []
        numbers = sorted((int(request.ref.rpartition("/")[2]) for request in requests), reverse=True)
        for number in numbers[:_MAX_PULL_REQUESTS]:
            revision = f"refs/pr/{number}"
            if _has_weights(HfApi().list_repo_files(repository, revision=revision)):
                return revision
    except (errors.HfHubHTTPError, ValueError):  # a mirror that has no such requests
        return None
    return None


def _no_safetensors(name: str, class_name: str, *, only_cache: bool) -> Exception:
    """Make the error of a model with pickled weights alone: which command reads it all the same."""
    if only_cache:
        return InputNotFoundError(name, "its weights are not in the cache", _ALLOW_THE_NETWORK)
    repository = name.partition("@")[0]
    revision = _find_conversion(repository)
    if revision is not None:
        page = f"https://huggingface.co/{repository}/discussions/{revision.rpartition('/')[2]}"
        advice = f"{page} offers safetensors: see who made them, and name them with `-m {repository}@{revision}`"
        return ModelFormatError(Path(name), "the hub has only pickled weights of it, which can run code", advice)
    command = conversion_command(repository, repository.partition("/")[2], class_name)
    advice = (
        "pickled weights can run code and are not read; if you trust them, convert them with "
        f"`{command}` and pass that directory"
    )
    return ModelFormatError(Path(name), "the hub has no safetensors of it", advice)


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, the first cause last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    """Find the HTTP status of the hub's response among the causes of an error; None if there was no response."""
    statuses = (getattr(getattr(cause, "response", None), "status_code", None) for cause in _with_causes(error))
    return next((status for status in statuses if isinstance(status, int)), None)


def _reason(error: BaseException) -> str:
    """Describe the first cause of an error in one line."""
    *_, first = _with_causes(error)
    lines = str(first).strip().splitlines()
    return lines[0] if lines else type(first).__name__


def _to_user_error(name: str, error: Exception, *, only_cache: bool) -> Exception | None:
    """Translate an error of the hub or the network to one for the user; None for any other error."""
    from huggingface_hub import constants, errors, get_token

    match error:
        case errors.GatedRepoError():
            advice = "request access on its page on the hub" + ("" if get_token() else " and set HF_TOKEN")
            return HubError(name, "this model is gated", advice)
        case errors.RepositoryNotFoundError():
            # The hub responds alike for a private model and for a missing one.
            advice = "your token gives no access to it" if get_token() else "set HF_TOKEN if it is private"
            found = "the hub has no such model, or it is private"
            return InputNotFoundError(name, found, f"correct the name; {advice}")
        case _ if any(isinstance(cause, errors.DisabledRepoError) for cause in _with_causes(error)):
            return HubError(name, "the hub has disabled this model", "choose another")
        case errors.RevisionNotFoundError():
            return InputNotFoundError(name, "the hub's model has no such revision", "correct what follows the @")
        case errors.LocalEntryNotFoundError() if only_cache:
            return InputNotFoundError(name, "it is not in the cache, and the network is off", _ALLOW_THE_NETWORK)
        case errors.EntryNotFoundError() if not isinstance(error, errors.LocalEntryNotFoundError):
            return ModelFormatError(Path(name), "the hub's model has no config.json", READ_MODELS)
        case errors.HFValidationError():
            return InputNotFoundError(name, "this is not a valid name on the hub", "correct it")
        case _ if _status(error) == HTTPStatus.UNAUTHORIZED and get_token():
            advice = "make a new one and set HF_TOKEN, or unset it (`hf auth logout`): most models need none"
            return HubError(name, "the hub rejects your token", advice)
        case _ if _status(error) == HTTPStatus.FORBIDDEN:
            advice = "check the permissions of your token (`hf auth whoami`), and your network's proxy"
            return HubError(name, "access to the hub is forbidden (403)", advice)
        case _ if _status(error) == HTTPStatus.TOO_MANY_REQUESTS:
            return HubError(name, "the hub received too many requests (429)", "wait some minutes, and try again")
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled() | errors.HfHubHTTPError():
            return HubError(name, f"the hub could not be reached ({_reason(error)})", _WITHOUT_THE_HUB)
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return HubError(name, "its files have no place, because HOME is not set", "set HF_HOME to a directory for them")
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        found = f"the hub's cache, {constants.HF_HUB_CACHE}, cannot be written ({reason_of(error)})"
        return HubError(name, found, "free space on that disk, or set HF_HOME to another folder")
    if isinstance(error, RuntimeError) and "client has been closed" in str(error):
        # Some versions of huggingface_hub try a refused connection again after they have closed it.
        return HubError(name, "the hub could not be reached (the connection failed)", _WITHOUT_THE_HUB)
    # huggingface_hub uses another HTTP library from version to version.
    if isinstance(error, OSError) or type(error).__module__.startswith(("http", "requests")):
        return HubError(name, f"fetching it failed ({_reason(error)})", _WITHOUT_THE_HUB)
    return None


def fetch_model(name: str, *, offline: bool = False) -> Path:
    """Fetch a model's files, or find them in the cache.

    Args:
        name: `owner/model`, or `owner/model@revision` with a branch, tag or commit.
        offline: Whether to look in the cache only.

    Returns:
        The directory of the files in the cache; its own name is the commit that they belong to.

    Raises:
        InputNotFoundError: The hub has no such model, or it is not in the cache and the network must not be used.
        HubError: The network or the hub does not respond, or huggingface_hub cannot be imported.
        ModelFormatError: The model is not of the ESM family, or has no safetensors; nothing large was fetched.
    """
    try:
        from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
    except ImportError as error:  # its version and those of what it imports do not go together
        raise HubError(name, f"huggingface_hub cannot be used ({error})", _USABLE_VERSIONS) from error
    _quiet_hub_logging()
    repository, _, revision = name.partition("@")
    only_cache = offline or constants.HF_HUB_OFFLINE
    try:
        config = hf_hub_download(repository, CONFIG_FILE, revision=revision or None, local_files_only=only_cache)
        directory = Path(config).parent
        shape = read_shape(directory)  # before anything large is fetched
        # The cache names a snapshot by its commit, whereas a branch may move in the meantime.
        snapshot_download(repository, revision=directory.name, allow_patterns=list(_FILES), local_files_only=only_cache)
        has_weights = _has_weights(path.name for path in directory.iterdir())
        if not has_weights and not only_cache:
            # If the hub fails after config.json was fetched, huggingface_hub returns what the cache holds: ask again.
            listed = HfApi().list_repo_files(repository, revision=directory.name)
            if _has_weights(listed):
                raise HubError(name, "the hub stopped responding before its weights were fetched", _WITHOUT_THE_HUB)
    except ModelFormatError as error:
        raise ModelFormatError(Path(name), error.found, error.advice) from None
    except Exception as error:
        user_error = _to_user_error(name, error, only_cache=only_cache)
        if user_error is None:
            raise
        raise user_error from error
    if not has_weights:
        raise _no_safetensors(name, format_of(shape).class_name, only_cache=only_cache)
    return directory
