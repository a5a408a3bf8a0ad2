# The locked packages and mitoscope, for a processor, run by a user without rights. docs/how-to/container.md shows how.
FROM python:3.11-slim-bookworm AS build
WORKDIR /opt/mitoscope
ENV UV_LINK_MODE=copy UV_NO_CACHE=1 VIRTUAL_ENV=/opt/mitoscope/.venv
RUN pip install --no-cache-dir uv==0.13.9 && uv venv "$VIRTUAL_ENV"
COPY requirements.lock ./
RUN uv pip sync --compile-bytecode --require-hashes requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY scripts scripts
COPY web web
RUN .venv/bin/python scripts/npm.py ci && .venv/bin/python scripts/npm.py run build && rm -r web/node_modules
RUN uv pip install --no-deps --no-build-isolation .

FROM python:3.11-slim-bookworm
# For dvc repro: DVC finds the project by git, and MLflow notes the commit.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home mitoscope \
    && chmod 1777 /home/mitoscope
COPY --from=build /opt/mitoscope/.venv /opt/mitoscope/.venv
# HOME is for a user of any number.
ENV PATH=/opt/mitoscope/.venv/bin:$PATH \
    HOME=/home/mitoscope \
    DVC_NO_ANALYTICS=1 \
    MLFLOW_DISABLE_TELEMETRY=true
USER 1000
WORKDIR /project
EXPOSE 8080
CMD ["mitoscope", "serve", "--host", "0.0.0.0"]
