"""CUDA graphs of compiled steps on CuPy: what only they do, streams, and that recordings free their memory."""

import gc
import threading
from pathlib import Path

import numpy as np
import pytest
from compiled_steps import OPTIMIZERS, batch, bits, in_threads, make, net, train
from device_counts import MODES, run_tests_late

import xpnn as nn
from xpnn.backends import CaptureError, Generator
from xpnn.backends.cuda import graph
from xpnn.backends.recording import compiled_step

pytestmark = pytest.mark.usefixtures("nothing_compiles_in_a_recording")


@pytest.fixture
def b(gpu):
    return gpu


@pytest.fixture
def cupy(gpu):
    return pytest.importorskip("cupy")


@pytest.mark.parametrize("settings", [{"numerics": "exact"}, {"precision": "tf32"}])
def test_a_model_that_changes_its_numerics_is_recorded_again(b, settings):
    model = net(b)
    compiled = b.compile(lambda x: model(x), model)
    x = b.asarray(batch(0)[0])
    for _ in range(4):
        compiled(x)
    model.to(nn.get_backend("cupy", **settings))
    replayed = compiled.replayed
    for _ in range(compiled_step.WARMUP):
        compiled(x)
    assert compiled.replayed == replayed
    compiled(x)
    assert compiled.recorded == 2


def test_state_on_another_backend_is_refused(b):
    model = net(nn.get_backend("numpy"))
    optimizer = nn.SGD(model, lr=0.1)
    with pytest.raises(TypeError, match=r"0\.weight must be an array of .* got one of numpy: move its model"):
        b.compile(lambda: optimizer.step(), model, optimizer)()


