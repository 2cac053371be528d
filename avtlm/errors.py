"""Errors that more than one room of the house raises."""

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtra(ImportError):  # noqa: N818 (named for what is wrong, as in the message)
    """An optional package is not installed; the message names the extra that brings it.

    Args:
        extra: name of the extra in pyproject.toml, such as ``lips``.
        package: the package that could not be imported, such as ``mediapipe``.
        purpose: what it is needed for, such as ``finding faces``.
    """

    def __init__(self, extra: str, package: str, purpose: str) -> None:
        super().__init__(f"{package} is needed for {purpose}; install it with: pip install 'avtlm[{extra}]'.")
        self.extra = extra
        self.package = package
        self.purpose = purpose

    def __reduce__(self) -> tuple[type["MissingExtra"], tuple[str, str, str]]:
        return type(self), (self.extra, self.package, self.purpose)  # survives the way back from a worker process


@contextmanager
def needs(extra: str, package: str, purpose: str) -> Iterator[None]:
    """Around the import of an optional package: if it is not there, the error names the extra. Arguments as of `MissingExtra`."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra(extra, package, purpose) from error
