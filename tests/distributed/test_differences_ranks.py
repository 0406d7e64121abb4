"""What only one rank meets: NaN, other settings, a signal, strangers that connect."""

import pytest
import rank_scripts
import ranks

FIT = """
x, y = samples(16)
CHANGE
model = nn.Sequential(nn.Conv2d(2, 4, 3), NORM, nn.Flatten(), nn.Dense(144, 5), backend="numpy", numerics="NUMERICS")
optimizer = nn.SGD(model, lr=0.02, momentum=0.9)
try:
    nn.fit(model, nn.DataLoader(x, y, 8, shuffle=False), optimizer=optimizer, progress=False, group=group, **options)
except Exception as error:
    tell(f"{type(error).__name__}: {error}")
"""


def errors(folder, change, numerics="fast", norm="nn.Identity()", **more):
    text = FIT.replace("CHANGE", change).replace("NUMERICS", numerics).replace("NORM", norm)
    return rank_scripts.results(ranks.end_of(rank_scripts.start(2, folder, text, **more))[0])


@pytest.mark.parametrize(
    ("numerics", "norm"),
    [("fast", "nn.Identity()"), ("fast", "nn.BatchNorm2d(4, group=group)"), ("exact", "nn.BatchNorm2d(4)")],
)
def test_all_ranks_say_where_the_first_nan_of_one_was(tmp_path, numerics, norm):
    found = errors(tmp_path, "x[5] = np.nan; options = dict(on_nan='stop')", numerics, norm)
    assert len(found) == 2
    for each in found:
        assert each.startswith("NonFiniteError: step 1, epoch 1: rank 1: the input of sample 1 of 4 is NaN")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("options = dict(early_stopping=1 + group.rank)", "in its early stopping"),
        (
            "options = dict(after_epoch=lambda history: optimizer.param_groups[0].update(lr=0.1 + group.rank))",
            "after_epoch left rank 1 with other settings",
        ),
        (
            "options = dict(after_epoch=lambda history: group.is_root and model[0].parameters['bias'].__setattr__("
            "'requires_grad', False))",
            "after_epoch left rank 1 with other settings",
        ),
    ],
)
def test_other_settings_are_refused_on_all_ranks(tmp_path, change, named):
    found = errors(tmp_path, change)
    assert len(found) == 2
    for each in found:
        assert each.startswith("RanksDiffer: ") and named in each


def test_another_state_of_the_optimizer_is_refused(tmp_path):
    text = """
    x, y = samples(8)
    model = nn.Sequential(nn.Flatten(), nn.Dense(128, 5), backend="numpy", seed=0)
    optimizer = nn.SGD(model, lr=0.02, momentum=0.9)
    if group.is_root:
        nn.fit(model, (x, y), optimizer=optimizer, epochs=1, progress=False)
    try:
        nn.fit(model, (x, y), optimizer=optimizer, epochs=1, progress=False, group=group)
    except ValueError as error:
        tell(str(error))
    """
    for each in rank_scripts.run(2, tmp_path, text):
        assert "state of the optimizer" in each


def test_a_signal_to_one_rank_saves_once_before_any_ends(tmp_path):
    text = f"""
    import os, signal, time
    from xpnn.training import saving
    x, y = samples(16)
    write, written = saving._write, []
    def slowly(run, metrics):
        time.sleep(2)
        write(run, metrics)
        written.append(run.steps)
    saving._write = slowly
    model = nn.Sequential(nn.Flatten(), nn.Dense(128, 5), backend="numpy", seed=0)
    def stop(history):
        if group.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
    try:
        options = dict(checkpoints={str(tmp_path / "run")!r}, after_epoch=stop, group=group)
        nn.fit(model, (x, y), epochs=3, progress=False, **options)
    except KeyboardInterrupt as error:
        tell([type(error).__name__, written])
    """
    found = rank_scripts.run(2, tmp_path, text)
    assert found == [["Interrupted", [1]], ["Interrupted", []]]


def test_a_stranger_who_connects_changes_nothing(tmp_path):
    text = """
    import socket, time
    address = group._exchanges.watch._connection.socket.getpeername()
    for what in (b"GET / HTTP/1.1\\r\\n\\r\\n", b"[1]\\n", b'{"hello": 1}\\n', b'{"failed": "x"}\\n', b"\\xff\\n", b""):
        with socket.create_connection(address) as link:
            link.sendall(what)
    group.barrier()
    # Longer than the timeout: a hub that has ended would be missed.
    if group.is_root:
        with group.allowing(20):
            time.sleep(6)
    group.barrier()
    tell("fine")
    """
    assert rank_scripts.run(2, tmp_path, text) == ["fine", "fine"]
