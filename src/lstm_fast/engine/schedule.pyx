"""Which thread does what in a call of the engine, forward or backward."""

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport parallel, threadid

from lstm_fast.engine.runtime.gemm import held_to_one_thread
from lstm_fast.engine.runtime.kernels cimport (lf_counter, lf_counter_add, lf_counter_get, lf_counter_least,
                                               lf_counter_set, lf_counter_spin, lf_fpenv, lf_fpenv_enter,
                                               lf_fpenv_leave, lf_now, lf_sleep)
from lstm_fast.engine.runtime.threads cimport (available, bring, cpu, keep_off, own_name, startable, team_size,
                                               time_of_thread)
from lstm_fast.engine.watch cimport learn, of_pieces, of_teams, usable, watching


# Multiply-adds below which another thread does not pay: in a call, since it has to be woken, and in one
# thread's part of a time step, since threads meet after it. A call of 3e5 takes 15 to 25 microseconds on
# one thread; a step of 1.6e4 takes 1.0, and 0.6 on two.
cdef double CALL_WORK = 3e5
cdef double STEP_WORK = 6e3
# Batch rows that fill a register tile well enough.
cdef Py_ssize_t TILE_ROWS = 3
# Recurrent weights that every core can keep in its own L2 cache beside the rest.
cdef size_t CACHED_WEIGHTS = 1 << 19
# Time steps from which a pipeline of layers is worth filling.
cdef Py_ssize_t PIPELINE_STEPS = 8
# With pieces: rows of one, multiply-adds of a call in which waiting for a core costs little, pieces a thread.
cdef Py_ssize_t PIECE_ROWS = 6
cdef double PIECES_WORK = 3e7
cdef int PIECES_A_THREAD = 4


