"""Parameters that are written while other threads compute, and what escapes from `writable`."""

import copy
import gc
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress

import numpy as np
import pytest
from support.pauses import HANGS, Task, beside, lines, paused
from support.processes import run_python

from lstm_fast import LSTM, nn, optim

pytestmark = pytest.mark.no_isa

I, H, L, B = 3, 4, 2, 2
Results = list[np.ndarray]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape, np.float32)


X, LONG, STATE = normal(3, B, I), normal(600, 1, I), (normal(L, B, H), 2 * normal(L, B, H))
# The versions of the parameters that tests write.
OLD, NEW = (LSTM(I, H, L, seed=seed).state_dict() for seed in (1, 2))


def loaded(values: dict[str, np.ndarray]) -> LSTM:
    """Return a new LSTM of these parameters."""
    lstm = LSTM(I, H, L, seed=9)
    lstm.load_state_dict(values)
    return lstm


def infer(lstm: LSTM, **options) -> Results:
    y, state = lstm(X, STATE, **options)
    return [y, *state]


def train(lstm: LSTM, x: np.ndarray = X, **options) -> Results:
    y, state, cache = lstm.forward(x, **options)
    dx, dstate, grads = lstm.backward(y, state, cache)
    return [y, *state, dx, *dstate, *grads.values()]


def with_blas(reader: Callable[[LSTM], Results]) -> Callable[[LSTM], Results]:
    def read(lstm):
        lstm.matmul = "blas"
        try:
            return reader(lstm)
        finally:
            lstm.matmul = "auto"

    return read


def steps(lstm: LSTM) -> Results:
    stream = lstm.stream(B)
    stream.state = STATE
    return [stream.step(X[0]), *stream.state]


# Everything that computes with parameters.
READERS: dict[str, Callable[[LSTM], Results]] = {
    "call": infer,
    "call with lengths": lambda lstm: infer(lstm, lengths=[1, 3]),
    "step": steps,
    "chunk": lambda lstm: [lstm.stream(B)(X)],
    "training": train,
    "training with checkpoints": lambda lstm: train(lstm, LONG, checkpoint=1),
    "call with BLAS": with_blas(infer),
    "training with BLAS": with_blas(train),
}
OFTEN = ["call", "step", "training"]


def write(lstm: LSTM, values: dict[str, np.ndarray] = NEW) -> None:
    with lstm.writable() as p:
        for name in p:
            p[name][...] = values[name]


WRITERS = {
    "load_state_dict": lambda lstm: lstm.load_state_dict(NEW),
    "writable": write,
    "step": lambda lstm: optim.SGD(0.1).step(lstm, OLD),
}


def same(actual: Results, wanted: Results) -> bool:
    return all(np.array_equal(a, w) for a, w in zip(actual, wanted, strict=True))


def assert_same(actual: Results, wanted: Results, message: str) -> None:
    if not same(actual, wanted):  # without pages of numbers
        pytest.fail(message)


def assert_one_of(actual: Results, versions: list[Results]) -> None:
    if not any(same(actual, wanted) for wanted in versions):
        pytest.fail("a mix of two versions of the parameters")


def assert_current(lstm: LSTM, *kinds: str) -> None:
    """These kinds of calls give the bits of a fresh LSTM of the same parameters, twice."""
    fresh = loaded(lstm.state_dict())
    for kind in kinds:
        wanted = READERS[kind](fresh)
        for n in ("first", "second"):
            assert_same(READERS[kind](lstm), wanted, f"the {n} {kind} used other parameters")


def assert_closed(lstm: LSTM) -> None:
    """So do all kinds; parameters are read-only, and calls take no more steps than elsewhere."""
    assert_current(lstm, *READERS)
    values = lstm.state_dict()
    assert not any(getattr(lstm, name).flags.writeable for name in values)
    other = loaded(values)
    for one in (lstm, other):
        infer(one)
    assert lines(lambda: infer(lstm)) == lines(lambda: infer(other)), "packs at every call"


# ---- at each line of a call, and of a writer


def check_beside(kind: str, writer: str, before: str | None, reader_pauses: bool) -> None:
    """Run a reader, and a writer beside it, one of them inside each line of the other."""
    reader, written = READERS[kind], loaded(OLD)
    WRITERS[writer](written)
    old, new = reader(loaded(OLD)), reader(written)

    def make() -> LSTM:
        lstm = loaded(OLD)
        if before is not None:
            READERS[before](lstm)
        return lstm

    both = (reader, WRITERS[writer]) if reader_pauses else (WRITERS[writer], reader)
    for lstm, *found in beside(make, *both, visits=2 if kind in OFTEN else 1):
        if writer != "writable":  # of which a call sees what is written so far
            assert_one_of(found[0 if reader_pauses else 1], [old, new])
        assert_same(reader(lstm), new, "the next call used other parameters")
    assert_closed(lstm)


