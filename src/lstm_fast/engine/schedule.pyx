"""The threads of a call of the engine, as it was planned: how they begin, share, wait for one another and end."""

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport parallel, threadid

from lstm_fast.engine.plan cimport place
from lstm_fast.engine.runtime.cores cimport (lf_bring, lf_cpu, lf_is_on, lf_keep_off, lf_own_time, lf_thread_name,
                                             lf_time_of)
from lstm_fast.engine.runtime.gemm import held_to_one_thread
from lstm_fast.engine.runtime.helpers cimport lf_offer, lf_offer_close, lf_offer_open, lf_pool_init
from lstm_fast.engine.runtime.kernels cimport (lf_counter, lf_counter_add, lf_counter_get, lf_counter_least,
                                               lf_counter_most, lf_counter_raise, lf_counter_set, lf_counter_spin,
                                               lf_fpenv, lf_fpenv_enter, lf_fpenv_leave, lf_now, lf_sleep)
from lstm_fast.engine.runtime.threads cimport startable, team_size
from lstm_fast.engine.watch cimport learn, of_pieces, of_teams, watching

lf_pool_init()

# Multiply-adds of one thread between two looks at signals: 0.1 to 0.3 s.
cdef double WORK_PER_SIGNAL_CHECK = 4e9
# Multiply-adds of a call that is over before another Python thread would have begun: it keeps the GIL.
cdef double SHORT_WORK = 5e4


cdef void begin(Schedule *schedule, Split split, int jobs, Py_ssize_t count, double work, void *call,
                void (*run)(void *, Py_ssize_t, Py_ssize_t, const Place *) noexcept nogil) noexcept:
    """Fill in all but `slab` and `meet`, which are 1 and False, and `cost`."""
    schedule.split, schedule.jobs, schedule.count, schedule.work = split, jobs, count, work
    schedule.call, schedule.run, schedule.slab, schedule.meet = call, run, 1, False
    schedule.cost, schedule.period = NULL, 1


cdef void spread(Schedule *schedule, int thread) noexcept nogil:
    """Keep the threads off the core of the first: where all cores are busy, the system may leave two on one."""
    if thread == 0:
        lf_counter_set(&schedule.cpu, lf_cpu())
    else:
        lf_keep_off(<int>lf_counter_get(&schedule.cpu))


# Nanoseconds for which a thread does not sleep that waits; and after which it asks whether another has lost its core.
cdef long long PATIENCE = 2_000_000
cdef long long LOST = 40_000

# What a thread holds that is at work, but not in pieces; that has no piece of them; that is not there.
cdef long long SOMETHING, NOTHING, ABSENT
SOMETHING, NOTHING, ABSENT = 0, 1 << 62, (1 << 62) + 1


cdef int furthest_behind(Schedule *schedule, int but) noexcept nogil:
    """The name of the thread that computes the earliest piece, else of one that is there; `but` not this one; or 0."""
    cdef int thread, last = -1
    cdef long long held, least = ABSENT
    for thread in range(MOST_KNOWN if schedule.split.in_pieces else min(schedule.split.threads, MOST_KNOWN)):
        held = lf_counter_get(&schedule.holds[thread])
        if held < least and thread != but:
            least, last = held, thread
    return 0 if last < 0 else <int>lf_counter_get(&schedule.name[last])


cdef void wait(Schedule *schedule, int thread, lf_counter *counter, long long n, lf_counter *waited) noexcept nogil:
    """Wait until a counter is at least n, and where that takes long see to the thread that is furthest behind.

    If it has lost its core, it is brought to that of the waiting thread. This one does not sleep at first: where it
    did, the system would move to its core whoever waits for another one.
    """
    cdef int name
    cdef long long start, since, ran
    cdef lf_counter within
    if lf_counter_spin(counter, n, LOST, waited):
        return
    lf_counter_set(&within, 0)
    start = lf_now()
    while True:
        name = furthest_behind(schedule, thread)
        since, ran = lf_now(), lf_time_of(name)
        if since - start > PATIENCE:
            lf_sleep()
        if lf_counter_spin(counter, n, LOST, &within):
            break
        if name and 2 * (lf_time_of(name) - ran) < lf_now() - since:
            lf_bring(name)
    lf_counter_add(waited, lf_now() - start)


cdef double cost_of(const Schedule *schedule, Py_ssize_t first, Py_ssize_t end) noexcept nogil:
    """Of some units of time, of a piece."""
    cdef Py_ssize_t u
    cdef double cost = 0
    if schedule.cost == NULL:
        return end - first
    for u in range(first, end):
        cost += schedule.cost[u % schedule.period]
    return cost


