"""Replies of models at endpoints."""

if ENDPOINTS:

    rule ask:
        """Replies of one model at an endpoint, under every condition."""
        input:
            qa=BENCHMARK,
            images=SHOWN,
        output:
            f"{R}/predictions/{{model}}.parquet",
        log:
            f"{R}/logs/ask.{{model}}.log",
        wildcard_constraints:
            model="|".join(ENDPOINTS),
        localrule: True  # a cluster's nodes mostly have no way out to the internet
        conda:
            "../../envs/data.yaml"
        params:
            cfg=lambda w: cfg(
                model=w.model,
                endpoint=MODELS[w.model].endpoint,
                system=MODELS[w.model].system,
                conditions=RUN.prediction.conditions,
                max_new_tokens=RUN.prediction.max_new_tokens,
                seed=RUN.seed,
                credentialed=RUN.credentialed_sources,
            ),
            code=code_sha256("ask.py"),
            replies=lambda w: f"{RUN.results}/.replies/{w.model}",  # of all runs, as they may have been paid for
        shell:
            program("ask.py") + "--qa {input.qa} --images {input.images} --replies {params.replies} --predictions {output}"
