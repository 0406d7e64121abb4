"""How groups end: MPI stays usable for other groups and for the program."""

import rank_scripts
import ranks


def test_mpi_outlives_a_group(tmp_path):
    text = """
    from mpi4py import MPI
    with nn.distributed.init("mpi") as other:
        first = other.gather(other.rank)
    found = [first, group.gather(2)]
    group.close()
    with nn.distributed.init("mpi") as third:
        found.append(third.gather(3))
    MPI.COMM_WORLD.barrier()
    for exchange in (group.barrier, lambda: group.all_reduce(np.zeros(2)), lambda: group.gather(1)):
        try:
            exchange()
        except RuntimeError as error:
            found.append(str(error)[:20])
    tell(found)
    """
    assert rank_scripts.run(2, tmp_path, text) == [[[0, 1], [2, 2], [3, 3], *["this group has ended"] * 3]] * 2


def test_a_rank_that_goes_on_after_its_error_exchanges_nothing(tmp_path):
    text = """
    from xpnn.distributed import RankError
    found = []
    for number in range(2):
        try:
            with group.reporting():
                if group.rank == 1 and not number:
                    raise KeyError("one")
                found.append(group.gather("of the first" if group.is_root and not number else "of the second"))
        except (KeyError, RankError) as error:
            found.append(type(error).__name__)
    tell(found)
    """
    process = rank_scripts.start(2, tmp_path, text)
    out, _ = ranks.end_of(process)
    assert rank_scripts.results(out) == [["RankError", "RankError"], ["KeyError", "RankError"]]


def test_an_exchange_of_one_rank_alone_is_named(tmp_path):
    text = """
    try:
        if group.is_root:
            group.all_reduce(np.full(2, 1 << 60))
        group.gather("abc")
    except Exception as error:
        tell(f"{type(error).__name__}: {error}")
    """
    out, _ = ranks.end_of(rank_scripts.start(2, tmp_path, text))
    assert "RankError: the ranks are in different exchanges" in str(rank_scripts.results(out))


def test_ranks_that_reduce_other_shapes_are_told(tmp_path):
    text = """
    try:
        group.all_reduce(np.zeros((2, 3) if group.is_root else (3, 2)))
        tell(group.agree(False))
    except Exception as error:
        tell(f"{type(error).__name__}: {error}")
    """
    found = rank_scripts.results(ranks.end_of(rank_scripts.start(2, tmp_path, text))[0])
    assert len(found) == 2
    assert all(each.startswith("RankError: the ranks computed different sums; ") for each in found)


def test_what_one_rank_finds_wrong_with_all_blames_none(tmp_path):
    """The launcher then ends the others, which must not be blamed either."""
    text = """
    import time
    from xpnn.distributed import RankError
    if group.is_root:
        time.sleep(100)
    with group.reporting():
        raise RankError(None, "the ranks computed different sums")
    """
    _, errors = ranks.end_of(rank_scripts.start(2, tmp_path, text))
    lines = [line for line in errors.splitlines() if line.startswith("xpnn: ")]
    assert lines == ["xpnn: the group: the ranks computed different sums"]


def test_a_rank_that_can_not_be_watched_is_the_only_one_named(tmp_path):
    text = """
    from mpi4py import MPI
    from xpnn.distributed import start
    group.close()
    def unreachable(*arguments):
        raise ConnectionError("no way")
    if MPI.COMM_WORLD.rank == 1:
        start.Watch = unreachable
    try:
        nn.distributed.init("mpi")
    except RuntimeError as error:
        tell(str(error))
    """
    out, errors = ranks.end_of(rank_scripts.start(2, tmp_path, text))
    assert rank_scripts.results(out) == ["the ranks can't watch each other: rank 1: no way"] * 2
    assert "xpnn: " not in errors
