"""Airflow operators: one a step over one shared base."""
