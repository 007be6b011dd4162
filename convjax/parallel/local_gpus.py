"""The GPUs that each of several processes on one computer takes.

JAX gives a process that Slurm or Open MPI started the one GPU with the number of the process on its
node, so that one task per node trains on one of eight (https://github.com/jax-ml/jax/issues/16788).
Processes that are named by hand would each take all GPUs. Here the processes of a computer share
its GPUs evenly.
"""

import re
from collections.abc import Mapping
from pathlib import Path


def local_device_ids(
    environ: Mapping[str, str],
    gpus: int,
    *,
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
) -> list[int] | None:
    """Returns the ids of the GPUs that a process takes, for `jax.distributed.initialize`.

    Args:
      environ: the environment variables of the process.
      gpus: how many GPUs the process sees.
      coordinator, processes, process_id: as for `convjax.distributed.initialize`.

    Returns:
      The ids among the GPUs that the process sees. None leaves the choice to JAX: without GPUs, and
      where a process cannot know that others share its computer, as in a pod of Kubernetes, which
      has GPUs of its own.

    Raises:
      ValueError: if the processes of this computer cannot share its GPUs evenly.

    Examples:
      >>> from convjax.parallel.local_gpus import local_device_ids
      >>> one_task = {"SLURM_JOB_ID": "7", "SLURM_LOCALID": "0", "SLURM_NTASKS_PER_NODE": "1"}
      >>> local_device_ids(one_task, 8)
      [0, 1, 2, 3, 4, 5, 6, 7]
      >>> local_device_ids({}, 8, coordinator="localhost:1234", processes=2, process_id=1)
      [4, 5, 6, 7]
    """
    if not gpus:
        return None
    if coordinator is not None:
        host = coordinator.rpartition(":")[0]
        if host not in ("localhost", "127.0.0.1", "[::1]") or processes is None:
            return None
        assert process_id is not None  # the three are given together
        return _share(gpus, processes, process_id)
    if "SLURM_JOB_ID" in environ and "SLURM_LOCALID" in environ:
        on_node = environ.get("SLURM_GPUS_ON_NODE", "")
        tasks = _slurm_tasks(environ)
        if gpus < tasks or (on_node.isdecimal() and gpus < int(on_node)):
            return list(range(gpus))  # Slurm has bound some of them to this task
        return _share(gpus, tasks, int(environ["SLURM_LOCALID"]))
    if "OMPI_COMM_WORLD_LOCAL_RANK" in environ:
        size = int(environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1"))
        return _share(gpus, size, int(environ["OMPI_COMM_WORLD_LOCAL_RANK"]))
    return None


def visible_gpus(environ: Mapping[str, str], devices: Path = Path("/dev")) -> int:
    """Returns how many NVIDIA GPUs a process sees, before JAX looks for them.

    Args:
      environ: the environment variables of the process.
      devices: the folder of the device files, one "nvidia0", "nvidia1", … for each GPU.
    """
    platforms = environ.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        return 0
    present = sum(bool(re.fullmatch(r"nvidia\d+", path.name)) for path in devices.glob("nvidia*"))
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None or not present:
        return present
    # CUDA ignores all from the first invalid one on.
    ids = [part.strip() for part in chosen.split(",") if part.strip()]
    return ids.index("-1") if "-1" in ids else len(ids)


def _slurm_tasks(environ: Mapping[str, str]) -> int:
    """Returns the number of this step's tasks on this node.

    "2(x3),1" are two on each of three nodes, and one on a fourth.
    """
    text = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_NTASKS_PER_NODE") or "1"
    per_node: list[int] = []
    for part in text.split(","):
        tasks, _, times = part.partition("(x")
        per_node += [int(tasks)] * int(times.rstrip(")") or 1)
    node = int(environ.get("SLURM_NODEID", "0"))
    return per_node[min(node, len(per_node) - 1)]


def _share(gpus: int, processes: int, local_id: int) -> list[int]:
    if gpus % processes:
        raise ValueError(
            f"processes must be a divisor of the {gpus} GPUs of this computer, got {processes} "
            "processes on it. Start one process for each GPU, or one for all."
        )
    share = gpus // processes
    return list(range(local_id * share, (local_id + 1) * share))
