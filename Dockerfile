# The house in one image: app, workers and commands. `--target cpu` or `--target cuda`; the difference is which torch is installed.
FROM python:3.11-slim-trixie AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# pg_dump for `panollava backup`: as new as the server in docker-compose.yml, or newer.
RUN apt-get update && apt-get install --yes --no-install-recommends postgresql-client && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --create-home panollava \
    && install --directory --owner panollava --group panollava /var/lib/panollava /home/panollava/.cache
WORKDIR /opt/panollava
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY app app
COPY worker worker
COPY panollava panollava
COPY migrations migrations
COPY templates templates
COPY static static
ENV PANOLLAVA_HOME=/var/lib/panollava

FROM base AS cpu
# PyTorch's own index has a build without CUDA, a tenth of the size.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --constraint constraints.txt --index-url "$TORCH_INDEX" torch && pip install --constraint constraints.txt '.[s3]'
WORKDIR /var/lib/panollava
USER panollava
CMD ["panollava", "server", "--host", "0.0.0.0"]

FROM base AS cuda
# PyPI's build brings CUDA's libraries; the driver is the host's, mounted by the NVIDIA container toolkit.
RUN pip install --constraint constraints.txt '.[s3]'
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /var/lib/panollava
USER panollava
CMD ["panollava", "worker"]
