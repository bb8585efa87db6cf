FROM python:3.11-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends build-essential && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY api api
COPY dlmp dlmp
COPY networks networks
RUN python -m venv /opt/dlmp && /opt/dlmp/bin/python -m pip install --no-cache-dir -c constraints.txt ".[postgres]"

FROM python:3.11-slim
RUN useradd --system --uid 10001 dlmp && install --directory --owner dlmp --mode 700 /data
COPY --from=build /opt/dlmp /opt/dlmp
ENV PATH=/opt/dlmp/bin:$PATH DLMP_DATA_DIR=/data PYTHONUNBUFFERED=1 OPENBLAS_NUM_THREADS=1
USER dlmp
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"
ENTRYPOINT ["dlmp"]
CMD ["serve", "--host", "0.0.0.0"]