@pytest.mark.parametrize(
    ("kind", "writer", "before"),
    [
        *((kind, "load_state_dict", None) for kind in READERS),
        # Later calls pack again, and more for backward and for BLAS.
        *((k, "load_state_dict", "call") for k in READERS if "training" in k or "BLAS" in k),
        *((kind, how, None) for kind in ("call", "training") for how in ("writable", "step")),
    ],
)
def test_a_writer_at_any_line_of_a_call(kind, writer, before):
    """It comes and goes while the call is at that line: calls after both use what it wrote.

    One beside `load_state_dict` or a step uses the old or the new parameters, for gradients too.
    """
    check_beside(kind, writer, before, True)


@pytest.mark.parametrize("before", [None, "call"], ids=["first call", "later call"])
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kind", OFTEN)
def test_a_call_at_any_line_of_a_writer(kind, writer, before):
    """The same, with a whole call while the writer is at that line."""
    check_beside(kind, writer, before, False)


@pytest.mark.parametrize("other", WRITERS)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_writer_at_any_line_of_another(writer, other):
    """Both succeed, and the calls after that are of the parameters as they are then."""
    for lstm, *_ in beside(lambda: loaded(OLD), WRITERS[writer], WRITERS[other]):
        assert_current(lstm, "call", "training")
    assert_closed(lstm)


def test_a_block_that_opens_at_any_line_of_another():
    """And is still open when that one has closed: both write, then the parameters are closed."""

    def first(made):
        lstm, finish = made
        write(lstm, OLD)
        finish.set()

    def second(made):
        lstm, finish = made
        with lstm.writable() as p:
            finish.wait(HANGS)
            infer(lstm)
            for name in p:
                p[name] = NEW[name]

    def make():
        return loaded(OLD), threading.Event()

    for (lstm, _), *_ in beside(make, first, second, visits=6):
        assert_one_of([*lstm.state_dict().values()], [[*NEW.values()], [*OLD.values()]])
        assert_closed(lstm)


def test_a_load_at_any_line_of_another():
    """One of them comes last, and all parameters are of that."""
    for lstm, *_ in beside(
        lambda: LSTM(I, H, L, seed=0),
        lambda lstm: lstm.load_state_dict(OLD),
        lambda lstm: lstm.load_state_dict(NEW),
    ):
        assert_one_of([*lstm.state_dict().values()], [[*OLD.values()], [*NEW.values()]])
        assert_current(lstm, "call")
    assert_closed(lstm)


@pytest.mark.parametrize("kind", ["call", "training"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("recurrent_dropout", 0.5), ("zoneout", (0.25, 0.5))],
)
def test_a_setting_changed_at_any_line_of_a_call(name, value, kind):
    """The next calls are those of a copy, which has the settings and parameters, nothing packed."""
    for lstm, *_ in beside(
        lambda: loaded(OLD), READERS[kind], lambda lstm: setattr(lstm, name, value), visits=1
    ):
        copied = copy.deepcopy(lstm)
        for again in ("call", "training"):
            assert_same(READERS[again](lstm), READERS[again](copied), f"{again}: not with {name}")


COPIES = {
    "state_dict": LSTM.state_dict,
    "deepcopy": lambda lstm: copy.deepcopy(lstm).state_dict(),
    "pickle": lambda lstm: pickle.loads(pickle.dumps(lstm)).state_dict(),
}


@pytest.mark.parametrize("load_pauses", [False, True], ids=["copy pauses", "load pauses"])
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_beside_a_load(how, load_pauses):
    """It has parameters of one version, wherever in the one the other comes and goes."""
    points = {"modules": "lstm_fast copy"}
    points |= {} if load_pauses else {"event": "call", "visits": 30}
    pair = [COPIES[how], WRITERS["load_state_dict"]]
    pair = pair[::-1] if load_pauses else pair
    for _, *found in beside(lambda: loaded(OLD), *pair, **points):
        copied = found[1 if load_pauses else 0]
        assert_one_of([*copied.values()], [[*OLD.values()], [*NEW.values()]])


# ---- many threads


