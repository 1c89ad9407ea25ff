"""Which images of the benchmark are copies of images of training."""


rule find_copies:
    """Compare what the questions of both splits show, by content."""
    input:
        qa=COMPARED,
        images=IMAGES,
    output:
        f"{R}/qa/copies.parquet",
    log:
        f"{R}/logs/find_copies.log",
    conda:
        "../../envs/data.yaml"
    params:
        cfg=cfg(),
        code=code_sha256("find_copies.py"),
    shell:
        program("find_copies.py") + "--qa {input.qa} --images {input.images} --copies {output}"


if HELDOUT:

    rule find_heldout_copies:
        """The same with the further held-out sets: apart, so that such a set changes nothing of what is trained on."""
        input:
            qa=[*COMPARED, *HELDOUT_QA],
            images=SHOWN,
        output:
            f"{R}/qa/copies.heldout.parquet",
        log:
            f"{R}/logs/find_heldout_copies.log",
        conda:
            "../../envs/data.yaml"
        params:
            cfg=cfg(),
            code=code_sha256("find_copies.py"),
        shell:
            program("find_copies.py") + "--qa {input.qa} --images {input.images} --copies {output}"
