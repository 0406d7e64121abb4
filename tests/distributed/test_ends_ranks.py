"""How groups end: MPI stays usable for other groups and for the program."""

import rank_scripts


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
