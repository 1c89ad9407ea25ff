"""Replies of every model to the benchmark, under every condition."""


rule predict:
    """Replies of one model under one condition."""
    input:
        unpack(lambda w: adapter_of(w.model)),
        model=lambda w: f"{R}/models/{base_of(w.model)}/files.parquet",
        qa=BENCHMARK,
        images=SHOWN,
    output:
        f"{R}/predictions/{{model}}.{{condition}}.parquet",
    log:
        f"{R}/logs/predict.{{model}}.{{condition}}.log",
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
            condition=w.condition,
            family=MODELS[w.model].family,
            system=MODELS[base_of(w.model)].system,
            **RUN.prediction.model_dump(exclude={"conditions"}),
        ),
        code=lambda w: digest("predict.py", family_module(MODELS[w.model].family)),
        adapter=lambda w: (f"--adapter {R}/models/{w.model}/files.parquet" if MODELS[w.model].base else ""),
    shell:
        program("predict.py")
        + "--model {input.model} {params.adapter} --qa {input.qa} --images {input.images} --predictions {output}"
