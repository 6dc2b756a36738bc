"""The provider's shared stream, new in Airflow 3.3."""

from __future__ import annotations

from airflow.providers.apache.kafka.triggers.shared_stream import KafkaSharedStreamTrigger
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Asset, AssetWatcher

trigger = KafkaSharedStreamTrigger(topics=["bench"], kafka_config_id="kafka_peer")
asset = Asset("bench", watchers=[AssetWatcher(name="bench", trigger=trigger)])
with DAG("bench", schedule=[asset], max_active_runs=64):
    BashOperator(task_id="first", bash_command="true")
