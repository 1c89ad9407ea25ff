"""Questions: by templates from findings, or the authors' release; and the audit of the benchmark."""

RELEASE_INDEX = f"{R}/release/files.parquet"
HAS_RELEASE = bool(RUN.qa.release.path) or RUN.qa.origin == "released"

if workflow.is_main_process:
    find_release()  # to say what is wrong with it: of an input function's error Snakemake shows a traceback

if HAS_RELEASE:

    rule fetch_release:
        """Bring the authors' question files into the run: from the user's copy, or else at the pinned commit."""
        input:
            lambda w: find_release(),
        output:
            RELEASE_INDEX,
        log:
            f"{R}/logs/fetch_release.log",
        localrule: True  # a cluster's nodes mostly have no way out to the internet
        conda:
            "../../envs/data.yaml"
        params:
            cfg=cfg(
                **({} if RUN.qa.release.path else RUN.qa.release.model_dump(include={"url", "sha256"})),
                rules=terms.RELEASE_POLICY.to_record(),
            ),
            code=code_sha256("fetch_release.py"),
            release=lambda w: ["--release", *find_release()] if RUN.qa.release.path else [],
        shell:
            program("fetch_release.py") + "{params.release} --index {output}"


if RUN.qa.origin == "generated":

    rule generate_qa:
        """Questions of one source from what it states."""
        input:
            images=f"{R}/images/{{source}}.images.parquet",
            findings=f"{R}/images/{{source}}.findings.parquet",
            raw=lambda w: raw_index(w.source) if PRETRAIN and w.source in PHANTOMS else [],
        output:
            f"{R}/qa/{{source}}.parquet",
        log:
            f"{R}/logs/generate_qa.{{source}}.log",
        conda:
            "../../envs/data.yaml"
        params:
            cfg=lambda w: cfg(
                seed=RUN.seed,
                benchmark_fraction=RUN.qa.benchmark_fraction,
                open_fraction=RUN.qa.open_fraction,
                open_fractions=RUN.qa.open_fractions.select_set(),
                option_order=RUN.qa.option_order,
                wordings=RUN.qa.wordings,
                disputed_labels=RUN.qa.disputed_labels,
                pretrain=bool(PRETRAIN),
                sets=source_plugins.SOURCES[w.source].list_sets(),
                **(
                    {"composed_images": RUN.qa.composed_images}
                    if "composed" in source_plugins.SOURCES[w.source].sets.train
                    else {}
                ),
            ),
            code=lambda w: code_sha256("generate_qa.py", f"medmim.sources.{w.source}.questions"),
            raw=lambda w: ["--raw", raw_index(w.source)] if PRETRAIN and w.source in PHANTOMS else [],
        shell:
            program("generate_qa.py")
            + "--source {wildcards.source} --images {input.images} --findings {input.findings} --qa {output} {params.raw}"

    if RUN.qa.writer:

        rule write_qa:
            """Questions of one source put in other words by a language model, and open ones that it adds."""
            input:
                qa=f"{R}/qa/{{source}}.parquet",
                findings=f"{R}/images/{{source}}.findings.parquet",
            output:
                written=f"{R}/qa/{{source}}.written.parquet",
                writing=f"{R}/qa/{{source}}.writing.parquet",
            log:
                f"{R}/logs/write_qa.{{source}}.log",
            localrule: True  # a cluster's nodes mostly have no way out to the internet
            conda:
                "../../envs/data.yaml"
            params:
                cfg=cfg(writer=RUN.qa.writer, seed=RUN.seed, parts=len(SOURCES), credentialed=RUN.credentialed_sources),
                code=code_sha256("write_qa.py"),
                replies=lambda w: f"{RUN.results}/.replies/write_qa/{w.source}",  # of all runs, as they were paid for
            shell:
                program("write_qa.py") + "--source {wildcards.source} --qa {input.qa} --findings {input.findings}"
                " --replies {params.replies} --written {output.written} --writing {output.writing}"

    rule merge_qa:
        """Choose and balance the questions of each set; no patient or image on both sides."""
        input:
            qa=QUESTIONS,
            copies=f"{R}/qa/copies.parquet",
        output:
            train=f"{R}/qa/train.parquet",
            benchmark=f"{R}/qa/benchmark.parquet",
            pretrain=f"{R}/qa/pretrain.parquet",
            rejected=f"{R}/qa/rejected.parquet",
        log:
            f"{R}/logs/merge_qa.log",
        conda:
            "../../envs/data.yaml"
        params:
            cfg=cfg(
                seed=RUN.seed,
                train=RUN.qa.train.select_wanted(),
                benchmark=RUN.qa.benchmark.select_wanted(),
                pretrain=RUN.qa.pretrain,
                open_fractions=RUN.qa.open_fractions.select_set(),
                held_out=RUN.held_out_labels,
            ),
            code=code_sha256("merge_qa.py"),
        shell:
            program("merge_qa.py")
            + "--qa {input.qa} --copies {input.copies} --train {output.train} --benchmark {output.benchmark}"
            " --pretrain {output.pretrain} --rejected {output.rejected}"

else:

    rule import_release:
        """The authors' records as tables of questions."""
        input:
            index=RELEASE_INDEX,
        output:
            train=f"{R}/qa/released/train.parquet",
            benchmark=f"{R}/qa/released/benchmark.parquet",
            rejected=f"{R}/qa/released/rejected.parquet",
        log:
            f"{R}/logs/import_release.log",
        conda:
            "../../envs/data.yaml"
        params:
            cfg=cfg(max_rejected=RUN.qa.max_rejected),
            code=code_sha256("import_release.py"),
        shell:
            program("import_release.py") + "--index {input.index}"
            " --train {output.train} --benchmark {output.benchmark} --rejected {output.rejected}"

    rule select_released:
        """The released questions whose images the sources have, upon these."""
        input:
            qa=named_by_release(),
            unusable=f"{R}/qa/released/rejected.parquet",
            images=expand(f"{R}/images/{{source}}.released.parquet", source=SOURCES),
        output:
            train=f"{R}/qa/train.parquet",
            benchmark=f"{R}/qa/benchmark.parquet",
            rejected=f"{R}/qa/rejected.parquet",
        log:
            f"{R}/logs/select_released.log",
        conda:
            "../../envs/data.yaml"
        params:
            cfg=cfg(sources=SOURCES, max_missing_images=RUN.qa.release.max_missing_images),
            code=code_sha256("select_released.py"),
        shell:
            program("select_released.py") + "--qa {input.qa} --unusable {input.unusable} --images {input.images}"
            " --train {output.train} --benchmark {output.benchmark} --rejected {output.rejected}"


rule audit_benchmark:
    """List the faults of the benchmark against the training questions; beside, those of the release as it is published."""
    input:
        train=f"{R}/qa/train.parquet",
        benchmark=BENCHMARK,
        images=SHOWN,
        copies=COPIES,
        release=RELEASE_INDEX if HAS_RELEASE else [],
    output:
        json=f"{R}/benchmark_audit.json",
        html=f"{R}/benchmark_audit.html",
        statistics=f"{R}/statistics.parquet",
    log:
        f"{R}/logs/audit_benchmark.log",
    conda:
        "../../envs/data.yaml"
    params:
        cfg=cfg(),
        code=code_sha256("audit_release.py"),
        release=["--release", RELEASE_INDEX] if HAS_RELEASE else [],
    shell:
        program("audit_release.py")
        + "--train {input.train} --benchmark {input.benchmark} --images {input.images} --copies {input.copies} {params.release}"
        " --json {output.json} --html {output.html} --statistics {output.statistics}"