@pytest.fixture
def many_switches():
    """Let Python switch between threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("kinds", [["call", "call", "step"], ["gradients", "forward"]])
@pytest.mark.parametrize("layer", [(16, 32, 2), (32, 64, 4)])
def test_threads_that_compute_beside_one_that_loads(many_switches, layer, kinds):
    """Every result is of one version of the parameters; those afterwards are of the last."""
    x = normal(2, 2, layer[0])
    readers = {
        "call": lambda lstm: [lstm(x)[0]],
        "forward": lambda lstm: [lstm.forward(x)[0]],
        "step": lambda lstm: [lstm.stream(2).step(x[0])],
        "gradients": lambda lstm: train(lstm, x),
    }
    versions = [LSTM(*layer, seed=seed) for seed in range(4)]
    values = [lstm.state_dict() for lstm in versions]
    known = {kind: [readers[kind](lstm) for lstm in versions] for kind in kinds}
    for _ in range(10):
        lstm, stop = LSTM(*layer, seed=0), threading.Event()
        start = threading.Barrier(len(kinds) + 1, timeout=HANGS)

        def repeat(reader, lstm=lstm, start=start, stop=stop):
            start.wait()
            found = []
            while not stop.is_set():
                found.append(reader(lstm))
            return found

        tasks = [(kind, Task(repeat, readers[kind])) for kind in kinds]
        for _, task in tasks:
            task.start()
        start.wait()
        try:
            for n in range(30):
                lstm.load_state_dict(values[1 + n % 3])
        finally:
            stop.set()
        for kind, task in tasks:
            for results in task.result():
                assert_one_of(results, known[kind])
        for kind in kinds:
            assert_same(readers[kind](lstm), known[kind][1 + n % 3], f"{kind}: stale parameters")


@pytest.mark.parametrize("what", ["steps", "averages"])
@pytest.mark.parametrize("kind", ["lstm", "model"])
def test_threads_that_compute_beside_an_optimizer(many_switches, kind, what):
    """Every result is of the parameters before or after a step, or of their average."""
    x = normal(2, 2, 32)
    for _ in range(5):
        block = LSTM(32, 64, 4, seed=0)
        if kind == "model":
            block = nn.Sequential(lstm=block, head=nn.Linear(64, 64, seed=1))
        grads = {name: np.sign(value) for name, value in block.state_dict().items()}
        optimizer, mean = optim.SGD(0.01), optim.Average(block, 0.5)
        known, stop = [block(x)[0]], threading.Event()

        def read(block=block, stop=stop):
            found = []
            while not stop.is_set():
                found.append(block(x)[0])
            return found

        tasks = [Task(read) for _ in range(2)]
        for task in tasks:
            task.start()
        try:
            for _ in range(30):
                optimizer.step(block, grads)
                known.append(block(x)[0])
                if what == "averages":
                    mean.update()
                    with mean.applied():
                        known.append(block(x)[0])
        finally:
            stop.set()
        for task in tasks:
            for y in task.result():
                assert_one_of([y], [[wanted] for wanted in known])


def test_threads_that_write_beside_one_another(many_switches):
    """Blocks of `writable` overlap without an error, and leave parameters that calls use."""

    def add(lstm):
        for _ in range(300):
            with lstm.writable() as p:
                p["bias_hh_l0"] += 1
            infer(lstm)

    lstm = loaded(OLD)
    tasks = [Task(add, lstm) for _ in range(4)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.result()
    assert_closed(lstm)


# ---- errors


def test_a_block_that_cannot_be_opened():
    """If memory is short as `writable` opens, in any function of it, it is as if never called."""
    n = 0
    while True:
        lstm = loaded(OLD)
        infer(lstm)

        def fail():
            raise MemoryError("here")

        with paused(n, fail, "call") as seen, ExitStack() as blocks:
            try:
                blocks.enter_context(lstm.writable())
            except MemoryError as error:
                assert error.args == ("here",)
            entered = seen.count
            seen.count = n + 1  # nothing fails as it closes
        if entered <= n:
            break
        assert_closed(lstm)
        write(lstm)
        assert_closed(lstm)
        assert all(np.array_equal(getattr(lstm, name), value) for name, value in NEW.items())
        n += 1
    assert n > 0


@pytest.mark.parametrize("kind", READERS)
def test_a_call_that_fails(kind):
    """If memory is short in any function of the package, the next call is right all the same."""
    wanted, n = READERS[kind](loaded(OLD)), 0
    while True:
        lstm = loaded(OLD)

        def fail():
            raise MemoryError

        with paused(n, fail, "call") as seen, suppress(MemoryError):
            READERS[kind](lstm)
        assert_same(READERS[kind](lstm), wanted, f"wrong after function {n} failed")
        if seen.count <= n:
            break
        n += 1
    assert n > 1
    assert_closed(lstm)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers")
@pytest.mark.parametrize("what", ["lstm.load_state_dict(values[1])", "lstm(x)", "write(values[1])"])
def test_a_signal_at_any_time(what):
    """Ctrl-C in the midst leaves an LSTM whose calls are of its parameters, and that can be loaded.

    In an interpreter of its own: a lock that is never given back would hang.
    """
    code = f"""
