# syntax=docker/dockerfile:1
# Two images of one program: `producer` (small, no torch) and `worker` (with the GPU stack; torch's wheels carry CUDA).
#     docker build --target producer -t nightshift .
#     docker build --target worker -t nightshift-worker .

FROM python:3.12-slim AS source
RUN python -m venv /opt/nightshift
ENV PATH=/opt/nightshift/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE nightshift.py ./
COPY schemas schemas
COPY farm farm
COPY producer producer
COPY worker worker

FROM source AS producer-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -c constraints.txt '.[postgres,s3,web]'

FROM source AS worker-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -c constraints.txt '.[worker,postgres,s3]'

# /images, /models and the home belong to the user, so that new volumes mounted there do, too.
FROM python:3.12-slim AS runtime
RUN useradd --uid 1000 --create-home nightshift \
    && install -d -o nightshift -g nightshift /images /models /home/nightshift/.nightshift
ENV PATH=/opt/nightshift/bin:$PATH PYTHONUNBUFFERED=1 HF_HOME=/models
USER nightshift
WORKDIR /home/nightshift
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s --retries=3 CMD ["nightshift", "doctor"]
ENTRYPOINT ["nightshift"]

FROM runtime AS worker
COPY --from=worker-packages /opt/nightshift /opt/nightshift
# Loading several gigabytes of weights comes before the first sign of health.
HEALTHCHECK --interval=60s --timeout=30s --start-period=600s --retries=3 CMD ["nightshift", "doctor"]
CMD ["worker"]

FROM runtime AS producer
COPY --from=producer-packages /opt/nightshift /opt/nightshift
CMD ["dispatcher"]
