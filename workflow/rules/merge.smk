"""What leaves training: model cards, and merged models that stock transformers loads. Made on demand."""

if TUNED:

    rule model_card:
        """What a tuned model is made of, how it scores, what its data's owners allow."""
        input:
            qa=f"{R}/qa/train.parquet",
            samples=lambda w: f"{R}/shards/{base_of(w.model)}/train.samples.parquet",
            tuned=f"{R}/models/{{model}}/files.parquet",
            leaderboard=f"{R}/leaderboard.parquet",
        output:
            f"{R}/cards/{{model}}.md",
        log:
            f"{R}/logs/model_card.{{model}}.log",
        wildcard_constraints:
            model="|".join(TUNED),
        conda:
            "../../envs/gpu.yaml"
        params:
            cfg=lambda w: cfg(
                model=w.model,
                base=base_of(w.model),
                hub=MODELS[base_of(w.model)].hub,
                family=MODELS[w.model].family,
                system=MODELS[base_of(w.model)].system,
                seed=RUN.seed,
                sources={name: source.origin for name, source in RUN.sources.items()},
                providers={s: source_plugins.SOURCES[s].describe_terms() for s in SOURCES if s not in PHANTOMS},
                tuning=MODELS[w.model].tuning,
            ),
            code=code_sha256("model_card.py"),
        shell:
            program("model_card.py") + "--qa {input.qa} --samples {input.samples} --tuned {input.tuned}"
            " --leaderboard {input.leaderboard} --card {output}"

    rule merge_model:
        """Adapter and base as one model folder, with its card."""
        input:
            base=lambda w: f"{R}/models/{base_of(w.model)}/files.parquet",
            tuned=f"{R}/models/{{model}}/files.parquet",
            card=f"{R}/cards/{{model}}.md",
        output:
            f"{R}/merged/{{model}}/files.parquet",
        log:
            f"{R}/logs/merge_model.{{model}}.log",
        wildcard_constraints:
            model="|".join(TUNED),
        conda:
            "../../envs/gpu.yaml"
        params:
            cfg=lambda w: cfg(family=MODELS[w.model].family, system=MODELS[base_of(w.model)].system),
            code=lambda w: code_sha256("merge_model.py", family_module(MODELS[w.model].family)),
        shell:
            program("merge_model.py") + "--base {input.base} --tuned {input.tuned} --card {input.card} --merged {output}"


rule merge:
    """Every tuned model, merged."""
    input:
        expand(f"{R}/merged/{{model}}/files.parquet", model=TUNED),