cdef Split plan(int jobs, bint chained, Py_ssize_t steps, Py_ssize_t rows, bint ragged, Py_ssize_t panels,
                size_t weights, double step_work, double total_work, bint adaptive) noexcept:
    """How to split a call over threads.

    It has so many jobs: layers that are chained, each the input of the next, or directions of one layer.
    `step_work` counts the multiply-adds of a time step of one job, `total_work` those of the call.

    Two directions are independent: each gets half of the threads, and every core reads the weights of one.

    Batch rows are independent: with enough of them each thread runs its own through all time steps and
    meets nobody, which tolerates a preempted core. But then every core reads all recurrent weights
    (`weights` bytes) at every step, and in a `ragged` batch few long rows are as much work as many short
    ones, but fill tiles less well. Otherwise threads share the units of each step (`panels` of them) and wait
    for one another after it.

    Where the steps are too short for that, chained layers form a pipeline (a wavefront): each group of
    threads has layers of its own and runs a chunk of time behind the group below.

    All of this gives threads equal shares, for cores that they have to themselves. Where they have not (see watch.pyx)
    a batch is cut into small pieces of rows that threads take as they come, or fewer threads are used; not so
    unless the call is `adaptive`, for bits that depend on the threads.

    Measured with AVX-512 on two cores, speed on two threads over one, for (T, B, I, H):

        (100, 1, 64, 64)      units 1.65                (100, 8, 128, 256)    rows 1.94, units 1.99
        (100, 1, 256, 256)    units 2.08                (50, 16, 16, 16)      rows 1.54, units 0.97
        (100, 4, 32, 32)      rows 1.48, units 1.39     (50, 32, 16, 32)      rows 1.81, units 1.79
        (100, 8, 64, 64)      rows 1.84, units 1.83     (5, 64, 1024, 1024)   rows 1.92, units 2.01
        (100, 1, 16, 32)      units 0.70: one thread
    """
    cdef Split split
    cdef int most = available() if total_work >= CALL_WORK else 1, each, equal
    split.pieces = 0
    if most > 1 and adaptive:
        equal = usable(&of_teams, most)
        if equal < most and rows >= 2 * PIECE_ROWS and not ragged and total_work >= PIECES_WORK:
            split.threads = usable(&of_pieces, most)
            if split.threads > equal:
                split.groups, split.by_rows = 1, True
                split.pieces = <int>max(3, min(rows // PIECE_ROWS, split.threads * PIECES_A_THREAD, MOST_PIECES))
                return split
        most = equal
    split.groups = min(jobs, most) if not chained else 1
    most //= split.groups
    cdef Py_ssize_t by_rows = min(most, rows // TILE_ROWS)
    cdef Py_ssize_t by_units = min(most, panels, <Py_ssize_t>(step_work / STEP_WORK))
    if ragged or weights > CACHED_WEIGHTS:
        split.by_rows = by_rows > 1 and by_units < 2
    else:
        split.by_rows = by_rows > 1 and by_rows >= by_units
    each = <int>max(1, by_rows if split.by_rows else by_units)
    if chained and not split.by_rows and steps >= PIPELINE_STEPS:
        split.groups = max(1, min(jobs, most // each))
    split.threads = each * split.groups
    return split


# Bytes of packed weights, or of what is read and written in one pass, from which several threads pay.
cdef size_t PACKED_BYTES = 1 << 20


cdef Split plan_packing(Py_ssize_t panels, size_t size) noexcept:
    """Each thread packs panels, or has pieces of arrays, of its own."""
    return plan_shares(panels, CALL_WORK if size >= PACKED_BYTES else 0)


cdef Split plan_shares(Py_ssize_t shares, double work) noexcept:
    """Each thread has an equal part of so many shares of the work, in multiply-adds."""
    cdef Split split
    split.threads, split.groups, split.by_rows, split.pieces = 1, 1, True, 0
    if work >= CALL_WORK:
        split.threads = <int>max(1, min(shares, usable(&of_teams, available())))
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


# Multiply-adds of one thread between two looks at signals: 0.1 to 0.3 s.
cdef double WORK_PER_SIGNAL_CHECK = 4e9


cdef void begin(Schedule *schedule, Split split, int jobs, Py_ssize_t count, double work, void *call,
                void (*run)(void *, Py_ssize_t, Py_ssize_t, const Place *) noexcept nogil) noexcept:
    """Fill in all but `slab` and `meet`, which are 1 and False."""
    schedule.split, schedule.jobs, schedule.count, schedule.work = split, jobs, count, work
    schedule.call, schedule.run, schedule.slab, schedule.meet = call, run, 1, False


cdef void spread(Schedule *schedule, int thread) noexcept nogil:
    """Keep the threads off the core of the first: where all cores are busy, the system may leave two on one."""
    if thread == 0:
        lf_counter_set(&schedule.cpu, cpu())
    else:
        keep_off(<int>lf_counter_get(&schedule.cpu))


# What a thread that computes nothing holds: more than any piece. And one that is at work, but not in pieces.
cdef long long NOTHING, SOMETHING
NOTHING, SOMETHING = 1 << 62, 0


cdef int furthest_behind(Schedule *schedule) noexcept nogil:
    """The name of the thread that computes the earliest piece, or 0."""
    cdef int thread, last = -1
    cdef long long held, least = NOTHING
    for thread in range(min(schedule.split.threads, MOST_KNOWN)):
        held = lf_counter_get(&schedule.holds[thread])
        if held < least:
            least, last = held, thread
    return 0 if last < 0 else <int>lf_counter_get(&schedule.name[last])


cdef void wait(Schedule *schedule, lf_counter *counter, long long n, lf_counter *waited) noexcept nogil:
    """Wait until a counter is at least n, and where that takes long see to the thread that is furthest behind.

    If it has lost its core, it is brought to that of the waiting thread, which sleeps.
    """
    cdef int name
    cdef long long start, since, ran
    if lf_counter_spin(counter, n, waited):
        return
    start = lf_now()
    while lf_counter_get(counter) < n:
        name = furthest_behind(schedule)
        since, ran = lf_now(), time_of_thread(name)
        lf_sleep()
        if name and 2 * (time_of_thread(name) - ran) < lf_now() - since:
            bring(name)
    lf_counter_add(waited, lf_now() - start)


cdef void run_pieces(Schedule *schedule, Py_ssize_t first, Py_ssize_t end, int thread) noexcept nogil:
    """Take pieces of slabs of time, in order, until there are no more."""
    cdef Py_ssize_t pieces = schedule.split.pieces, slabs = (end - first + schedule.slab - 1) // schedule.slab
    cdef Py_ssize_t n, ran = 0, slab, start
    cdef long long since = lf_now(), alone
    cdef lf_counter waited
    cdef Place here
    lf_counter_set(&waited, 0)
    here.group, here.parts, here.first_job, here.end_job = 0, <int>pieces, 0, schedule.jobs
    while True:
        spread(schedule, thread)
        n = lf_counter_add(&schedule.taken, 1)
        if n >= slabs * pieces:
            break
        here.part, slab = <int>(n % pieces), n // pieces
        if schedule.meet:
            wait(schedule, &schedule.done, slab * pieces, &waited)
        else:
            wait(schedule, &schedule.slabs[here.part], slab, &waited)
        hold(schedule, thread, n)
        start = first + slab * schedule.slab
        schedule.run(schedule.call, start, min(end, start + schedule.slab), &here)
        lf_counter_set(&schedule.slabs[here.part], slab + 1)
        lf_counter_add(&schedule.done, 1)
        hold(schedule, thread, NOTHING)
        ran += 1
    if ran > 0:
        alone = (lf_now() - since - lf_counter_get(&waited)) * slabs * pieces // ran
        lf_counter_least(&schedule.least, alone)


cdef void hold(Schedule *schedule, int thread, long long what) noexcept nogil:
    """Say what a thread computes: a piece, SOMETHING or NOTHING."""
    if thread < MOST_KNOWN:
        lf_counter_set(&schedule.holds[thread], what)


cdef void run_on(Schedule *schedule, Py_ssize_t first, Py_ssize_t end, int thread, int threads,
                 long long since) noexcept nogil:
    """One thread's share of some units of time, in the floating-point environment of the kernels.

    `since`: when the call began, or 0 where that is not watched.
    """
    cdef lf_fpenv saved = lf_fpenv_enter()
    cdef Place here
    if since:
        spread(schedule, thread)
        hold(schedule, thread, NOTHING if schedule.split.pieces else SOMETHING)
        if thread < MOST_KNOWN:
            lf_counter_set(&schedule.name[thread], own_name())
        lf_counter_add(&schedule.late, lf_now() - since)
    if schedule.split.pieces:
        run_pieces(schedule, first, end, thread)
    else:
        here = place(thread, threads, schedule.split.groups, schedule.jobs)
        schedule.run(schedule.call, first, end, &here)
    if since:
        hold(schedule, thread, NOTHING)
        lf_counter_add(&schedule.ended, lf_now() - since)
    lf_fpenv_leave(saved)
    if threads > 1:  # rather here than where OpenMP waits, which does not let the others have the core
        lf_counter_add(&schedule.finished, 1)
        if thread == 0:
            wait(schedule, &schedule.finished, threads, &schedule.at_the_end)


cdef void run(Schedule *schedule, Py_ssize_t first, Py_ssize_t end) noexcept:
    """Some units of time, without the GIL."""
    cdef int threads = schedule.split.threads, n
    cdef long long since = 0, time
    if threads > 1:
        threads = startable(threads)
    lf_counter_set(&schedule.waited, 0)
    if schedule.split.pieces:
        lf_counter_set(&schedule.taken, 0)
        lf_counter_set(&schedule.done, 0)
        lf_counter_set(&schedule.least, 1 << 62)
        for n in range(schedule.split.pieces):
            lf_counter_set(&schedule.slabs[n], 0)
    if threads == 1:
        with nogil:
            run_on(schedule, first, end, 0, 1, 0)
        return
    lf_counter_set(&schedule.cpu, -1)
    lf_counter_set(&schedule.at_the_end, 0)
    for n in range(min(schedule.split.threads, MOST_KNOWN)):
        lf_counter_set(&schedule.name[n], 0)
        lf_counter_set(&schedule.holds[n], NOTHING)
    lf_counter_set(&schedule.late, 0)
    lf_counter_set(&schedule.ended, 0)
    lf_counter_set(&schedule.finished, 0)
    if watching():
        since = lf_now()
    with nogil, parallel(num_threads=threads):
        run_on(schedule, first, end, threadid(), team_size(), since)
    if since and lf_counter_get(&schedule.finished) == threads:
        time = lf_now() - since
        if schedule.split.pieces:
            learn(&of_pieces, threads, time, lf_counter_get(&schedule.least), 0)
        else:
            learn(&of_teams, threads, time, time_alone(schedule, threads, time),
                  lf_counter_get(&schedule.late) // (threads - 1))


cdef long long time_alone(Schedule *schedule, int threads, long long time) noexcept:
    """What a call would have taken one thread: the time that threads were at work, without what they lost.

    When one loses its core, the others wait for it, so that it lost what each of these waited.
    """
    cdef long long late = lf_counter_get(&schedule.late)
    cdef long long idle = threads * time - lf_counter_get(&schedule.ended) + lf_counter_get(&schedule.waited)
    cdef long long lost = max(0, idle // (threads - 1) - late)
    return max(0, threads * time - late - idle - lost)


cdef void run_segments(Schedule *schedule) except *:
    """All units of time, looking at signals after every segment."""
    cdef Py_ssize_t first = 0, count = schedule.count
    cdef double units = WORK_PER_SIGNAL_CHECK * schedule.split.threads * count / (schedule.work + 1)
    cdef Py_ssize_t segment = <Py_ssize_t>min(<double>count, 1 + units)
    while first < count:
        run(schedule, first, min(first + segment, count))
        first += segment
        PyErr_CheckSignals()


cdef void run_all(Schedule *schedule, bint blas) except *:
    """Run a call. With `blas`, our threads call BLAS, each on its slice."""
    if blas:
        with held_to_one_thread():
            run_segments(schedule)
    else:
        run_segments(schedule)


def planned(jobs, chained, steps, rows, ragged, panels, weights, step_work, total_work):
    """What `plan` says of such a call, and the place of each thread, each as a dict. For tests."""
    cdef Split split = plan(jobs, chained, steps, rows, ragged, panels, weights, step_work, total_work, True)
    return split, [place(thread, split.threads, split.groups, jobs) for thread in range(split.threads)]
