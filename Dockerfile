# Two images of one file: `web` needs no privilege, `worker` runs the sandboxes.
#
#   docker build --target web -t boxer-web .      docker build --target worker -t boxer-worker .
#
# compose.yaml builds and starts both. BASE may be any Debian 12.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS web
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/boxer
COPY requirements.txt ./
# Everything that gets installed is pinned there, so nothing is left to be resolved.
RUN python3 -m venv .venv \
    && .venv/bin/pip install --quiet --no-cache-dir --no-deps -r requirements.txt \
    && .venv/bin/pip check
# Each has a home of its own; contents of files are for both, through the group.
RUN groupadd --system --gid 990 boxer \
    && useradd --system --uid 990 --gid 990 --no-create-home --home-dir /var/lib/boxer-web boxer \
    && install -d -o boxer -g boxer -m 0700 /var/lib/boxer-web \
    && install -d -o root -g boxer -m 0700 /var/lib/boxer-worker \
    && install -d -o boxer -g boxer -m 2770 /var/lib/boxer-contents
COPY manage.py ./
COPY boxer_site boxer_site
COPY executions executions
COPY filestore filestore
COPY templates templates
ENV BOXER_HOME=/var/lib/boxer-web \
    BOXER_STORAGE_DIR=/var/lib/boxer-contents \
    BOXER_STORAGE_SHARED=1 \
    BOXER_LISTEN=0.0.0.0:8080 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER boxer
EXPOSE 8080
ENTRYPOINT ["/opt/boxer/.venv/bin/python", "manage.py"]
CMD ["web"]

FROM web AS worker
USER root
COPY scripts/backports_source.py scripts/
# runsc is in the backports of the mirror that the base image uses.
RUN python3 scripts/backports_source.py >/etc/apt/sources.list.d/boxer-backports.sources \
    && apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        busybox-static catatonit containernetworking-plugins iproute2 nftables skopeo umoci \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        -t bookworm-backports runsc \
    && rm -rf /var/lib/apt/lists/*
ENV BOXER_HOME=/var/lib/boxer-worker
CMD ["worker"]
