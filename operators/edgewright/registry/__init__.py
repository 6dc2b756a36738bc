"""The MLflow model registry: publish, aliases, roll back, lineage; idempotence and locking are ours."""
