"""Files at addresses (``s3://bucket/corpus`` and whatever else fsspec knows): what is lost on the way is tried again, a few times.

Credentials and the endpoint of S3 come from where its tools look for them: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
``AWS_SESSION_TOKEN``, ``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, the files in ``~/.aws`` or the role of the machine.
"""

import errno
import logging
from collections.abc import Callable
from time import sleep
from typing import Any, TypeVar

from avtlm.errors import MissingExtra

log = logging.getLogger(__name__)

T = TypeVar("T")
ATTEMPTS = 4
PAUSE = 1.0  # seconds before the second attempt, twice as long before each further one
S3 = ("s3", "s3a")
# Answers that are the same however often one asks.
FINAL = (PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
NO_SENSE = (errno.EINVAL, errno.ENAMETOOLONG, errno.ENOSYS, errno.EPERM)
OURS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE)  # trouble of this machine, and not of the store
NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound", "TokenRetrievalError")
CLIENTS = ("botocore", "aiobotocore", "aiohttp", "urllib3", "requests", "http", "google", "azure", "gcsfs")


class AddressError(ValueError):
    """Files at an address that cannot be read or written, in one sentence: where, and why."""


def open_address(url: str) -> tuple[Any, str]:
    """A file system of fsspec and the path on it.

    Raises:
        MissingExtra: no fsspec, or for an address of S3 no s3fs.
        AddressError: an address that fsspec does not know, or needs a further package for.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtra("shards", "fsspec", "reading shards from an address") from error
    try:
        files, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        if isinstance(error, ImportError) and url.partition("://")[0] in S3:
            raise MissingExtra("s3", "s3fs", "files at an address of S3") from error
        raise AddressError(f"{url}: this kind of address cannot be read here ({str(error).rstrip('.')}).") from error
    return files, str(path)


def attempt(url: str, call: Callable[[], T]) -> T:
    """What ``call`` returns, tried up to :data:`ATTEMPTS` times when the connection fails or the store is too busy.

    Raises:
        FileNotFoundError: there is no such file, or no such bucket.
        AddressError: access is refused, there are no credentials, or the connection failed too often.
    """
    for number in range(1, ATTEMPTS + 1):
        try:
            return call()
        except FileNotFoundError:
            raise
        except Exception as error:
            lost = _passes(error)
            if lost is None:
                raise
            if not lost or number == ATTEMPTS:
                raise AddressError(f"{url}: {_sentence(error, number)}") from error
            log.warning("%s: %s; trying again", url, _words(error))
            sleep(PAUSE * 2 ** (number - 1))
    raise AssertionError  # the last attempt returns or raises


def _passes(error: Exception) -> bool | None:
    """Whether an error may pass by itself; None for one that is no matter of the store."""
    if type(error).__name__ in NO_CREDENTIALS:
        return False
    if isinstance(error, OSError):
        if error.errno in OURS:
            return None
        return not (isinstance(error, FINAL) or error.errno in NO_SENSE)
    if type(error).__module__.split(".")[0] in CLIENTS:
        return not type(error).__name__.startswith(("Param", "Unknown", "Invalid"))
    return True if "Timeout" in type(error).__name__ else None


def _sentence(error: Exception, number: int) -> str:
    words = _words(error)
    if type(error).__name__ in NO_CREDENTIALS:
        return f"there are no credentials ({words}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
    if isinstance(error, PermissionError):
        return f"access is refused ({words}); see that the credentials in use are right and allow it."
    times = {1: "", 2: " twice"}.get(number, f" {number} times")
    return f"the store failed{times} ({words}); see that it can be reached, then start again to go on."


def _words(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200].rstrip(".")
