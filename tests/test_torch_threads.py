"""`lstm_fast.torch` on several threads and in several processes: all get what is right."""

import threading
import tracemalloc
from functools import partial

import pytest
from support import comparisons
from support.pauses import beside

comparisons.require("PyTorch", "torch")

import torch  # noqa: E402
from support.torch_lstms import (  # noqa: E402
    DOUBLE,
    assert_results,
    flat,
    loss,
    renewed,
    run_with_torch,
)
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations  # noqa: E402

import lstm_fast  # noqa: E402
from lstm_fast.torch import LSTM, LSTMCell  # noqa: E402

pytestmark = [pytest.mark.no_isa, pytest.mark.usefixtures("one_thread_of_pytorch")]


# ---- threads


@pytest.mark.usefixtures("threads")
def test_pytorchs_threads_are_the_engines():
    module, seen = LSTM(64, 64), []
    module.register_forward_hook(lambda *_: seen.append(lstm_fast.get_num_threads()))
    for count in (1, 2, 1):
        torch.set_num_threads(count)
        module(torch.randn(20, 8, 64))
    most = min(2, lstm_fast.get_num_threads()) if seen[1] == 1 else 2
    assert seen == [1, most, 1]


def test_a_result_keeps_its_memory_until_it_is_gone_in_whatever_thread():
    """Its memory is an array of NumPy's, which PyTorch gives back."""
    module, x = LSTM(3, 64), torch.randn(40, 2, 3)
    with torch.no_grad():
        expected = [t.clone() for t in flat(module(x))]
        module(x)  # a short call from here on
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            results = [module(x) for _ in range(10)]
            held = tracemalloc.get_traced_memory()[0] - before
            assert held > 10 * 40 * 2 * 64 * 4
            for found in results:
                assert_results(found, expected)
            thread = threading.Thread(target=results.clear)
            thread.start()
            thread.join(60)
            del found
            assert tracemalloc.get_traced_memory()[0] - before < held / 10
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_short_calls_return_tensors_of_the_mode_they_run_in(mode):
    module, cell = LSTM(3, 8), LSTMCell(3, 8)
    with mode():
        for _ in range(2):  # the second one is a short one
            results = flat((module(torch.randn(4, 2, 3)), cell(torch.randn(2, 3))))
        for t in results:
            assert t.is_inference() == (mode is torch.inference_mode)
            assert t.is_contiguous() and not t.requires_grad and not t._is_view()


def test_short_calls_refuse_what_the_first_one_refuses():
    module = LSTM(3, 8)
    for _ in range(2):
        with torch.no_grad(), pytest.raises(RuntimeError, match="larger than 0"):
            module(torch.empty(0, 2, 3))
        module(torch.randn(4, 2, 3))


def in_threads(*calls):
    """Call functions in a thread each, all at the same time, and return what they return."""
    start, found = threading.Barrier(len(calls)), [None] * len(calls)

    def run(k, call):
        start.wait(30)
        found[k] = call()

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert None not in found
    return found


@pytest.mark.parametrize("shared", [False, True], ids=["different modules", "one module"])
def test_python_threads(shared):
    """Inference and training at once; gradients of one module are by `autograd.grad`."""
    modules = [LSTM(5, 16, 2, **DOUBLE) for _ in range(4)]
    if shared:
        modules = modules[:1] * 4
    x = [torch.randn(20, 3, 5, **DOUBLE) for _ in modules]

    def work(module, x, training):
        for _ in range(8):
            if training:
                results = flat(module(x))
                results += torch.autograd.grad(loss(results), [*module.parameters()])
            else:
                with torch.no_grad():
                    results = flat(module(x))
        return results

    jobs = [
        partial(work, module, one, k % 2 == 0)
        for k, (module, one) in enumerate(zip(modules, x, strict=True))
    ]
    expected = [work(renewed(job.args[0]), *job.args[1:]) for job in jobs]
    for actual, wanted in zip(in_threads(*jobs), expected, strict=True):
        assert_results(actual, wanted)


