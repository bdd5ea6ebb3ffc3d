"""How many processors this process may use, and how its threads wait for work.

Light: imported by `import splade`, before PyTorch and Numba start their threads.
"""

import math
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def set_thread_defaults(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set how many threads the libraries start and how these wait, where the user has not.

    Threads of OpenMP that have nothing to do spin by default: where other processes want the processors, they take
    them from those that work, and everything is several times slower. A container with a quota of processor time sees
    all processors of its host; as many threads would be stopped in the middle of their work.

    Without effect on libraries that were imported before.
    """
    environment.setdefault("OMP_WAIT_POLICY", "passive")
    if quota() < _affinity():
        for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
            environment.setdefault(variable, str(available_processors()))


def available_processors() -> int:
    """Return how many processors this process may keep busy: those of its affinity, or its cgroup's share if less."""
    return max(1, math.ceil(min(_affinity(), quota())))


def quota(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> float:
    """Return the processor time per time that the cgroups of this process allow; infinity without a limit.

    Args:
        cgroups: where the cgroup file systems are mounted, of version 1 or 2.
        own: the file that names the cgroups of this process.
    """
    try:
        lines = own.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return math.inf
    return min((limit for line in lines for limit in _limits(cgroups, line)), default=math.inf)


def _limits(cgroups: Path, line: str) -> Iterator[float]:
    """Yield the limits that hold for a cgroup, `number:controllers:/path`, its own and those of the ones around it."""
    _, _, rest = line.partition(":")
    controllers, _, path = rest.partition(":")
    if controllers and "cpu" not in controllers.split(","):
        return
    roots = (cgroups / controllers, cgroups / "cpu") if controllers else (cgroups, cgroups / "unified")
    for root in roots:
        folder = root / path.strip("/")
        for place in (folder, *folder.parents):
            if place.is_relative_to(root):
                yield from _limit(place)


def _limit(folder: Path) -> Iterator[float]:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            limit, period = " ".join((folder / name).read_text(encoding="ascii") for name in names).split()
            if limit not in ("max", "-1"):
                yield int(limit) / int(period)
        except (OSError, ValueError):  # no such file: no limit here
            continue


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
