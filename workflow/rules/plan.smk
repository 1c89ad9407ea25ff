"""What the run will need of the outside."""


rule plan:
    """Say what is missing before anything starts. It has no input and makes nothing; it asks the owners' servers a little."""
    log:
        f"{R}/logs/plan.log",
    localrule: True
    conda:
        "../../envs/data.yaml"
    params:
        cfg=cfg(
            sources={s: {"origin": RUN.sources[s].origin, "root": raw_root(s), "limit": RUN.sources[s].limit} for s in SOURCES},
            download=RUN.download,
            models={name: {"hub": model.hub, "revision": model.revision} for name, model in MODELS.items() if model.hub},
            questions={"train": RUN.qa.train.select_wanted(), "benchmark": RUN.qa.benchmark.select_wanted()},
            trainings=RUN.model_dump(mode="json")["models"] if TUNED else {},
            writing=RUN.qa.writer.model_dump(include={"budget_tokens", "budget_usd"}) if RUN.qa.writer else {},
            folder=R,
        ),
        code=code_sha256(
            "plan.py",
            *(f"medmim.sources.{s}.download" for s in source_plugins.SOURCES if "download" in source_plugins.list_parts(s)),
        ),
    shell:
        program("plan.py", is_shown=True)
