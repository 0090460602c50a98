# docker build --build-arg VERSION="$(cat version)" -t harmony-app .
#
# torch comes from the index that the build arguments name. Give PyTorch's own index of CPU
# builds with TORCH_BUILD=cpu for a small image, or of CUDA builds with, say, TORCH_BUILD=cu130:
#   docker build --build-arg PIP_EXTRA_INDEX_URL=... --build-arg TORCH_BUILD=cpu -t harmony-app .
# Nothing is downloaded when it runs:
#   docker run --rm --read-only --network none --tmpfs /tmp -u "$(id -u):$(id -g)" \
#       -v /my/bids:/data:ro -v /my/results:/out harmony-app /data /out participant
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS dependencies
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_CERT
ARG TORCH_BUILD=
COPY pyproject.toml constraints.txt /opt/source/
COPY containers/install.sh /opt/source/containers/
RUN /opt/source/containers/install.sh dependencies /opt/source /opt/venv /opt/harmony-app

FROM dependencies AS app
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_CERT
COPY . /opt/source
RUN /opt/source/containers/install.sh app /opt/source /opt/venv /opt/harmony-app

FROM ${PYTHON_IMAGE}
# The large layer stays the same from one version of the code to the next.
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=app /opt/harmony-app /opt/harmony-app
ARG VERSION=0.1.0
ARG REVISION=
# HOME may be absent and the root file system read-only: only /tmp and the output are written.
# USER is what libraries ask for where an id has no name.
ENV PATH=/opt/venv/bin:/opt/harmony-app/bin:$PATH \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NO_ET=1 \
    NIPYPE_NO_ET=1 \
    MPLBACKEND=Agg \
    MPLCONFIGDIR=/tmp \
    XDG_CACHE_HOME=/tmp \
    LC_ALL=C.UTF-8 \
    USER=harmony \
    HARMONY_CONTAINER_TYPE=docker \
    HARMONY_CONTAINER_TAG=harmony-app:${VERSION} \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
LABEL org.opencontainers.image.title="harmony-app" \
      org.opencontainers.image.description="Harmonize the contrast of multi-site brain MRI, from BIDS to BIDS" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
WORKDIR /tmp
USER 10001:10001
# As the first process Python answers to this signal alone; the same command then continues.
STOPSIGNAL SIGINT
ENTRYPOINT ["/opt/venv/bin/python", "/opt/harmony-app/run.py"]
