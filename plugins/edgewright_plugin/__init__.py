"""Edgewright's pages in Airflow's web UI."""
