rule train:
    """Train the shards of one job; a Parquet a shard is written as it ends, the manifest when all have."""
    input:
        lambda wildcards: [STORE.ready(data.name) for data in PLAN.jobs[wildcards.job].data if data.source],
    output:
        RESULTS.job("{job}"),
    log:
        f"results/{PRESET}/logs/{{job}}.log",
    # The longest first: else one core would wait in the end for what the other has begun late.
    priority: lambda wildcards: min(999, round(PLAN.jobs[wildcards.job].seconds))
    conda:
        "../envs/spikebench.yaml"
    threads: 1
    resources:
        runtime=lambda wildcards, attempt: resources_of(PLAN.jobs[wildcards.job], PLAN.config).after(attempt).minutes,
        mem_mb=lambda wildcards, attempt: resources_of(PLAN.jobs[wildcards.job], PLAN.config).after(attempt).memory_mb,
        gpu=lambda wildcards: resources_of(PLAN.jobs[wildcards.job], PLAN.config).gpus,
        attempt=lambda wildcards, attempt: attempt,
    params:
        digest=lambda wildcards: PLAN.jobs[wildcards.job].digest,
        retry=lambda wildcards: retry_token(RESULTS, wildcards.job, config["retry"]),
    shell:
        # exec: the supervisor must be Snakemake's own child, to see when it dies; $PPID is Snakemake.
        "exec spikebench train --job {wildcards.job} --digest {params.digest}"
        " --retry-token {params.retry:q} --attempt {resources.attempt} --minutes {resources.runtime}"
        " --log {log} --parent $PPID"
