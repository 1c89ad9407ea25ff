"""What a run's jobs cost: a row is a job, all attempts at it together."""

from medmim.tables.columns import INT, REAL, TEXT, Column

VERSION = 1
COLUMNS = (
    Column("rule", TEXT, "rule of the workflow"),
    Column("job", TEXT, "its wildcards, joined by points; empty for a rule without"),
    Column("program", TEXT, "program of workflow/scripts"),
    Column(
        "outcome",
        TEXT,
        "of the last attempt: done, restored (from the cache), failed, stopped (by a signal), superseded (another"
        " attempt began later), killed, running, unknown (no end was seen), or SLURM's word, such as timeout, where it was asked",
    ),
    Column("attempts", INT, "times the program was started"),
    Column("retries", INT, "attempts before the last that came to nothing"),
    Column("host", TEXT, "machine of the last attempt"),
    Column("node", TEXT, "SLURM's name of it", True),
    Column("partition", TEXT, "SLURM's partition of the last attempt", True),
    Column("slurm_job_id", TEXT, "SLURM's job of the last attempt", True),
    Column("submitted", TEXT, "when the first attempt was submitted to SLURM, UTC", True),
    Column("started", TEXT, "when the program of the first attempt began, UTC"),
    Column("ended", TEXT, "when that of the last ended, UTC", True),
    Column("queue_seconds", REAL, "from submission to start, summed; of jobs that SLURM ran as one, the first has it", True),
    Column("run_seconds", REAL, "from start to end of the program, summed over the attempts of known length"),
    Column("unmeasured", INT, "attempts of unknown length, which count with nothing: killed, and SLURM has no record of them"),
    Column(
        "threads",
        INT,
        "CPUs held by the last attempt: SLURM's; elsewhere, and where a SLURM job ran several jobs, the threads asked for",
    ),
    Column("cpu_hours", REAL, "CPUs held × run time"),
    Column("cpu_used_hours", REAL, "CPU time spent, children included; of several processes the first's × their number"),
    Column("cpu_efficiency", REAL, "share spent of what was held, over the attempts that ended themselves", True),
    Column("gpu_hours", REAL, "GPUs held × run time"),
    Column("memory_asked_mb", REAL, "memory a node that the last attempt's SLURM job asked for, MiB", True),
    Column("memory_mb", REAL, "peak memory a node, MiB: of the process, or it and its workers as if all peaked at once", True),
    Column("limit_seconds", REAL, "time limit of the last attempt's SLURM job", True),
    Column("used_seconds", REAL, "longest attempt, from SLURM's start of the job to the program's end", True),
    Column("advice", TEXT, "settings of the rule to change, and why", True),
)
