"""From a validated pipeline to an Airflow Dag; the Dag bundle; the adapter for Airflow 3.4."""
