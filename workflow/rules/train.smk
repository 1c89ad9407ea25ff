"""Base models, fetched or made, and their fine-tuning."""

if FETCHED:

    rule fetch_model:
        """Bring a published model to its place: from the hub at its revision, or from a folder of the user's."""
        output:
            f"{R}/models/{{model}}/files.parquet",
        log:
            f"{R}/logs/fetch_model.{{model}}.log",
        wildcard_constraints:
            model="|".join(FETCHED),
        localrule: True  # a cluster's nodes mostly have no way out to the internet
        conda:
            "../../envs/gpu.yaml"
        params:
            cfg=lambda w: cfg(
                family=MODELS[w.model].family,
                hub=MODELS[w.model].hub,
                revision=MODELS[w.model].revision,
                path=MODELS[w.model].path,
                chat=MODELS[w.model].chat,
                thinking=MODELS[w.model].thinking,
            ),
            code=lambda w: code_sha256("fetch_model.py", family_module(MODELS[w.model].family)),
        shell:
            program("fetch_model.py") + "--model {output}"


if TINY:

    rule make_base:
        """Make a tiny base model and train it on single-image questions. Synthetic."""
        input:
            tokenizer=f"{R}/tokenizers/{{model}}/files.parquet",
            qa=f"{R}/qa/pretrain.parquet",
            samples=f"{R}/shards/{{model}}/pretrain.samples.parquet",
            pixels=f"{R}/shards/{{model}}/pretrain.pixels.parquet",
        output:
            model=f"{R}/models/{{model}}/files.parquet",
            loss=f"{R}/models/{{model}}.loss.parquet",
        log:
            f"{R}/logs/make_base.{{model}}.log",
        wildcard_constraints:
            model="|".join(TINY),
        priority: 1  # the longest way through the DAG
        conda:
            "../../envs/gpu.yaml"
        params:
            cfg=lambda w: cfg(family=MODELS[w.model].family, seed=RUN.seed, threads=1, tiny=MODELS[w.model].tiny),
            code=lambda w: code_sha256("make_base.py", family_module(MODELS[w.model].family)),
        shell:
            program("make_base.py")
            + "--tokenizer {input.tokenizer} --qa {input.qa} --samples {input.samples} --pixels {input.pixels}"
            " --model {output.model} --loss {output.loss}"


if TUNED:

    rule tune:
        """Fine-tune a base model on multi-image questions: by LoRA or in full, the projector always in full."""
        input:
            model=lambda w: f"{R}/models/{base_of(w.model)}/files.parquet",
            samples=lambda w: f"{R}/shards/{base_of(w.model)}/train.samples.parquet",
            pixels=lambda w: f"{R}/shards/{base_of(w.model)}/train.pixels.parquet",
        output:
            tuned=f"{R}/models/{{model}}/files.parquet",
            loss=f"{R}/models/{{model}}.loss.parquet",
        log:
            f"{R}/logs/tune.{{model}}.log",
        wildcard_constraints:
            model="|".join(TUNED),
        priority: 1
        conda:
            "../../envs/gpu.yaml"
        threads: lambda w: MODELS[w.model].tuning.threads * MODELS[w.model].tuning.world_size
        resources:
            gpu=lambda w: MODELS[w.model].tuning.gpus,
            mpi=lambda w: together(w.model, "srun"),  # the job starts its processes itself
            nodes=lambda w: together(w.model, MODELS[w.model].tuning.nodes),
            tasks=lambda w: together(w.model, MODELS[w.model].tuning.world_size),
            tasks_per_gpu=lambda w: together(w.model, 0),  # or the executor would ask for as many tasks again on each GPU
            cpus_per_task=lambda w: together(w.model, MODELS[w.model].tuning.threads),
        params:
            fits=lambda w: must_fit(w.model),
            cfg=lambda w: cfg(
                family=MODELS[w.model].family,
                hub=MODELS[base_of(w.model)].hub,
                seed=RUN.seed,
                tuning=MODELS[w.model].tuning.model_dump(exclude={"gpu_memory_gb"}),
            ),
            code=lambda w: code_sha256("tune.py", family_module(MODELS[w.model].family)),
            launcher=lambda w: launcher(w.model),
            checkpoints=lambda w: f"{R}/checkpoints/{w.model}",
            tensorboard=lambda w: f"{R}/logs/tensorboard/{w.model}",
        shell:
            program("tune.py", python="{params.launcher}")
            + "--model {input.model} --samples {input.samples} --pixels {input.pixels}"
            " --tuned {output.tuned} --loss {output.loss} --checkpoints {params.checkpoints} --tensorboard {params.tensorboard}"


rule training_plan:
    """What each training will take: memory of a GPU, steps, FLOPs, GPU hours. It has no input and builds nothing."""
    log:
        f"{R}/logs/training_plan.log",
    localrule: True
    conda:
        "../../envs/gpu.yaml"
    params:
        cfg=cfg(
            models={name: model.model_dump(mode="json") for name, model in MODELS.items()},
            questions=RUN.qa.train,
            folder=R,
        ),
        code=code_sha256("plan_training.py"),
    shell:
        program("plan_training.py", is_shown=True)
