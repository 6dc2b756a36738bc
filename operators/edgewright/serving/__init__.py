"""The prediction service. No Airflow, and no MLflow server needed to keep serving."""
