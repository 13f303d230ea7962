# Spikebench with the tried versions, as `make` sets it up.
#
#   docker build --tag spikebench .
#   docker run --rm --init --volume spikebench-results:/spikebench/results \
#       --volume spikebench-records:/spikebench/.snakemake spikebench
#
# runs the default preset (--build-arg COMMIT=$(git rev-parse HEAD) names the commit in its rows); with `snakemake --config preset=smoke` at the end another. Both volumes belong together:
# without its records Snakemake does not see which rows have become stale. For a folder of yours in place of a volume
# build with --build-arg USER_ID=$(id -u). For MLflow add --network host, and `spikebench ui` at the end.
#
# Linted, not built: where this was written there is no container engine. So the base is named by a tag; put its digest
# behind it (BASE=python:...@sha256:...) where images must stay the same.

ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

# git is asked for by MLflow; the kernels' threads are those of libgomp1. Not pinned: Debian
# takes old versions away, so that a pin breaks the build some weeks later.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git libgomp1 \
    && rm -rf /var/lib/apt/lists/*

ARG USER_ID=1000
RUN useradd --create-home --no-log-init --uid ${USER_ID} spikebench \
    && install --directory --owner=spikebench /spikebench /spikebench/results /spikebench/.snakemake
WORKDIR /spikebench
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

# What pip finds by itself brings CUDA along, so that --gpus all is enough: only the driver is the host's. PyTorch's site
# names an index of builds for CPUs, gigabytes smaller: --build-arg PIP_EXTRA_INDEX_URL=<it>.
ARG PIP_EXTRA_INDEX_URL
ARG TORCH=2.13.0
RUN pip install torch==${TORCH}

# What changes rarely comes first: an edited source installs nothing anew, an edited configuration compiles nothing.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib as t; print(*t.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > /tmp/requirements.txt \
    && pip install -c constraints.txt -r /tmp/requirements.txt \
    && rm /tmp/requirements.txt

COPY --chown=spikebench README.md LICENSE ./
COPY --chown=spikebench spikebench ./spikebench
RUN pip install --no-deps --editable .

USER ${USER_ID}
# For the CPU it is built on: on another, a kernel is compiled again when it is first called.
RUN python -m spikebench.compile

COPY --chown=spikebench Snakefile ./
COPY --chown=spikebench workflow ./workflow
COPY --chown=spikebench profiles ./profiles
COPY --chown=spikebench config ./config
COPY --chown=spikebench datasets ./datasets
COPY --chown=spikebench methods ./methods

ARG COMMIT=""
ENV SPIKEBENCH_COMMIT=${COMMIT}
VOLUME ["/spikebench/results", "/spikebench/.snakemake"]
CMD ["snakemake"]
