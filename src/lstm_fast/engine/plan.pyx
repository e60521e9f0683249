"""Which thread does what in a call of the engine, forward or backward."""

from lstm_fast.engine.meeting cimport meeting
from lstm_fast.engine.runtime.threads cimport available
from lstm_fast.engine.watch cimport of_pieces, of_teams, unlimited, usable, watching

cdef extern from *:
    """
    #include <unistd.h>
    /* Bytes of the L2 cache of a core; 0 where the system does not say. */
    static size_t lf_cache_of_core(void)
    {
    #ifdef _SC_LEVEL2_CACHE_SIZE
        const long size = sysconf(_SC_LEVEL2_CACHE_SIZE);
        return size > 0 ? (size_t)size : 0;
    #else
        return 0;
    #endif
    }
    """
    size_t lf_cache_of_core()

cdef Py_ssize_t cache_of_core = lf_cache_of_core() or 1 << 62

# Multiply-adds below which another thread does not pay: in a call, since it has to be woken, and in one
# thread's part of a time step, since threads meet after it: at least, and for each nanosecond that they take to meet. A
# call of 3e5 takes 15 to 25 microseconds on one thread; a step of 1.6e4 takes 1.0 and on two 0.6; where a meeting
# takes 0.15, it takes 0.6 on one, and no less on two.
cdef double CALL_WORK = 3e5
cdef double STEP_WORK = 6e3
cdef double STEP_WORK_OF_MEETING = 80
# The same of backward, where threads exchange all gradients of pre-activations: that takes 50 microseconds.
cdef double BACKWARD_WORK = 4e6
# The same, for each thread, where they follow one that computes the steps; and for each step and squared nanosecond
# that two take to meet, since its gradients go from core to core: 1.2e4 in 77, 9e4 in 211. And what a step costs
# besides: while others do so much in all, there is no use for one more.
cdef double FOLLOWED_WORK = 6e5
cdef double FOLLOWED_STEP_WORK_OF_MEETING = 2
cdef double STEP_COST = 2e4
# Forward, where the others project the input ahead of the one that computes the steps, these are other numbers, and the
# second is for each nanosecond: threads wait for one another in each chunk.
cdef double AHEAD_WORK = 1e6
cdef double AHEAD_STEP_WORK_OF_MEETING = 50
# Batch rows of a thread, at least: that fill a register tile well enough; in backward, where one panel may be all that
# there is to share; one where so many bytes of weights are read in less time than it takes to meet others.
cdef Py_ssize_t TILE_ROWS = 3
cdef Py_ssize_t BACKWARD_ROWS = 2
cdef size_t SMALL_WEIGHTS = 1 << 17
# What a thread with one row makes of its core, beside one with more, where so many bytes of weights do not stay in its
# L1 cache; and how much faster shares of the units have to be than rows, which tolerate a preempted core.
cdef size_t NEAREST_WEIGHTS = 1 << 15
cdef double ONE_ROW = 0.7
cdef double FASTER = 1.05
# Bytes of recurrent weights that every core can keep in its own L2 cache beside the rest; and of those that it rather
# keeps than meet others after each step, forward with so many rows of its own.
cdef Py_ssize_t KEEPING_ROWS = 10
cdef size_t CACHED_WEIGHTS = 1 << 19
cdef size_t KEPT_WEIGHTS = max(CACHED_WEIGHTS, lf_cache_of_core() // 2)
# Time steps from which a pipeline of layers is worth filling.
cdef Py_ssize_t PIPELINE_STEPS = 8
# With pieces: multiply-adds of a call in which it pays to call helpers, and of a step that is shared; slabs of time, at
# least; the rows of a piece from which it does not matter that every core reads all recurrent weights, where these stay
# in no cache.
cdef double PIECES_WORK = 3e6
cdef double PIECE_STEP_WORK = 1e5
cdef Py_ssize_t SLABS = 8
cdef Py_ssize_t READING_ROWS = 16


cdef Split plan(int jobs, bint chained, int bands, Py_ssize_t steps, Py_ssize_t rows, bint ragged, Py_ssize_t panels,
                size_t weights, double step_work, double total_work, int meetings, bint adaptive,
                bint backward) noexcept:
    """How to split a call over threads.

    It has so many jobs: layers that are chained, each the input of the next, or directions of one layer; in backward
    for each of some `bands` of the batch, which do not need one another. On average `rows` of the batch run in a
    step. `step_work` counts the multiply-adds of a time step of one job, `total_work` those of the call. Threads that
    share the units of a step meet so many times (`meetings`) in it.

    Two directions are independent: each gets half of the threads, and every core reads the weights of one.

    Batch rows are independent: with enough of them each thread runs its own through all time steps and meets
    nobody, which tolerates a preempted core; in a `ragged` batch few long ones or many short ones. But then every
    core reads all recurrent weights (`weights` bytes) at every step. Otherwise threads share the units of each step
    (`panels` of them) and wait for one another after it. What each then needs from the others is four times as much
    in `backward`, or much for many rows: (128, 32, 64, 256) takes 22 ms back with rows and 24 with units (L2 of
    2 MB).

    Where the steps are too short for that, chained layers form a pipeline (a wavefront): each group of
    threads has layers of its own and runs a chunk of time behind the group below. Or one thread computes the steps, and
    the others what goes before or comes after: forward they project the input of the next chunk, (1000, 1, 128, 32) in
    240 us instead of 445; backward they follow it with dx and all products over steps, more than half of the work,
    (100, 1, 64, 64) in 105 us instead of 162 (EPYC 9004).

    All of this gives threads equal shares, for cores that they have to themselves. Where they have not (see watch.pyx)
    a batch is cut into as many pieces of rows, and these into slabs of time, that helpers take as they come; of a
    ragged one, smaller pieces, but backward only in bands. A call of one job whose steps have one meeting is cut into
    shares of the units of each step, if it is not into rows. Else fewer threads are used; not so unless the call
    is `adaptive`, for bits that depend on the threads.

    Measured with AVX-512 on two cores, speed on two threads over one, for (T, B, I, H):

        (100, 1, 64, 64)      units 1.65                (100, 8, 128, 256)    rows 1.94, units 1.99
        (100, 1, 256, 256)    units 2.08                (50, 16, 16, 16)      rows 1.54, units 0.97
        (100, 4, 32, 32)      rows 1.48, units 1.39     (50, 32, 16, 32)      rows 1.81, units 1.79
        (100, 8, 64, 64)      rows 1.84, units 1.83     (5, 64, 1024, 1024)   rows 1.92, units 2.01
        (100, 1, 16, 32)      units 0.70: one thread
    """
    cdef Split split
    cdef bint exchange = backward and bands == 1, by_steps = jobs == bands == meetings == 1
    cdef int most = available() if total_work >= CALL_WORK else 1, followers = 1, each, equal
    cdef double work_of_one = BACKWARD_WORK if exchange else CALL_WORK, beside
    cdef Py_ssize_t least, pieces
    cdef size_t cached = KEPT_WEIGHTS if backward or rows >= most * KEEPING_ROWS else CACHED_WEIGHTS
    split.followed = split.in_pieces = False
    if most > 1 and adaptive:
        equal = usable(&of_teams, most, total_work)
        if equal < most and total_work >= max(PIECES_WORK, work_of_one):
            least = TILE_ROWS if weights <= (cached if by_steps else KEPT_WEIGHTS) else READING_ROWS
            if ragged and not backward:
                least //= 2
            split.by_rows = bands > 1 or (rows >= 2 * least and not (ragged and backward))
            pieces = panels if by_steps and step_work >= PIECE_STEP_WORK else 1
            if split.by_rows:
                pieces = max(bands, rows // least)
            each = <int>min(pieces, usable(&of_pieces, most, total_work), MOST_PIECES)
            each -= each % bands
            if each > equal:
                split.threads, split.groups, split.in_pieces = each, 1, True
                return split
        most = followers = equal
    if total_work < work_of_one:
        most = 1
    split.groups = min(jobs, most) if not chained else 1
    if most % (split.groups * bands) == 0:
        split.groups *= bands
    most //= split.groups
    rows //= bands
    least = 1 if weights <= SMALL_WEIGHTS else BACKWARD_ROWS if backward else TILE_ROWS
    cdef Py_ssize_t by_rows = min(most, rows // least)
    cdef double meeting_work = meetings * STEP_WORK
    cdef Py_ssize_t by_units = min(most, panels, <Py_ssize_t>(step_work / meeting_work))
    if by_units > 1 and watching():
        meeting_work = 1 + meetings * STEP_WORK_OF_MEETING * meeting(unlimited(&of_teams))
        by_units = min(by_units, <Py_ssize_t>(step_work / meeting_work))
    if exchange and adaptive and by_units < 2 and rows <= FOLLOWED_ROWS:
        by_rows = 1
    split.by_rows = by_rows > 1 and by_units < 2
    if by_rows > 1 and not split.by_rows and weights <= cached:
        split.by_rows = by_rows >= by_units and (ragged or FASTER * speed_by_rows(rows, by_rows, weights)
                                                 >= by_units / (1 + by_units * meeting_work / step_work))
    each = <int>max(1, by_rows if split.by_rows else by_units)
    if chained and bands == 1 and not split.by_rows and steps >= PIPELINE_STEPS:
        split.groups = max(1, min(jobs, most // each))
    followers = <int>min(followers, total_work / (FOLLOWED_WORK if backward else AHEAD_WORK)) // split.groups
    beside = total_work / (jobs * steps) - (0 if backward else step_work)
    if (each == 1 and followers > 1 and bands == 1 and (split.groups == 1 or not chained)
            and (backward or jobs == split.groups) and beside >= least_beside(backward)):
        split.followed = True
        each = <int>min(followers, 2 + beside / (step_work + STEP_COST))
    split.threads = each * split.groups
    return split


cdef double least_beside(bint backward) noexcept:
    """Multiply-adds beside each step of a job that are worth following the thread that computes these."""
    cdef double distance = meeting(unlimited(&of_teams)) if watching() else 0
    return FOLLOWED_STEP_WORK_OF_MEETING * distance ** 2 if backward else AHEAD_STEP_WORK_OF_MEETING * distance


cdef double speed_by_rows(Py_ssize_t rows, Py_ssize_t threads, size_t weights) noexcept:
    """Of threads that share the rows of a batch, beside one."""
    cdef Py_ssize_t most = (rows + threads - 1) // threads
    return <double>rows / most * (ONE_ROW if most == 1 and weights > NEAREST_WEIGHTS else 1)


# Bytes of packed weights, or of what is read and written in one pass, from which several threads pay.
cdef size_t PACKED_BYTES = 1 << 20


cdef Py_ssize_t slab_of(Py_ssize_t steps, Py_ssize_t most) noexcept:
    """Time steps of a piece that are taken at once, if no more than so many may be."""
    return max(1, min(most, (steps + SLABS - 1) // SLABS))


cdef Split plan_packing(Py_ssize_t panels, size_t size) noexcept:
    """Each thread packs panels, or has pieces of arrays, of its own."""
    return plan_shares(panels, PIECES_WORK if size >= PACKED_BYTES else 0)


cdef Split plan_shares(Py_ssize_t shares, double work) noexcept:
    """Each thread has an equal part of so many shares of the work, in multiply-adds; on busy cores who takes it."""
    cdef Split split
    cdef int most = <int>max(1, min(shares, available() if work >= CALL_WORK else 1))
    split.threads, split.groups, split.by_rows = usable(&of_teams, most, work), 1, True
    split.followed = split.in_pieces = False
    if split.threads < most and work >= PIECES_WORK:
        most = min(usable(&of_pieces, most, work), MOST_PIECES)
        if most > split.threads:
            split.threads, split.in_pieces = most, True
    return split


cdef Place place(int thread, int threads, int groups, int jobs) noexcept nogil:
    """Where a thread works: groups share the threads and the jobs. There may be fewer threads than groups."""
    cdef Place found
    cdef Py_ssize_t first = 0, end = 0
    groups = min(groups, threads)
    found.group = 0
    share(threads, 0, groups, &first, &end)
    while thread >= end:
        found.group += 1
        share(threads, found.group, groups, &first, &end)
    found.part, found.parts = thread - <int>first, <int>(end - first)
    share(jobs, found.group, groups, &found.first_job, &found.end_job)
    return found


def planned(jobs, chained, bands, steps, rows, ragged, panels, weights, step_work, total_work, meetings, backward):
    """What `plan` says of such a call, and the place of each thread, each as a dict. For tests."""
    cdef Split split = plan(jobs, chained, bands, steps, rows, ragged, panels, weights, step_work, total_work,
                            meetings, True, backward)
    return split, [place(thread, split.threads, split.groups, jobs * bands) for thread in range(split.threads)]
