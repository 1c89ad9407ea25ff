"""Scores of every reply, and the leaderboard."""


rule score:
    """Read one model's replies and score each item."""
    input:
        qa=BENCHMARK,
        predictions=expand(
            f"{R}/predictions/{{{{model}}}}.{{condition}}.parquet",
            condition=CONDITIONS,
        ),
    output:
        f"{R}/scores/{{model}}.parquet",
    log:
        f"{R}/logs/score.{{model}}.log",
    conda:
        "../../envs/data.yaml"
    params:
        cfg=cfg(),
        code=digest("score.py"),
    shell:
        program("score.py") + "--qa {input.qa} --predictions {input.predictions} --answers {output}"


rule leaderboard:
    """Means, intervals over patients and paired differences of all models."""
    input:
        qa=BENCHMARK,
        answers=expand(f"{R}/scores/{{model}}.parquet", model=MODELS),
    output:
        f"{R}/leaderboard.parquet",
    log:
        f"{R}/logs/leaderboard.log",
    conda:
        "../../envs/data.yaml"
    params:
        cfg=cfg(
            seed=RUN.seed,
            resamples=RUN.scoring.resamples,
            pairs={name: MODELS[name].base for name in TUNED},
            further=HELDOUT,
        ),
        code=digest("leaderboard.py"),
    shell:
        program("leaderboard.py") + "--qa {input.qa} --answers {input.answers} --leaderboard {output}"