cdef int furthest_piece(Schedule *schedule, Py_ssize_t slabs, int thread, lf_counter *waited, int mine) noexcept nogil:
    """Take a slab of the piece that is furthest behind of those that can go on, rather of one's own; -1: all are taken.

    So a piece stays with a thread, and near its core, but for one whose thread is late. A piece whose thread has lost
    its core holds up nobody who finds another one.
    """
    cdef int part, found, last, pieces = schedule.split.threads
    cdef long long taken, least, behind
    while True:
        found = last = -1
        least = behind = slabs
        for part in range(pieces):
            taken = lf_counter_get(&schedule.taken[part])
            if taken < behind:
                last, behind = part, taken
            if lf_counter_get(&schedule.slabs[part]) < taken:
                continue
            if schedule.meet and lf_counter_get(&schedule.done) < taken * pieces:
                continue
            if taken < least or (taken == least and part == mine and taken < slabs):
                found, least = part, taken
        if last < 0:
            return -1
        if found < 0 and schedule.meet:
            wait(schedule, thread, &schedule.done, behind * pieces, waited)
        elif found < 0:
            wait(schedule, thread, &schedule.slabs[last], behind, waited)
        elif lf_counter_raise(&schedule.taken[found], least):
            return found


cdef void run_pieces(Schedule *schedule, int thread) noexcept nogil:
    """Take slabs of time of pieces, until there are no more."""
    cdef Py_ssize_t first = schedule.first, end = schedule.end, slab, start
    cdef Py_ssize_t slabs = (end - first + schedule.slab - 1) // schedule.slab
    cdef double ran = 0, piece, alone
    cdef long long since = lf_now()
    cdef lf_counter waited
    cdef Place here
    lf_counter_set(&waited, 0)
    here.group, here.part, here.parts, here.first_job, here.end_job = 0, -1, schedule.split.threads, 0, schedule.jobs
    while True:
        if thread == 0:
            lf_counter_set(&schedule.cpu, lf_cpu())
        elif lf_is_on(<int>lf_counter_get(&schedule.cpu)):
            break  # to come back on another one
        here.part = furthest_piece(schedule, slabs, thread, &waited, here.part)
        if here.part < 0:
            break
        slab = <Py_ssize_t>lf_counter_get(&schedule.slabs[here.part])
        hold(schedule, thread, slab * here.parts + here.part)
        start = first + slab * schedule.slab
        schedule.run(schedule.call, start, min(end, start + schedule.slab), &here)
        lf_counter_set(&schedule.slabs[here.part], slab + 1)
        lf_counter_add(&schedule.done, 1)
        hold(schedule, thread, NOTHING)
        ran += cost_of(schedule, start, min(end, start + schedule.slab))
    piece = cost_of(schedule, first, end)
    if 2 * ran >= piece:  # what takes less may cost more or less than it is taken for
        alone = (lf_now() - since - lf_counter_get(&waited)) * piece * here.parts / ran
        lf_counter_least(&schedule.least, <long long>alone)


cdef void hold(Schedule *schedule, int thread, long long what) noexcept nogil:
    """Say what a thread computes: a piece, or one of the above."""
    if thread < MOST_KNOWN:
        lf_counter_set(&schedule.holds[thread], what)


cdef void run_on(Schedule *schedule, int thread, int threads) noexcept nogil:
    """A thread's share of the units of now, in the floating-point environment of the kernels."""
    cdef lf_fpenv saved = lf_fpenv_enter()
    cdef Place here
    if schedule.since and thread < MOST_KNOWN:
        lf_counter_set(&schedule.name[thread], lf_thread_name())
    if schedule.split.in_pieces:
        hold(schedule, thread, NOTHING)
        run_pieces(schedule, thread)
    else:
        here = place(thread, threads, schedule.split.groups, schedule.jobs)
        schedule.run(schedule.call, schedule.first, schedule.end, &here)
    lf_fpenv_leave(saved)


cdef void run_in_team(Schedule *schedule, int thread, int threads) noexcept nogil:
    """One of OpenMP's threads, all of which have a share, and wait for the last one."""
    cdef long long since = schedule.since, before, ended
    if since:
        hold(schedule, thread, SOMETHING)
        spread(schedule, thread)
        lf_counter_add(&schedule.late, lf_now() - since)
        before = lf_own_time()
    run_on(schedule, thread, threads)
    if since:
        lf_counter_add(&schedule.ran, lf_own_time() - before)
        hold(schedule, thread, ABSENT)
        ended = lf_now() - since
        lf_counter_add(&schedule.ended, ended)
        lf_counter_most(&schedule.last, ended)
    lf_counter_add(&schedule.finished, 1)
    if thread == 0:  # rather here than where OpenMP waits, which does not let the others have the core
        wait(schedule, 0, &schedule.finished, threads, &schedule.at_the_end)


