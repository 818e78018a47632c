"""Filesystem objects at work: clones for threads, retries, and an end to waiting.

fsspec's synchronous filesystems are not thread-safe (one connection each), so threads take
turns on a few clones, made as fsspec's own pickling makes them. Classes that are safe share
one instance. A clone that failed on the wire is thrown away. What a filesystem call takes
longer than the timeout is given up, whatever the class does about it.
"""

from __future__ import annotations

import errno
import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

__all__ = ["Clones", "is_final"]

T = TypeVar("T")

CLONES: Final = 6
"""sshd drops connections beyond ten that have not logged in yet."""

DELAYS_S: Final = (0.1, 0.2, 0.4)
"""Pauses before the repetitions of a call."""

_FINAL: Final = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
    TimeoutError,
    TypeError,
    AttributeError,
    ValueError,
    ImportError,
)
_FINAL_ERRNO: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG})
_FINAL_NAMES: Final = frozenset(
    {
        "AuthenticationException",
        "BadHostKeyException",
        "error_perm",
        "SMBAuthenticationError",
        "LogonFailure",
    }
)

_log = logging.getLogger(__name__)


def is_final(error: BaseException) -> bool:
    """Tell whether asking again cannot help: the store answered, or our own time is up."""
    return (
        isinstance(error, _FINAL)
        or getattr(error, "errno", None) in _FINAL_ERRNO
        or type(error).__name__ in _FINAL_NAMES
    )


class Clones:
    """The instances of one filesystem.

    Args:
        make: Makes a new instance; it may connect.
        shared: One instance serves all threads.
        timeout_s: How long one call may take, and one call with its repetitions; None is forever.
        close: Lets go of an instance's connections.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        shared: bool,
        timeout_s: float | None,
        close: Callable[[Any], None],
    ) -> None:
        self._make = make
        self._shared = shared
        self._timeout_s = timeout_s
        self._close = close
        self._lock = threading.Lock()
        self._idle: list[Any] = []
        self._free = threading.BoundedSemaphore(CLONES)

    def call(self, work: Callable[[Any], T], *, repeat: bool = True) -> T:
        """Return what `work` makes of an instance; repeated on failures of the wire if it may be."""
        started = time.monotonic()
        for delay in (*DELAYS_S, None):
            try:
                return self._once(work)
            except Exception as error:
                late = self._timeout_s is not None and time.monotonic() - started > self._timeout_s
                if delay is None or late or not repeat or is_final(error):
                    raise
                _log.debug("a call is repeated after %s", type(error).__name__)
                time.sleep(delay * random.uniform(1.0, 1.5))  # noqa: S311 - no secret
        raise AssertionError

    def connect(self) -> None:
        """Make sure that there is an instance."""
        self.call(lambda _: None)

    def close(self) -> None:
        """Let go of all idle instances."""
        with self._lock:
            idle, self._idle = self._idle, []
        for instance in idle:
            with suppress(Exception):
                self._close(instance)

    def _once(self, work: Callable[[Any], T]) -> T:
        if self._shared:
            instance = self._the_one()
            return work(instance) if self._timeout_s is None else self._within(work, instance)
        if not self._free.acquire(timeout=self._timeout_s or -1):
            raise TimeoutError(f"no connection became free within {self._timeout_s:g} seconds")
        try:
            return self._exclusively(work)
        finally:
            self._free.release()

    def _the_one(self) -> Any:
        if not self._idle:
            with self._lock:
                if not self._idle:
                    self._idle.append(self._make())
        return self._idle[0]

    def _exclusively(self, work: Callable[[Any], T]) -> T:
        with self._lock:
            instance = self._idle.pop() if self._idle else None

        def made_and_used(_: None) -> T:
            nonlocal instance
            if instance is None:
                instance = self._make()
            return work(instance)

        healthy = False
        try:
            result = self._within(made_and_used, None)
            healthy = True
        except Exception as error:
            # A missing file says nothing against the connection.
            healthy = isinstance(error, FileNotFoundError | FileExistsError | PermissionError)
            raise
        finally:
            if instance is not None:
                if healthy:
                    with self._lock:
                        self._idle.append(instance)
                else:
                    # Closing may itself wait for a peer that is gone.
                    threading.Thread(target=self._quietly_close, args=(instance,), daemon=True).start()
        return result

    def _quietly_close(self, instance: Any) -> None:
        with suppress(Exception):
            self._close(instance)

    def _within(self, work: Callable[[Any], T], instance: Any) -> T:
        """Call in a thread of its own, 0.05 ms, so that a call that hangs is left behind."""
        if self._timeout_s is None:
            return work(instance)
        outcome: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

        def run() -> None:
            try:
                outcome.put((work(instance), None))
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                outcome.put((None, error))

        threading.Thread(target=run, daemon=True, name="vecdataset-call").start()
        try:
            result, error = outcome.get(timeout=self._timeout_s)
        except Empty:
            raise TimeoutError(f"no answer within {self._timeout_s:g} seconds") from None
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # the type of `work`'s answer, None included
