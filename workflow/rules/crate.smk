"""The run as a Workflow Run RO-Crate."""


rule crate:
    """Describe what the run left behind for others' tools. It has no input, as it takes all from the sidecars."""
    log:
        f"{R}/logs/crate.log",
    localrule: True
    conda:
        "../../envs/data.yaml"
    params:
        cfg=cfg(),
        code=code_sha256("crate.py"),
        results=R,
    shell:
        program("crate.py", is_shown=True) + "--results {params.results}"
