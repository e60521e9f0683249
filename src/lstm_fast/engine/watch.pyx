"""How many threads are worth using now, beside other programs and other threads of this one.

A core that another program needs, or on which another library's threads spin, does its share of a call late, and the
call ends only then: it can take many times what one thread takes. The bits of a result do not depend on the threads,
so their number may follow what is seen: each call on several threads tells how long it took and how long one thread
alone would have taken (see `time_alone` in schedule.pyx). Where that is not worth it, fewer threads are used for a
while, and then one more is tried.

There are two ways to share work, watched apart: in equal shares, the faster way where each thread has a core of its
own, and in pieces that helpers take when they get a core (see helpers.h), which bears slow cores, but not calls too
short for that.
"""

import os
import sys

from lstm_fast.engine.runtime.kernels cimport lf_now

cdef Watch of_teams, of_pieces
cdef bint _enabled = os.environ.get("LSTM_FAST_ADAPTIVE_THREADS", "1") not in ("", "0")
cdef long long _limited = 0  # how often the threads were limited
cdef bint _held = False      # by a test: nothing is learnt

# Of each further thread, what it has to save, at least, of the time of one alone: in hundredths.
cdef int WORTH_OF_TEAMS = 25
cdef int WORTH_OF_PIECES = 5
# Nanoseconds: what threads may cost at once, after having saved as much; how long fewer are used, at least and at most.
cdef long long CREDIT = 10_000_000
cdef long long SHORTEST, LONGEST
SHORTEST, LONGEST = 5_000_000, 1_000_000_000
# The same as multiples of what was lost, and of the time of the call: calls that try are few, and cost little in all,
# since it is twice as long after each try that fails. What a virtual machine loses now and then is soon forgotten.
cdef int HOLD_OF_LOSS = 6
cdef int HOLD_OF_CALL = 32
# After a try that failed, calls have to take so much of that themselves, as a multiple of what was lost: they may be a
# small part of a program. What one takes that is not watched is not known: at least so much, and for so many
# multiply-adds a nanosecond.
cdef int REST_OF_LOSS = 40
cdef double LEAST_CALL = 1e3
cdef double WORK_OF_NANOSECOND = 40
# What it may take to wake a thread that slept, on an idle core: more than that is another program's.
cdef long long WAKING = 2_000_000

of_teams.limit = of_pieces.limit = 0
of_teams.hold = of_pieces.hold = 0
of_teams.tries = of_pieces.tries = 0
of_teams.calls = of_pieces.calls = 0
of_teams.rest = of_pieces.rest = 0
of_teams.credit = of_pieces.credit = CREDIT


cdef bint watching() noexcept:
    return _enabled


cdef int usable(Watch *watch, int threads, double work) noexcept:
    """How many of these threads a call of so many multiply-adds may use now."""
    if not _enabled or watch.limit == 0 or watch.limit >= threads:
        return threads
    if watch.rest > 0:
        watch.rest -= LEAST_CALL + work / WORK_OF_NANOSECOND
        return watch.limit
    return watch.limit + (lf_now() >= watch.until)


cdef void learn(Watch *watch, int threads, long long time, long long alone, long long late) noexcept:
    """A call, or a part of it, took so many threads this time, in nanoseconds; one `alone` would have taken that.

    `late` is how late they began, on average of all but one. The first call that tries one more is not charged for
    that, within limits: the thread slept, and virtual machines take a millisecond to wake it.
    """
    cdef int worth = WORTH_OF_TEAMS if watch == &of_teams else WORTH_OF_PIECES
    cdef long long saved
    cdef bint tried = watch.limit != 0 and threads > watch.limit
    if tried:
        if watch.tries == 0:
            time -= min(late, WAKING)
        watch.tries += 1
    saved = alone - time - time * (threads - 1) * worth // 100
    watch.calls += 1
    if _held:
        return
    watch.credit = min(CREDIT, watch.credit + saved)
    if watch.credit < 0:
        watch.hold = max(SHORTEST, -HOLD_OF_LOSS * saved, 2 * watch.hold * tried)
        watch.hold = min(watch.hold, LONGEST)
        watch.rest = min(watch.hold, max(SHORTEST, -REST_OF_LOSS * saved)) if tried else 0
        watch.hold = max(watch.hold, HOLD_OF_CALL * min(time, alone))
        watch.limit, watch.until, watch.credit, watch.tries = threads - 1, lf_now() + watch.hold, 0, 0
        tell(threads - 1, watch.hold)
    elif tried and watch.credit == CREDIT:
        watch.limit, watch.tries = threads, 0  # and at once one more is tried


cdef void tell(int threads, long long hold) noexcept:
    """Count it, and log it where the program logs anything."""
    global _limited
    _limited += 1
    try:
        if "logging" in sys.modules:
            sys.modules["logging"].getLogger("lstm_fast").debug(
                "threads came late: at most %d for the next %.0f ms", threads, hold / 1e6)
    except Exception:
        pass  # a handler of the user's


def set_adaptive_threads(enabled):
    """Say whether calls may use fewer threads while other programs or other threads need the cores.

    Parameters
    ----------
    enabled : bool
        True, the default unless ``LSTM_FAST_ADAPTIVE_THREADS=0`` is set in the environment: threads of a call that
        come late, since their core is busy, are noticed, and while that lasts work is shared with helpers, threads that
        a call does not wait for, or done by fewer threads. False: calls always use as many threads as are worth it on
        idle cores. Results of ``matmul="packed"`` do not depend on it.

    Raises
    ------
    TypeError
        If `enabled` is not a bool.
    """
    global _enabled
    if not isinstance(enabled, bool):
        raise TypeError(f"enabled: expected a bool, got {type(enabled).__name__}")
    _enabled = enabled


def adaptive_threads():
    """``{"enabled": bool, "limit": int or None, "times": int}``: the limit of now, and how often there was another."""
    held = of_teams.rest > 0 or lf_now() < of_teams.until
    limit = of_teams.limit if _enabled and of_teams.limit and held else None
    return {"enabled": bool(_enabled), "limit": limit, "times": _limited}


# ---- for tests


def hold(teams, pieces):
    """Hold equal shares, and pieces, to so many threads from now on; 0, 0: learn again, and forget what was seen."""
    global _held
    _held = teams or pieces
    of_teams.limit, of_pieces.limit = teams, pieces
    of_teams.until = of_pieces.until = 1 << 62 if teams or pieces else 0
    of_teams.hold = of_pieces.hold = 0
    of_teams.tries = of_pieces.tries = 0
    of_teams.rest = of_pieces.rest = 0
    of_teams.credit = of_pieces.credit = CREDIT


def see(pieces, threads, time, alone, late=0.0):
    """Learn of a call, in seconds; return for how long fewer threads are used than the call did, or 0."""
    cdef Watch *watch = &of_pieces if pieces else &of_teams
    learn(watch, threads, <long long>(1e9 * time), <long long>(1e9 * alone), <long long>(1e9 * late))
    return watch.hold / 1e9 if watch.limit and watch.limit < threads and lf_now() < watch.until else 0.0


def usable_now(pieces, threads, work=1e15):
    """How many of these threads a call of so many multiply-adds would use, if the one before had as many."""
    usable(&of_pieces if pieces else &of_teams, threads, work)
    return usable(&of_pieces if pieces else &of_teams, threads, work)


def calls():
    """How many calls of several threads there were, in equal shares and in pieces."""
    return of_teams.calls, of_pieces.calls
