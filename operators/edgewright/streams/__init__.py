"""Kafka, object stores, Cassandra and MQTT: thin clients, no Airflow."""