import signal, time
import numpy as np
from lstm_fast import LSTM

signal.signal(signal.SIGALRM, signal.default_int_handler)
values = [LSTM(16, 32, 4, seed=seed).state_dict() for seed in range(3)]
x = np.ones((2, 2, 16), np.float32)

def write(values):
    with lstm.writable() as p:
        for name in p:
            p[name] = values[name]

def run():
    {what}

def interrupted(after):
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, after)
            run()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        return True
    return False

def assert_current():
    other = LSTM(16, 32, 4)
    other.load_state_dict(lstm.state_dict())
    for _ in range(2):
        assert np.array_equal(lstm(x)[0], other(x)[0])

hits, duration = 0, 1
for n in range(-10, 100):
    lstm = LSTM(16, 32, 4)
    lstm.load_state_dict(values[0])
    start = time.perf_counter()
    if n < 0:
        run()
        duration = min(duration, time.perf_counter() - start)
    else:
        hits += interrupted(1e-6 + duration * n / 100)
    assert_current()
    lstm.load_state_dict(values[2])
    assert_current()
    assert all(np.array_equal(getattr(lstm, name), value) for name, value in values[2].items())
assert hits
"""
    run_python(code)


@pytest.mark.parametrize("handler", ["call", "load_state_dict", "writable"])
def test_a_signal_handler_at_any_line(handler):
    """It runs in the thread that it interrupts, which cannot go on before: both succeed.

    In an interpreter of its own, which is ended if it hangs.
    """
    code = f"""
import signal
from support.pauses import paused
from test_writers import OLD, READERS, WRITERS, assert_closed, assert_current, loaded

signal.alarm(20)
both = READERS | WRITERS
for kind in ("call", "training", "load_state_dict"):
    print(kind, flush=True)
    n = 0
    while True:
        lstm = loaded(OLD)
        with paused(n, lambda: both[{handler!r}](lstm)) as seen:
            both[kind](lstm)
        if seen.count <= n:
            break
        assert_current(lstm, "call", "training")
        n += 1
    assert n > 3
    assert_closed(lstm)
"""
    run_python(code)


# ---- what escapes from a block


ESCAPES = {
    "slice": lambda a: a[1:],
    "element": lambda a: a[:1, :1],
    "reshaped": lambda a: a.reshape(-1),
    "transposed": lambda a: a.T,
    "view": lambda a: a.view(),
    "view of bits": lambda a: a.view(np.int32),
    "slice of a slice": lambda a: a[1:][1:],
    "iterator": lambda a: next(iter(a)),
}


@pytest.mark.parametrize(
    ("how", "kind"), [*((how, "call") for how in ESCAPES), ("slice", "step"), ("slice", "training")]
)
def test_what_is_kept_of_an_array_of_a_block(how, kind):
    """A later write through it raises or is seen by the next call; once it is gone, all is as ever.

    Calls before the block, in it and after it change nothing, nor do blocks around and between.
    """
    lstm = loaded(OLD)
    assert_current(lstm, kind)
    with lstm.writable():
        with lstm.writable() as p:
            kept = ESCAPES[how](p["weight_hh_l1"])
        READERS[kind](lstm)
    for n in range(3):
        assert_current(lstm, kind)
        with suppress(ValueError):  # read-only
            kept[...] = n
        assert_current(lstm, kind)
        lstm.load_state_dict(NEW if n else OLD)
        assert_current(lstm, kind)
    del p, kept
    gc.collect()
    assert_closed(lstm)


def test_an_array_kept_by_an_exception_of_a_block():
    """The traceback of an exception holds the frame of the block, and with it the arrays."""

    def block(lstm):
        with lstm.writable() as p:
            part = p["bias_ih_l0"][2:]
            raise RuntimeError(part)

    lstm = loaded(OLD)
    infer(lstm)
    with pytest.raises(RuntimeError) as raised:
        block(lstm)
    with suppress(ValueError):
        raised.value.args[0][...] = 1
    assert_current(lstm, *READERS)


@pytest.mark.parametrize("duplicate", [lambda a: pickle.loads(pickle.dumps(a)), LSTM.__copy__])
def test_a_copy_of_an_lstm_of_which_an_array_is_kept(duplicate):
    """It has parameters of its own, which no write to the other's changes."""
    lstm = loaded(OLD)
    with lstm.writable() as p:
        kept = p["bias_ih_l0"][2:]
    other = duplicate(lstm)
    with suppress(ValueError):
        kept[...] = 1
    assert all(np.array_equal(getattr(other, name), value) for name, value in OLD.items())
    assert_closed(other)
    assert_current(lstm, *READERS)
