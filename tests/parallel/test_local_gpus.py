import pytest

from convjax.parallel import distributed
from convjax.parallel.local_gpus import local_device_ids, visible_gpus


def slurm(tasks, local, node=0, **others):
    return {
        "SLURM_JOB_ID": "7",
        "SLURM_LOCALID": str(local),
        "SLURM_NODEID": str(node),
        "SLURM_STEP_TASKS_PER_NODE": tasks,
    } | others


@pytest.mark.parametrize(
    ("environ", "gpus", "ids"),
    [
        (slurm("1", 0), 8, [*range(8)]),  # JAX by itself: [0]
        (slurm("1(x2)", 0, node=1), 4, [0, 1, 2, 3]),
        (slurm("8", 3), 8, [3]),
        (slurm("4", 1), 8, [2, 3]),
        (slurm("2(x3),1", 0, node=3), 8, [*range(8)]),
        (slurm("2(x3),1", 1, node=2), 8, [4, 5, 6, 7]),
        # Bound to its own two of eight, or to one.
        (slurm("4", 3, SLURM_GPUS_ON_NODE="8"), 2, [0, 1]),
        (slurm("8", 7, SLURM_GPUS_ON_NODE="8"), 1, [0]),
        (slurm("8", 7), 1, [0]),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, 8, [4, 5, 6, 7]),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, 2, [0, 1]),
        # A pod has GPUs of its own.
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}, 4, None),
        ({}, 4, None),
        (slurm("1", 0), 0, None),  # CPUs alone
    ],
)
def test_local_device_ids_of_clusters(environ, gpus, ids):
    assert local_device_ids(environ, gpus) == ids


@pytest.mark.parametrize(
    ("coordinator", "process_id", "ids"),
    [
        ("localhost:1234", 0, [0, 1]),
        ("127.0.0.1:1234", 1, [2, 3]),
        ("node7:1234", 1, None),  # the others may be on other computers
    ],
)
def test_local_device_ids_of_processes_by_hand(coordinator, process_id, ids):
    given = {"coordinator": coordinator, "processes": 2, "process_id": process_id}
    assert local_device_ids({}, 4, **given) == ids


def test_local_device_ids_rejects_an_uneven_share():
    with pytest.raises(ValueError, match="a divisor of the 4 GPUs of this computer, got 3"):
        local_device_ids(slurm("3", 0), 4)


@pytest.mark.parametrize(
    ("environ", "count"),
    [
        ({}, 4),
        ({"CUDA_VISIBLE_DEVICES": "0,2"}, 2),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8932f937"}, 1),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0),
        ({"CUDA_VISIBLE_DEVICES": "1,-1,2"}, 1),
        ({"JAX_PLATFORMS": "cpu"}, 0),
        ({"JAX_PLATFORMS": "cuda,cpu"}, 4),
    ],
)
def test_visible_gpus(environ, count, tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidia3", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert visible_gpus(environ, tmp_path) == count
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0,1"}, tmp_path / "none") == 0


def test_initialize_passes_the_gpus_of_the_process(monkeypatch):
    passed = {}

    def initialize(*args, **kwargs):
        passed.update(kwargs)
        raise RuntimeError("not connected in this test")

    monkeypatch.setattr(distributed.jax.distributed, "initialize", initialize)
    monkeypatch.setattr(distributed, "visible_gpus", lambda environ: 8)
    for name, value in slurm("2", 1).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match="not connected"):
        distributed.initialize()
    assert passed["local_device_ids"] == [4, 5, 6, 7]
