# The MLflow server: no torch, no Ray. With the drivers for PostgreSQL and for object stores that speak S3.
# docker build -f docker/mlflow.Dockerfile -t lmoe-tune-mlflow .
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1

COPY constraints.txt /tmp/
RUN pip install -c /tmp/constraints.txt mlflow psycopg2-binary boto3 && rm /tmp/constraints.txt

RUN useradd --create-home --uid 1000 mlflow && install -d -o mlflow -g mlflow /mlflow
USER mlflow
WORKDIR /mlflow

CMD ["mlflow", "server", "--help"]
