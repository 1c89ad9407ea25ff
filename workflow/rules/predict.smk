"""Replies of every model to the benchmark."""


rule predict:
    """Replies of one model under every condition: its weights are loaded once."""
    input:
        unpack(lambda w: loaded(w.model)),
        qa=BENCHMARK,
        images=SHOWN,
    output:
        f"{R}/predictions/{{model}}.parquet",
    log:
        f"{R}/logs/predict.{{model}}.log",
    wildcard_constraints:
        model="|".join(m for m in MODELS if m not in ENDPOINTS),
    conda:
        "../../envs/gpu.yaml"
    threads: RUN.prediction.threads
    resources:
        gpu=RUN.prediction.gpus,
    params:
        cfg=lambda w: cfg(
            model=w.model,
            family=MODELS[w.model].family,
            system=MODELS[base_of(w.model)].system,
            chat=MODELS[w.model].chat,
            thinking=MODELS[w.model].thinking,
            **RUN.prediction.model_dump(),
        ),
        code=lambda w: code_sha256("predict.py", family_module(MODELS[w.model].family)),
        replies=lambda w: f"{R}/replies/{w.model}",
        adapter=lambda w: ["--adapter", loaded(w.model)["adapter"]] if adapted(w.model) else [],
    shell:
        program("predict.py") + "--model {input.model} {params.adapter} --qa {input.qa} --images {input.images}"
        " --replies {params.replies} --predictions {output}"
