rule gather:
    """One table of all expected cells, whatever became of them."""
    input:
        [RESULTS.job(job) for job in PLAN.jobs],
    output:
        RESULTS.rows,
        RESULTS.traces,
        RESULTS.coverage,
    log:
        f"results/{PRESET}/logs/gather.log",
    conda:
        "../envs/spikebench.yaml"
    params:
        expected=PLAN.expected,
    shell:
        "spikebench gather > {log} 2>&1"


rule claims:
    """The scoreboard: each claim by the primary test that was fixed before the runs."""
    input:
        rows=RESULTS.rows,
        claims="config/claims.yaml",
    output:
        RESULTS.claims,
    log:
        f"results/{PRESET}/logs/claims.log",
    conda:
        "../envs/spikebench.yaml"
    shell:
        "spikebench claims > {log} 2>&1"


for experiment in PLAN.config.experiments:

    rule:
        name:
            f"figures_{experiment['name']}"
        input:
            rows=RESULTS.rows,
            traces=RESULTS.traces,
            claims="config/claims.yaml",
        output:
            [
                report(
                    RESULTS.figures / f"{figure}.png",
                    caption="../report/figure.rst",
                    category=experiment["title"],
                    labels={"figure": figure, "preset": PRESET},
                )
                for figure in experiment["figures"]
            ],
            [RESULTS.figures / f"{figure}.{kind}" for figure in experiment["figures"] for kind in ("pdf", "json")],
        log:
            f"results/{PRESET}/logs/figures_{experiment['name']}.log",
        priority: len(experiment["figures"])
        conda:
            "../envs/spikebench.yaml"
        params:
            experiment=experiment["name"],
        shell:
            "spikebench figures --experiment {params.experiment} > {log} 2>&1"


FIGURES = [
    RESULTS.figures / f"{figure}.png" for experiment in PLAN.config.experiments for figure in experiment["figures"]
]


rule track:
    """MLflow's database says what the rows say: one writer, as often as you like."""
    input:
        RESULTS.rows,
        RESULTS.traces,
        FIGURES,
        "config/claims.yaml",
    output:
        RESULTS.tracking,
    log:
        f"results/{PRESET}/logs/track.log",
    conda:
        "../envs/spikebench.yaml"
    shell:
        "spikebench track > {log} 2>&1"


rule report:
    """One self-contained page with everything, and a page for each method and data set."""
    input:
        RESULTS.rows,
        RESULTS.coverage,
        RESULTS.claims,
        FIGURES,
        [RESULTS.sheet(name) for name in SHOWN],
    output:
        RESULTS.report,
        RESULTS.variance_page,
        [RESULTS.method_page(method) for method in sorted({p.cell.method for p in PLAN.planned})],
        [RESULTS.data_page(dataset) for dataset in sorted({p.cell.dataset for p in PLAN.planned})],
    log:
        f"results/{PRESET}/logs/report.log",
    conda:
        "../envs/spikebench.yaml"
    shell:
        "spikebench report > {log} 2>&1"
