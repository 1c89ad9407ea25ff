"""The benchmark for others' tools: lmms-eval, VLMEvalKit, Hugging Face."""

FORMATS = ["hf", "lmms-eval", "vlmevalkit"]


rule export_benchmark:
    """The benchmark's questions and images in the layout of one tool."""
    input:
        qa=BENCHMARK,
        images=SHOWN,
    output:
        f"{R}/export/{{format}}/files.parquet",
    log:
        f"{R}/logs/export_benchmark.{{format}}.log",
    wildcard_constraints:
        format="|".join(FORMATS),
    conda:
        "../../envs/data.yaml"
    params:
        cfg=cfg(
            run=RUN.run,
            synthetic=PHANTOMS,
            credentialed=RUN.credentialed,
            allowed=RUN.export.credentialed,
            max_new_tokens=RUN.prediction.max_new_tokens,
        ),
        code=lambda w: digest("export_benchmark.py", f"medmim.export.{w.format.replace('-', '_')}"),
    shell:
        program("export_benchmark.py") + "--format {wildcards.format} --qa {input.qa} --images {input.images} --export {output}"


rule export:
    """All of them."""
    input:
        expand(f"{R}/export/{{format}}/files.parquet", format=FORMATS),
