"""The local stack: Airflow, MLflow and prediction services as processes of this machine, on loopback only."""
