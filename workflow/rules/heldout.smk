"""Further held-out sets: fetched or indexed, read into our tables, and joined to the benchmark."""

EXTERNAL = {}
if HELDOUT:
    from medmim.benchmarks.external.base import load_external_set

    EXTERNAL = {name: load_external_set(name) for name in HELDOUT}

    if LOCAL_SETS:

        rule index_heldout:
            """List and hash the files of a held-out set that the user has."""
            output:
                f"{R}/sources/{{heldout}}.parquet",
            log:
                f"{R}/logs/index_heldout.{{heldout}}.log",
            wildcard_constraints:
                heldout="|".join(LOCAL_SETS),
            conda:
                "../../envs/data.yaml"
            params:
                cfg=lambda w: cfg(card=True, licence=EXTERNAL[w.heldout].licence),
                code=code_sha256("index_files.py"),
                root=lambda w: RUN.heldout[w.heldout].path,
            shell:
                program("index_files.py") + "--root {params.root} --index {output}"

    if HUB_SETS:

        rule fetch_heldout:
            """Fetch a held-out set at its pinned commit."""
            output:
                f"{R}/raw/{{heldout}}/files.parquet",
            log:
                f"{R}/logs/fetch_heldout.{{heldout}}.log",
            wildcard_constraints:
                heldout="|".join(HUB_SETS),
            localrule: True  # a cluster's nodes mostly have no way out to the internet
            conda:
                "../../envs/gpu.yaml"
            params:
                cfg=lambda w: cfg(
                    hub=RUN.heldout[w.heldout].hub,
                    revision=RUN.heldout[w.heldout].revision,
                    files=EXTERNAL[w.heldout].files,
                    licence=EXTERNAL[w.heldout].licence,
                ),
                code=code_sha256("fetch_heldout.py"),
            shell:
                program("fetch_heldout.py") + "--index {output}"

    rule import_heldout:
        """Read a held-out set in its authors' layout."""
        input:
            lambda w: heldout_index(w.heldout),
        output:
            images=f"{R}/images/{{heldout}}.images.parquet",
            qa=f"{R}/qa/heldout/{{heldout}}.parquet",
            rejected=f"{R}/qa/heldout/{{heldout}}.rejected.parquet",
        log:
            f"{R}/logs/import_heldout.{{heldout}}.log",
        wildcard_constraints:
            heldout="|".join(HELDOUT),
        conda:
            "../../envs/data.yaml"
        threads: 8  # the result is the same
        params:
            cfg=lambda w: cfg(
                size=RUN.images.size,
                limit=RUN.heldout[w.heldout].limit,
                max_rejected=RUN.heldout[w.heldout].max_rejected,
            ),
            code=lambda w: code_sha256("import_heldout.py", f"medmim.benchmarks.external.{w.heldout}"),
            root=lambda w: RUN.heldout[w.heldout].path or f"{R}/raw/{w.heldout}",
        shell:
            program("import_heldout.py") + "--set {wildcards.heldout} --root {params.root} --raw {input} --threads {threads}"
            " --images {output.images} --qa {output.qa} --rejected {output.rejected}"

    rule join_benchmark:
        """The benchmark and the further held-out sets as one."""
        input:
            benchmark=f"{R}/qa/benchmark.parquet",
            heldout=HELDOUT_QA,
        output:
            BENCHMARK,
        log:
            f"{R}/logs/join_benchmark.log",
        conda:
            "../../envs/data.yaml"
        params:
            cfg=cfg(),
            code=code_sha256("join_benchmark.py"),
        shell:
            program("join_benchmark.py") + "--benchmark {input.benchmark} --heldout {input.heldout} --joined {output}"
