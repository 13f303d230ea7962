# Data before training: archives into the store, recordings into frames. Nothing is fetched that no cell needs.


rule fetch:
    """The files of one source, verified: from the mirror folder, else from the network."""
    output:
        STORE.fetched("{source}"),
    log:
        STORE.folder / "logs" / "fetch-{source}.log",
    priority: 2000
    conda:
        "../envs/spikebench.yaml"
    resources:
        runtime=600,
    params:
        attempt=lambda wildcards: attempt(STORE.fetched(wildcards.source), config["retry"]),
    shell:
        # exec: the command must be Snakemake's own child, to see when it dies; $PPID is Snakemake.
        "exec spikebench fetch {wildcards.source} --attempt {params.attempt:q} --log {log:q} --parent $PPID"


rule prepare:
    """One data set ready for training: its recordings are read or simulated, and binned."""
    input:
        lambda wildcards: (
            [STORE.fetched(PLAN.data[wildcards.data].source)] if PLAN.data[wildcards.data].source else []
        ),
    output:
        STORE.ready("{data}"),
    log:
        STORE.folder / "logs" / "{data}.log",
    priority: 1000  # before training, which would keep it waiting for the cores
    conda:
        "../envs/spikebench.yaml"
    # One for all: while another job holds a core, what wants two would wait behind all that wants one.
    threads: max((data.threads for data in PLAN.data.values() if data.source), default=1)
    resources:
        runtime=lambda wildcards, attempt: 120 * attempt,
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
    params:
        attempt=lambda wildcards: attempt(STORE.ready(wildcards.data), config["retry"]),
    shell:
        "exec spikebench prepare --data {wildcards.data} --workers {threads} --attempt {params.attempt:q}"
        " --log {log:q} --parent $PPID"


SHOWN = [data.name for data in PLAN.data.values() if data.source]


rule sheets:
    """The contact sheets: what pictures and recordings look like. One job, whose imports take longer than a sheet."""
    input:
        [STORE.ready(name) for name in SHOWN],
    output:
        [RESULTS.sheet(name) for name in SHOWN],
    log:
        f"results/{PRESET}/logs/sheets.log",
    priority: 1000  # beside training, not behind it, where one core would have nothing to do
    conda:
        "../envs/spikebench.yaml"
    shell:
        "spikebench sheets > {log} 2>&1"
