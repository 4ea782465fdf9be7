# simclr-mm in a container, for a CPU or for NVIDIA GPUs:
#   docker build --target cpu --tag simclr-mm:cpu .
#   docker build --target cuda --tag simclr-mm:cuda .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/data" simclr-mm:cpu pretrain photographs
# With a GPU add --gpus all --shm-size 8g: loader workers pass images through shared memory.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY . .
RUN python -m pip install --no-cache-dir "build>=1.2,<2" \
    && python -m build --wheel --outdir /wheel

FROM python:${PYTHON}-slim AS base
# What opencv-python needs of the system.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
# Any user of --user writes its caches here.
ENV HOME=/tmp PYTHONUNBUFFERED=1
WORKDIR /data
ENTRYPOINT ["simclr-mm"]
CMD ["--help"]

FROM base AS cpu
# The newest PyTorch that setup.cfg allows. PyTorch has an index of wheels for CPUs alone, some GB
# smaller: --build-arg TORCH_INDEX=URL, with the URL from its installation page.
ARG TORCH_INDEX=
# hadolint ignore=DL3013
RUN python -m pip install --no-cache-dir "torch>=2.6" "torchvision>=0.21" \
    ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
# hadolint ignore=DL3013
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    set -- /wheel/*.whl && python -m pip install --no-cache-dir "$1[onedl]"
USER 65534:65534

# PyPI's PyTorch carries CUDA; the host needs only NVIDIA's driver and container toolkit.
FROM base AS cuda
# hadolint ignore=DL3013
RUN python -m pip install --no-cache-dir "torch>=2.6" "torchvision>=0.21"
# hadolint ignore=DL3013
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    set -- /wheel/*.whl && python -m pip install --no-cache-dir "$1[onedl]"
USER 65534:65534
