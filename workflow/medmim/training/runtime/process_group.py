"""The processes that train together: who each of them is, and what they agree on before the training's own group is up.

torchrun tells them by environment variables that all libraries read; srun by its own, which are turned into torchrun's here.
"""

import os
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any, Self

from medmim.common import gpus
from medmim.common.errors import UserError
from medmim.common.processes import JobProcesses
from medmim.config.training import Tuning

PEER_TIMEOUT = timedelta(minutes=15)
"""Longest wait of one process for another: for a node that is cut off. One that dies is noticed by its closed connection."""
MASTER_PORTS = range(20_000, 32_000)
"""Where the first process listens under srun, by the job's number: below the ports that systems give away themselves."""


def torchrun_env_from_srun(srun_env: Mapping[str, str]) -> dict[str, str]:
    """torchrun's variables from those of an srun step: one task a process, the first one on the node where srun was called."""
    port = MASTER_PORTS[(int(srun_env["SLURM_JOB_ID"]) * 16 + int(srun_env["SLURM_STEP_ID"])) % len(MASTER_PORTS)]
    return {
        "RANK": srun_env["SLURM_PROCID"],
        "LOCAL_RANK": srun_env["SLURM_LOCALID"],
        "WORLD_SIZE": srun_env["SLURM_STEP_NUM_TASKS"],
        "LOCAL_WORLD_SIZE": str(_parse_task_counts(srun_env["SLURM_STEP_TASKS_PER_NODE"])[int(srun_env["SLURM_NODEID"])]),
        "MASTER_ADDR": srun_env["SLURM_LAUNCH_NODE_IPADDR"],  # names of nodes need not be known to a resolver
        "MASTER_PORT": str(port),
    }


def _parse_task_counts(per_node: str) -> list[int]:
    """Tasks of each node, from SLURM's way to write them: 2(x3),1 is 2, 2, 2, 1."""
    task_counts = []
    for part in per_node.split(","):
        tasks, _, times = part.partition("(x")
        task_counts += [int(tasks)] * int(times.removesuffix(")") or "1")
    return task_counts


class ProcessGroup(JobProcesses):
    """One process and the others that it trains with. A context: on leaving it, it leaves the training's own group as well."""

    def __init__(self, rank: int = 0, world_size: int = 1, local_world_size: int = 1) -> None:
        self.rank, self.world_size = rank, world_size
        self.local_world_size = local_world_size
        """Processes on this node."""
        self.is_main = rank == 0

    @classmethod
    def from_environment(cls) -> "ProcessGroup":
        """As torchrun or srun started this process; alone without them. Call it before anything else reads the environment."""
        if "RANK" not in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
            os.environ.update(torchrun_env_from_srun(os.environ))
        return cls(*(int(os.environ.get(n, d)) for n, d in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_WORLD_SIZE", "1"))))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        distributed = sys.modules.get("torch.distributed")
        if distributed is not None and distributed.is_initialized():
            distributed.destroy_process_group()  # its threads, left alone, now and then abort a process that ends

    def check_resources(self, tuning: Tuning) -> None:
        """Raise UserError where this machine, or the way it was started, can't do what the config asks."""
        if self.world_size != tuning.world_size:
            setting = f"gpus: {tuning.gpus}" if tuning.gpus else f"processes: {tuning.processes}"
            raise UserError(
                f"{setting}, but {self.world_size} process(es) were started: start {tuning.world_size} by torchrun, or by "
                "srun in a SLURM job"
            )
        gpus.require_gpus(self.local_world_size if tuning.gpus else 0)

    @cached_property
    def _key_value_store(self) -> Any:
        from torch.distributed import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        store, _, _ = next(rendezvous("env://", timeout=PEER_TIMEOUT))
        return PrefixStore("medmim", store)

    def broadcast(self, what: str, decide: Callable[[], str]) -> str:
        """What `decide` gives in the first process, in all of them. `what` names it, and is used once."""
        if self.world_size == 1:
            return decide()
        acknowledgements = [f"{what} heard by {rank}" for rank in range(1, self.world_size)]
        if self.is_main:
            value = decide()
            self._key_value_store.set(what, value)
            self._key_value_store.wait(acknowledgements, PEER_TIMEOUT)  # this process may end now, and the store is in it
            return value
        from torch.distributed import DistError

        try:
            value = self._key_value_store.get(what).decode()
            self._key_value_store.set(acknowledgements[self.rank - 1], "yes")
        except DistError as error:
            raise UserError(
                f"process {self.rank} waited for the first one, which is gone; see its own message ({error})"
            ) from None
        return value
