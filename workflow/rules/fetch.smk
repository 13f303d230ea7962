# Data before training: archives into the store, recordings into frames. Nothing is fetched that no cell needs.


rule fetch:
    """The files of one source, verified: from the mirror folder, else from the network."""
    output:
        STORE.fetched("{source}"),
    log:
        STORE.folder / "logs" / "fetch-{source}.log",
    priority: 20
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
    priority: 10  # before training, which would keep it waiting for the cores
    conda:
        "../envs/spikebench.yaml"
    threads: 8
    resources:
        runtime=120,
        mem_mb=4000,
    params:
        attempt=lambda wildcards: attempt(STORE.ready(wildcards.data), config["retry"]),
    shell:
        "exec spikebench prepare --data {wildcards.data} --workers {threads} --attempt {params.attempt:q}"
        " --log {log:q} --parent $PPID"


rule sheet:
    """A contact sheet: what the recordings look like."""
    input:
        STORE.ready("{data}"),
    output:
        RESULTS.sheet("{data}"),
    log:
        f"results/{PRESET}/logs/sheet-{{data}}.log",
    conda:
        "../envs/spikebench.yaml"
    shell:
        "spikebench sheet --data {wildcards.data} > {log} 2>&1"