cdef void help(void *call, int thread) noexcept nogil:
    run_on(<Schedule *>call, thread, (<Schedule *>call).split.threads)


cdef void run_with_helpers(Schedule *schedule) noexcept nogil:
    """The caller and those who come in time take pieces."""
    cdef lf_offer offer
    lf_counter_set(&schedule.cpu, lf_cpu())
    lf_offer_open(&offer, help, schedule, &schedule.cpu, schedule.split.threads - 1)
    run_on(schedule, 0, schedule.split.threads)
    wait(schedule, 0, &offer.left, lf_offer_close(&offer), &schedule.at_the_end)


cdef void run(Schedule *schedule, Py_ssize_t first, Py_ssize_t end) noexcept:
    """Some units of time, without the GIL."""
    cdef int threads = schedule.split.threads, n
    cdef bint in_pieces = schedule.split.in_pieces
    if threads > 1 and not in_pieces:
        threads = startable(threads)
    schedule.first, schedule.end, schedule.since = first, end, 0
    lf_counter_set(&schedule.waited, 0)
    lf_counter_set(&schedule.stood_by, 0)
    if in_pieces:
        lf_counter_set(&schedule.done, 0)
        lf_counter_set(&schedule.least, 1 << 62)
        for n in range(threads):
            lf_counter_set(&schedule.taken[n], 0)
            lf_counter_set(&schedule.slabs[n], 0)
    if threads == 1:
        if schedule.work < SHORT_WORK:
            run_on(schedule, 0, 1)
            return
        with nogil:
            run_on(schedule, 0, 1)
        return
    lf_counter_set(&schedule.cpu, -1)
    lf_counter_set(&schedule.at_the_end, 0)
    for n in range(MOST_KNOWN if in_pieces else min(threads, MOST_KNOWN)):
        lf_counter_set(&schedule.name[n], 0)
        lf_counter_set(&schedule.holds[n], ABSENT)
    lf_counter_set(&schedule.ran, 0)
    lf_counter_set(&schedule.late, 0)
    lf_counter_set(&schedule.ended, 0)
    lf_counter_set(&schedule.last, 0)
    lf_counter_set(&schedule.finished, 0)
    if watching():
        schedule.since = lf_now()
    if in_pieces:
        with nogil:
            run_with_helpers(schedule)
    else:
        with nogil, parallel(num_threads=threads):
            run_in_team(schedule, threadid(), team_size())
    if schedule.since:
        learn_of(schedule, threads, lf_now() - schedule.since)


cdef void learn_of(Schedule *schedule, int threads, long long time) noexcept:
    """Tell the watch what was seen of a call, if it had all of the threads that were asked for.

    One thread alone takes no longer than all together were on cores, and as long where they met nobody, whether they
    lost their cores meanwhile or had less to do than others. Those that stood by were on a core for nothing.
    """
    cdef long long alone
    if schedule.split.in_pieces:
        learn(&of_pieces, threads, time, min(lf_counter_get(&schedule.least), threads * time), 0)
    elif lf_counter_get(&schedule.finished) == threads:
        alone = lf_counter_get(&schedule.ran)
        if lf_counter_get(&schedule.waited) > 0:
            alone = min(alone, time_alone(threads, lf_counter_get(&schedule.last), lf_counter_get(&schedule.ended),
                                          lf_counter_get(&schedule.late), lf_counter_get(&schedule.waited)))
        learn(&of_teams, threads, time, alone - lf_counter_get(&schedule.stood_by),
              lf_counter_get(&schedule.late) // (threads - 1))


cpdef long long time_alone(int threads, long long last, long long ended, long long late, long long waited) noexcept:
    """What a call would have taken one thread: the time that threads were at work, without what they lost.

    The threads began `late`, `ended` and `waited` for one another that long after the call began, in sums, and the
    last of them ended after `last`. When one loses its core, the others wait for it, so that it lost what each of these
    waited. What they lost after that, where they wait for the end of the call, is no part of it.
    """
    cdef long long idle = threads * last - ended + waited
    cdef long long lost = max(0, idle // (threads - 1) - late)
    return max(0, threads * last - late - idle - lost)


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
