"""The provider's usual trigger, which is also what ``MessageQueueTrigger(scheme="kafka")`` makes."""

from __future__ import annotations

from airflow.providers.apache.kafka.triggers.await_message import AwaitMessageTrigger
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Asset, AssetWatcher

trigger = AwaitMessageTrigger(topics=["bench"], kafka_config_id="kafka_peer")
asset = Asset("bench", watchers=[AssetWatcher(name="bench", trigger=trigger)])
with DAG("bench", schedule=[asset], max_active_runs=64):
    BashOperator(task_id="first", bash_command="true")