def shared_first_weight():
    """Two LSTMs that have the first weight together, and no other."""
    modules = [LSTM(3, 4, **DOUBLE) for _ in range(2)]
    modules[1].weight_ih_l0 = modules[0].weight_ih_l0
    return modules


def normed():
    """One LSTM with weights that every call makes anew, not contiguous either."""
    module = LSTM(3, 4, **DOUBLE)
    module.weight_ih_l0 = nn.Parameter(module.weight_ih_l0.detach().mT.contiguous().mT)
    return [parametrizations.weight_norm(module, "weight_hh_l0")] * 2


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("make", [shared_first_weight, normed])
def test_a_call_beside_another(make, training):
    """Python switches to another thread at any line of a call, and that calls the engine, too."""
    torch.manual_seed(0)
    modules, x = make(), torch.randn(3, 2, 3, **DOUBLE)
    expected = [flat(renewed(module)(x)) for module in modules]

    def call(k, made):
        with torch.set_grad_enabled(training):
            return flat(made[k](x))

    for _, *found in beside(lambda: modules, partial(call, 0), partial(call, 1)):
        for actual, wanted in zip(found, expected, strict=True):
            assert_results(actual, wanted)


# ---- processes


WORKERS = """
import torch
from torch.utils.data import DataLoader, Dataset
from lstm_fast.torch import LSTM

torch.manual_seed(0)
module, x = LSTM(64, 64), torch.randn(8, 30, 16, 64)

class Encoded(Dataset):
    def __len__(self):
        return len(x)
    def __getitem__(self, k):
        torch.set_num_threads(2)
        with torch.no_grad():
            return module(x[k])[0]

if __name__ == "__main__":
    torch.set_num_threads(2)
    expected = [module(one)[0] for one in x]
    sum(y.sum() for y in expected).backward()
    for _ in range(2):
        workers = {"num_workers": 1, "multiprocessing_context": "fork"}
        loader = DataLoader(Encoded(), batch_size=None, **workers)
        for actual, wanted in zip(loader, expected, strict=True):
            torch.testing.assert_close(actual, wanted.detach())
    module(x[0])[0].sum().backward()
    print("done")
"""


def test_workers_of_a_data_loader():
    """Forked after the parent used its threads, and before it does so again."""
    assert run_with_torch(WORKERS, OMP_WAIT_POLICY="passive") == "done\n"


DISTRIBUTED = """
import os, sys
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from lstm_fast.torch import LSTM, accelerate

def model():
    torch.manual_seed(0)
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(3, 8, 2, bidirectional=True, dtype=torch.float64)
            self.linear = torch.nn.Linear(16, 1, dtype=torch.float64)
        def forward(self, x):
            return self.linear(self.lstm(x)[0]).square().mean()
    return accelerate(Model())

import torch._dynamo  # as optimisers and DistributedDataParallel do, in each process else
child = os.fork()
rank, file = int(child == 0), sys.argv[1]
dist.init_process_group("gloo", init_method="file://" + file, rank=rank, world_size=2)
torch.set_num_threads(1)
x = torch.randn(5, 8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
parallel, alone = DistributedDataParallel(model()), model()
assert type(parallel.module.lstm) is LSTM
for module in (parallel, alone):
    optimiser = torch.optim.SGD(module.parameters(), 0.5)
    for _ in range(3):
        optimiser.zero_grad()
        module(x.chunk(2, 1)[rank] if module is parallel else x).backward()
        optimiser.step()
for p, q in zip(parallel.module.parameters(), alone.parameters(), strict=True):
    torch.testing.assert_close(p.grad, q.grad, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-14)
dist.destroy_process_group()
if child:
    assert os.waitpid(child, 0)[1] == 0
    print("done")
"""


@pytest.mark.skipif(
    not torch.distributed.is_available(), reason="PyTorch without torch.distributed"
)
def test_two_processes_that_share_gradients(tmp_path):
    """Each with half of a batch: gradients and steps are those of one with all of it."""
    code = f"import sys\nsys.argv = ['', {str(tmp_path / 'meet')!r}]\n{DISTRIBUTED}"
    assert run_with_torch(code, OMP_WAIT_POLICY="passive") == "done\n"
