"""Dividing a collection among processes."""

from splade.errors import ConfigError


def shard_range(n: int, rank: int, world_size: int) -> range:
    """Return the consecutive items that process `rank` of `world_size` takes care of.

    The ranges follow each other without gap or overlap and their sizes differ by at most one, so that the results of
    all processes, one after the other, are those of a single one.

    Args:
        n: number of items.
        rank: number of this process, from 0.
        world_size: number of processes.

    Raises:
        ConfigError: there is no such process.

    Example:
        >>> [shard_range(7, rank, 3) for rank in range(3)]
        [range(0, 2), range(2, 4), range(4, 7)]
    """
    if n < 0 or not 0 <= rank < world_size:
        raise ConfigError(
            f"{n} items for process {rank} of {world_size}: processes are numbered from 0 to {world_size - 1}"
        )
    return range(n * rank // world_size, n * (rank + 1) // world_size)
