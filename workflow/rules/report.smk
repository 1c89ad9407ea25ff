"""One page that shows the run."""


rule report:
    """The report: leaderboard, plots, examples, the benchmark's faults, and where all of it came from."""
    input:
        leaderboard=f"{R}/leaderboard.parquet",
        comparisons=f"{R}/comparisons.parquet",
        answers=expand(f"{R}/scores/{{model}}.parquet", model=MODELS),
        predictions=expand(f"{R}/predictions/{{model}}.parquet", model=MODELS),
        train=f"{R}/qa/train.parquet",
        benchmark=BENCHMARK,
        images=SHOWN,
        findings=expand(f"{R}/images/{{source}}.findings.parquet", source=SOURCES),
        rejected=expand(f"{R}/images/{{source}}.rejected.parquet", source=SOURCES),
        left_out=expand(f"{R}/images/{{source}}.left_out.parquet", source=SOURCES),
        copies=COPIES,
        loss=expand(f"{R}/models/{{model}}.loss.parquet", model=[*TINY, *TUNED]),
        audit=f"{R}/benchmark_audit.json",
        statistics=f"{R}/statistics.parquet",
        paper=RUN.report.paper or [],
    output:
        f"{R}/report.html",
    log:
        f"{R}/logs/report.log",
    conda:
        "../../envs/data.yaml"
    params:
        cfg=cfg(
            **RUN.report.model_dump(exclude={"paper"}),
            synthetic=bool(PHANTOMS),
            models={name: model.model_dump(mode="json") for name, model in MODELS.items()},
            disputed_labels=RUN.qa.disputed_labels,
            counted_findings={s: source_plugins.SOURCES[s].counted_findings for s in SOURCES},
            set_labels={name: external_set.label for name, external_set in EXTERNAL.items()},
            held_out=RUN.held_out_labels,
            min_open_ranked=RUN.scoring.min_open_ranked,
            precision=RUN.prediction.precision,
            max_new_tokens=RUN.prediction.max_new_tokens,
            resamples=RUN.scoring.resamples,
        ),
        code=code_sha256("report.py", *(family_module(family) for family in FAMILIES)),
        paper=lambda w: ["--paper", RUN.report.paper] if RUN.report.paper else [],
    shell:
        program("report.py") + "--leaderboard {input.leaderboard} --comparisons {input.comparisons} --answers {input.answers}"
        " --predictions {input.predictions}"
        " --train {input.train} --benchmark {input.benchmark} --images {input.images} --findings {input.findings}"
        " --rejected {input.rejected} --left-out {input.left_out} --copies {input.copies} --loss {input.loss}"
        " --benchmark-audit {input.audit} --statistics {input.statistics} {params.paper} --report {output}"


rule print_leaderboard:
    """The leaderboard for papers: CSV, Markdown, LaTeX."""
    input:
        leaderboard=f"{R}/leaderboard.parquet",
        qa=BENCHMARK,
        predictions=expand(f"{R}/predictions/{{model}}.parquet", model=MODELS),
        weights=expand(f"{R}/models/{{model}}/files.parquet", model=[*FETCHED, *TINY, *TUNED]),
        paper=RUN.report.paper or [],
    output:
        csv=f"{R}/tables/leaderboard.csv",
        markdown=f"{R}/tables/leaderboard.md",
        latex=f"{R}/tables/leaderboard.tex",
    log:
        f"{R}/logs/print_leaderboard.log",
    conda:
        "../../envs/data.yaml"
    params:
        cfg=cfg(
            models={name: model.model_dump(mode="json") for name, model in MODELS.items()},
            set_labels={name: external_set.label for name, external_set in EXTERNAL.items()},
            held_out=RUN.held_out_labels,
            min_open_ranked=RUN.scoring.min_open_ranked,
            precision=RUN.prediction.precision,
            versions={name: THIS_CHECKOUT.locked_versions[name] for name in ("torch", "transformers", "peft")},
        ),
        code=code_sha256("print_leaderboard.py"),
        paper=lambda w: ["--paper", RUN.report.paper] if RUN.report.paper else [],
    shell:
        program("print_leaderboard.py") + "--leaderboard {input.leaderboard} --qa {input.qa} --predictions {input.predictions}"
        " --weights {input.weights} {params.paper} --csv {output.csv} --markdown {output.markdown} --latex {output.latex}"
