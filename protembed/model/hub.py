"""Models on the Hugging Face hub, brought into its cache by huggingface_hub: safetensors, JSON files, the vocabulary.

`HF_HUB_OFFLINE`, `HF_HOME`, `HF_ENDPOINT` and `HF_TOKEN` are huggingface_hub's own, and honoured.
"""

import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http import HTTPStatus
from pathlib import Path

from protembed.errors import HubError, InputNotFoundError, ModelFormatError
from protembed.model.esm_config import CONFIG_FILE, TOKENIZER_FILES, read_shape

_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", re.ASCII)
# What protembed reads of a model directory; a repository may hold much else, pickled weights among it.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
_FILES = (CONFIG_FILE, "protembed.json", "head.safetensors", *TOKENIZER_FILES, *_WEIGHTS)


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """A model in the hub's cache.

    Attributes:
        directory: of its files.
        revision: the commit that they belong to.
    """

    directory: Path
    revision: str


def is_hub_name(name: str) -> bool:
    """Tell whether a name can be meant for the hub: `owner/model` or `owner/model@revision`, and no path in use here.

    >>> is_hub_name("facebook/esm2_t12_35M_UR50D"), is_hub_name("./model"), is_hub_name("model")
    (True, False, False)
    """
    # Where the first part is a folder, a path was mistyped: its name is nobody else's business.
    return bool(_NAME.fullmatch(name)) and not name.startswith(".") and not Path(name.partition("/")[0]).exists()


def fetch_model(name: str, *, offline: bool = False) -> HubModel:
    """Fetch a model's files, or find them in the cache.

    Args:
        name: `owner/model`, or `owner/model@revision` with a branch, tag or commit.
        offline: look in the cache only.

    Raises:
        InputNotFoundError: the hub has no such model, or it is not in the cache and the network is not to be used.
        HubError: the network or the hub does not answer.
        ModelFormatError: the model is no ESM-2, or has no safetensors; nothing large was fetched.
    """
    import huggingface_hub
    from huggingface_hub import constants

    _quiet_hub_logging()
    repository, _, revision = name.partition("@")
    only_cache = offline or constants.HF_HUB_OFFLINE
    try:
        config = Path(
            huggingface_hub.hf_hub_download(
                repository, CONFIG_FILE, revision=revision or None, local_files_only=only_cache
            )
        )
        read_shape(config.parent)  # before anything large is fetched
        # The cache names a snapshot by its commit; what the branch is called may move meanwhile.
        directory = Path(
            huggingface_hub.snapshot_download(
                repository, revision=config.parent.name, allow_patterns=list(_FILES), local_files_only=only_cache
            )
        )
        has_weights = _has_weights(path.name for path in directory.iterdir())
        if not has_weights and not only_cache:
            # Where the hub fails once config.json is here, what the cache holds is taken for all there is: ask again.
            listed = huggingface_hub.HfApi().list_repo_files(repository, revision=directory.name)
            if _has_weights(listed):
                raise HubError(name, "the hub stopped answering before its weights came", _WITHOUT_THE_HUB)
    except ModelFormatError as error:
        raise ModelFormatError(Path(name), error.found, error.advice) from None
    except Exception as error:
        sentence = _to_user_error(name, error, only_cache=only_cache)
        if sentence is None:
            raise
        raise sentence from error
    if not has_weights:
        raise _no_safetensors(name, only_cache=only_cache)
    return HubModel(directory=directory, revision=config.parent.name)


def _quiet_hub_logging() -> None:
    """Keep huggingface_hub quiet: the core is silent, and whoever wants to see more says so in its variables."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # public, if not in __all__
    from huggingface_hub.utils.logging import set_verbosity

    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        disable_progress_bars()
    if "HF_HUB_VERBOSITY" not in os.environ:
        set_verbosity(logging.ERROR)


def _has_weights(files: Iterable[str]) -> bool:
    return any(fnmatchcase(file, pattern) for file in files for pattern in _WEIGHTS)


def _no_safetensors(name: str, *, only_cache: bool) -> Exception:
    if only_cache:
        return InputNotFoundError(name, "its weights are not in the cache", _ALLOW_THE_NETWORK)
    repository = name.partition("@")[0]
    convert = f"EsmForMaskedLM.from_pretrained('{repository}').save_pretrained('{repository.partition('/')[2]}')"
    advice = (
        "pickled weights can run code and are not read; if you trust them, convert them by "
        f'python -c "from transformers import EsmForMaskedLM; {convert}" and name that directory'
    )
    return ModelFormatError(Path(name), "the hub has no safetensors of it", advice)


_ALLOW_THE_NETWORK = "fetch it once with the network allowed (without HF_HUB_OFFLINE), or name a model directory"


def _to_user_error(name: str, error: Exception, *, only_cache: bool) -> Exception | None:
    """Say what went wrong on the way to the hub; None for what went wrong elsewhere."""
    from huggingface_hub import errors, get_token

    match error:
        case errors.GatedRepoError():
            advice = "ask for access on its page at the hub" if get_token() else "set HF_TOKEN"
            return HubError(name, "the hub gives this model only to those whom its owners let in", advice)
        case errors.RepositoryNotFoundError():
            # The hub does not tell a private model from none at all.
            return InputNotFoundError(name, "the hub has no such model, or it is private", "correct the name")
        case errors.RevisionNotFoundError():
            return InputNotFoundError(name, "the hub's model has no such revision", "correct what follows the @")
        case errors.LocalEntryNotFoundError() if only_cache:
            return InputNotFoundError(name, "it is not in the cache, and the network is off", _ALLOW_THE_NETWORK)
        case errors.EntryNotFoundError() if not isinstance(error, errors.LocalEntryNotFoundError):
            return ModelFormatError(Path(name), "the hub's model has no config.json", "name an ESM-2 model")
        case errors.HFValidationError():
            return InputNotFoundError(name, "the hub has no names like this", "correct it")
        case errors.HfHubHTTPError() if error.response.status_code == HTTPStatus.UNAUTHORIZED and get_token():
            advice = "make a new one and set HF_TOKEN, or unset it (`hf auth logout`): most models need none"
            return HubError(name, "the hub refuses your token", advice)
        case _ if _status(error) == HTTPStatus.TOO_MANY_REQUESTS:
            return HubError(name, "the hub was asked too often (429)", "wait some minutes, and try again")
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled() | errors.HfHubHTTPError():
            return HubError(name, f"the hub could not be reached ({_reason(error)})", _WITHOUT_THE_HUB)
    # Its HTTP library changes its name from version to version.
    if isinstance(error, OSError) or type(error).__module__.startswith(("http", "requests")):
        return HubError(name, f"fetching it failed ({_reason(error)})", _WITHOUT_THE_HUB)
    return None


_WITHOUT_THE_HUB = "try again with a network, or name a model directory or a bundled model"


def _status(error: BaseException | None) -> int | None:
    """Find the status of the hub's answer among the causes of an error; None where there was none."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__ or error.__context__
    return None


def _reason(error: BaseException) -> str:
    """Name the first cause in a line."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]  # not None
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
