"""Every error this project raises on purpose: kinds of TransshipError, and Cancelled, with the token that asks for it.

An error says which side failed (source or destination), which registry or layout, which reference or digest, what
was attempted, whether trying again can help (`retryable`), and what to do next (`hint`). It never carries a secret or
a query string.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence

FETCHING = "fetching the manifest"
"""The operation that commands report in imgpkg's words, `Fetching image`."""


class TransshipError(Exception):
    """Base of all errors raised on purpose. `hint` is one sentence that says what to do next, or empty."""

    retryable = False

    def __init__(self, message: str, *, hint: str = "", sentence: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.sentence = sentence
        """What imgpkg says in this place. Commands print it first and whole, for scripts look for it."""

    def __str__(self) -> str:
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message


def cause_and_step(text: str) -> tuple[str, str]:
    """Parts the text of an error into its cause and its hint, which may be empty."""
    cause, begin, hint = text.rpartition(" (hint: ")
    return (cause, hint.removesuffix(")")) if begin and hint.endswith(")") else (text, "")


class InvalidInput(TransshipError):
    """What was given can't be used as it is; trying again can't help."""


class InvalidReference(InvalidInput):
    """A reference, digest, tag or platform that doesn't parse."""


class InvalidManifest(InvalidInput):
    """A manifest, index or image config that doesn't hold together, or goes beyond a limit."""


class InvalidDocument(InvalidInput):
    """A lock or locations file that breaks its format. The message names the path inside it (`images[3].image`)."""


class InvalidConfig(InvalidDocument):
    """A file of settings that a person wrote, such as mirrors.yaml, and that breaks its format."""


class Cancelled(BaseException):
    """The run was asked to stop. It derives from BaseException, as asyncio's and trio's do: `except TransshipError` and
    `except Exception` let it pass. The command, Prefect's tasks and pools of threads turn it into an exit."""

    def __init__(self, message: str = "cancelled") -> None:
        super().__init__(message)


class CancelToken:
    """Stops a run: every loop over bytes and every wait looks at it. Set once, from any thread or a signal handler, and
    never reset."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._listeners: list[weakref.WeakMethod[Callable[[], None]]] = []

    def cancel(self) -> None:
        self._event.set()
        for reference in list(self._listeners):
            if listener := reference():
                listener()

    def on_cancel(self, listener: Callable[[], None]) -> None:
        """Has `listener`, a method, called when the token is set, to wake what can't look at it: it must not raise or
        block. A token may live for as long as the program, so it keeps no object alive."""
        with self._lock:
            alive = [reference for reference in self._listeners if reference() is not None]
            self._listeners = [*alive, weakref.WeakMethod(listener)]

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raises Cancelled once the token is set."""
        if self._event.is_set():
            raise Cancelled

    def wait(self, seconds: float) -> None:
        """Sleeps, and raises Cancelled as soon as the token is set."""
        if seconds > 0:
            self._event.wait(seconds)
        self.check()


class IntegrityError(TransshipError):
    """Bytes that don't have the promised size or digest. Reading them again may help, unless they are in a file."""

    def __init__(self, message: str, *, hint: str = "", in_file: bool = False) -> None:
        super().__init__(message, hint=hint or ("bring the damaged files again" if in_file else ""))
        self.retryable = not in_file


class StoreError(TransshipError):
    """A registry, layout or archive didn't do what was asked.

    `side` is "source", "destination" or empty where a store has no side; `store` the registry host, repository or
    layout; `subject` the reference, tag or digest; `operation` what was attempted, in words ("fetching the manifest");
    `status` the HTTP status or 0; `code` the registry's own error code (distribution-spec, "Error Codes") or empty.
    """

    def __init__(
        self,
        message: str,
        *,
        side: str = "",
        store: str = "",
        subject: str = "",
        operation: str = "",
        status: int = 0,
        code: str = "",
        retryable: bool | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.side = side
        self.store = store
        self.subject = subject
        self.operation = operation
        self.status = status
        self.code = code
        self.retry_after: float | None = None
        """Seconds that the store asked us to wait."""
        self.redirected = False
        """Whether another address than the one that was asked gave the answer."""
        if retryable is not None:
            self.retryable = retryable

    def __str__(self) -> str:
        where = " ".join(part for part in (self.side, self.store) if part)
        attempt = " ".join(part for part in (self.operation, self.subject) if part)
        lead = ": ".join(part for part in (where, attempt) if part)
        text = f"{lead}: {self.message}" if lead else self.message
        return f"{text} (hint: {self.hint})" if self.hint else text


class NotFound(StoreError):
    """There is no such repository, manifest, blob or file."""


class UnusableFile(StoreError, InvalidInput):
    """A file that a person named can't be read or written: wrong usage, as a name that doesn't parse."""


class NoSuchFile(NotFound, UnusableFile):
    """A file that a person named isn't there."""


class Unauthorized(StoreError):
    """Credentials are missing or wrong: the store doesn't know who we are."""


class Denied(StoreError):
    """The identity in use may not do this."""


class RateLimited(StoreError):
    """The registry asked us to wait for longer than the budget for waiting."""

    retryable = True


class Unavailable(StoreError):
    """The store couldn't be reached, broke off, stalled, or is out of order. Usually passes."""

    retryable = True


class Refused(StoreError):
    """The store answered something that can't be worked with."""


class NotTrusted(StoreError):
    """The policy of signatures refuses an image. Trying again can't help before it is signed, or the policy changed."""


class NotSigned(StoreError):
    """An archive or a receipt has no signature of the key that was named, or isn't what was signed."""


class PartFailed(StoreError):
    """One part of a relocation: the message is all that its error said, and `subject` names the part."""

    def __str__(self) -> str:
        named = self.subject.rpartition("@")[2] in self.message
        return self.message if named else f"{self.subject}: {self.message}"


class Incomplete(TransshipError):
    """Some parts of a relocation failed; `failures` lists them. No name was moved. `some_done` says whether other
    parts are in place, so that only the rest has to be done again."""

    def __init__(
        self, message: str, failures: Sequence[TransshipError] = (), *, some_done: bool = False, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.failures = tuple(failures)
        self.some_done = some_done
        self.retryable = any(failure.retryable for failure in failures)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Returns a hint that names the nearest of `names`, or lists all of them."""
    import difflib  # noqa: PLC0415 - only for mistakes

    names = list(names)
    near = difflib.get_close_matches(name, names, n=1)
    every = f"known are {', '.join(sorted(names))}" if names else ""
    return f"did you mean {near[0]}?" if near else every


_WORDS = {
    "`str`": "text",
    "`int`": "a whole number",
    "`float`": "a number",
    "`bool`": "true or false",
    "`array`": "a list",
    "`object`": "a mapping",
    "`null`": "nothing",
    "`duration`": "a length of time such as 7d or 12h",
}


def in_words(message: str, value: object = None, examples: Sequence[object] = ()) -> str:
    """Returns the message of msgspec's ValidationError for people: its path first, plain words for Python's types, an
    example in the place of a regular expression, and an item of a list as it was written."""
    message, _, path = message.partition(" - at `$")
    for name, words in _WORDS.items():
        message = message.replace(name, words)
    message = re.sub(r"^Expected", "expected", message)
    example = next(iter(examples), "")
    while isinstance(example, list | tuple):
        example = next(iter(example), "")
    if example:
        message = re.sub(r"text matching regex '.*'", lambda _: f"text such as {example}", message)
    path = path.rstrip("`").lstrip(".")
    if isinstance(value, list | tuple) and re.fullmatch(r"\[[0-9]+\]", path):
        path = repr(value[int(path[1:-1])])[:200]
    return f"{path}: {message}" if path else message
