"""Both sides: plain data. What one run may use."""

from __future__ import annotations

from dataclasses import dataclass

#: What RLIMIT_DATA allows beyond twice `memory_bytes`, for what is reserved and never touched:
#: the stacks of threads (8 MB each), the work space of BLAS.
RESERVE_BYTES = 256 << 20
MAX_NICE = 39
#: 31 years. Whoever gives more, or infinity, means never; clocks and epoll cannot count so far.
NEVER_SECONDS = 1e9
#: More than any machine has, and what the system can be told as a limit, beyond what is held already.
ENDLESS_BYTES = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    What a run may use. None means no limit; what can never act, as infinite seconds, becomes None.
    See docs/limits.md for what acts, and how fast.

    Raises:
        ValueError: a limit that is not above zero, or a soft limit that is not below the hard one.
    """

    #: Wall-clock time of the call; then TERM to all its processes.
    timeout_seconds: float | None = None
    #: Wall-clock time after which SoftTimeLimitExceeded is raised in the call.
    soft_timeout_seconds: float | None = None
    #: The time between asking (TERM) and killing (KILL).
    grace_seconds: float = 5.0
    #: Private memory that the call and the processes that it started may hold, beyond what the
    #: child held before. The parent looks ten times a second, and kills.
    memory_bytes: int | None = None
    #: Memory that the child may ask the system for beyond what it has; then MemoryError. None: no
    #: limit, or twice `memory_bytes` and 256 MiB where that is set, against what is too fast to see.
    data_bytes: int | None = None
    #: CPU time of the call and of the processes that it started; then TERM to all of them.
    cpu_seconds: float | None = None
    #: Added to the niceness of the child while it runs the call.
    nice: int = 0

    def __post_init__(self) -> None:
        for name in ("timeout_seconds", "soft_timeout_seconds", "cpu_seconds"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                message = f"{name}={value!r}: give seconds above 0, or None for no limit"
                raise ValueError(message)
        for name in ("memory_bytes", "data_bytes"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                message = (
                    f"{name}={value!r}: give a whole number of bytes above 0, or None for no limit"
                )
                raise ValueError(message)
        if not self.grace_seconds >= 0:
            message = f"grace_seconds={self.grace_seconds!r}: give seconds from 0 up"
            raise ValueError(message)
        if type(self.nice) is not int or not 0 <= self.nice <= MAX_NICE:
            message = f"nice={self.nice!r}: give a whole number from 0 to {MAX_NICE}"
            raise ValueError(message)
        self._drop_what_never_acts()
        hard, soft = self.timeout_seconds, self.soft_timeout_seconds
        if hard is not None and soft is not None and soft >= hard:
            message = (
                f"soft_timeout_seconds={soft!r} is not below timeout_seconds={hard!r}: "
                "leave the call some time to clean up in"
            )
            raise ValueError(message)

    def _drop_what_never_acts(self) -> None:
        for name in ("timeout_seconds", "soft_timeout_seconds", "cpu_seconds"):
            if (getattr(self, name) or 0) > NEVER_SECONDS:
                object.__setattr__(self, name, None)
        if (self.memory_bytes or 0) > ENDLESS_BYTES:
            object.__setattr__(self, "memory_bytes", None)

    @property
    def data_limit_bytes(self) -> int | None:
        """What RLIMIT_DATA allows in addition; see `data_bytes`."""
        limit = self.data_bytes
        if limit is None and self.memory_bytes is not None:
            limit = 2 * self.memory_bytes + RESERVE_BYTES
        return None if limit is None else min(limit, ENDLESS_BYTES)


NO_LIMITS = Limits()
