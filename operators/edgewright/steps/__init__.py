"""Steps: functions from request to result. No Airflow here; they run wherever their libraries are."""
