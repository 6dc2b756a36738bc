"""What runs on a node: takes the newest bundle of its target, proves it, answers with it, and reports. No Airflow."""

from __future__ import annotations
