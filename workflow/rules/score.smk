"""Scores of every reply, and the leaderboard."""


rule score:
    """Read one model's replies and score each item."""
    input:
        qa=BENCHMARK,
        predictions=f"{R}/predictions/{{model}}.parquet",
    output:
        f"{R}/scores/{{model}}.parquet",
    log:
        f"{R}/logs/score.{{model}}.log",
    conda:
        "../../envs/data.yaml"
    params:
        cfg=cfg(conditions=RUN.prediction.conditions),
        code=code_sha256("score.py"),
    shell:
        program("score.py") + "--qa {input.qa} --predictions {input.predictions} --answers {output}"


rule leaderboard:
    """Means, intervals over patients and paired differences of all models."""
    input:
        qa=BENCHMARK,
        train=f"{R}/qa/train.parquet",
        copies=COPIES,
        answers=expand(f"{R}/scores/{{model}}.parquet", model=MODELS),
    output:
        leaderboard=f"{R}/leaderboard.parquet",
        comparisons=f"{R}/comparisons.parquet",
    log:
        f"{R}/logs/leaderboard.log",
    conda:
        "../../envs/data.yaml"
    params:
        cfg=cfg(
            seed=RUN.seed,
            resamples=RUN.scoring.resamples,
            pairs={name: MODELS[name].base for name in TUNED},
            held_out=RUN.held_out_labels,
        ),
        code=code_sha256("leaderboard.py"),
    shell:
        program("leaderboard.py") + "--qa {input.qa} --train {input.train} --copies {input.copies} --answers {input.answers}"
        " --leaderboard {output.leaderboard} --comparisons {output.comparisons}"
