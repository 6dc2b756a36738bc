"""Airflow event triggers and sensors."""