def test_a_rate_that_is_a_numpy_number_is_compared_by_value(b):
    ours, optimizer, step = make(b, OPTIMIZERS["momentum"])
    reference, plain_optimizer, plain = make(b, OPTIMIZERS["momentum"])

    def change(of):
        def between(i):
            of.lr = 0.1 * np.cos(i // 6)

        return between

    compiled = b.compile(step, ours, optimizer)
    mine = train(b, compiled, 12, change(optimizer))
    assert mine == train(b, plain, 12, change(plain_optimizer))
    assert compiled.recorded == 2 and bits(b, ours, optimizer) == bits(b, reference, plain_optimizer)


def test_equal_numbers_of_another_sign_or_type_have_their_own_recordings(b):
    compiled = b.compile(lambda x, factor: x * factor)
    x = b.asarray(np.ones(2, "float32"))
    for factor in (0.0, -0.0, float("nan"), np.float32(0.0), np.float32(-0.0)):
        for _ in range(4):
            # One that was computed, and is another object each time.
            found = b.to_numpy(compiled(x, factor * type(factor)(1)))
            assert found.tobytes() == (np.ones(2, "float32") * factor).tobytes()
    assert compiled.recorded == 5


def test_a_rate_or_mode_that_is_set_between_calls_is_used(b):
    ours, optimizer, step = make(b, OPTIMIZERS["momentum"])
    reference, plain_optimizer, plain = make(b, OPTIMIZERS["momentum"])

    def change(model, of):
        def between(i):
            of.lr = 0.1 if i < 5 else 0.05
            model[1].train(i < 11)

        return between

    compiled = b.compile(step, ours, optimizer)
    mine = train(b, compiled, 11, change(ours, optimizer))
    assert mine == train(b, plain, 11, change(reference, plain_optimizer))
    assert compiled.recorded == 2


@pytest.mark.parametrize(
    "make_optimizer", [nn.Adam, nn.AdamW, lambda m: nn.Adagrad(m, lr_decay=0.1), nn.Adamax, nn.NAdam, nn.RAdam]
)
def test_optimizers_count_steps_on_the_device_once_compiled(b, make_optimizer):
    ours, optimizer, step = make(b, make_optimizer)
    compiled = b.compile(step, ours, optimizer)
    reference, plain_optimizer, plain = make(b, make_optimizer)
    assert train(b, compiled) == train(b, plain)
    assert compiled.recorded == 1 and optimizer.capturable and not plain_optimizer.capturable
    values = [{n: b.to_numpy(a).tobytes() for n, a in m.state_dict().items()} for m in (ours, reference)]
    assert values[0] == values[1]


def test_random_numbers_on_the_host_are_refused(b):
    stream = Generator(5)
    with pytest.raises(CaptureError, match="on the host"):
        train(b, b.compile(lambda x, y: x * float(stream.uniform((), backend="numpy")), stream))


@pytest.mark.parametrize(
    "read", [float, lambda y: y.item(), lambda y: nn.get_backend("cupy").to_numpy(y), lambda y: 1.0 if y > 0 else 0.0]
)
def test_reading_a_value_on_the_host_is_refused(b, read):
    def step(x, y):
        read(b.xp.sum(x))
        return x

    with pytest.raises(CaptureError, match=r"can't wait for the device|copy to the host"):
        train(b, b.compile(step))


def test_a_pinned_buffer_is_refused_only_in_a_recording(b, cupy):
    def step(x, y):
        cupy.cuda.alloc_pinned_memory(72)
        return x

    with pytest.raises(CaptureError, match="72 bytes from the host"):
        train(b, b.compile(step))
    assert cupy.cuda.alloc_pinned_memory(8).mem.size >= 8


def test_a_pinned_buffer_of_another_thread_is_not_refused(b, cupy):
    found = []

    def step(x, y):
        thread = threading.Thread(target=lambda: found.append(cupy.cuda.alloc_pinned_memory(72)))
        thread.start()
        thread.join()
        return x

    train(b, b.compile(step))
    assert len(found) == compiled_step.WARMUP + 1


def test_a_list_as_an_index_is_refused(b):
    with pytest.raises(CaptureError, match="bytes from the host"):
        train(b, b.compile(lambda x, y: x[[0, 2]]))


def test_after_an_error_cupy_is_as_it_was(b, cupy):
    usual = cupy.matmul, cupy.cuda.get_current_stream(), cupy.cuda.get_allocator()
    with pytest.raises(CaptureError):
        train(b, b.compile(lambda x, y: float(b.xp.sum(x))))
    assert (cupy.matmul, cupy.cuda.get_current_stream(), cupy.cuda.get_allocator()) == usual
    assert not cupy.cuda.get_current_stream().is_capturing()
    assert train(b, b.compile(lambda x, y: x + 1.0)) == train(b, lambda x, y: x + 1.0)


def test_host_arrays_are_refused_as_arguments(b):
    with pytest.raises(TypeError, match=r"numpy\.ndarray"):
        b.compile(lambda x: x)(np.ones(2))


def test_on_other_backends_compile_returns_the_step(xp_backend="strict"):
    def step(x):
        return x

    assert nn.get_backend(xp_backend).compile(step, object()) is step


def test_the_copy_of_an_argument_with_large_strides_is_small(b, cupy):
    x = cupy.ones((300, 1000), "uint16")[:, :1]
    compiled, twin = b.compile(lambda x: x * x + x), b._recorder.empty_like(x)
    assert twin.data.mem.size <= 2048 and all(int(compiled(x)[-1, 0]) == 2 for _ in range(5))
    assert compiled.replayed


def used(cupy):
    """Bytes of the device in use, after Python and the default pool have freed what they can."""
    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    cupy.cuda.Device().synchronize()
    free, total = cupy.cuda.runtime.memGetInfo()
    return total - free


def test_dropped_recordings_free_their_memory(b, cupy):
    def record():
        model, optimizer, step = make(b, OPTIMIZERS["adam"], nn.Dropout(0.5))
        compiled = b.compile(step, model, optimizer)
        train(b, compiled, 5)
        assert compiled.recorded == 1

    after = []
    for _ in range(20):
        record()
        after.append(used(cupy))
    assert after[-1] == after[1], np.diff(after)


def test_recordings_beyond_the_limit_free_their_memory(b, cupy):
    compiled = b.compile(lambda x, factor: b.xp.sum(x * factor + 1.0, axis=0))
    x, after = b.asarray(np.ones((100, 10), "float32")), []
    for n in range(3 * compiled_step.KEPT):
        for _ in range(4):
            compiled(x, float(n))
        after.append(used(cupy))
    assert len(compiled._recordings) == compiled_step.KEPT and compiled.recorded == 3 * compiled_step.KEPT
    assert after[-1] == after[compiled_step.KEPT]


def test_a_recording_that_fails_frees_its_memory(b, cupy):
    def fail():
        compiled = b.compile(lambda x, y: float(b.xp.sum(b.xp.exp(x) * 2.0)))
        with pytest.raises(CaptureError):
            train(b, compiled)

    after = []
    for _ in range(6):
        fail()
        after.append(used(cupy))
    assert after[-1] == after[1], np.diff(after)


def test_arrays_outlive_their_recording_and_free_their_memory_after_it(b, cupy):
    after = []
    for _ in range(6):
        model, optimizer, step = make(b, OPTIMIZERS["sgd"])
        compiled = b.compile(step, model, optimizer)
        train(b, compiled, 5)
        gradients = {name: p.grad for name, p in model.named_parameters()}
        kept = {name: b.to_numpy(grad) for name, grad in gradients.items()}
        del compiled, step
        gc.collect()
        # If the memory of the gradients had been freed with the recording, these arrays would overwrite them.
        fill = [cupy.full(1 << 12, 7.0, "f") for _ in range(64)]
        assert all(np.array_equal(b.to_numpy(grad), kept[name]) for name, grad in gradients.items())
        del model, optimizer, gradients, fill
        after.append(used(cupy))
    assert after[-1] == after[1], np.diff(after)


def test_memory_is_not_freed_while_another_step_is_recorded(b):
    old, waiting = [], []
    x = b.asarray(np.ones(5, "float32"))

    def step(x):
        old.clear()
        waiting.append((len(graph._waiting), gc.isenabled()))
        return x + 1.0

    compiled = b.compile(step)
    for _ in range(compiled_step.WARMUP):
        compiled(x)
    old.append(b.compile(lambda x: x * 2.0))
    for _ in range(4):
        old[0](x)
    assert b.to_numpy(compiled(x)).tolist() == [2.0] * 5
    assert waiting == [(0, True)] * compiled_step.WARMUP + [(1, False)]
    assert not graph._waiting and gc.isenabled()


def test_threads_record_and_replay_at_once_each_on_its_stream(b, cupy):
    def wanted(name, seed):
        _, _, step = make(b, OPTIMIZERS[name], nn.Dropout(0.5))
        return train(b, step, 10, n=4 + seed)

    expected = {name: wanted(name, seed) for seed, name in enumerate(OPTIMIZERS)}
    found, ready = {}, threading.Barrier(len(OPTIMIZERS))

    def work(name, seed):
        def run():
            with b.context(), cupy.cuda.Stream(non_blocking=True):
                model, optimizer, step = make(b, OPTIMIZERS[name], nn.Dropout(0.5))
                compiled = b.compile(step, model, optimizer)
                ready.wait()
                found[name] = train(b, compiled, 10, lambda i: b.synchronize(), n=4 + seed)
                assert compiled.replayed >= 6

        return run

    in_threads(*(work(name, seed) for seed, name in enumerate(OPTIMIZERS)))
    assert found == expected


def test_one_step_called_by_two_threads_on_two_streams_takes_turns(b, cupy):
    compiled = b.compile(lambda x: b.xp.matmul(x, x) + 1.0)
    wrong = []

    def work(number):
        def run():
            with b.context(), cupy.cuda.Stream(non_blocking=True):
                for i in range(40):
                    x = cupy.full((16, 16), float(number + i % 5), "f")
                    if not bool((compiled(x) == 16.0 * (number + i % 5) ** 2 + 1.0).all()):
                        wrong.append((number, i))

        return run

    in_threads(work(1), work(100))
    assert not wrong and compiled.recorded == 1


def test_replays_on_two_streams_do_not_overwrite_each_others_arrays(b, cupy):
    compiled = b.compile(lambda x: b.xp.cumulative_sum(b.xp.exp(x) * 0.0 + x))
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    found = []
    for i in range(60):
        with streams[i % 2]:
            found.append(compiled(cupy.full(1 << 12, float(i), "f")))
    for stream in streams:
        stream.synchronize()
    assert [float(y[-1]) for y in found] == [float(i << 12) for i in range(60)]


def test_equal_backends_have_their_own_recorders(b, monkeypatch):
    equal = type(b)(b.spec, *b.settings, b.xp, b.device)
    assert equal == b
    assert equal._recorder is not b._recorder and equal.uploader() is not b.uploader()
    assert b._recorder is b._recorder and b.uploader() is b.uploader()


@pytest.mark.parametrize("mode", MODES)
def test_streams_as_late_as_their_order_allows_change_nothing(gpu, mode):
    steps = str(Path(__file__).with_name("test_compiled_steps.py"))
    run_tests_late(__file__, "(threads or streams) and not late", mode)
    run_tests_late(steps, "gpu and (momentum or masks or plain_steps)", mode)


def test_nodes_are_counted_in_cudas_description_of_a_graph():
    text = """digraph dot {
subgraph cluster_1 {
label="graph_1" graph[style="dashed"];
"graph_1_node_0"[style="solid" shape="rectangle" label="0
MEM_ALLOC"];
"graph_1_node_1"[style="bold" shape="octagon" label="1
add<<<1, 128>>>"];
"graph_1_node_0" -> "graph_1_node_1" [headlabel=0];
}
}"""
    assert len(graph._NODE.findall(text)) == 2
