"""From YAML text to a validated pipeline with source positions. No Airflow, no machine-learning library."""
